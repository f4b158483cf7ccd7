"""`corral capture`: packets of one card of a running VM, as a capture file."""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, cast

import click

from corral.cli.completion import complete_device, complete_vm
from corral.cli.session import Session, pass_session
from corral.errors import CorralError
from corral.names import format_bytes, parse_duration_s, parse_size_bytes

if TYPE_CHECKING:
    from corral.client_types import CaptureRequest

STDOUT: Final = "-"
FILE_MODE: Final = 0o600


@click.command()
@click.argument("name", metavar="VM", shell_complete=complete_vm)
@click.option("--nic", default="net0", show_default=True, help="Which card.", shell_complete=complete_device("nics"))
@click.option("--filter", "filter_", metavar="EXPRESSION", default="", help="What to capture, as tcpdump takes it.")
@click.option(
    "-o", "--output", metavar="FILE", help="Where to write it; - is standard output.  [default: VM-CARD.pcap]"
)
@click.option("--packets", type=int, metavar="N", help="End after so many packets.")
@click.option("--size", metavar="SIZE", help="End before the file is longer.  [default: 64M]")
@click.option("--time", "time_", metavar="TIME", help="End after this time.  [default: 10m]")
@click.option("--snap", type=int, metavar="BYTES", help="Keep only so much of each packet.")
@pass_session
def capture(session: Session, /, name: str, nic: str, filter_: str, output: str | None, **bounds: Any) -> None:
    """Capture packets of a VM's card until a bound is met, or Ctrl-C. Needs the right vm.capture; it is audited.

    \b
    Examples:
      corral capture web -o web.pcap
      corral capture web --nic net1 --filter "tcp port 5432 and host 10.20.0.7" --packets 100
      corral capture web -o - | tcpdump -n -r -
    """
    body: dict[str, Any] = {"filter": filter_}
    if bounds["packets"] is not None:
        body["packets_max"] = bounds["packets"]
    if bounds["size"] is not None:
        body["bytes_max"] = parse_size_bytes(bounds["size"], "m", "--size")
    if bounds["time_"] is not None:
        body["duration_s"] = parse_duration_s(bounds["time_"], "--time")
    if bounds["snap"] is not None:
        body["snap_bytes"] = bounds["snap"]
    target = output or f"{name}-{nic}.pcap"
    if target == STDOUT and sys.stdout.isatty():
        raise click.UsageError("packets are nothing for a terminal: name a file, or send them into a pipe")
    with session.client().capture(name, nic, cast("CaptureRequest", body)) as pieces:
        if target == STDOUT:
            _write(pieces, sys.stdout.buffer)
            return
        with _opened(Path(target)) as file:
            written = _write(pieces, file)
    click.echo(f"{target}: {format_bytes(written)}")


def _opened(path: Path) -> IO[bytes]:
    from corral.files import storage_error

    if path.is_dir() or not path.parent.is_dir():
        raise CorralError("invalid-argument", f"write {path}", "it is no place for a file", "name a file")
    try:
        file = path.open("wb")
        if path.is_file():
            path.chmod(FILE_MODE)  # what others sent is not for everybody to read
    except OSError as error:
        raise storage_error(f"write {path}", error) from error
    return file


def _write(pieces: Iterable[bytes], file: IO[bytes]) -> int:
    """All of it, each piece at once: whoever reads the file meanwhile sees whole packets. Ctrl-C ends it well."""
    written = 0
    try:
        for piece in pieces:
            file.write(piece)
            file.flush()
            written += len(piece)
    except KeyboardInterrupt:
        click.echo(err=True)
    return written
