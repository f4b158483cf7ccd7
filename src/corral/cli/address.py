"""Floating addresses: list, create, assign, unassign, delete."""

from typing import Any, Final

import click

from corral.cli.completion import complete_address, complete_router, complete_vm
from corral.cli.output import Column, age, output_option, show_document, show_list
from corral.cli.session import Session, for_each, pass_session

COLUMNS: Final = (
    Column("name", lambda address: address["name"]),
    Column("address", lambda address: address["spec"]["address"]),
    Column("router", lambda address: address["spec"].get("router") or "(the host)"),
    Column("vm", lambda address: address["spec"]["vm"]),
    Column("age", lambda address: age(address["created_at"])),
)


@click.group()
def address() -> None:
    """Floating addresses: of a router's uplink, led to one VM after the other.

    \b
    Examples:
      corral address create shop --router edge --to web-1
      corral address assign shop web-2
      corral address list
    """


@address.command("list")
@output_option
@pass_session
def list_(session: Session, output: str) -> None:
    """List the floating addresses.

    \b
    Examples:
      corral address list
    """
    show_list(session.client().list_addresses(), COLUMNS, output)


@address.command()
@click.argument("name")
@click.option(
    "--router", shell_complete=complete_router, help="The one whose uplink it is on.  [default: none, the host]"
)
@click.option("--to", "vm", metavar="VM", shell_complete=complete_vm, help="The VM that it leads to.")
@click.option(
    "--address", metavar="IP", help="Of the uplink's network [default: the next free one]; or one of the host's."
)
@output_option
@pass_session
def create(session: Session, /, name: str, output: str, **options: str | None) -> None:
    """Make a floating address. It opens nothing: the VM's security groups decide what comes in.

    \b
    Examples:
      corral address create shop --router edge --to web-1
      corral address create face --address 203.0.113.7 --to web-1
    """
    body: Any = {"name": name, **{key: value for key, value in options.items() if value}}
    made = session.client().create_address(body)
    if output in ("json", "yaml"):
        show_document(made, output)
    elif output == "name":
        click.echo(name)
    else:
        click.echo(f"{name}: {made['spec']['address']} -> {made['spec']['vm'] or 'nobody'}")


@address.command()
@click.argument("name", metavar="ADDRESS", shell_complete=complete_address)
@click.argument("vm", shell_complete=complete_vm)
@pass_session
def assign(session: Session, name: str, vm: str) -> None:
    """Lead it to a VM, at once. Connections to the one before end.

    \b
    Examples:
      corral address assign shop web-2
    """
    made = session.client().assign_address(name, vm)
    click.echo(f"{name}: {made['spec']['address']} -> {vm}")


@address.command()
@click.argument("name", metavar="ADDRESS", shell_complete=complete_address)
@pass_session
def unassign(session: Session, name: str) -> None:
    """Lead it nowhere; it stays yours.

    \b
    Examples:
      corral address unassign shop
    """
    made = session.client().assign_address(name, None)
    click.echo(f"{name}: {made['spec']['address']} -> nobody")


@address.command()
@click.argument("names", nargs=-1, required=True, metavar="ADDRESS…", shell_complete=complete_address)
@pass_session
def delete(session: Session, names: tuple[str, ...]) -> None:
    """Give floating addresses back.

    \b
    Examples:
      corral address delete shop
    """

    def one(name: str) -> None:
        session.client().delete_address(name)
        click.echo(f"{name}: deleted")

    for_each(names, one)
