"""Port forwards: list, add, remove."""

from typing import Any, Final

import click

from corral.cli.completion import complete_forward, complete_vm
from corral.cli.output import Column, age, output_option, show_document, show_list
from corral.cli.session import Session, for_each, pass_session
from corral.errors import CorralError

COLUMNS: Final = (
    Column("name", lambda forward: forward["name"]),
    Column("host port", lambda forward: forward["spec"]["host_port"], right=True),
    Column("protocol", lambda forward: forward["spec"]["protocol"]),
    Column("to", lambda forward: forward["spec"]["vm"] or f"balancer {forward['spec']['balancer']}"),
    Column("port", lambda forward: forward["spec"]["port"], right=True),
    Column("age", lambda forward: age(forward["created_at"])),
)


@click.group()
def forward() -> None:
    """Ports of the host's that lead to VMs, through their routers where they are behind one.

    \b
    Examples:
      corral forward add web 8080:80
      corral forward list
      corral forward remove 8080
    """


@forward.command("list")
@output_option
@pass_session
def list_(session: Session, output: str) -> None:
    """List the port forwards.

    \b
    Examples:
      corral forward list
    """
    show_list(session.client().list_forwards(), COLUMNS, output)


def parse_ports(text: str) -> dict[str, Any]:
    """`8080:80`, `53:53/udp`; one number stands for both."""
    ports, _, protocol = text.partition("/")
    first, _, second = ports.partition(":")
    words = [first, second or first]
    if not all(word.isascii() and word.isdigit() and len(word) < 6 for word in words) or protocol not in (
        "",
        "tcp",
        "udp",
    ):
        hint = "corral forward add web 8080:80, or 5353:53/udp"
        raise CorralError("invalid-argument", f"ports {text[:64]!r}", "they are not HOST_PORT:PORT", hint)
    found: dict[str, Any] = {"host_port": int(first), "protocol": protocol or "tcp"}
    return {**found, "port": int(second)} if second else found


@forward.command()
@click.argument("target", metavar="VM", shell_complete=complete_vm)
@click.argument("ports", metavar="HOST_PORT:PORT[/udp]")
@click.option("--balancer", is_flag=True, help="What is named is a load balancer, not a VM.")
@output_option
@pass_session
def add(session: Session, target: str, ports: str, balancer: bool, output: str) -> None:
    """Forward a port of the host's. The VM's firewall lets in what comes this way.

    \b
    Examples:
      corral forward add web 8080:80
      corral forward add dns 5353:53/udp
      corral forward add --balancer shop 80
    """
    body: Any = {**parse_ports(ports), "balancer" if balancer else "vm": target}
    made = session.client().create_forward(body)
    if output in ("json", "yaml"):
        show_document(made, output)
    elif output == "name":
        click.echo(made["name"])
    else:
        spec = made["spec"]
        click.echo(f"{spec['host_port']}/{spec['protocol']} -> {spec['vm'] or spec['balancer']} {spec['port']}")


@forward.command()
@click.argument("names", nargs=-1, required=True, metavar="FORWARD…", shell_complete=complete_forward)
@pass_session
def remove(session: Session, names: tuple[str, ...]) -> None:
    """Take port forwards away, by name or by the host's port. Connections that pass them go on until they end.

    \b
    Examples:
      corral forward remove 8080
      corral forward remove udp-5353
    """

    def one(name: str) -> None:
        full = f"tcp-{name}" if name.isdigit() else name.replace("/", "-")
        session.client().delete_forward(full)
        click.echo(f"{full}: removed")

    for_each(names, one)
