"""`corral firewall`: would a connection pass and why, what rules count, what was denied."""

from typing import TYPE_CHECKING, Any, Final, cast

import click

from corral.cli.completion import complete_vm
from corral.cli.output import Column, Document, output_option, printable, show_document, show_list, show_one
from corral.cli.session import Session, pass_session

if TYPE_CHECKING:
    from corral.client_types import ExplainRequest

DENIED: Final = 1
"""The exit status of `explain` for a connection that would not pass."""
_WAIT_S: Final = 30.0


def _end(address: str, port: object) -> str:
    return address if port is None else f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _counted(count: Document) -> str:
    if count["denied"]:
        return f"denied: {count['denied']}"
    return f"policy {count['policy']}" if count["policy"] else f"group {count['group']}"


def _reason(one: Document) -> str:
    """Why it was denied; or by which rule it was let through."""
    if one.get("verdict") == "allowed":
        return f"allowed by {one['group'] or 'a rule'}: {one['rule'] or '-'}"
    return f"{one['reason']} {one['policy']}".strip()


COUNT_COLUMNS: Final = (
    Column("what", _counted),
    Column("rule", lambda count: count["rule"] or "-"),
    Column("packets", lambda count: count["packets"], right=True),
    Column("bytes", lambda count: count["bytes"], right=True),
)
LOG_COLUMNS: Final = (
    Column("time", lambda one: str(one["time"])[:19].replace("T", " ")),
    Column("reason", _reason),
    Column("in", lambda one: one["card_in"] or one["interface_in"] or "-"),
    Column("out", lambda one: one["card_out"] or one["interface_out"] or "-"),
    Column("protocol", lambda one: one["protocol"] + (f"/{one['icmp_type']}" if one["icmp_type"] is not None else "")),
    Column("from", lambda one: _end(one["source"], one["source_port"])),
    Column("to", lambda one: _end(one["destination"], one["port"])),
)


@click.group()
def firewall() -> None:
    """The firewall: would a connection pass and why, what rules let through, what was denied.

    Rules are written into security groups (corral security-group) and network policies (corral network-policy).

    \b
    Examples:
      corral firewall explain web --from 10.0.0.7 --port 443
      corral firewall log --follow
      corral firewall counters
    """


@firewall.command()
@click.argument("name", metavar="VM", shell_complete=complete_vm)
@click.option("--from", "source", metavar="ADDRESS|VM", help="Who would reach it.")
@click.option("--to", "destination", metavar="ADDRESS|VM", help="Whom it would reach.")
@click.option("--port", type=click.IntRange(1, 65535), help="The port that the connection goes to.")
@click.option("--protocol", default=None, metavar="PROTOCOL", help="tcp, udp, sctp or icmp.  [default: tcp]")
@click.option("--icmp-type", type=click.IntRange(0, 255), help="Of a message.  [default: an echo request]")
@click.option("--nic", metavar="CARD", help="The VM's card.  [default: the one that is nearest to the other end]")
@output_option
@pass_session
def explain(session: Session, /, name: str, output: str, **given: Any) -> None:
    """Say whether a new connection would pass, and which rule decides. Exit status 1: it would not.

    Nothing is sent: what is asked is what is wished, also of VMs that are off.

    \b
    Examples:
      corral firewall explain web --from 10.0.0.7 --port 5432
      corral firewall explain web --to db --port 5432
      corral firewall explain web --from db --protocol icmp
    """
    if bool(given["source"]) == bool(given["destination"]):
        raise click.UsageError("say the other end: --from ADDRESS, or --to ADDRESS")
    if given["protocol"] is None:
        given["protocol"] = "tcp" if given["port"] is not None else "icmp"
    body = {"vm": name, **{key: value for key, value in given.items() if value is not None}}
    found: Document = session.client().explain_firewall(cast("ExplainRequest", body))
    verdict = "allowed" if found["allowed"] else "denied"
    source, target = (found["source_card"], found["destination_card"])
    rows: list[tuple[str, object]] = [
        ("verdict", f"{verdict}: {found['decided_by']}"),
        ("from", f"{found['source']} ({source})" if source else found["source"]),
        ("to", _end(found["destination"], found["port"]) + (f" ({target})" if target else "")),
        ("protocol", found["protocol"] + (f"/{found['icmp_type']}" if found["icmp_type"] is not None else "")),
        (
            "steps",
            [f"{one['stage']}: {'allowed' if one['allowed'] else 'denied'}, {one['reason']}" for one in found["steps"]],
        ),
    ]
    show_one(found, rows, output, name=verdict)
    if not found["allowed"]:
        raise SystemExit(DENIED)


@firewall.command()
@output_option
@pass_session
def status(session: Session, output: str) -> None:
    """Show what of the firewall is loaded on this host, and how it filters.

    \b
    Examples:
      corral firewall status
    """
    found: Document = session.client().firewall_status()
    rows = [(key.replace("_", " "), found[key]) for key in found]
    show_one(found, rows, output, name="active" if found["active"] else "inactive")


@firewall.command()
@output_option
@pass_session
def counters(session: Session, output: str) -> None:
    """Show how many new connections each rule let through, and what was denied for which reason.

    \b
    Examples:
      corral firewall counters
      corral firewall counters -o json
    """
    found: list[Document] = list(session.client().firewall_counters())
    show_list(found, COUNT_COLUMNS, output, name=_counted)


@firewall.command()
@click.option("-f", "--follow", is_flag=True, help="Go on with what is denied from now on.")
@click.option("-n", "--last", type=click.IntRange(min=0), help="How many, the newest.  [default: all that are kept]")
@output_option
@pass_session
def log(session: Session, follow: bool, last: int | None, output: str) -> None:
    """Show packets that were denied lately, and those that rules with `log` let through: a sample, of each reason, or rule, so
    many a second; times are UTC.

    With --follow -o json each is one line of JSON.

    \b
    Examples:
      corral firewall log -n 20
      corral firewall log --follow
    """
    client = session.client()
    found: list[Document] = list(client.firewall_log())
    shown = found if last is None else found[len(found) - min(last, len(found)) :]
    if not follow:
        show_list(shown, LOG_COLUMNS, output, name=lambda one: str(one["reason"]))
        return
    newest = found[-1]["number"] if found else 0
    while True:
        for one in shown:
            newest = one["number"]
            _line(one, output)
        shown = list(client.firewall_log(after=newest, wait_s=_WAIT_S))


def _line(denied: Document, output: str) -> None:
    if output == "json":
        import json

        click.echo(json.dumps(denied))
    elif output == "yaml":
        show_document([denied], output)
    else:
        click.echo("  ".join(printable(column.value(denied)) for column in LOG_COLUMNS))
