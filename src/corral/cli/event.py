"""`corral events`: what happened, and what happens."""

import time
from typing import TYPE_CHECKING, Final

import click

from corral.cli.output import Column, Document, output_option, printable, show_document, show_list
from corral.cli.session import Session, pass_session
from corral.errors import CorralError

if TYPE_CHECKING:
    from collections.abc import Iterable

DAEMON_AWAY_MAX_S: Final = 30.0
DAEMON_AWAY_PAUSE_S: Final = 0.25


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
    # The stream ends when the daemon stops; one that is replaced or comes back goes on where it was.
    while True:
        newest = _stream(session.client().follow_events(after=newest), output) or newest
        _await_daemon(session)


def _await_daemon(session: Session) -> None:
    deadline = time.monotonic() + DAEMON_AWAY_MAX_S
    while True:
        try:
            session.client().ready()
        except CorralError as error:
            if error.code != "daemon-unreachable" or time.monotonic() > deadline:
                raise
            time.sleep(DAEMON_AWAY_PAUSE_S)
        else:
            return


def _stream(found: "Iterable[Document]", output: str) -> int:
    """Show events as they come; the sequence of the last one, 0 where there was none."""
    import json

    sequence = 0
    for event in found:
        sequence = int(event["sequence"])
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
    return sequence
