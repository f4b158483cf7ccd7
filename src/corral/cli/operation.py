"""Operations: list, show, cancel, watch."""

from typing import Any, Final

import click

from corral.cli.completion import complete_operation
from corral.cli.output import Column, Document, age, output_option, show_document, show_list, show_one
from corral.cli.progress import is_final, wait_for
from corral.cli.session import Session, for_each, pass_session
from corral.errors import CorralError


def _progress(operation: Document) -> str:
    part = operation["status"].get("progress")
    return "" if part is None else f"{part * 100:.0f}%"


def _error(operation: Document) -> str:
    problem = operation["status"].get("error")
    return f"{problem['reason']} [{problem['code']}]" if problem else ""


COLUMNS: Final = (
    Column("operation", lambda operation: operation["uid"]),
    Column("verb", lambda operation: operation["spec"]["intent"]["verb"]),
    Column("target", lambda operation: operation["spec"]["target_name"]),
    Column("state", lambda operation: operation["status"]["state"], coloured=True),
    Column("phase", lambda operation: operation["status"].get("phase")),
    Column("done", _progress, right=True),
    Column("by", lambda operation: operation["spec"]["requested_by"]),
    Column("age", lambda operation: age(operation["created_at"])),
)


def rows(operation: Document) -> list[tuple[str, object]]:
    """An operation's lines for people."""
    spec, status = operation["spec"], operation["status"]
    problem = status.get("error")
    causes = []
    while problem:
        causes.append(f"{problem['asked']}: {problem['reason']} [{problem['code']}]")
        if problem.get("hint"):
            causes.append(f"  {problem['hint']}")
        problem = problem.get("cause")
    return [
        ("operation", operation["uid"]),
        ("verb", spec["intent"]["verb"]),
        ("target", f"{spec['target_kind']} {spec['target_name']} ({spec['target_uid']})"),
        ("state", status["state"]),
        ("phase", status.get("phase")),
        ("progress", _progress(operation)),
        ("detail", status.get("detail")),
        ("requested by", spec["requested_by"]),
        ("request", spec["request_id"]),
        ("created", operation["created_at"]),
        ("started", status.get("started_at")),
        ("ended", status.get("ended_at")),
        ("attempts", status.get("attempts") or ""),
        ("steps", [_step(step) for step in status.get("steps", ())]),
        ("error", causes),
    ]


def _step(step: Document) -> str:
    ended = step.get("ended_at")
    return f"{step['name']} ({step['kind']}): {'done ' + ended if ended else 'begun ' + step['started_at']}"


@click.group()
def operation() -> None:
    """Changes under way and done. Every command that changes something makes one.

    \b
    Examples:
      corral operation list
      corral operation watch 3f2a9c
    """


@operation.command("list")
@click.option("-a", "--all", "everything", is_flag=True, help="Finished ones too.")
@output_option
@pass_session
def list_(session: Session, everything: bool, output: str) -> None:
    """List operations that are not finished; with --all the history too.

    \b
    Examples:
      corral operation list
      corral operation list --all -o json
    """
    found: list[Any] = list(session.client().list_operations())
    if not everything:
        found = [item for item in found if not is_final(item)]
    found.sort(key=lambda item: str(item["created_at"]))
    show_list(found, COLUMNS, output, name=lambda item: str(item["uid"]))


@operation.command()
@click.argument("uid", metavar="OPERATION", shell_complete=complete_operation)
@output_option
@pass_session
def show(session: Session, uid: str, output: str) -> None:
    """Show an operation with its steps, timing and the reason of its failure. The id's first 6 characters will do.

    \b
    Examples:
      corral operation show 3f2a9c
    """
    found = session.client().get_operation(uid)
    show_one(found, rows(found), output, name=found["uid"])


@operation.command()
@click.argument("uids", nargs=-1, required=True, metavar="OPERATION…", shell_complete=complete_operation)
@output_option
@pass_session
def cancel(session: Session, uids: tuple[str, ...], output: str) -> None:
    """Cancel operations at their next safe point; what a cancelled create had made is removed.

    \b
    Examples:
      corral operation cancel 3f2a9c
    """
    documents: list[Document] = []

    def work(uid: str) -> None:
        client = session.client()
        found = client.cancel_operation(uid)
        if not is_final(found):
            found = client.wait_operation(found["uid"])
        documents.append(found)
        if output == "table":
            click.echo(f"{found['uid']}: {found['status']['state']}")
        elif output == "name":
            click.echo(found["uid"])

    try:
        for_each(uids, work)
    finally:
        if output in ("json", "yaml") and documents:
            show_document(documents[0] if len(uids) == 1 else documents, output)


@operation.command()
@click.argument("uid", metavar="OPERATION", shell_complete=complete_operation)
@output_option
@pass_session
def watch(session: Session, uid: str, output: str) -> None:
    """Follow an operation to its end; its failure is this command's.

    \b
    Examples:
      corral operation watch 3f2a9c
      corral operation watch $(corral start web --async)
    """
    found = session.client().get_operation(uid)
    try:
        final = wait_for(session, found)
    except CorralError:
        if output in ("json", "yaml"):
            show_document(session.client().get_operation(found["uid"]), output)
        raise
    show_one(final, rows(final), output, name=final["uid"])
