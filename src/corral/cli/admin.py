"""Administration: API tokens, backup and restore of the database, recovery of a lost one."""

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from corral.cli.output import Column, age, output_option, show_document, show_list
from corral.cli.serve import given_flags, restore
from corral.cli.session import Session, for_each, pass_session
from corral.errors import CorralError
from corral.files import create_private, replacing, storage_error
from corral.names import format_bytes, parse_duration_s
from corral.settings import load

if TYPE_CHECKING:
    from corral.client_types import CreateTokenRequest, Right, Role

_ALWAYS_SAID: Final = ("networks", "images", "volumes", "vms")
_SAID_IF_ANY: Final = ("security_groups", "network_policies", "routers", "balancers", "forwards", "addresses")
COLUMNS: Final = (
    Column("name", lambda token: token["name"]),
    Column("role", lambda token: token["spec"]["role"]),
    Column("rights", lambda token: ", ".join(token["spec"].get("rights", ()))),
    Column("project", lambda token: token["project"]),
    Column("expires", lambda token: token["spec"].get("expires_at") or "never"),
    Column("age", lambda token: age(token["created_at"])),
)


@click.group()
def admin() -> None:
    """Administration of the daemon.

    \b
    Examples:
      corral admin token create ci --role operator
      corral admin backup-db /srv/backup/corral.db
    """


@admin.group()
def token() -> None:
    """API tokens, for the API over TLS.

    \b
    Examples:
      corral admin token list
    """


@token.command()
@click.argument("name")
@click.option("--role", type=click.Choice(["viewer", "operator", "admin"]), default="viewer", show_default=True)
@click.option(
    "--right",
    "rights",
    type=click.Choice(["template.fork", "vm.capture"]),
    multiple=True,
    help="What an operator may do only by name: make VMs of templates, whose memory can hold secrets; capture the packets of VMs.",
)
@click.option("--expires", metavar="TIME", help="Valid for this long: 12h, 90d.  [default: for ever]")
@output_option
@pass_session
def create(
    session: Session, name: str, role: "Role", rights: tuple["Right", ...], expires: str | None, output: str
) -> None:
    """Make a token for the project; its secret is printed once and kept nowhere.

    \b
    Examples:
      corral admin token create ci --role operator --expires 90d
      corral admin token create lab --role operator --right template.fork
      export CORRAL_TOKEN=$(corral admin token create laptop -o name)
    """
    body: CreateTokenRequest = {"name": name, "role": role}
    if rights:
        body["rights"] = list(rights)
    if expires:
        body["expires_at"] = (datetime.now(UTC) + timedelta(seconds=parse_duration_s(expires, "--expires"))).isoformat()
    answer: Any = session.client().create_token(body)
    if output in ("json", "yaml"):
        show_document(answer, output)
        return
    click.echo(answer["secret"])
    if output == "table":
        click.echo("This is shown once. Use it as CORRAL_TOKEN with --url https://HOST:PORT.", err=True)


@token.command("list")
@output_option
@pass_session
def list_(session: Session, output: str) -> None:
    """List the tokens, without their secrets.

    \b
    Examples:
      corral admin token list
    """
    show_list(session.client().list_tokens(), COLUMNS, output)


@token.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME…")
@pass_session
def revoke(session: Session, names: tuple[str, ...]) -> None:
    """Revoke tokens; they are refused from now on.

    \b
    Examples:
      corral admin token revoke ci
    """

    def work(name: str) -> None:
        session.client().delete_token(name)
        click.echo(f"{name}: revoked")

    for_each(names, work)


@admin.command("backup-db")
@click.argument("file", type=click.Path(path_type=Path))
@pass_session
def backup_db(session: Session, file: Path) -> None:
    """Write a consistent copy of the running daemon's database to FILE, mode 0600; - is standard output.

    \b
    Examples:
      corral admin backup-db /srv/backup/corral.db
      corral admin backup-db - | ssh vault 'cat > corral.db'
    """
    chunks = session.client().backup()
    if str(file) == "-":
        stream = sys.stdout.buffer
        for chunk in chunks:
            stream.write(chunk)
        stream.flush()
        return
    count = 0
    try:
        with replacing(file.absolute()) as temporary, create_private(temporary) as target:
            for chunk in chunks:
                target.write(chunk)
                count += len(chunk)
    except OSError as error:
        raise storage_error(f"write {file}", error) from error
    click.echo(f"{file}: {format_bytes(count)}")


@admin.command("restore-db")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--state-dir", metavar="DIR", help="Of the daemon whose database is restored.")
@pass_session
def restore_db(session: Session, file: Path, state_dir: str | None) -> None:
    """Put a backup in the place of the database. The daemon must be stopped; the old database is kept beside it.

    Afterwards the daemon makes the world as the backup says; VMs that are newer show as unmanaged.

    \b
    Examples:
      corral daemon stop
      corral admin restore-db /srv/backup/corral.db
      corral daemon start
    """
    if not file.is_file():
        raise CorralError("invalid-argument", f"restore {file}", "there is no such file")
    settings = load(given_flags(session, {"state_dir": state_dir}))
    restore(settings, file.absolute())
    click.echo(f"{settings.database}: restored from {file}")


@click.command()
@output_option
@pass_session
def recover(session: Session, output: str) -> None:
    """Rebuild a lost database: VMs, disks, images and networks from domain metadata and the files that lie beside them; routers,
    security groups and what belongs to them from files beside the database.

    Start the daemon without its database first. What cannot be known is said.

    \b
    Examples:
      corral daemon start
      corral recover
    """
    report: Any = session.client().recover()
    if output in ("json", "yaml"):
        show_document(report, output)
        return
    for what in (*_ALWAYS_SAID, *_SAID_IF_ANY):
        found = report.get(what, [])
        if found or what in _ALWAYS_SAID:
            click.echo(f"{what.replace('_', ' ')}: {len(found)}{' (' + ', '.join(found) + ')' if found else ''}")
    for sentence in report.get("lost", []):
        click.echo(f"not known: {sentence}")
