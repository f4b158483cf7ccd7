"""`make down` and `make purge`: stop what was started, remove what was made."""

import json
import shutil
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

from installer.context import COMMAND, NOTES, SYSTEM_RUN_DIR, UNIT, Context
from installer.daemons import VIRSH, daemon_status, ensure_libvirt, libvirt_answers, state_dir_is_safe_to_remove
from installer.packages import UNPACKED
from installer.shell import Refused

Say = Callable[[str], None]
NAMESPACE = "{urn:corral:domain:1}"
SHUTDOWN_DEADLINE_S = 90
# corral.network.router_host_routes: by it, other people's routes are known from ours.
ROUTES_PROTOCOL = "157"
HOSTS = Path("/etc/hosts")


def stop_guests(context: Context, say: Say) -> str:
    """Shut the running VMs down, the ones that start last first; noted, so that `make up` starts them again."""
    if not Path(context.corral).exists() or daemon_status(context) is None:
        return "the daemon does not run: guests were left alone"
    running = [vm for vm in context.items("list") if vm["status"]["state"] in ("running", "paused")]
    if not running:
        return "none runs"
    running.sort(key=lambda vm: -vm["spec"].get("boot", {}).get("priority", 0))
    names = [str(vm["name"]) for vm in running]
    context.note(stopped=sorted({*context.recall().get("stopped", []), *names}))
    for vm in running:
        if vm["status"]["state"] == "paused":
            context.client("resume", vm["name"])
    argv = [context.corral, "shutdown", *names, "--force-after", f"{SHUTDOWN_DEADLINE_S}s"]
    context.shell.must("shut the VMs down", context.shell.as_root(argv), say)
    return f"shut down {', '.join(names)}"


def stop_networks(context: Context, say: Say) -> str:
    """Take our networks down, so that no dnsmasq is left; their definitions stay."""
    if not libvirt_answers(context):
        return "libvirtd does not run"
    if guests := _domains(context, "--state-running", "--state-paused"):
        return f"left up: {len(guests)} virtual machines run"
    names = _networks(context)
    for name in names:
        say(name)
        context.shell.ask(context.shell.as_root([*VIRSH, "net-destroy", name]))
    return f"took down {', '.join(names)}" if names else "none is up"


def _installation(context: Context) -> str:
    """The id by which libvirt's objects are known as this installation's; empty when there is none."""
    return context.shell.ask(context.shell.as_root(["cat", str(context.state_dir / "installation-id")])).output.strip()


def _networks(context: Context, *options: str) -> list[str]:
    installation = _installation(context)
    if not installation:
        return []
    listed = context.shell.ask(context.shell.as_root([*VIRSH, "net-list", "--name", *options])).output.split()
    return sorted({name for name in listed if name.startswith(f"corral-{installation[:6]}-")})


def belongs(document: str, installation: str) -> bool:
    """Whether a domain's XML says that it is this installation's (and is no copy of one that is)."""
    try:
        root = ET.fromstring(document)  # noqa: S314 -- libvirt's own output
    except ET.ParseError:
        return False
    element = root.find(f"metadata/{NAMESPACE}vm")
    if element is None:
        return False
    same_uid = element.findtext(f"{NAMESPACE}uid") == root.findtext("uuid")
    return same_uid and element.findtext(f"{NAMESPACE}installation") == installation


def _domains(context: Context, *states: str) -> list[str]:
    """The UUIDs of our domains: of all, or of those in some states."""
    installation = _installation(context)
    if not installation:
        return []
    virsh = context.shell.as_root(VIRSH)
    uids = context.shell.ask([*virsh, "list", *(states or ("--all",)), "--uuid"]).output.split()
    return [uid for uid in uids if belongs(context.shell.ask([*virsh, "dumpxml", uid]).output, installation)]


def reach_libvirt(context: Context, say: Say) -> str:
    """What of ours it knows can be removed only while it runs. One that does not start keeps nobody from the rest."""
    if not _installation(context):
        return "not needed: nothing was installed"
    try:
        return ensure_libvirt(context, say)
    except Refused as error:
        return f"{error}: what of ours it knows stays there"


def summary(context: Context) -> list[str]:
    """What a purge would remove, for the question."""
    lines = []
    domains = _domains(context) if libvirt_answers(context) else []
    if domains:
        lines.append(f"{len(domains)} virtual machines with their disks")
    if context.state_dir.exists():
        size = context.shell.ask(context.shell.as_root(["du", "-sh", str(context.state_dir)])).output.split("\t")[0]
        lines.append(f"{context.state_dir} ({size}): disks, images, the database")
    if not context.trial:
        lines += [str(path) for path in (UNIT, COMMAND, SYSTEM_RUN_DIR) if path.exists() or path.is_symlink()]
        lines.append(str(context.venv))
    return lines


