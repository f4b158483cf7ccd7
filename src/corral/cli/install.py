"""`corral install`: virt-install's command line. The same VMs as `corral create` makes, and what follows an install."""

import sys
from typing import Any, Final

import click

from corral.cli.making import build_request, make, on_terminal, preview, show_made
from corral.cli.options import async_option
from corral.cli.output import output_option
from corral.cli.session import Session, pass_session
from corral.cli.vm_options import vm_options
from corral.cli.vm_request import Body, Options
from corral.errors import CorralError

_SHORT: Final = {
    "--name": "-n",
    "--location": "-l",
    "--cdrom": "-c",
    "--network": "-w",
    "--extra-args": "-x",
}
_FOR_EVER_S: Final = 365 * 86400.0
# One question to the daemon; it is asked again until the time is over.
_ASK_S: Final = 3600.0


@click.command()
@click.argument("positional", metavar="[NAME]", required=False)
@vm_options(_SHORT)
@click.option("--noautoconsole", is_flag=True, help="Do not open the serial console.")
@click.option("--autoconsole", metavar="KIND", help="none, text or graphical.  [default: text on a terminal]")
@click.option(
    "--wait",
    "wait_minutes",
    type=int,
    is_flag=False,
    flag_value=-1,
    metavar="[MIN]",
    help="Wait until the VM is off, so long at most; without a number for ever.",
)
@async_option
@output_option
@pass_session
def install(session: Session, /, **options: Any) -> None:
    """Make a VM and install a system on it: virt-install's options, virt-install's units.

    An installer boots as long as the disk is empty; afterwards the disk does. The medium stays in its drive.

    \b
    Examples:
      corral install --name my-vm --memory 2048 --vcpus 2 --disk path=/srv/my-vm.qcow2,size=20 \\
        --network network=default,model=virtio --os-variant ubuntu22.04 --cdrom ubuntu-22.04.iso
      corral install --name old --import --disk path=/srv/old.qcow2 --os-variant debian12
      corral install --name net --pxe --disk size=20 --memory 2048
      corral install --name deb --location /srv/netboot --extra-args console=ttyS0 --disk size=10
      corral install --name win --cdrom win11.iso --os-variant win11 --disk size=64 --dry-run
    """
    _check_kinds(options)
    body = build_request(options)
    _check_method(body, options)
    if not body.get("disks") and not options["nodisks"] and not body.get("image") and options["disks"] != ("none",):
        body["disks"] = [{}]
    elif _only_drives(body) and options["disks"] != ("none",) and not options["nodisks"]:
        body["disks"].insert(0, {})  # of the size that the system wants
    if body.get("dry_run"):
        preview(session, body, options)
        return
    if not make(session, body, options):
        return
    name = body["name"]
    if not options["no_start"] and options["wait_minutes"] is None and _wants_console(options):
        from corral.cli.console import console

        click.get_current_context().invoke(console, name=name, log=False, force=False)
        return
    if not options["no_start"]:
        _say_how_to_look(body, options)
    if options["wait_minutes"] is not None and not options["no_start"]:
        _wait(session, name, options["wait_minutes"])
    show_made(session, body, options, "created" if options["no_start"] else "running")


def _check_kinds(options: Options) -> None:
    if options["autoconsole"] not in (None, "none", "text", "graphical"):
        raise CorralError(
            "invalid-argument", f"--autoconsole {options['autoconsole']}", "there is no such console", "none or text"
        )


def _only_drives(body: Body) -> bool:
    disks = body.get("disks", [])
    return bool(disks) and not body.get("image") and all(disk.get("device") == "cdrom" for disk in disks)


def _check_method(body: Body, options: Options) -> None:
    """Something must boot: without one of these the VM would stand before an empty disk."""
    hardware = body.get("hardware", {})
    drives = any(disk.get("device") == "cdrom" for disk in body.get("disks", []))
    named = (options["pxe"], options["import_"], options["location"], body.get("image"), drives)
    if not any(named) and "kernel" not in hardware and "boot_devices" not in hardware:
        raise CorralError(
            "invalid-argument",
            f"install {body['name']!r}",
            "nothing says what it boots",
            "--cdrom ISO, --location PLACE, --pxe, or --import with a disk that has a system already",
        )
    there = body.get("image") or any(disk.get("path") or disk.get("volume") for disk in body.get("disks", []))
    if options["import_"] and not there:
        raise CorralError(
            "invalid-argument",
            "--import",
            "there is no disk with a system on it",
            "--disk path=/srv/disk.qcow2, or --disk volume=NAME",
        )


def _wants_console(options: Options) -> bool:
    if options["noautoconsole"] or options["autoconsole"] in ("none", "graphical"):
        return False
    return options["autoconsole"] == "text" or (on_terminal() and options["output"] == "table")


def _say_how_to_look(body: Body, options: Options) -> None:
    if options["output"] != "table":
        return
    name = body["name"]
    screen = "" if body.get("graphics") == "none" else f", its screen: corral vnc {name}"
    click.echo(f"serial console: corral console {name}{screen}", err=True)


def _wait(session: Session, name: str, minutes: int) -> None:
    """Until the guest powers itself off. Late: the VM goes on, and the command says so."""
    left_s = _FOR_EVER_S if minutes < 0 else minutes * 60.0
    if sys.stderr.isatty():
        click.echo(f"waiting until {name} is off", err=True)
    while left_s > 0:
        part_s = min(left_s, _ASK_S)
        try:
            session.client().wait_vm(name, "shutoff", part_s)
        except CorralError as error:
            left_s -= part_s
            if error.code != "wait-timeout" or left_s <= 0:
                raise
        else:
            return
