"""`corral host network`: a bridge over the card that this server is reached through, without cutting the branch."""

import difflib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import click

from corral.cli.output import Document, output_option, show_document, show_one
from corral.cli.session import Session, pass_session
from corral.errors import CorralError
from corral.names import parse_duration_s

if TYPE_CHECKING:
    from corral.client_types import BridgeRequest

ROLLED_BACK: Final = "rolled-back"


@click.group()
def network() -> None:
    """This server's own network: a bridge over one of its cards.

    \b
    Examples:
      corral host network bridge eth0 --name br0 --plan
      corral host network bridge eth0 --name br0
      corral host network confirm
    """


@network.command()
@click.argument("nic", metavar="CARD")
@click.option("--name", default="br0", show_default=True, help="The bridge's name.")
@click.option("--plan", "only_plan", is_flag=True, help="Show what would change, and change nothing.")
@click.option(
    "--within", metavar="TIME", default="60s", show_default=True, help="How long it waits for a confirmation."
)
@output_option
@pass_session
def bridge(session: Session, nic: str, name: str, only_plan: bool, within: str, output: str) -> None:
    """Make a bridge over CARD, which takes over its addresses. It is taken back by itself unless you confirm it.

    \b
    The files of netplan, ifupdown, systemd-networkd or NetworkManager are changed, whoever configures the card.
    Examples:
      corral host network bridge eth0 --plan
      corral host network bridge eth0 --name br0 --within 2m
    """
    body: BridgeRequest = {"nic": nic, "bridge": name, "confirm_within_s": parse_duration_s(within, "--within")}
    if only_plan:
        plan: Document = session.client().plan_host_bridge(body)
        if output in ("json", "yaml"):
            show_document(plan, output)
        else:
            click.echo("\n".join(_plan_lines(plan)))
        return
    change: Document = session.client().make_host_bridge(body)
    _show(change, output)
    if change["state"] == ROLLED_BACK:
        reason = change["reason"]
        raise CorralError(
            "command-failed", f"make bridge {name}", reason, "everything is as before: corral host network show"
        )
    if output == "table" and change["state"] == "pending":
        click.echo(f"\nIs all well? Then, within {within}:\n  corral host network confirm")


@network.command()
@output_option
@pass_session
def confirm(session: Session, output: str) -> None:
    """Keep what was applied.

    \b
    Examples:
      corral host network confirm
    """
    _show(session.client().confirm_host_network(), output)


@network.command()
@output_option
@pass_session
def rollback(session: Session, output: str) -> None:
    """Take back what waits for its confirmation, at once.

    \b
    Examples:
      corral host network rollback
    """
    _show(session.client().roll_back_host_network(), output)


@network.command()
@output_option
@pass_session
def show(session: Session, output: str) -> None:
    """Show the last change, and how it ended.

    \b
    Examples:
      corral host network show
    """
    _show(session.client().host_network(), output)


def _show(change: Document, output: str) -> None:
    rows: list[tuple[str, object]] = [("state", change["state"])]
    rows += [(key, change[key]) for key in ("bridge", "nic", "manager", "reason") if change.get(key)]
    if change.get("confirm_before"):
        rows.append(("confirm before", f"{change['confirm_before'][:19].replace('T', ' ')} UTC"))
    if change.get("problems"):
        rows.append(("problems", list(change["problems"])))
    show_one(change, rows, output)


def _plan_lines(plan: Document) -> Iterator[str]:
    yield f"{plan['nic']} is configured by {plan['manager']}."
    if plan["addresses"]:
        yield f"Its addresses move to {plan['bridge']}: {', '.join(plan['addresses'])}."
    if plan["carries_default_route"]:
        yield f"The default route goes over {plan['nic']}: connections to this server pause for some seconds."
    yield from (f"Note: {note}." for note in plan["notes"])
    for file in plan["files"]:
        before, after = (file[key] or "" for key in ("before", "after"))
        names = (file["path"] if file["before"] is not None else "/dev/null", file["path"])
        yield ""
        yield from difflib.unified_diff(before.splitlines(), after.splitlines(), *names, lineterm="", n=2)
    yield ""
    yield "Then:"
    yield from (f"  {command}" for command in plan["commands"])
    yield "Unless confirmed, the files as they were, and:"
    yield from (f"  {command}" for command in plan["undo"])
