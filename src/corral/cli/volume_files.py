"""Disk files that are sent for a volume, and saved from one."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

import click

from corral.cli.cp import PIECE_BYTES, STREAM, Meter
from corral.cli.session import Session
from corral.errors import CorralError

if TYPE_CHECKING:
    from typing import Literal

MODE: Final = 0o600


def told_format(file: str, given: "Literal['qcow2', 'raw'] | None") -> "Literal['qcow2', 'raw']":
    """Said, or by the file's ending; never by what it holds, which a guest may have written."""
    if given:
        return given
    if file.endswith(".qcow2"):
        return "qcow2"
    if file.endswith(".raw"):
        return "raw"
    raise click.UsageError("say what the file is: --format qcow2 or --format raw")


def send_file(session: Session, file: str) -> str:
    """The token of a file that was sent whole."""
    path = Path(file).expanduser()
    try:
        size_bytes = path.stat().st_size
        stream = path.open("rb")
    except OSError as error:
        raise CorralError("invalid-argument", f"read {path}", error.strerror or str(error), "name a file") from error
    meter = Meter(str(path), size_bytes)
    try:
        with stream:
            return session.client().upload_disk(_pieces(stream), meter)
    finally:
        meter.end()


def _pieces(stream: IO[bytes]) -> Iterator[bytes]:
    while piece := stream.read(PIECE_BYTES):
        yield piece


def save_file(session: Session, name: str, file: str, disk_format: "Literal['qcow2', 'raw']") -> None:
    """There whole, or not at all."""
    from corral.files import create_private, replacing, storage_error

    place = Path(file).expanduser()
    if file != STREAM and not place.parent.is_dir():
        raise CorralError("invalid-argument", f"write {place}", f"there is no directory {place.parent}", "make it")
    prepared = _Prepared(name)
    with session.client().download_volume(name, disk_format, prepared) as (found, pieces):
        prepared.end()
        meter = Meter(name, found.size_bytes)
        try:
            metered = _metered(pieces, meter)
            if file == STREAM:
                for piece in metered:
                    sys.stdout.buffer.write(piece)
                sys.stdout.buffer.flush()
                return
            with replacing(place, MODE) as temporary, create_private(temporary) as stream:
                for piece in metered:
                    _write_sparse(stream, piece)
                stream.truncate()
        except OSError as error:
            raise storage_error(f"write {place}", error) from error
        finally:
            meter.end()
    click.echo(str(place))


def _write_sparse(stream: IO[bytes], piece: bytes) -> None:
    """Zeros become a hole."""
    if piece.count(0) == len(piece):
        stream.seek(len(piece), 1)
    else:
        stream.write(piece)


def _metered(pieces: Iterator[bytes], meter: Meter) -> Iterator[bytes]:
    total = 0
    for piece in pieces:
        total += len(piece)
        meter(total)
        yield piece


class _Prepared:
    """How much of the disk was flattened, on a person's terminal."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._shown = False

    def __call__(self, share: float) -> None:
        if sys.stderr.isatty():
            self._shown = True
            click.echo(f"\r{self._what}: made to stand alone, {share:.0%}\x1b[K", err=True, nl=False)

    def end(self) -> None:
        if self._shown:
            click.echo("\r\x1b[K", err=True, nl=False)