def remove_domains(context: Context, say: Say) -> str:
    """Every domain of this installation, without the daemon: it may be what is broken."""
    if not libvirt_answers(context):
        return "libvirtd does not run: if it has VMs of ours, start it and purge again"
    virsh = context.shell.as_root(VIRSH)
    domains = _domains(context)
    for uid in domains:
        say(uid)
        context.shell.ask([*virsh, "destroy", uid])
        undefine = [
            *virsh,
            "undefine",
            uid,
            "--managed-save",
            "--nvram",
            "--snapshots-metadata",
            "--checkpoints-metadata",
        ]
        result = context.shell.ask(undefine)
        if not result.ok:
            raise Refused(f"remove domain {uid}", result.tail)
    return f"removed {len(domains)}"


def remove_networks(context: Context, say: Say) -> str:
    if not libvirt_answers(context):
        return "libvirtd does not run"
    names = _networks(context, "--all")
    for name in names:
        say(name)
        context.shell.ask(context.shell.as_root([*VIRSH, "net-destroy", name]))
        remove_beside(context, name)
        context.shell.ask(context.shell.as_root([*VIRSH, "net-undefine", name]))
    return f"removed {', '.join(names)}" if names else "none"


def remove_beside(context: Context, network: str) -> None:
    """What of a network is not libvirt's: a bridge of ours over a card of the host's, and names in /etc/hosts."""
    ask, as_root = context.shell.ask, context.shell.as_root
    lines = ask(as_root([*VIRSH, "net-info", network])).output.splitlines()
    facts = dict(line.split(":", 1) for line in lines if ":" in line)
    bridge, uid = facts.get("Bridge", "").strip(), facts.get("UUID", "").strip()
    if uid and bridge == f"crl{uid[:8]}":
        for interface in (bridge, f"crv{uid[:8]}"):
            ask(as_root(["ip", "link", "delete", interface]))
    lines = HOSTS.read_text(errors="replace").splitlines() if uid and HOSTS.exists() else []
    begins = [number for number, line in enumerate(lines) if line.startswith(f"# corral: names of network {uid};")]
    # Without its end mark sed would take all that follows, which is somebody else's.
    if begins and f"# corral: end of {uid}" in lines[begins[-1] :]:
        ask(as_root(["sed", "-i", f"/^# corral: names of network {uid};/,/^# corral: end of {uid}$/d", str(HOSTS)]))


def remove_routers(context: Context, say: Say) -> str:
    """The namespaces that this installation has left a mark of, with what runs in them, and the routes of the host's to them."""
    shell = context.shell
    marks = sorted((context.state_dir / "reservations").glob("crn*.router"))
    for mark in marks:
        namespace = mark.name.removesuffix(".router")
        say(namespace)
        for route in host_routes(shell.ask(shell.as_root(["cat", str(mark)])).output):
            shell.ask(shell.as_root(["ip", "route", "del", *route, "proto", ROUTES_PROTOCOL]))
        for pid in shell.ask(shell.as_root(["ip", "netns", "pids", namespace])).output.split():
            shell.ask(shell.as_root(["kill", pid]))
        shell.ask(shell.as_root(["ip", "netns", "del", namespace]))
    return f"removed {len(marks)}" if marks else "none"


def host_routes(mark: str) -> list[list[str]]:
    """What is noted in a router's mark, in ip's words; an empty one says that there is nothing."""
    try:
        return [[one["to"], "via", one["via"], "dev", one["bridge"]] for one in json.loads(mark or "[]")]
    except (ValueError, KeyError, TypeError):
        return []  # they go with their bridge


def remove_files(context: Context, say: Say) -> str:
    """State, run directory, unit, command and `.venv`. The distribution's packages stay, and a group that has members."""
    shell = context.shell
    removed = []
    if context.state_dir.exists():
        if not state_dir_is_safe_to_remove(context.state_dir):
            raise Refused(
                f"remove {context.state_dir}", "it holds no installation of Corral", "remove it by hand if you mean it"
            )
        say(str(context.state_dir))
        shell.must("remove the state", shell.as_root(["rm", "-rf", "--one-file-system", str(context.state_dir)]), say)
        removed.append(str(context.state_dir))
    if not context.trial:
        if UNIT.exists():
            shell.ask(shell.as_root(["systemctl", "disable", "corral.service"]))
            shell.ask(shell.as_root(["rm", "-f", str(UNIT)]))
            shell.ask(shell.as_root(["systemctl", "daemon-reload"]))
        shell.ask(shell.as_root(["rm", "-rf", str(SYSTEM_RUN_DIR), str(COMMAND)]))
        shutil.rmtree(context.venv, ignore_errors=True)
        shell.ask(shell.as_root(["rm", "-rf", str(context.root / UNPACKED)]))
        removed += [str(COMMAND), str(context.venv)]
        if remove_group(context):
            removed.append("group corral")
    shell.ask(shell.as_root(["rm", "-f", str(context.notes)]))
    shell.ask(shell.as_root(["rmdir", "--ignore-fail-on-non-empty", str(NOTES)]))
    return f"removed {', '.join(removed)}"


def remove_group(context: Context) -> bool:
    """The group of administrators goes unless people are in it: that is theirs to undo."""
    members = context.shell.ask(["getent", "group", "corral"])
    if not members.ok or members.output.strip().rpartition(":")[2]:
        return False
    return context.shell.ask(context.shell.as_root(["groupdel", "corral"])).ok
