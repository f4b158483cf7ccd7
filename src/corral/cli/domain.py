"""`corral adopt`: take over a libvirt domain that Corral did not make."""

import click

from corral.cli.completion import complete_domain
from corral.cli.options import async_option
from corral.cli.output import output_option
from corral.cli.progress import finish
from corral.cli.session import Session, pass_session


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="DOMAIN…", shell_complete=complete_domain)
@async_option
@output_option
@pass_session
def adopt(session: Session, names: tuple[str, ...], asynchronous: bool, output: str) -> None:
    """Take over domains that Corral did not make, without restarting them.

    Their definition stays as it is: Corral starts, stops and watches them, and never deletes their disks.

    \b
    Examples:
      corral list --all
      corral adopt old-server
    """
    finish(
        session,
        names,
        lambda name: session.client().adopt(name)["operation"],
        output=output,
        done="adopted",
        asynchronous=asynchronous,
    )
