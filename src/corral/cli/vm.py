"""Looking at VMs: list, info, document."""

from typing import Any, Final

import click

from corral.cli.completion import complete_vm
from corral.cli.options import vm_names
from corral.cli.output import (
    Column,
    Document,
    age,
    mebibytes,
    output_option,
    show_document,
    show_list,
    show_one,
)
from corral.cli.session import Session, for_each, pass_session
from corral.errors import CorralError
from corral.names import format_bytes

SHUT_OFF: Final = "shut off"


def address(vm: Document) -> str:
    """The address to show: the one in use, else the reserved one, which a guest that is off will have."""
    seen = vm.get("status", {}).get("addresses") or []
    if seen:
        return str(seen[0])
    return next((str(nic["address"]) for nic in vm.get("spec", {}).get("nics", []) if nic.get("address")), "")


def _state(vm: Document) -> str:
    # A domain that Corral did not make has its state at the top: it has no spec, hence no status either.
    state = str(vm.get("status", {}).get("state") or vm.get("state") or "unknown")
    if not vm.get("unmanaged"):
        status = vm.get("status", {})
        reason = ", no space" if state == "paused" and status.get("state_reason") == "no space" else ""
        return f"{state}{reason}, restart pending" if status.get("pending_restart") else f"{state}{reason}"
    return f"{state} (another Corral's)" if vm.get("other_installation") else f"{state} (unmanaged)"


COLUMNS: Final = (
    Column("name", lambda vm: vm["name"]),
    Column("state", _state, coloured=True),
    Column("vcpus", lambda vm: vm.get("spec", vm).get("vcpus"), right=True),
    Column("memory", lambda vm: mebibytes(vm.get("spec", vm).get("memory_mib")), right=True),
    Column("address", address),
    Column("age", lambda vm: age(vm.get("created_at"))),
)


@click.command("list")
@click.option("-a", "--all", "everything", is_flag=True, help="Also VMs that are off, and domains Corral did not make.")
@click.option("-l", "--selector", default="", metavar="EXPR", help="Only with these labels: a=b,c!=d,e.")
@output_option
@pass_session
def list_(session: Session, everything: bool, selector: str, output: str) -> None:
    """List the VMs that are not off, as `virsh list` does; with --all every one.

    `restart pending`: it has changes that its next start brings (`corral info` lists them, `corral reboot` brings them).
    --all also shows libvirt domains that Corral did not make, marked as unmanaged (`corral adopt` takes them over).

    \b
    Examples:
      corral list
      corral list --all
      corral list --all -l env=test,tier!=db -o name
      corral list -o json
    """
    found: list[Document] = list(session.client().list_vms(selector=selector))
    if not everything:
        found = [vm for vm in found if vm["status"]["state"] != SHUT_OFF]
    elif not selector:
        domains: list[Any] = list(session.client().list_domains())
        found.extend(domains if output != "table" else [{**domain, "unmanaged": True} for domain in domains])
    show_list(found, COLUMNS, output)


# Defaults that are something; all others are nothing, no or none.
_PLAIN: Final = (
    ("rng", True), ("panic", True), ("clock", "utc"), ("video", "vga"), ("tablet", "virtio"), ("serials", 1),
)  # fmt: skip


@click.command()
@vm_names
@click.option("--state", "part", flag_value="state", help="Only the state (virsh: domstate).")
@click.option("--addresses", "part", flag_value="addresses", help="Only the addresses (virsh: domifaddr).")
@click.option("--disks", "part", flag_value="disks", help="Only the disks (virsh: domblklist).")
@click.option("--nics", "part", flag_value="nics", help="Only the network cards (virsh: domiflist).")
@click.option("--uid", "part", flag_value="uid", help="Only the uid (virsh: domuuid).")
@click.option("--xml", "part", flag_value="xml", help="Only libvirt's document (virsh: dumpxml).")
@output_option
@pass_session
def info(session: Session, names: tuple[str, ...], part: str | None, output: str) -> None:
    """Show everything about VMs (virsh: dominfo).

    \b
    Examples:
      corral info web
      corral info web -o json
      corral domstate web db
      corral info web --addresses
    """
    documents: list[Document] = []

    def show(name: str) -> None:
        vm: Document = session.client().get_vm(name)
        if output in ("json", "yaml"):
            documents.append(vm)
        elif output == "name":
            click.echo(vm["name"])
        elif part == "xml":
            click.echo(session.client().document(name).rstrip("\n"))
        elif part is not None:
            click.echo("\n".join(_part(vm, part, _volume_paths(session, vm) if part == "disks" else {})))
        else:
            if name != names[0]:
                click.echo()
            show_one(vm, _rows(vm, _volume_paths(session, vm), _host_memory(session, vm)), output)

    try:
        for_each(names, show)
    finally:
        if documents:
            show_document(documents[0] if len(names) == 1 else documents, output)


def _host_memory(session: Session, vm: Document) -> str:
    """What it takes of the host's; nothing where it does not run, or ended in this instant."""
    if vm["status"]["state"] != "running":
        return ""
    try:
        found: Document = dict(session.client().memory(vm["name"]))
    except CorralError as error:
        if error.code not in ("wrong-state", "forbidden", "hypervisor-unavailable", "hypervisor-timeout"):
            raise
        return ""
    own, shared, saved = (format_bytes(found[key]) for key in ("private_bytes", "shared_bytes", "saved_bytes"))
    return f"{own} of its own, {shared} shared with others, {saved} saved by that"


