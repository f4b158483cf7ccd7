"""`corral network map`: the topology, as a text or as a picture."""

import sys
from pathlib import Path
from typing import Final

import click

from corral.cli.completion import complete_network
from corral.cli.session import Session, pass_session
from corral.cli.topology import Documents, draw_text, read_topology

FILE_MODE: Final = 0o644


@click.command("map")
@click.argument("names", nargs=-1, metavar="[NETWORK]…", shell_complete=complete_network)
@click.option("--svg", metavar="FILE", help="Draw it into this file; - is standard output.")
@pass_session
def map_(session: Session, names: tuple[str, ...], svg: str | None) -> None:
    """Show which VMs and routers are on which network, all of them or those named.

    \b
    Examples:
      corral network map
      corral network map shop --svg shop.svg
    """
    client = session.client()
    for name in names:
        client.get_network(name)
    topology = read_topology(
        Documents(
            client.list_networks(),
            client.list_vms(),
            client.list_routers(),
            client.list_forwards(),
            client.list_addresses(),
            client.list_balancers(),
        ),
        names,
    )
    if svg is None:
        click.echo("\n".join(draw_text(topology)).rstrip())
        return
    from corral.cli.network_svg import draw_svg

    picture = draw_svg(topology, f"Networks of project {client.project}")
    if svg == "-":
        sys.stdout.buffer.write(picture)
        return
    from corral.files import write_atomic

    write_atomic(Path(svg).absolute(), picture, FILE_MODE)
    click.echo(svg)
