"""The audit log: list, verify."""

from typing import Any, Final

import click

from corral.cli.output import Column, fields, output_option, show_document, show_list
from corral.cli.session import Session, pass_session
from corral.errors import EXIT_FAILED

COLUMNS: Final = (
    Column("entry", lambda record: record["entry"], right=True),
    Column("time", lambda record: str(record["time"])[:19].replace("T", " ")),
    Column("identity", lambda record: record["identity"]),
    Column("action", lambda record: record["action"]),
    Column("target", lambda record: record["target"]),
    Column("outcome", lambda record: record["outcome"]),
    Column("detail", lambda record: record.get("detail")),
)


@click.group()
def audit() -> None:
    """Who asked for what, and what was answered: a chain of hashes that shows tampering.

    \b
    Examples:
      corral audit list
      corral audit verify
    """


@audit.command("list")
@click.option("--after", type=int, default=0, help="Only records after this entry.")
@click.option("-n", "--last", type=click.IntRange(min=0), default=100, show_default=True, help="How many, the newest.")
@output_option
@pass_session
def list_(session: Session, after: int, last: int, output: str) -> None:
    """List records, oldest first; times are UTC.

    \b
    Examples:
      corral audit list
      corral audit list --last 1000 -o json
    """
    found: list[Any] = list(session.client().list_audit(after=after))
    show_list(found[len(found) - min(last, len(found)) :], COLUMNS, output, name=lambda record: str(record["entry"]))


@audit.command()
@output_option
@pass_session
def verify(session: Session, output: str) -> None:
    """Check the whole chain; exit code 1 when a record was changed, added or removed.

    \b
    Examples:
      corral audit verify
    """
    found: Any = session.client().verify_audit()
    if output in ("table", "name"):
        rows: list[tuple[str, object]] = [
            ("valid", found["valid"]),
            ("records", f"{found['records']} ({found['first_sequence']} to {found['last_sequence']})"),
            ("anchors", found["anchors"]),
            ("broken at", found.get("broken_at")),
            ("reason", found.get("reason")),
            ("rewound", found.get("rewinds")),
        ]
        click.echo("\n".join(fields(rows)))
    else:
        show_document(found, output)
    if not found["valid"]:
        raise click.exceptions.Exit(EXIT_FAILED)
