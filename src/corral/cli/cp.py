"""`corral cp`: files and directories into and out of a guest, through its agent: no network, no key, no SSH."""

import contextlib
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

import click

from corral.cli.completion import complete_vm
from corral.cli.session import Session, pass_session
from corral.errors import CorralError
from corral.names import format_bytes

PIECE_BYTES: Final = 256 * 1024
STREAM: Final = "-"
STREAM_NAME: Final = "stdin"
STREAM_MODE: Final = 0o644
MODE_MAX: Final = 0o777
SHOW_EVERY_S: Final = 0.2
_REMOTE: Final = re.compile(r"^([A-Za-z0-9][A-Za-z0-9.-]*):(.*)$", re.DOTALL)


@dataclass(frozen=True)
class Remote:
    """A path in a guest."""

    vm: str
    path: str

    def __str__(self) -> str:
        return f"{self.vm}:{self.path}"


class Meter:
    """How far a copy is, on a person's terminal."""

    def __init__(self, what: str, total_bytes: int | None) -> None:
        self._what = what
        self._total = total_bytes
        self._shown_at = 0.0
        self._on_terminal = sys.stderr.isatty()

    def __call__(self, done_bytes: int) -> None:
        now = time.monotonic()
        if self._on_terminal and now - self._shown_at >= SHOW_EVERY_S:
            self._shown_at = now
            part = f" of {format_bytes(self._total)}, {100 * done_bytes // self._total}%" if self._total else ""
            click.echo(f"\r{self._what}: {format_bytes(done_bytes)}{part}\x1b[K", err=True, nl=False)

    def end(self) -> None:
        if self._on_terminal and self._shown_at:
            click.echo("\r\x1b[K", err=True, nl=False)


@click.command()
@click.argument("source", shell_complete=complete_vm)
@click.argument("target", shell_complete=complete_vm)
@click.option("-r", "--recursive", is_flag=True, help="Copy a directory; the new one must not be there yet.")
@pass_session
def cp(session: Session, source: str, target: str, recursive: bool) -> None:
    """Copy a file, or with -r a directory, into a guest (VM:/PATH) or out of it. - is standard input or output.

    It goes through the guest agent and needs no network. What is copied is there whole or not at all; its permission
    bits are kept; in the guest it belongs to root, or to whom the file that it replaces belongs.

    \b
    Examples:
      corral cp motd web:/etc/motd
      corral cp web:/var/log/syslog .
      corral cp -r site web:/srv/www
      corral cp web:/etc/hosts -
    """
    sent, received = parse_remote(target), parse_remote(source)
    if (sent is None) == (received is None):
        raise click.UsageError("one of the two is in a guest, as VM:/PATH; a local name with a colon is ./NAME")
    if recursive and STREAM in (source, target):
        raise click.UsageError("a directory has a name")
    if sent is not None:
        copied = _send(session, source, sent, recursive=recursive)
    else:
        assert received is not None
        copied = _receive(session, received, target, recursive=recursive)
    if target != STREAM:
        click.echo(copied)


def parse_remote(text: str) -> Remote | None:
    """`web:/etc/hosts`, as scp reads it: None where no colon comes before the first slash."""
    match = _REMOTE.fullmatch(text)
    if match is None:
        return None
    if not match[2].startswith("/"):
        raise click.UsageError(f"{text}: a path in a guest begins with /, as {match[1]}:/root/{match[2]}")
    return Remote(match[1], match[2])


# ---- into the guest ------------------------------------------------------------------------------------------------


def _send(session: Session, source: str, target: Remote, *, recursive: bool) -> str:
    with contextlib.ExitStack() as opened:
        stream, name, mode, size = _opened(source, recursive=recursive, opened=opened)
        meter = Meter(source, size)
        opened.callback(meter.end)
        file = session.client().write_file(
            target.vm,
            target.path,
            _pieces(stream),
            file_name=name,
            mode=mode,
            tree=recursive,
            on_written=meter,
        )
    return str(Remote(target.vm, file.path))


def _opened(source: str, *, recursive: bool, opened: contextlib.ExitStack) -> tuple[IO[bytes], str, int, int | None]:
    """What is to be sent, its name, permission bits and size."""
    if source == STREAM:
        return sys.stdin.buffer, STREAM_NAME, STREAM_MODE, None
    path = Path(source)
    try:
        found = path.stat()
        if path.is_dir():
            if not recursive:
                raise CorralError("invalid-argument", f"copy {source}", "it is a directory", "corral cp -r copies it")
            return _packed(path, opened), path.resolve().name or "root", found.st_mode & MODE_MAX, None
        if recursive:
            raise CorralError("invalid-argument", f"copy {source}", "it is not a directory", "leave -r out")
        stream = opened.enter_context(path.open("rb"))
    except OSError as error:
        raise CorralError("invalid-argument", f"read {source}", error.strerror or str(error)) from error
    return stream, path.name, found.st_mode & MODE_MAX, found.st_size if path.is_file() else None


def _packed(path: Path, opened: contextlib.ExitStack) -> IO[bytes]:
    from corral.cli.archive import packed

    stream, left_out = opened.enter_context(packed(path))
    _say_left_out(left_out)
    return stream


def _pieces(stream: IO[bytes]) -> Iterator[bytes]:
    while piece := stream.read(PIECE_BYTES):
        yield piece


# ---- out of the guest ----------------------------------------------------------------------------------------------


def _receive(session: Session, source: Remote, target: str, *, recursive: bool) -> str:
    place = Path(target)
    if target != STREAM:
        if place.is_dir():
            place /= Path(source.path).name or "root"
        if not place.parent.is_dir():
            raise CorralError("invalid-argument", f"write {place}", f"there is no directory {place.parent}", "make it")
        if recursive and os.path.lexists(place):
            raise CorralError(
                "invalid-argument", f"copy to {place}", "it is there already", "remove it, or name another"
            )
    with session.client().read_file(source.vm, source.path, tree=recursive) as (file, pieces):
        meter = Meter(str(source), file.size_bytes)
        try:
            metered = _metered(pieces, meter)
            if target == STREAM:
                for piece in metered:
                    sys.stdout.buffer.write(piece)
                sys.stdout.buffer.flush()
            elif recursive:
                _unpack(metered, place)
            else:
                _write(metered, place, file.mode)
        finally:
            meter.end()
    return str(place)


def _metered(pieces: Iterator[bytes], meter: Meter) -> Iterator[bytes]:
    total = 0
    for piece in pieces:
        total += len(piece)
        meter(total)
        yield piece


def _write(pieces: Iterator[bytes], place: Path, mode: int) -> None:
    from corral.files import create_private, replacing, storage_error

    try:
        with replacing(place, mode) as temporary, create_private(temporary) as stream:
            for piece in pieces:
                stream.write(piece)
    except OSError as error:
        raise storage_error(f"write {place}", error) from error


def _unpack(pieces: Iterator[bytes], place: Path) -> None:
    from corral.cli.archive import unpack

    with tempfile.TemporaryFile() as stream:
        for piece in pieces:
            stream.write(piece)
        _say_left_out(unpack(stream, place))


def _say_left_out(names: list[str]) -> None:
    from corral.cli.output import printable

    for name in names:
        click.echo(f"note: left out {printable(name)}: neither a file, a directory nor a symbolic link", err=True)
