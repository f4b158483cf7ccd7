"""`corral volume move` and `flatten`: where a volume lies, and what it leans on."""

from typing import TYPE_CHECKING, Final

import click

from corral.cli.completion import complete_pool, complete_volume
from corral.cli.options import async_option
from corral.cli.output import output_option
from corral.cli.progress import finish
from corral.cli.session import Session, pass_session
from corral.errors import CorralError
from corral.names import parse_size_bytes

if TYPE_CHECKING:
    from corral.client_types import FlattenVolumeRequest, MoveVolumeRequest, Operation

_VOLUME: Final = click.argument("name", metavar="VOLUME", shell_complete=complete_volume)
_FORCE: Final = click.option("--force", is_flag=True, help="Allow more than the free space (thin provisioning).")
_BANDWIDTH: Final = click.option(
    "--bandwidth",
    default="",
    metavar="SIZE",
    help="At most so much a second; a bare number is MiB, 0 no limit.  [default: background_mib_per_s of the daemon]",
)


@click.command()
@_VOLUME
@click.argument("place", metavar="POOL", default="", shell_complete=complete_pool)
@click.option("--pool", default="", shell_complete=complete_pool, help="The same, said by name.")
@_BANDWIDTH
@_FORCE
@async_option
@output_option
@pass_session
def move(
    session: Session,
    name: str,
    place: str,
    pool: str,
    bandwidth: str,
    force: bool,
    asynchronous: bool,
    output: str,
) -> None:
    """Move a volume to another pool, also while its VM runs (virsh: blockcopy --pivot). It leans on nothing afterwards.

    Its guest goes on, and stands still for an instant at the end. Until then ^C and `corral operation cancel` leave
    everything as it was.

    \b
    Examples:
      corral volume move data fast
      corral volume move web-root --pool fast --bandwidth 50M
    """
    if place and pool and place != pool:
        raise CorralError("invalid-argument", f"move volume {name!r}", "two pools are given", "give one")
    if not (place or pool):
        raise CorralError("invalid-argument", f"move volume {name!r}", "it goes where?", "corral pool list")
    body: MoveVolumeRequest = {"pool": place or pool, "force": force}
    if bandwidth:
        body["bytes_per_s"] = _bytes_per_s(bandwidth)

    def request(_name: str) -> "Operation":
        return session.client().move_volume(name, body)["operation"]

    finish(session, (name,), request, output=output, done=f"is in {place or pool}", asynchronous=asynchronous)


@click.command()
@_VOLUME
@_BANDWIDTH
@_FORCE
@async_option
@output_option
@pass_session
def flatten(session: Session, name: str, bandwidth: str, force: bool, asynchronous: bool, output: str) -> None:
    """Take all that a volume leans on into it: its image, or the disk that it was cloned from (virsh: blockpull).

    Its guest goes on meanwhile. What was taken in stays also when this is cut.

    \b
    Examples:
      corral volume flatten web-root
      corral volume flatten web-root --bandwidth 20M
    """
    body: FlattenVolumeRequest = {"force": force}
    if bandwidth:
        body["bytes_per_s"] = _bytes_per_s(bandwidth)

    def request(_name: str) -> "Operation":
        return session.client().flatten_volume(name, body)["operation"]

    finish(session, (name,), request, output=output, done="leans on nothing", asynchronous=asynchronous)


def _bytes_per_s(text: str) -> int:
    return parse_size_bytes(text.removesuffix("/s"), "m", "bandwidth")
