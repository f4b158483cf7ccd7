"""`corral ssh`: log in, with the VM's own entry of known hosts, by OpenSSH."""

import os
import pwd
from contextlib import suppress
from pathlib import Path
from typing import Final

import click

from corral.cli.completion import complete_vm
from corral.cli.keys import MADE_KEY
from corral.cli.options import CommandInGuest
from corral.cli.output import Document
from corral.cli.session import Session, pass_session
from corral.errors import CorralError
from corral.settings import variable

ADOPTED_USER: Final = "root"
# TCP itself would try for two minutes; `--ssh-option ConnectTimeout=…` comes first and wins.
CONNECT_TIMEOUT_S: Final = 30


@click.command(cls=CommandInGuest, context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("-l", "--user", default="", help="Log in as.  [default: the user the VM was made with]")
@click.option("-p", "--port", type=click.IntRange(1, 65535), default=22, show_default=True)
@click.option("-i", "--identity", metavar="FILE", help="A private key to use.")
@click.option(
    "--ssh-option", "ssh_options", multiple=True, metavar="KEY=VALUE", help="Handed to ssh as -o (repeatable)."
)
@click.argument("name", metavar="[USER@]VM", shell_complete=complete_vm)
@click.argument("command", nargs=-1, type=click.UNPROCESSED, metavar="[-- COMMAND…]")
@pass_session
def ssh(
    session: Session,
    user: str,
    port: int,
    identity: str | None,
    ssh_options: tuple[str, ...],
    name: str,
    command: tuple[str, ...],
) -> None:
    """Log in by SSH, or run a command. Options come before the VM's name, or between it and `--`.

    The address comes from Corral. The VM's host key is remembered by the VM's uid, so that an address that another
    VM had before does not frighten anyone.

    \b
    Examples:
      corral ssh web
      corral ssh root@web
      corral ssh web -- systemctl status nginx
      corral ssh --ssh-option LocalForward=8080:localhost:80 web
    """
    from corral.proc import become, require

    given_user, at, vm_name = name.rpartition("@")
    client = session.client()
    vm: Document = client.get_vm(vm_name)
    program = require("ssh", "openssh-client")
    argv = ssh_argv(
        vm,
        program=program,
        user=(given_user if at else "") or user or _user_of(session, vm),
        port=port,
        identities=_identities(identity),
        known_hosts=_known_hosts(str(vm["uid"])),
        options=ssh_options,
        command=command[1:] if command and command[0] == "--" else command,
        hidden=_hidden(session),
    )
    session.close()
    become(argv)


def ssh_argv(
    vm: Document,
    *,
    program: str,
    user: str,
    port: int,
    identities: list[str],
    known_hosts: Path,
    options: tuple[str, ...],
    command: tuple[str, ...],
    hidden: frozenset[str] = frozenset(),
) -> list[str]:
    """The whole ssh command. Raises `wrong-state` where the VM is off, has no address yet, or has them on the networks
    `hidden` alone."""
    state = vm["status"]["state"]
    if state not in ("running", "unknown"):  # the guest may well answer while libvirt is away
        raise CorralError(
            "wrong-state", f"ssh {vm['name']}", f"it is {state}", f"corral start {vm['name']}", {"state": state}
        )
    nics = vm.get("spec", {}).get("nics", ())
    if nics and all(nic.get("network_uid") in hidden for nic in nics):
        reason = f"network {nics[0]['network']!r} is behind a router, and this host does not lead there"
        hint = f"corral forward add {vm['name']} 2222:22, then ssh -p 2222; corral exec and console need no network"
        raise CorralError("wrong-state", f"ssh {vm['name']}", reason, hint)
    host = _host(vm, hidden)
    if not host:
        raise CorralError(
            "wrong-state", f"ssh {vm['name']}", "it has no address yet", f"corral wait {vm['name']} --for ssh"
        )
    argv = [program]
    for option in (
        *options,
        f"UserKnownHostsFile={known_hosts}",
        f"HostKeyAlias={vm['uid']}",
        "StrictHostKeyChecking=accept-new",
        "CheckHostIP=no",
        f"ConnectTimeout={CONNECT_TIMEOUT_S}",
    ):
        argv += ["-o", option]
    for path in identities:
        argv += ["-i", path]
    # `--`: neither a user's name nor an address that a guest told can be an option of ssh.
    argv += ["-p", str(port), "-l", user, "--", host]
    return [*argv, *command]


def _host(vm: Document, hidden: frozenset[str]) -> str:
    """The reserved address before what the guest says of itself: a hostile guest could name another machine. None that it
    has on the networks `hidden`."""
    nics = vm.get("spec", {}).get("nics", ())
    reserved = [str(nic["address"]) for nic in nics if nic.get("address") and nic.get("network_uid") not in hidden]
    theirs = {nic.get(key) for nic in nics if nic.get("network_uid") in hidden for key in ("address", "address6")}
    seen = [str(one) for one in vm["status"].get("addresses") or () if one not in theirs]
    return next(iter((*reserved, *seen)), "")


def _hidden(session: Session) -> frozenset[str]:
    """Networks that a router leads out of, and this host not into: who has the guest's address here is somebody else."""
    client = session.client()
    behind = {one["uid"] for one in client.list_networks() if one["spec"].get("gateway_at") == "router"}
    if not behind:
        return frozenset()
    led = [one for one in client.list_routers() if one["spec"]["uplink"] == "routed"]
    return frozenset(behind - {port["network_uid"] for one in led for port in one["spec"]["ports"]})


def _identities(given: str | None) -> list[str]:
    """The key that was named, or the one that `corral create` made; OpenSSH tries the caller's own by itself.

    It finds those by the user's entry in passwd, `corral create` by HOME: where the two differ (sudo, containers), the
    keys in HOME are named."""
    if given:
        return [given]
    directories = [home / ".ssh" for home in _homes()]
    made = any((directory / MADE_KEY).is_file() for directory in directories)
    if not made and directories == [Path(pwd.getpwuid(os.geteuid()).pw_dir) / ".ssh"]:
        return []
    # Naming one identity keeps ssh from trying its usual ones: name those too.
    names = ("id_ed25519", "id_ecdsa", "id_rsa", MADE_KEY)
    return [str(path) for directory in directories for name in names if (path := directory / name).is_file()]


def _homes() -> list[Path]:
    """The caller's, and under sudo that of who asked: `make up` gave the guest their key, not root's."""
    homes = [Path.home()]
    asker = variable("SUDO_UID")
    if os.geteuid() == 0 and asker.isdecimal():
        with suppress(KeyError):
            homes.append(Path(pwd.getpwuid(int(asker)).pw_dir))
    return list(dict.fromkeys(homes))


def _known_hosts(uid: str) -> Path:
    cache = Path(variable("XDG_CACHE_HOME", str(Path.home() / ".cache"))) / "corral" / "known_hosts"
    cache.mkdir(mode=0o700, parents=True, exist_ok=True)
    return cache / uid


def _user_of(session: Session, vm: Document) -> str:
    """The first user of the seed, else the image's own, else root."""
    cloud_init = vm["spec"].get("cloud_init")
    users = cloud_init["users"] if cloud_init else ()
    if users:
        return str(users[0]["name"])
    if not vm["spec"].get("image"):
        return ADOPTED_USER
    try:
        image: Document = session.client().get_image(vm["spec"]["image"])
    except CorralError as error:
        if error.code != "image-not-found":
            raise
        return ADOPTED_USER
    return str((image["status"].get("facts") or {}).get("default_user") or ADOPTED_USER)
