"""`corral drift`: what other tools changed of a VM's definition, and the two ways out of it."""

from typing import Any, Final
from urllib.parse import quote

import click

from corral.cli.completion import complete_vm
from corral.cli.options import async_option, vm_names
from corral.cli.output import Column, output_option, show_document, show_list
from corral.cli.progress import finish
from corral.cli.session import Session, pass_session

COLUMNS: Final = (
    Column("what", lambda item: item["field"]),
    Column("wished", lambda item: item["wished"] or "-"),
    Column("found", lambda item: item["found"] or "-"),
    Column("accept", lambda item: f"no: {item['refusal']}" if item["refusal"] else "yes"),
)


@click.group()
def drift() -> None:
    """Changes that virsh, virt-manager or others made to a VM's definition: Corral sees them and leaves them alone.

    \b
    Examples:
      corral drift show web
      corral drift accept web
      corral drift reset web
    """


@drift.command()
@click.argument("name", metavar="VM", shell_complete=complete_vm)
@output_option
@pass_session
def show(session: Session, name: str, output: str) -> None:
    """Show what is not as Corral wants it.

    \b
    Examples:
      corral drift show web
    """
    found: Any = session.client().request("GET", f"/v1/vms/{quote(name, safe='')}/drift")
    if output != "table":
        show_document(found, output)
    elif found["items"]:
        show_list(found["items"], COLUMNS, output, name=lambda item: str(item["field"]))
    else:
        what = (
            "has a knob of its hardware changed, which Corral does not compare one by one"
            if found["drifted"]
            else "is as defined"
        )
        click.echo(f"{name} {what}")


@drift.command()
@vm_names
@async_option
@output_option
@pass_session
def accept(session: Session, names: tuple[str, ...], asynchronous: bool, output: str) -> None:
    """Make what others changed what Corral wants, too: everything that `drift show` lists, or nothing.

    \b
    Examples:
      corral drift accept web
    """
    finish(
        session,
        names,
        lambda name: session.client().update_vm(name, {"accept_drift": True})["operation"],
        output=output,
        done="accepted",
        asynchronous=asynchronous,
    )


@drift.command()
@vm_names
@async_option
@output_option
@pass_session
def reset(session: Session, names: tuple[str, ...], asynchronous: bool, output: str) -> None:
    """Undo what others changed; a running guest sees it at its next start.

    \b
    Examples:
      corral drift reset web
    """
    finish(
        session,
        names,
        lambda name: session.client().update_vm(name, {"reset_drift": True})["operation"],
        output=output,
        done="as defined",
        asynchronous=asynchronous,
    )