def _volume_paths(session: Session, vm: Document) -> dict[str, str]:
    """Where the VM's volumes lie, by their uid: people want a path, as virsh shows it."""
    wanted = {disk.get("volume_uid") for disk in vm["spec"].get("disks", ())} - {None}
    if not wanted:
        return {}
    volumes: list[Any] = list(session.client().list_volumes())
    return {volume["uid"]: volume["status"]["path"] for volume in volumes if volume["uid"] in wanted}


def _part(vm: Document, part: str, paths: dict[str, str]) -> list[str]:
    spec, status = vm["spec"], vm["status"]
    if part == "state":
        return [str(status["state"])]
    if part == "uid":
        return [str(vm["uid"])]
    if part == "addresses":
        return [*status.get("addresses", ())] or [nic["address"] for nic in spec["nics"] if nic["address"]]
    return [_disk(disk, paths) for disk in spec["disks"]] if part == "disks" else [_nic(nic) for nic in spec["nics"]]


def _rows(vm: Document, paths: dict[str, str], host_memory: str) -> list[tuple[str, object]]:
    spec, status = vm["spec"], vm["status"]
    pending = status.get("pending_restart", ())
    boot = spec.get("boot", {})
    autostart = f"yes, priority {boot['priority']}" if boot.get("autostart") else "no"
    return [
        ("name", vm["name"]),
        ("uid", vm["uid"]),
        ("project", vm["project"]),
        ("state", _with_reason(status)),
        ("wished", spec["power"]),
        ("running for", age(status.get("started_at")) if status.get("started_at") else ""),
        ("vcpus", spec["vcpus"]),
        ("memory", mebibytes(spec["memory_mib"])),
        ("host memory", host_memory),
        ("firmware", spec["firmware"]),
        ("hardware", _hardware(spec)),
        (
            "waits for a restart",
            [*pending, f"(corral reboot {vm['name']}, not from inside the guest)"] if pending else "",
        ),
        ("accelerator", status.get("accelerator")),
        ("image", spec.get("image")),
        ("addresses", status.get("addresses") or address(vm)),
        ("disks", [_disk(disk, paths) for disk in spec.get("disks", ())]),
        ("network", [_nic(nic) for nic in spec.get("nics", ())]),
        ("guest agent", "connected" if status.get("agent_connected") else "not connected"),
        ("guest", status.get("guest_os")),
        ("cloud-init", _cloud_init(vm)),
        ("run policy", spec["run_policy"]),
        ("autostart", autostart),
        ("saved memory", "yes: start resumes it" if status.get("has_saved_memory") else ""),
        ("protected", "yes" if spec.get("protected") else ""),
        ("adopted", "yes" if spec.get("adopted") else ""),
        ("description", spec.get("description")),
        ("labels", ", ".join(f"{key}={value}" for key, value in sorted(vm.get("labels", {}).items()))),
        ("conditions", [_condition(condition) for condition in status.get("conditions", ())]),
        ("last error", _last_error(status)),
        ("restarts", status.get("restarts") or ""),
        ("created", f"{vm['created_at']} ({age(vm['created_at'])} ago)"),
        ("being deleted", "yes" if vm.get("deletion_requested_at") else ""),
    ]


def _hardware(spec: Document) -> list[str]:
    """What is not as in a plain server: the knobs as `corral set` names them."""
    from corral.cli.knobs import KNOBS

    found = []
    for key, knob in KNOBS.items():
        value: Any = spec
        for part in knob.path.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        plain = value in (None, False, "", [], 0, "none") or isinstance(value, dict)
        if knob.path.startswith("hardware.") and not plain and (key, value) not in _PLAIN:
            found.append(f"{key}={value}")
    return found


def _with_reason(status: Document) -> str:
    reason = status.get("state_reason")
    return f"{status['state']} ({reason})" if reason else str(status["state"])


def _disk(disk: Document, paths: dict[str, str]) -> str:
    volume = disk.get("volume_uid")
    if disk.get("device") == "cdrom":
        medium = f"image {disk.get('image') or disk['image_uid']}" if disk.get("image_uid") else "empty"
        return f"{disk['name']}: {medium} (cdrom, {disk['bus']})"
    where = disk.get("path") or paths.get(str(volume)) or f"volume {volume}"
    return f"{disk['name']}: {where} ({disk['format']}, {disk['bus']})"


def _nic(nic: Document) -> str:
    return f"{nic['name']}: {nic['network']} {nic['mac']} {nic['address'] or 'no address'} ({nic['model']})"


def _cloud_init(vm: Document) -> str:
    if not vm["spec"].get("cloud_init"):
        return ""
    status = vm["status"]
    detail = status.get("cloud_init_detail")
    return f"{status['cloud_init']} ({detail})" if detail else str(status["cloud_init"])


def _condition(condition: Document) -> str:
    text = f"{condition['type']}: {condition['status']} ({condition['reason']})"
    return f"{text} {condition['message']}" if condition.get("message") else text


def _last_error(status: Document) -> str:
    code = status.get("last_error_code")
    return f"{status.get('last_error')} [{code}]" if code else ""


@click.command()
@click.argument("name", metavar="VM", shell_complete=complete_vm)
@pass_session
def document(session: Session, name: str) -> None:
    """Print a VM's libvirt XML, for reading (virsh: dumpxml).

    \b
    Examples:
      corral document web
      corral dumpxml web
    """
    click.echo(session.client().document(name).rstrip("\n"))
