"""Networks: list, show, create, delete."""

from typing import Final

import click

from corral.cli.completion import complete_network
from corral.cli.network_map import map_
from corral.cli.network_top import top
from corral.cli.output import Column, Document, age, output_option, show_document, show_list, show_one
from corral.cli.session import Failures, Session, pass_session
from corral.errors import CorralError

COLUMNS: Final = (
    Column("name", lambda network: network["name"]),
    Column("active", lambda network: network["status"]["active"]),
    Column("mode", lambda network: network["spec"]["mode"]),
    Column("subnet", lambda network: network["spec"]["subnet"] or "-"),
    Column("bridge", lambda network: network["spec"]["bridge"]),
    Column("domain", lambda network: network["spec"]["domain"] or "-"),
    Column("age", lambda network: age(network["created_at"])),
)


@click.group()
def network() -> None:
    """Networks that VMs are on.

    \b
    Examples:
      corral network list
      corral network create db --mode isolated
      corral create --name web --image debian-12 --network default --network db
    """


network.add_command(top)
network.add_command(map_)


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


@network.command()
@click.argument("name")
@click.option(
    "--mode",
    type=click.Choice(["nat", "isolated", "bridge"]),
    help="nat: guests reach out, nobody in. isolated: each other and this host alone. bridge: they are where a bridge of "
    "the host's is.  [default: nat, or bridge with --bridge]",
)
@click.option("--subnet", metavar="CIDR", help="IPv4, private, /16 to /29.  [default: a free one is found]")
@click.option("--domain", metavar="SUFFIX", help="Of the guests' names.  [default: NAME.internal]")
@click.option(
    "--bridge", metavar="INTERFACE", help="A bridge of the host's; addresses come from whoever serves them there."
)
@output_option
@pass_session
def create(session: Session, /, name: str, output: str, **options: str | None) -> None:
    """Make a network (virsh: net-define, net-start, net-autostart).

    \b
    Examples:
      corral network create lab
      corral network create db --mode isolated --subnet 10.20.0.0/24
      corral network create lan --bridge br0
    """
    given = {key: value for key, value in options.items() if value}
    made = session.client().create_network({"name": name, **given})  # type: ignore[typeddict-item]
    if output in ("json", "yaml"):
        show_document(made, output)
    elif output == "name":
        click.echo(name)
    else:
        spec = made["spec"]
        click.echo(f"{name}: {spec['mode']}, {spec['subnet'] or spec['bridge']}")
    if not made["status"]["active"]:
        why = next((one["reason"] for one in made["status"]["conditions"] if one["type"] == "Ready"), "not up yet")
        click.echo(f"warning: {name} is not up ({why}): corral network show {name}", err=True)


@network.command()
@click.argument("names", nargs=-1, required=True, metavar="NETWORK…", shell_complete=complete_network)
@pass_session
def delete(session: Session, names: tuple[str, ...]) -> None:
    """Delete networks that no VM is on (virsh: net-destroy, net-undefine). A bridge of the host's stays as it was.

    \b
    Examples:
      corral network delete db
    """
    failures = Failures()
    for name in names:
        try:
            session.client().delete_network(name)
            click.echo(f"{name}: deleted")
        except CorralError as error:
            failures.add(error)
    failures.leave()
