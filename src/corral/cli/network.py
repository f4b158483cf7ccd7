"""Networks: list, show."""

from typing import Final

import click

from corral.cli.completion import complete_network
from corral.cli.output import Column, Document, age, output_option, show_list, show_one
from corral.cli.session import Session, pass_session

COLUMNS: Final = (
    Column("name", lambda network: network["name"]),
    Column("active", lambda network: network["status"]["active"]),
    Column("mode", lambda network: network["spec"]["mode"]),
    Column("subnet", lambda network: network["spec"]["subnet"]),
    Column("bridge", lambda network: network["spec"]["bridge"]),
    Column("domain", lambda network: network["spec"]["domain"]),
    Column("age", lambda network: age(network["created_at"])),
)


@click.group()
def network() -> None:
    """Networks that VMs are on.

    \b
    Examples:
      corral network list
      corral network show default
    """


@network.command("list")
@output_option
@pass_session
def list_(session: Session, output: str) -> None:
    """List the networks (virsh: net-list).

    \b
    Examples:
      corral network list
    """
    show_list(session.client().list_networks(), COLUMNS, output)


@network.command()
@click.argument("name", metavar="NETWORK", shell_complete=complete_network)
@output_option
@pass_session
def show(session: Session, name: str, output: str) -> None:
    """Show a network (virsh: net-info).

    \b
    Examples:
      corral network show default -o yaml
    """
    found: Document = session.client().get_network(name)
    rows: list[tuple[str, object]] = [("name", found["name"]), ("uid", found["uid"])]
    rows += [(column.title, column.value(found)) for column in COLUMNS[1:-1]]
    conditions = [f"{item['type']}: {item['status']} ({item['reason']})" for item in found["status"]["conditions"]]
    show_one(found, [*rows, ("conditions", conditions), ("created", found["created_at"])], output)
