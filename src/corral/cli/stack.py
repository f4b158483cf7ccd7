"""`corral stack`: which stacks there are, what is in one, and the schema of their documents."""

from typing import Any, Final

import click

from corral.cli.completion import complete_stack
from corral.cli.output import Column, age, mebibytes, output_option, show_document, show_list
from corral.cli.session import Session, pass_session
from corral.cli.vm import COLUMNS
from corral.errors import CorralError

LABEL: Final = "corral/stack"

_COLUMNS: Final = (
    Column("name", lambda stack: stack["name"]),
    Column("vms", lambda stack: stack["vms"], right=True),
    Column("running", lambda stack: stack["running"], right=True),
    Column("vcpus", lambda stack: stack["vcpus"], right=True),
    Column("memory", lambda stack: mebibytes(stack["memory_mib"]), right=True),
    Column("age", lambda stack: age(stack["created_at"])),
)


@click.group()
def stack() -> None:
    """Stacks: many VMs that one document declares (`corral apply`).

    \b
    Examples:
      corral stack list
      corral stack show lab
      corral stack schema > ~/.config/corral-stack.schema.json
    """


@stack.command("list")
@output_option
@pass_session
def list_(session: Session, output: str) -> None:
    """List the stacks that have VMs.

    \b
    Examples:
      corral stack list
    """
    found: dict[str, list[Any]] = {}
    for vm in session.client().list_vms(selector=LABEL):
        found.setdefault(vm["labels"][LABEL], []).append(vm)
    show_list([_summary(name, found[name]) for name in sorted(found)], _COLUMNS, output)


@stack.command()
@click.argument("name", metavar="STACK", shell_complete=complete_stack)
@output_option
@pass_session
def show(session: Session, name: str, output: str) -> None:
    """Show the VMs of a stack.

    \b
    Examples:
      corral stack show lab
      corral stack show lab -o name | xargs corral shutdown
    """
    vms: list[Any] = list(session.client().list_vms(selector=f"{LABEL}={name}"))
    if not vms:
        raise CorralError("vm-not-found", f"stack {name!r}", "there is no VM in it", "corral stack list")
    show_list(sorted(vms, key=lambda vm: str(vm["name"])), COLUMNS, output)


@stack.command()
@pass_session
def schema(session: Session) -> None:
    """Print the JSON Schema of a stack's document, for editors that complete and check YAML.

    \b
    Examples:
      corral stack schema > stack.schema.json
    """
    show_document(session.client().stack_schema(), "json")


def _summary(name: str, vms: list[Any]) -> dict[str, Any]:
    return {
        "name": name,
        "vms": len(vms),
        "running": sum(vm["status"]["state"] == "running" for vm in vms),
        "vcpus": sum(vm["spec"]["vcpus"] for vm in vms),
        "memory_mib": sum(vm["spec"]["memory_mib"] for vm in vms),
        "created_at": min(vm["created_at"] for vm in vms),
    }
