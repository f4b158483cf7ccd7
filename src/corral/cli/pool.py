"""Pools: where volumes lie, and how much of them is taken."""

from typing import Any, Final

import click

from corral.cli.completion import complete_pool
from corral.cli.output import Column, Document, age, output_option, show_document, show_list, show_one
from corral.cli.session import Failures, Session, pass_session
from corral.errors import CorralError
from corral.names import format_bytes


def _bytes(field: str) -> Any:
    return lambda pool: format_bytes(pool["status"][field])


def _overcommit(pool: Document) -> str:
    """What is promised over what could be there: above 1 the volumes cannot all be filled."""
    status = pool["status"]
    could_be = status["allocated_bytes"] + status["free_bytes"]
    return f"{status['logical_bytes'] / could_be:.2f}" if could_be else "-"


def _used(pool: Document) -> str:
    status = pool["status"]
    return f"{100 * status['used_bytes'] / status['total_bytes']:.0f}%" if status["total_bytes"] else "-"


COLUMNS: Final = (
    Column("name", lambda pool: pool["name"]),
    Column("state", lambda pool: pool["status"]["level"] if pool["status"]["available"] else "away", coloured=True),
    Column("total", _bytes("total_bytes"), right=True),
    Column("free", _bytes("free_bytes"), right=True),
    Column("used", _used, right=True),
    Column("volumes", lambda pool: pool["status"]["volumes"], right=True),
    Column("allocated", _bytes("allocated_bytes"), right=True),
    Column("logical", _bytes("logical_bytes"), right=True),
    Column("overcommit", _overcommit, right=True),
    Column("path", lambda pool: pool["spec"]["path"]),
    Column("age", lambda pool: age(pool["created_at"])),
)


@click.group()
def pool() -> None:
    """Where volumes lie.

    \b
    Examples:
      corral pool list
      corral pool create fast --path /srv/fast
      corral volume create data --size 20 --pool fast
    """


@pool.command("list")
@output_option
@pass_session
def list_(session: Session, output: str) -> None:
    """List the pools: what is used, allocated and promised in each (virsh: pool-list --details).

    \b
    Examples:
      corral pool list
    """
    show_list(session.client().list_pools(), COLUMNS, output)


@pool.command()
@click.argument("name", metavar="POOL", default="default", shell_complete=complete_pool)
@output_option
@pass_session
def show(session: Session, name: str, output: str) -> None:
    """Show a pool (virsh: pool-info).

    \b
    Examples:
      corral pool show
      corral pool show fast
    """
    found: Document = session.client().get_pool(name)
    rows: list[tuple[str, object]] = [("name", found["name"]), ("uid", found["uid"])]
    rows += [("driver", found["spec"]["driver"])]
    rows += [(column.title, column.value(found)) for column in COLUMNS[1:-1]]
    rows += [("reason", found["status"]["reason"]), ("created", found["created_at"])]
    show_one(found, rows, output)


@pool.command()
@click.argument("name")
@click.option("--path", required=True, help="A new or empty directory on the daemon's host, which it keeps for itself.")
@output_option
@pass_session
def create(session: Session, name: str, path: str, output: str) -> None:
    """Make a pool in a directory, as on a disk that was mounted there (virsh: pool-create-as).

    \b
    Examples:
      corral pool create fast --path /srv/fast
    """
    made = session.client().create_pool({"name": name, "path": path})
    if output in ("json", "yaml"):
        show_document(made, output)
    else:
        click.echo(name if output == "name" else f"{name}: made")


@pool.command()
@click.argument("names", nargs=-1, required=True, metavar="POOL…", shell_complete=complete_pool)
@pass_session
def delete(session: Session, names: tuple[str, ...]) -> None:
    """Forget pools that no volume lies in; their directories stay (virsh: pool-undefine).

    \b
    Examples:
      corral pool delete fast
    """
    failures = Failures()
    for name in names:
        try:
            session.client().delete_pool(name)
            click.echo(f"{name}: deleted")
        except CorralError as error:
            failures.add(error)
    failures.leave()
