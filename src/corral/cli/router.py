"""Routers: list, show, create, set, delete."""

from typing import Any, Final

import click

from corral.cli.completion import complete_network, complete_router
from corral.cli.output import Column, Document, age, output_option, show_document, show_list, show_one
from corral.cli.session import Session, for_each, pass_session
from corral.errors import CorralError


def _uplink(router: Document) -> str:
    spec = router["spec"]
    port = spec["uplink_port"]
    return f"{spec['uplink']} ({port['network']} {port['address']})" if port else "none"


COLUMNS: Final = (
    Column("name", lambda router: router["name"]),
    Column("active", lambda router: router["status"]["active"]),
    Column("networks", lambda router: ",".join(port["network"] for port in router["spec"]["ports"]) or "-"),
    Column("uplink", _uplink),
    Column("age", lambda router: age(router["created_at"])),
)


def parse_routes(texts: tuple[str, ...]) -> list[dict[str, str]]:
    """`10.9.0.0/16=10.20.0.5`: what is for the first goes to the second."""
    found = []
    for text in texts:
        to, equals, via = text.partition("=")
        if not equals:
            hint = "--route 10.9.0.0/16=10.20.0.5"
            raise CorralError("invalid-argument", f"route {text[:64]!r}", "it is not CIDR=ADDRESS", hint)
        found.append({"to": to.strip(), "via": via.strip()})
    return found


def split(texts: tuple[str, ...]) -> list[str]:
    """Names with commas between them, or the option given several times."""
    return [word.strip() for text in texts for word in text.split(",") if word.strip()]


connect_option = click.option(
    "--connect", multiple=True, metavar="NETWORK,…", shell_complete=complete_network, help="Networks that it joins."
)
uplink_option = click.option(
    "--uplink",
    type=click.Choice(["nat", "routed", "none"]),
    help="nat: guests go out under its address; routed: under their own, and this host leads to them; none: there is no "
    "way out.",
)
uplink_network_option = click.option(
    "--uplink-network",
    metavar="NETWORK",
    shell_complete=complete_network,
    help="The network of mode nat or routed that leads out.  [default: default]",
)
route_option = click.option(
    "--route", multiple=True, metavar="CIDR=ADDRESS", help="Where else it sends what is for CIDR."
)


@click.group()
def router() -> None:
    """Routers between networks, and out.

    \b
    Examples:
      corral router create edge --connect web,app,db
      corral router create core --connect app,db --uplink none
      corral router set edge --connect cache --disconnect db
    """


@router.command("list")
@output_option
@pass_session
def list_(session: Session, output: str) -> None:
    """List the routers.

    \b
    Examples:
      corral router list
    """
    show_list(session.client().list_routers(), COLUMNS, output)


@router.command()
@click.argument("name", metavar="ROUTER", shell_complete=complete_router)
@output_option
@pass_session
def show(session: Session, name: str, output: str) -> None:
    """Show a router: its addresses, and the namespace it is.

    \b
    Examples:
      corral router show edge
      ip netns exec $(corral router show edge -o json | jq -r .status.namespace) ip route
    """
    found: Document = session.client().get_router(name)
    rows: list[tuple[str, object]] = [("name", found["name"]), ("uid", found["uid"])]
    rows += [("active", found["status"]["active"]), ("uplink", _uplink(found))]
    rows += [("networks", [f"{port['network']} {port['address']}" for port in found["spec"]["ports"]])]
    rows += [("routes", [f"{route['to']} via {route['via']}" for route in found["spec"]["routes"]])]
    rows += [("namespace", found["status"]["namespace"])]
    conditions = [f"{item['type']}: {item['status']} ({item['reason']})" for item in found["status"]["conditions"]]
    show_one(found, [*rows, ("conditions", conditions), ("created", found["created_at"])], output)


@router.command()
@click.argument("name")
@connect_option
@uplink_option
@uplink_network_option
@route_option
@output_option
@pass_session
def create(
    session: Session,
    name: str,
    connect: tuple[str, ...],
    uplink: str | None,
    uplink_network: str | None,
    route: tuple[str, ...],
    output: str,
) -> None:
    """Make a router. Guests of isolated networks are told by DHCP that it is their way out.

    \b
    Examples:
      corral router create edge --connect web,app --uplink nat
      corral router create core --connect app,db --uplink none
    """
    body: dict[str, Any] = {"name": name, "connect": split(connect), "routes": parse_routes(route)}
    body |= {"uplink": uplink} if uplink else {}
    body |= {"uplink_network": uplink_network} if uplink_network else {}
    made = session.client().create_router(body)  # type: ignore[arg-type]
    if output in ("json", "yaml"):
        show_document(made, output)
    elif output == "name":
        click.echo(name)
    else:
        click.echo(f"{name}: {', '.join(port['network'] for port in made['spec']['ports'])}; uplink {_uplink(made)}")
    _warn(made)


@router.command("set")
@click.argument("name", metavar="ROUTER", shell_complete=complete_router)
@connect_option
@click.option("--disconnect", multiple=True, metavar="NETWORK,…", help="Networks that it leaves.")
@uplink_option
@uplink_network_option
@route_option
@click.option("--no-routes", is_flag=True, help="Take all routes out.")
@pass_session
def set_(
    session: Session,
    name: str,
    connect: tuple[str, ...],
    disconnect: tuple[str, ...],
    uplink: str | None,
    uplink_network: str | None,
    route: tuple[str, ...],
    no_routes: bool,
) -> None:
    """Change a router while it runs. Connections go on, where both of their networks stay.

    \b
    Examples:
      corral router set edge --connect cache
      corral router set edge --route 10.9.0.0/16=10.20.0.5
    """
    body: dict[str, Any] = {"connect": split(connect), "disconnect": split(disconnect)}
    body |= {"uplink": uplink} if uplink else {}
    body |= {"uplink_network": uplink_network} if uplink_network else {}
    body |= {"routes": parse_routes(route)} if route or no_routes else {}
    made = session.client().update_router(name, body)  # type: ignore[arg-type]
    click.echo(f"{name}: {', '.join(port['network'] for port in made['spec']['ports'])}; uplink {_uplink(made)}")
    _warn(made)


def _warn(made: Document) -> None:
    if not made["status"]["active"]:
        why = next((one["message"] or one["reason"] for one in made["status"]["conditions"]), "not up yet")
        click.echo(f"warning: {made['name']} does not route ({why}): corral router show {made['name']}", err=True)


@router.command()
@click.argument("names", nargs=-1, required=True, metavar="ROUTER…", shell_complete=complete_router)
@pass_session
def delete(session: Session, names: tuple[str, ...]) -> None:
    """Delete routers. Their networks and VMs stay.

    \b
    Examples:
      corral router delete edge
    """

    def one(name: str) -> None:
        session.client().delete_router(name)
        click.echo(f"{name}: deleted")

    for_each(names, one)
