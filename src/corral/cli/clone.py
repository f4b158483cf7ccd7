"""`corral clone`: other VMs from what one is now, or was at a snapshot."""

from collections.abc import Callable
from typing import TYPE_CHECKING, TypedDict, TypeVar

import click

from corral.cli.completion import complete_vm
from corral.cli.options import async_option
from corral.cli.output import output_option
from corral.cli.progress import finish
from corral.cli.session import Session, pass_session
from corral.names import parse_duration_s

if TYPE_CHECKING:
    from typing import Unpack

    from corral.client import Client
    from corral.client_types import CloneVmRequest

Command = TypeVar("Command", bound=Callable[..., None])


class Wish(TypedDict):
    """What `clone_options` gives a command."""

    full: bool
    keep_identity: bool
    start: bool
    wait_condition: str | None
    timeout: str
    force: bool
    asynchronous: bool
    output: str


def clone_options(command: Command) -> Command:
    """What may be said of clones, wherever they are asked for."""
    options = (
        click.option(
            "--full", is_flag=True, help="Copy the disks whole, so that they lean on nothing of the original's."
        ),
        click.option("--keep-identity", is_flag=True, help="Keep host name, machine id and SSH host keys."),
        click.option("--start", is_flag=True, help="Start the clones."),
        click.option(
            "--wait",
            "wait_condition",
            type=click.Choice(["running", "agent", "ip", "ssh"]),
            help="Start them, and wait until then.",
        ),
        click.option("--timeout", metavar="TIME", default="300s", show_default=True, help="For --wait."),
        click.option("--force", is_flag=True, help="Also where the disks, filled to the brim, would not fit."),
        async_option,
        output_option,
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.command()
@click.argument("source", metavar="VM", shell_complete=complete_vm)
@click.argument("names", metavar="[NAME]…", nargs=-1)
@click.option(
    "--count", type=click.IntRange(1, 100), help="Make so many, called NAME-1, NAME-2 … (VM-1 … without NAME)."
)
@click.option("--from-snapshot", metavar="SNAPSHOT", help="Clone what it was then, instead of what it is.")
@clone_options
@pass_session
def clone(
    session: Session,
    source: str,
    names: tuple[str, ...],
    count: int | None,
    from_snapshot: str | None,
    **wish: "Unpack[Wish]",
) -> None:
    """Make other VMs from a VM, which may run: their disks lie on what its disks were at one instant.

    \b
    Each gets an identity of its own (UUID, MAC, address; through cloud-init also host name, machine id, SSH host keys).
    Examples:
      corral clone web web-2
      corral clone web --count 20 --wait ip
      corral clone web web-old --from-snapshot before-upgrade --start
      corral clone web archive --full
    """
    make_clones(session, source, names, count, from_snapshot, wish)


def make_clones(
    session: Session,
    source: str,
    names: tuple[str, ...],
    count: int | None,
    from_snapshot: str | None,
    wish: "Wish",
) -> None:
    timeout_s, wait_condition = parse_duration_s(wish["timeout"], "--timeout"), wish["wait_condition"]
    wanted = clone_names(session.client(), source, names, count)
    body: CloneVmRequest = {
        "names": wanted,
        "full": wish["full"],
        "keep_identity": wish["keep_identity"],
        "start": wish["start"] or wait_condition is not None,
        "force": wish["force"],
    }
    if from_snapshot is not None:
        body["from_snapshot"] = from_snapshot
    accepted = session.client().clone_vm(source, body)
    operations = {operation["spec"]["target_name"]: operation for operation in accepted["operations"]}
    done = "cloned" if not body["start"] else "running"
    asynchronous = wish["asynchronous"]
    finish(session, wanted, operations.__getitem__, output=wish["output"], done=done, asynchronous=asynchronous)
    if wait_condition and not asynchronous:
        for name in wanted:
            session.client().wait_vm(name, wait_condition, timeout_s)


def clone_names(client: "Client", source: str, names: tuple[str, ...], count: int | None) -> list[str]:
    """The names that were given, or `count` numbered ones that are free."""
    if count is None:
        if not names:
            raise click.UsageError("give the clone a name, or say how many: --count N")
        return list(names)
    if len(names) > 1:
        raise click.UsageError("--count numbers one name, and several were given")
    base = names[0] if names else source
    taken = {vm["name"] for vm in client.list_vms(fields="name")}
    numbered = (f"{base}-{number}" for number in range(1, count + len(taken) + 1))
    return [name for name in numbered if name not in taken][:count]
