"""`corral nic`: network cards of a VM that is there, also while it runs."""

from typing import TYPE_CHECKING, Any, Final, cast

import click

from corral.cli.bandwidth import HELP, parse_bandwidth, shown
from corral.cli.change import finish_change
from corral.cli.completion import complete_device, complete_vm
from corral.cli.options import async_option
from corral.cli.output import Column, output_option, show_list
from corral.cli.session import Session, pass_session

if TYPE_CHECKING:
    from corral.client_types import ChangeNicRequest, NicRequest

COLUMNS: Final = (
    Column("name", lambda nic: nic["name"]),
    Column("network", lambda nic: nic["network"]),
    Column("mac", lambda nic: nic["mac"]),
    Column("address", lambda nic: nic["address"]),
    Column("model", lambda nic: nic["model"]),
    Column("link", lambda nic: "up" if nic.get("link_up", True) else "down"),
    Column("in", lambda nic: shown(nic.get("bandwidth_in"))),
    Column("out", lambda nic: shown(nic.get("bandwidth_out"))),
    Column("groups", lambda nic: "+".join(nic.get("groups", ())) or "default"),
)

_NAME: Final = click.argument("name", metavar="VM", shell_complete=complete_vm)
_NIC: Final = click.argument("nic", metavar="CARD", shell_complete=complete_device("nics"))


@click.group()
def nic() -> None:
    """Network cards of a VM: add, remove, move to another network, pull the cable.

    \b
    Examples:
      corral nic add web network=default
      corral nic link web net0 down
      corral nic set web net1 --network lab
      corral nic remove web net1
    """


@nic.command("list")
@_NAME
@output_option
@pass_session
def list_(session: Session, name: str, output: str) -> None:
    """List a VM's cards (virsh: domiflist).

    \b
    Examples:
      corral nic list web
    """
    show_list(list(session.client().get_vm(name)["spec"]["nics"]), COLUMNS, output)


@nic.command()
@_NAME
@click.argument("spec", metavar="[SPEC]", default="default")
@async_option
@output_option
@pass_session
def add(session: Session, name: str, spec: str, asynchronous: bool, output: str) -> None:
    """Add a card. SPEC is that of `create --network` (virsh: attach-interface).

    \b
    Examples:
      corral nic add web
      corral nic add web network=default,address=192.168.144.50,model=e1000e
    """
    from corral.cli.storage_options import parse_networks

    body = cast("NicRequest", parse_networks([spec])[0])
    finish_change(
        session, (name,), lambda vm: session.client().attach_nic(vm, body), "card added", output, asynchronous
    )


@nic.command()
@_NAME
@_NIC
@async_option
@output_option
@pass_session
def remove(session: Session, name: str, nic: str, asynchronous: bool, output: str) -> None:
    """Take a card out; its address is free at once (virsh: detach-interface).

    \b
    Examples:
      corral nic remove web net1
    """
    finish_change(
        session, (name,), lambda vm: session.client().detach_nic(vm, nic), "card removed", output, asynchronous
    )


@nic.command()
@_NAME
@_NIC
@click.argument("state", type=click.Choice(["up", "down"]))
@async_option
@output_option
@pass_session
def link(session: Session, name: str, nic: str, state: str, asynchronous: bool, output: str) -> None:
    """Plug a card's cable in, or pull it (virsh: domif-setlink).

    \b
    Examples:
      corral nic link web net0 down
    """
    _change(session, name, nic, {"link_up": state == "up"}, f"{nic} is {state}", output, asynchronous)


@nic.command("set")
@_NAME
@_NIC
@click.option("--network", help="Move it to this network, where it gets another address.")
@click.option("--address", help="The address that it is to have.")
@click.option("--model", type=click.Choice(["virtio", "e1000e", "rtl8139"]), help="What card the guest sees.")
@click.option("--queues", type=int, help="How many queues it has; as many as vCPUs is the most that helps.")
@click.option("--pxe/--no-pxe", default=None, help="The firmware may boot from it, after disks and media.")
@click.option("--in", "bandwidth_in", metavar="LIMIT", help=f"How much goes to the guest: {HELP}.")
@click.option("--out", "bandwidth_out", metavar="LIMIT", help="How much comes from it, likewise.")
@click.option(
    "--groups", metavar="GROUP[+GROUP…]", help="Its security groups, all of them; at once, also while it runs."
)
@async_option
@output_option
@pass_session
def set_(session: Session, /, name: str, nic: str, asynchronous: bool, output: str, **knobs: Any) -> None:
    """Move a card to another network, give it another address, or change the card itself.

    \b
    Examples:
      corral nic set web net0 --address 192.168.144.50
      corral nic set web net1 --network lab
      corral nic set web net0 --groups web+ssh
      corral nic set web net0 --in 100mbit --out average=20mbit,peak=100mbit,burst=10M
    """
    from corral.cli.storage_options import parse_groups

    body = {key: value for key, value in knobs.items() if value is not None}
    for word in ("in", "out"):
        if (text := body.pop(f"bandwidth_{word}", None)) is not None:
            body[f"bandwidth_{word}"] = parse_bandwidth(text, f"--{word}")
    if "groups" in body:
        body["groups"] = parse_groups(body["groups"])
    if not body:
        raise click.UsageError("say what is to change: --network, --address, --model …")
    _change(session, name, nic, cast("ChangeNicRequest", body), "card changed", output, asynchronous)


def _change(
    session: Session, name: str, nic: str, body: "ChangeNicRequest", done: str, output: str, asynchronous: bool
) -> None:
    finish_change(session, (name,), lambda vm: session.client().change_nic(vm, nic, body), done, output, asynchronous)
