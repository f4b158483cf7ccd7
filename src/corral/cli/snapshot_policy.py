"""`corral snapshot policy`: snapshots that are taken by themselves."""

from typing import TYPE_CHECKING, Any, Final

import click

from corral.cli.completion import complete_vm
from corral.cli.options import async_option, vm_names
from corral.cli.output import output_option, show_one
from corral.cli.progress import finish
from corral.cli.session import Session, pass_session

if TYPE_CHECKING:
    from corral.client_types import SnapshotPolicy, UpdateVmRequest

PERIODS: Final = ("hourly", "daily", "weekly", "monthly")


@click.group()
def policy() -> None:
    """Snapshots taken by themselves: show, set, remove.

    \b
    Examples:
      corral snapshot policy set web --hourly 24 --daily 7
      corral snapshot policy show web
    """


@policy.command()
@click.argument("vm", metavar="VM", shell_complete=complete_vm)
@output_option
@pass_session
def show(session: Session, vm: str, output: str) -> None:
    """Show a VM's policy.

    \b
    Examples:
      corral snapshot policy show web -o json
    """
    spec: Any = session.client().get_vm(vm)["spec"]
    found: dict[str, Any] = spec.get("snapshot_policy") or dict.fromkeys(PERIODS, 0)
    rows = [("vm", vm), *((period, found[period] or "none") for period in PERIODS)]
    if any(found[period] for period in PERIODS):
        rows.append(("quiesced", "where the guest's agent answers" if found["quiesce"] else "no"))
    show_one(found, rows, output)


@policy.command("set")
@vm_names
@click.option("--hourly", type=click.IntRange(0, 48), default=0, help="Keep the newest of so many hours.")
@click.option("--daily", type=click.IntRange(0, 48), default=0, help="… of so many days.")
@click.option("--weekly", type=click.IntRange(0, 48), default=0, help="… of so many weeks.")
@click.option("--monthly", type=click.IntRange(0, 48), default=0, help="… of so many months.")
@click.option("--no-quiesce", is_flag=True, help="Leave the guest's agent out, where there is one.")
@async_option
@output_option
@pass_session
def set_(
    session: Session,
    names: tuple[str, ...],
    hourly: int,
    daily: int,
    weekly: int,
    monthly: int,
    no_quiesce: bool,
    asynchronous: bool,
    output: str,
) -> None:
    """Take a snapshot in each of the shortest periods that are named, and keep so many of each. Times are UTC.

    \b
    One that was missed (the host was off) is taken when the daemon is back, if its period still runs. What a policy
    took, it deletes when nothing keeps it; snapshots of your own it leaves alone.
    Examples:
      corral snapshot policy set web db --hourly 24 --daily 7
      corral snapshot policy set db --daily 14 --monthly 6
    """
    wanted: SnapshotPolicy = {
        "hourly": hourly, "daily": daily, "weekly": weekly, "monthly": monthly, "quiesce": not no_quiesce,
    }  # fmt: skip
    if not any((hourly, daily, weekly, monthly)):
        raise click.UsageError("name a period: --hourly N, --daily N, --weekly N or --monthly N")
    _update(session, names, wanted, output, "has a snapshot policy", asynchronous)


@policy.command()
@vm_names
@async_option
@output_option
@pass_session
def remove(session: Session, names: tuple[str, ...], asynchronous: bool, output: str) -> None:
    """Take no more snapshots by themselves. Those that are there stay.

    \b
    Examples:
      corral snapshot policy remove web
    """
    _update(session, names, {}, output, "has no snapshot policy", asynchronous)


def _update(
    session: Session, names: tuple[str, ...], wanted: "SnapshotPolicy", output: str, done: str, asynchronous: bool
) -> None:
    body: UpdateVmRequest = {"snapshot_policy": wanted}
    client = session.client()
    finish(
        session,
        names,
        lambda name: client.update_vm(name, body)["operation"],
        output=output,
        done=done,
        asynchronous=asynchronous,
    )
