"""Networks: list, show, create, set, reserve, delete."""

from typing import TYPE_CHECKING, Any, Final, cast

import click

from corral.cli.completion import complete_network
from corral.cli.network_map import map_
from corral.cli.network_options import parse_reservations, parse_serving, serving_options
from corral.cli.network_top import top
from corral.cli.output import Column, Document, age, output_option, show_document, show_list, show_one
from corral.cli.session import Session, for_each, pass_session
from corral.errors import CorralError

if TYPE_CHECKING:
    from corral.client_types import ChangeNetworkRequest, CreateNetworkRequest

COLUMNS: Final = (
    Column("name", lambda network: network["name"]),
    Column("active", lambda network: network["status"]["active"]),
    Column("mode", lambda network: network["spec"]["mode"]),
    Column("subnet", lambda network: network["spec"]["subnet"] or "-"),
    Column("ipv6", lambda network: network["spec"].get("subnet6") or "-"),
    Column("bridge", lambda network: network["spec"]["bridge"] or network["spec"].get("nic") or "-"),
    Column("domain", lambda network: network["spec"]["domain"] or "-"),
    Column("age", lambda network: age(network["created_at"])),
)


SERVED: Final = (
    *(
        "mtu",
        "dns",
        "dhcp_first",
        "dhcp_last",
        "dhcp_options",
        "boot",
        "dhcp_relay",
        "reservations",
        "nic",
        "vlan",
        "host_names",
    ),
    *("gateway_at", "bandwidth_in", "bandwidth_out"),
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
    rows += [(word.replace("_", " "), found["spec"][word]) for word in SERVED if found["spec"].get(word)]
    show_one(found, [*rows, ("conditions", conditions), ("created", found["created_at"])], output)


@network.command()
@click.argument("name")
@click.option(
    "--mode",
    type=click.Choice(["nat", "routed", "isolated", "bridge", "macvtap"]),
    help="nat: guests reach out, nobody in. routed: both ways, by their own addresses. isolated: each other and this host "
    "alone. bridge: they are where a bridge of the host's is. macvtap: on its card, past all filters.  [default: nat, or "
    "bridge with --bridge or --nic]",
)
@click.option("--subnet", metavar="CIDR", help="IPv4, private, /16 to /29.  [default: a free one is found]")
@click.option(
    "--gateway",
    type=click.Choice(["host", "router"]),
    help="Who is its gateway, and serves addresses and names. router: the first that joins it; any subnet will do, whoever "
    "else has it.  [default: host]",
)
@click.option(
    "--bridge", metavar="INTERFACE", help="A bridge of the host's; addresses come from whoever serves them there."
)
@click.option("--nic", metavar="INTERFACE", help="A card of the host's that a bridge is made over, or for macvtap.")
@click.option("--vlan", type=int, metavar="TAG", help="The tag of its frames on --nic.")
@click.option(
    "--reserve", multiple=True, metavar="name=…,mac=…,address=…", help="For a machine that is no VM; again: more."
)
@serving_options
@output_option
@pass_session
def create(session: Session, /, name: str, output: str, **options: Any) -> None:
    """Make a network (virsh: net-define, net-start, net-autostart).

    \b
    Examples:
      corral network create lab
      corral network create db --mode isolated --subnet 10.20.0.0/24
      corral network create web --mode routed --ipv6 dhcp --dhcp-range 10.30.0.100-10.30.0.199 --subnet 10.30.0.0/24
      corral network create app --gateway router --subnet 10.0.0.0/24
      corral network create lan --bridge br0
    """
    given = {key: value for key in ("mode", "subnet", "bridge", "nic", "vlan") if (value := options[key])}
    given |= {"gateway_at": options["gateway"]} if options["gateway"] else {}
    given |= parse_serving(options)
    if options["reserve"]:
        given["reservations"] = parse_reservations(options["reserve"])
    made = session.client().create_network(cast("CreateNetworkRequest", {"name": name, **given}))
    if output in ("json", "yaml"):
        show_document(made, output)
    elif output == "name":
        click.echo(name)
    else:
        spec = made["spec"]
        click.echo(f"{name}: {spec['mode']}, {spec['subnet'] or spec['bridge']}")
    _warn(name, made)


def _warn(name: str, made: Document) -> None:
    if not made["status"]["active"]:
        why = next((one["reason"] for one in made["status"]["conditions"] if one["type"] == "Ready"), "not up yet")
        click.echo(f"warning: {name} is not up ({why}): corral network show {name}", err=True)


@network.command("set")
@click.argument("name", metavar="NETWORK", shell_complete=complete_network)
@click.option(
    "--mode", type=click.Choice(["nat", "routed", "isolated"]), help="Who reaches whom, once no guest is plugged in."
)
@serving_options
@output_option
@pass_session
def set_(session: Session, /, name: str, output: str, **options: Any) -> None:
    """Change a network; lists are given whole, `none` takes something away (virsh: net-update, net-edit).

    DNS servers, DHCP range and options, PXE and reservations change at once. Mode, domain and MTU wait until no guest is
    plugged in: condition Outdated.

    \b
    Examples:
      corral network set lab --dns 9.9.9.9 --dns 149.112.112.112
      corral network set lab --dhcp-range 10.20.0.100-10.20.0.199 --dhcp-option 42=10.20.0.5
      corral network set lab --boot pxelinux.0@10.20.0.5
    """
    body = parse_serving(options)
    if options["mode"]:
        body["mode"] = options["mode"]
    if not body:
        raise click.UsageError("say what is to change: --dns, --dhcp-range, --mode …")
    changed = session.client().change_network(name, cast("ChangeNetworkRequest", body))
    _show_changed(name, changed, output)


def _show_changed(name: str, changed: Document, output: str) -> None:
    if output in ("json", "yaml"):
        show_document(changed, output)
    else:
        click.echo(name if output == "name" else f"{name}: changed")
    if any(one["type"] == "Outdated" and one["status"] == "true" for one in changed["status"]["conditions"]):
        click.echo(f"warning: guests are plugged into {name}: a part of it waits until none is (Outdated)", err=True)
    _warn(name, changed)


@network.command()
@click.argument("name", metavar="NETWORK", shell_complete=complete_network)
@click.argument("machine")
@click.argument("mac")
@click.argument("address")
@output_option
@pass_session
def reserve(session: Session, name: str, machine: str, mac: str, address: str, output: str) -> None:
    """Keep an address for a machine that is no VM (virsh: net-update … ip-dhcp-host).

    \b
    Examples:
      corral network reserve lab printer 00:11:22:33:44:55 10.20.0.9
    """
    client = session.client()
    found: Document = client.get_network(name)
    kept = [one for one in found["spec"].get("reservations", ()) if one["name"] != machine]
    body = {"reservations": [*kept, {"name": machine, "mac": mac.lower(), "address": address}]}
    changed = client.change_network(name, cast("ChangeNetworkRequest", body), if_revision=found["revision"])
    _show_changed(name, changed, output)


@network.command()
@click.argument("name", metavar="NETWORK", shell_complete=complete_network)
@click.argument("machine")
@output_option
@pass_session
def unreserve(session: Session, name: str, machine: str, output: str) -> None:
    """Give the address of such a machine back.

    \b
    Examples:
      corral network unreserve lab printer
    """
    client = session.client()
    found: Document = client.get_network(name)
    there = found["spec"].get("reservations", ())
    kept = [one for one in there if one["name"] != machine]
    if len(kept) == len(there):
        hint = f"corral network show {name}"
        raise CorralError("invalid-argument", f"reservation {machine!r}", f"network {name} has none of that name", hint)
    body = {"reservations": kept}
    changed = client.change_network(name, cast("ChangeNetworkRequest", body), if_revision=found["revision"])
    _show_changed(name, changed, output)


@network.command()
@click.argument("names", nargs=-1, required=True, metavar="NETWORK…", shell_complete=complete_network)
@pass_session
def delete(session: Session, names: tuple[str, ...]) -> None:
    """Delete networks that no VM is on (virsh: net-destroy, net-undefine). A bridge of the host's stays as it was.

    \b
    Examples:
      corral network delete db
    """

    def one(name: str) -> None:
        session.client().delete_network(name)
        click.echo(f"{name}: deleted")

    for_each(names, one)
