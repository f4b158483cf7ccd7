"""`corral events`: what happened, and what happens."""

from typing import TYPE_CHECKING, Final

import click

from corral.cli.output import Column, Document, output_option, printable, show_document, show_list
from corral.cli.session import Session, pass_session

if TYPE_CHECKING:
    from collections.abc import Iterable


def _time(event: Document) -> str:
    return str(event["time"])[:19].replace("T", " ")


COLUMNS: Final = (
    Column("time", _time),
    Column("level", lambda event: event["level"], coloured=True),
    Column("reason", lambda event: event["reason"]),
    Column("object", lambda event: f"{event['object_kind']}/{event['object_name']}"),
    Column("source", lambda event: event["source"]),
    Column("message", lambda event: event["message"]),
)


@click.command()
@click.option("-f", "--follow", is_flag=True, help="Go on with what happens from now on.")
@click.option(
    "-n", "--last", type=click.IntRange(min=0), default=50, show_default=True, help="How many of the past ones."
)
@click.option("--after", type=int, help="Only those after this sequence number; json has them.")
@output_option
@pass_session
def events(session: Session, follow: bool, last: int, after: int | None, output: str) -> None:
    """What happened to VMs, images and operations; times are UTC.

    With --follow -o json each event is one line of JSON.

    \b
    Examples:
      corral events
      corral events --follow
      corral events --after 1200 -o json
    """
    client = session.client()
    past: list[Document] = list(client.events(after=after or 0))
    recent = past if after is not None else past[len(past) - min(last, len(past)) :]
    if not follow:
        show_list(recent, COLUMNS, output, name=lambda event: str(event["reason"]))
        return
    _stream(recent, output)
    newest = past[-1]["sequence"] if past else (after or 0)
    _stream(client.follow_events(after=newest), output)


def _stream(found: "Iterable[Document]", output: str) -> None:
    import json

    for event in found:
        if output == "json":
            click.echo(json.dumps(event, ensure_ascii=False))
        elif output == "yaml":
            click.echo("---")
            show_document(event, output)
        elif output == "name":
            click.echo(event["reason"])
        else:
            cells = (_time(event), event["level"], event["reason"], event["object_name"], event["message"])
            click.echo("  ".join(printable(cell) for cell in cells))
