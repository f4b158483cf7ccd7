"""Verbs that change what a VM does: start, shutdown, reboot, reset, pause, resume, save, destroy, delete."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import click

from corral.cli.options import async_option, seconds, vm_names
from corral.cli.output import output_option
from corral.cli.progress import finish
from corral.cli.session import Session, pass_session

if TYPE_CHECKING:
    from corral.client_types import RebootRequest, ShutdownRequest, StartRequest

_DONE: Final = {
    "start": "started",
    "shutdown": "shut down",
    "reboot": "rebooted",
    "reset": "reset",
    "pause": "paused",
    "resume": "resumed",
    "save": "saved",
    "destroy": "stopped",
}


def _act(
    session: Session,
    verb: str,
    names: Sequence[str],
    output: str,
    asynchronous: bool,
    body: "StartRequest | ShutdownRequest | RebootRequest | None" = None,
) -> None:
    finish(
        session,
        names,
        lambda name: session.client().vm_action(name, verb, body)["operation"],
        output=output,
        done=_DONE[verb],
        asynchronous=asynchronous,
    )


def _plain(verb: str, text: str) -> click.Command:
    """A verb without options of its own."""

    @click.command(verb, help=text)
    @vm_names
    @async_option
    @output_option
    @pass_session
    def command(session: Session, names: tuple[str, ...], asynchronous: bool, output: str) -> None:
        _act(session, verb, names, output, asynchronous)

    return command


@click.command()
@vm_names
@click.option("--boot-from", metavar="DEVICE", help="Try this disk, drive or card first, this one time: cd0, net0.")
@async_option
@output_option
@pass_session
def start(session: Session, names: tuple[str, ...], boot_from: str | None, asynchronous: bool, output: str) -> None:
    """Start VMs and wait until they run. Saved ones resume where they were.

    \b
    Examples:
      corral start web
      corral start web db cache
      corral start web --async && corral wait web --for ssh
      corral start desk --boot-from cd0
    """
    _act(session, "start", names, output, asynchronous, {"boot_from": boot_from} if boot_from else None)


reset = _plain(
    "reset",
    """Press the reset button: the guest is not asked, the VM starts anew.

    \b
    Examples:
      corral reset web
    """,
)
pause = _plain(
    "pause",
    """Freeze VMs: no CPU time, memory stays (virsh: suspend).

    \b
    Examples:
      corral pause web
      corral suspend web
    """,
)
resume = _plain(
    "resume",
    """Let paused VMs run again.

    \b
    Examples:
      corral resume web
    """,
)
save = _plain(
    "save",
    """Hibernate VMs: memory to disk, VM off; `corral start` resumes (virsh: managedsave).

    \b
    Examples:
      corral save web
      corral start web
    """,
)
destroy = _plain(
    "destroy",
    """Stop VMs at once, like pulling the plug, as in virsh. Definition and disks stay.

    \b
    Examples:
      corral destroy web
      corral destroy web db
    """,
)


@click.command()
@vm_names
@click.option(
    "--force-after",
    metavar="TIME",
    callback=seconds,
    help="Pull the plug when the guest has not gone within this time. Without it that never happens.",
)
@click.option("--timeout", metavar="TIME", callback=seconds, help="How long the guest may take.  [default: 120s]")
@async_option
@output_option
@pass_session
def shutdown(
    session: Session,
    names: tuple[str, ...],
    force_after: float | None,
    timeout: float | None,
    asynchronous: bool,
    output: str,
) -> None:
    """Ask guests to power off, through the guest agent, then by ACPI.

    A guest that does not go in time stays as it is, and the command fails with `shutdown-timeout`; only
    --force-after pulls the plug.

    \b
    Examples:
      corral shutdown web
      corral shutdown web db --force-after 60s
      corral shutdown web --timeout 5m
    """
    body: ShutdownRequest = {}
    if force_after is not None:
        body["force_after_s"] = force_after
    if timeout is not None:
        body["deadline_s"] = timeout
    _act(session, "shutdown", names, output, asynchronous, body or None)


@click.command()
@vm_names
@click.option("--timeout", metavar="TIME", callback=seconds, help="How long the guest may take.  [default: 120s]")
@async_option
@output_option
@pass_session
def reboot(session: Session, names: tuple[str, ...], timeout: float | None, asynchronous: bool, output: str) -> None:
    """Ask guests to reboot, through the guest agent, then by ACPI.

    Where changes wait for a restart, the guest is asked to power off and started anew: a guest's own reboot keeps its machine.

    \b
    Examples:
      corral reboot web
      corral reboot web db --timeout 60s
    """
    _act(session, "reboot", names, output, asynchronous, None if timeout is None else {"deadline_s": timeout})


@click.command()
@vm_names
@click.option(
    "--keep-disks", is_flag=True, help="Keep the disks: `corral volume list` shows them, `volume delete` removes them."
)
@click.option("-y", "--yes", is_flag=True, help="Accepted for scripts; nothing is asked (see `corral protect`).")
@async_option
@output_option
@pass_session
def delete(
    session: Session, names: tuple[str, ...], keep_disks: bool, yes: bool, asynchronous: bool, output: str
) -> None:
    """Delete VMs, running or not, with their disks (virsh undefine: with --keep-disks).

    Nothing is asked, as in virsh; `corral protect` guards a VM. Disks that were given by path are never deleted.
    The name is free when the command has ended.

    \b
    Examples:
      corral delete web
      corral delete web db --keep-disks
    """
    del yes
    finish(
        session,
        names,
        lambda name: session.client().delete_vm(name, keep_disks=keep_disks)["operation"],
        output=output,
        done="deleted",
        asynchronous=asynchronous,
    )
