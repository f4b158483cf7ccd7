"""Templates: VMs as they were at one instant, memory included if wished; list, show, create, delete."""

from typing import TYPE_CHECKING, Final

import click

from corral.cli.completion import complete_vm
from corral.cli.options import async_option
from corral.cli.output import Column, Document, age, output_option, show_list, show_one
from corral.cli.progress import finish
from corral.cli.session import Session, pass_session
from corral.names import format_bytes

if TYPE_CHECKING:
    from corral.client_types import CreateTemplateRequest


def state(template: Document) -> str:
    """`ready`, or what it is instead."""
    if template.get("deletion_requested_at"):
        return "being deleted"
    if not template["status"]["ready"]:
        return "being made"
    return "ready"


COLUMNS: Final = (
    Column("name", lambda template: template["name"]),
    Column("kind", lambda template: "hot" if template["spec"]["hot"] else "disk"),
    Column("state", state),
    Column("from", lambda template: template["spec"]["source"]),
    Column("memory", lambda template: format_bytes(template["status"]["memory_bytes"]), right=True),
    Column("stored", lambda template: format_bytes(template["status"]["stored_bytes"]), right=True),
    Column("age", lambda template: age(template["created_at"])),
)


@click.group()
def template() -> None:
    """VMs as they were at one instant, from which others are made in a second.

    \b
    Examples:
      corral template create base --from web --hot
      corral fork base --count 50
    """


@template.command("list")
@output_option
@pass_session
def list_(session: Session, output: str) -> None:
    """List the templates.

    \b
    Examples:
      corral template list
    """
    show_list(list(session.client().list_templates()), COLUMNS, output)


@template.command()
@click.argument("name", metavar="TEMPLATE")
@output_option
@pass_session
def show(session: Session, name: str, output: str) -> None:
    """Show a template.

    \b
    Examples:
      corral template show base
    """
    found: Document = session.client().get_template(name)
    spec, status = found["spec"], found["status"]
    rows: list[tuple[str, object]] = [("name", found["name"]), ("uid", found["uid"])]
    rows += [(column.title, column.value(found)) for column in COLUMNS[1:-1]]
    rows += [
        ("description", spec["description"]),
        ("disks", ", ".join(disk["name"] for disk in spec["disks"])),
        ("guest can be told who it is", status["agent"] if spec["hot"] else None),
        ("created", found["created_at"]),
    ]
    show_one(found, rows, output)


@template.command()
@click.argument("name", metavar="NAME")
@click.option("--from", "source", metavar="VM", required=True, shell_complete=complete_vm, help="The VM; it goes on.")
@click.option("--hot", is_flag=True, help="With its memory: VMs of it go on from a running guest instead of booting.")
@click.option("--description", default="", help="What it is, for people.")
@async_option
@output_option
@pass_session
def create(
    session: Session, name: str, source: str, hot: bool, description: str, asynchronous: bool, output: str
) -> None:
    """Make a template of a VM as it is at this instant.

    \b
    A hot one keeps what stands in the guest's memory, secrets too, in a file that only root may read.
    Examples:
      corral template create base --from web
      corral template create base --from web --hot
    """
    body: CreateTemplateRequest = {"name": name, "source": source, "hot": hot, "description": description}
    operation = session.client().create_template(body)["operation"]
    finish(session, [name], lambda _: operation, output=output, done="frozen", asynchronous=asynchronous)


@template.command()
@click.argument("names", nargs=-1, required=True, metavar="TEMPLATE…")
@click.option("-y", "--yes", is_flag=True, help="Accepted for scripts; nothing is asked.")
@async_option
@output_option
@pass_session
def delete(session: Session, names: tuple[str, ...], yes: bool, asynchronous: bool, output: str) -> None:
    """Delete templates. VMs that were made of them stay what they are.

    \b
    Examples:
      corral template delete base
    """
    del yes
    finish(
        session,
        names,
        lambda name: session.client().delete_template(name)["operation"],
        output=output,
        done="deleted",
        asynchronous=asynchronous,
    )
