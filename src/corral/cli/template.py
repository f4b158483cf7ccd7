"""Templates: VMs as they were at one instant, memory included if wished; made, shown, refreshed, published, deleted."""

from typing import TYPE_CHECKING, Final

import click

from corral.cli.completion import complete_vm
from corral.cli.options import async_option
from corral.cli.output import Column, Document, age, output_option, show_list, show_one
from corral.cli.progress import finish
from corral.cli.session import Session, pass_session
from corral.names import format_bytes, parse_duration_s

if TYPE_CHECKING:
    from corral.client_types import CreateTemplateRequest


def state(template: Document) -> str:
    """`ready`, or what it is instead."""
    if template.get("deletion_requested_at"):
        return "being deleted"
    if not template["status"]["ready"]:
        return "being made"
    return "stale" if template["status"].get("stale") else "ready"


def waiting(template: Document) -> str:
    """Domains that wait for its state, of those that are to."""
    wished = template["spec"].get("warm", 0)
    return f"{template['status'].get('waiting', 0)}/{wished}" if wished else "-"


COLUMNS: Final = (
    Column("name", lambda template: template["name"]),
    Column("kind", lambda template: "hot" if template["spec"]["hot"] else "disk"),
    Column("state", state),
    Column("from", lambda template: template["spec"]["source"]),
    Column("waiting", waiting, right=True),
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
      corral template refresh base
    """


PUBLISHED: Final = (
    Column("name", lambda found: f"{found['project']}/{found['name']}"),
    Column("kind", lambda found: "hot" if found["hot"] else "disk"),
    Column("state", lambda found: "stale" if found["stale"] else "ready"),
    Column("memory", lambda found: format_bytes(found["memory_bytes"]), right=True),
    Column("description", lambda found: found["description"]),
)


@template.command("list")
@click.option("--published", is_flag=True, help="Those of other projects that were published to this one.")
@output_option
@pass_session
def list_(session: Session, published: bool, output: str) -> None:
    """List the templates.

    \b
    Examples:
      corral template list
      corral --project lab template list --published
    """
    if published:
        show_list(list(session.client().published_templates()), PUBLISHED, output)
    else:
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
        ("stale", _stale(found)),
        ("published to", ", ".join(spec.get("published_to", ()))),
        ("created", found["created_at"]),
    ]
    show_one(found, rows, output)


@template.command()
@click.argument("name", metavar="NAME")
@click.option("--from", "source", metavar="VM", required=True, shell_complete=complete_vm, help="The VM; it goes on.")
@click.option("--hot", is_flag=True, help="With its memory: VMs of it go on from a running guest instead of booting.")
@click.option("--warm", type=click.IntRange(0, 50), default=0, help="Keep so many domains waiting for its memory.")
@click.option("--description", default="", help="What it is, for people.")
@async_option
@output_option
@pass_session
def create(
    session: Session, name: str, source: str, hot: bool, warm: int, description: str, asynchronous: bool, output: str
) -> None:
    """Make a template of a VM as it is at this instant.

    \b
    A hot one keeps what stands in the guest's memory, secrets too, in a file that only root may read.
    Examples:
      corral template create base --from web
      corral template create base --from web --hot
      corral template create base --from web --hot --warm 5
    """
    body: CreateTemplateRequest = {
        "name": name,
        "source": source,
        "hot": hot,
        "warm": warm,
        "description": description,
    }
    operation = session.client().create_template(body)["operation"]
    finish(session, [name], lambda _: operation, output=output, done="frozen", asynchronous=asynchronous)


def _stale(template: Document) -> str:
    why = template["status"].get("stale")
    return f"{why}; corral template refresh {template['name']}" if why else ""


@template.command()
@click.argument("names", nargs=-1, required=True, metavar="TEMPLATE…")
@click.option(
    "--timeout",
    metavar="TIME",
    default="10m",
    show_default=True,
    help="How long the template's guest may take to boot.",
)
@async_option
@output_option
@pass_session
def refresh(session: Session, names: tuple[str, ...], timeout: str, asynchronous: bool, output: str) -> None:
    """Take the memory of hot templates anew: after an upgrade of QEMU or libvirt, or on another processor.

    \b
    Its guest boots from its disks, in a VM called refresh-…, and is frozen when it has. Until then the template is what it
    was; VMs that were made of it stay what they are.
    Examples:
      corral template refresh base
    """
    deadline_s = parse_duration_s(timeout, "--timeout")
    finish(
        session,
        names,
        lambda name: session.client().refresh_template(name, {"deadline_s": deadline_s})["operation"],
        output=output,
        done="refreshed",
        asynchronous=asynchronous,
    )


@template.command()
@click.argument("name", metavar="TEMPLATE")
@click.option("--to", "project", metavar="PROJECT", required=True, help="The project that may make VMs of it.")
@pass_session
def publish(session: Session, name: str, project: str) -> None:
    """Let another project make VMs of a template: it gets all that its memory and its disks hold.

    \b
    There it is called by its own project's name too: corral --project lab fork default/base web-1
    Examples:
      corral template publish base --to lab
    """
    session.client().publish_template(name, project)
    click.echo(f"{name}: published to {project}")


@template.command()
@click.argument("name", metavar="TEMPLATE")
@click.option("--from", "project", metavar="PROJECT", required=True, help="The project that may no longer.")
@pass_session
def unpublish(session: Session, name: str, project: str) -> None:
    """Take a publication back. VMs that were made of the template stay what they are.

    \b
    Examples:
      corral template unpublish base --from lab
    """
    session.client().unpublish_template(name, project)
    click.echo(f"{name}: no longer published to {project}")


@template.command("warm")
@click.argument("name", metavar="TEMPLATE")
@click.argument("count", metavar="COUNT", type=click.IntRange(0, 50))
@output_option
@pass_session
def warm_(session: Session, name: str, count: int, output: str) -> None:
    """Keep COUNT domains of a hot template waiting for its memory: a VM that takes one runs at once.

    \b
    Each takes some 40 MiB. They are made in the background, and go first where memory is short.
    Examples:
      corral template warm base 5
      corral template warm base 0
    """
    changed: Document = session.client().set_warm(name, count)
    show_one(changed, [("name", changed["name"]), ("waiting", waiting(changed))], output)


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
