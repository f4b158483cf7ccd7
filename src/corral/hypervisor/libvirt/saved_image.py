"""libvirt's file of a saved guest: a header, the domain's document, a cookie, then QEMU's own stream.

From libvirt's qemu_saveimage.h (9.0): magic (16 bytes), then little-endian 32-bit numbers: version, length of what
follows before the stream, was running, compression, offset of the cookie in it, and 14 unused. libvirt pads with zeros, so
that a longer document can be put in later; its own call for that insists on the same UUID.
"""

import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from corral.errors import CorralError
from corral.files import create_private, storage_error

MAGIC: Final = b"LibvirtQemudSave"
VERSION: Final = 2
_NUMBERS: Final = struct.Struct("<5I")
_HEADER_BYTES: Final = len(MAGIC) + _NUMBERS.size + 14 * 4
_UNCOMPRESSED: Final = 0
# libvirt's own mark of a file that is not whole, and what it leaves after the document so that a longer one fits in.
_PARTIAL: Final = b"LibvirtQemudPart"
_ROOM_BYTES: Final = 1 << 14
_STREAM_ALIGNED: Final = 1 << 12
_PART_MAX_BYTES: Final = 1 << 26


@dataclass(frozen=True)
class SavedImage:
    """What stands before the stream."""

    document: str
    cookie: bytes
    length: int
    """Of document, cookie and padding."""
    was_running: int


def read_saved_image(path: Path) -> SavedImage:
    """Raises `storage-error`; `unsupported` for what this libvirt writes otherwise."""
    asked = f"read {path}"
    try:
        with path.open("rb") as stream:
            header = stream.read(_HEADER_BYTES)
            numbers = _numbers(header, asked)
            text = stream.read(numbers[1])
    except OSError as error:
        raise storage_error(asked, error) from error
    _version, length, was_running, _compression, cookie_at = numbers
    document = text[: text.index(b"\0")].decode()
    cookie = text[cookie_at:].split(b"\0", 1)[0] if cookie_at else b""
    return SavedImage(document, cookie, length, was_running)


def _numbers(header: bytes, asked: str) -> tuple[int, int, int, int, int]:
    if len(header) != _HEADER_BYTES or not header.startswith(MAGIC):
        raise CorralError("unsupported", asked, "it is no guest that libvirt saved")
    numbers = _NUMBERS.unpack_from(header, len(MAGIC))
    if numbers[0] != VERSION or numbers[3] != _UNCOMPRESSED:
        raise CorralError("unsupported", asked, "it is compressed, or of another version", "see qemu.conf(5)")
    return numbers


def begin_saved_image(path: Path, document: str, cookie: str) -> int:
    """A new file of a guest that runs, open where its stream is to begin; nobody takes it for whole until `finish_saved_image`.
    Raises `OSError`."""
    text = document.encode() + b"\0"
    part = text + cookie.encode() + b"\0"
    length = _aligned(_HEADER_BYTES + len(part) + _ROOM_BYTES) - _HEADER_BYTES
    numbers = _NUMBERS.pack(VERSION, length, 1, _UNCOMPRESSED, len(text))
    header = (_PARTIAL + numbers).ljust(_HEADER_BYTES, b"\0") + part.ljust(length, b"\0")
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(os.dup(descriptor), "wb") as stream:
            stream.write(header)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def finish_saved_image(descriptor: int) -> None:
    """The stream is whole."""
    os.pwrite(descriptor, MAGIC, 0)


def _aligned(length: int) -> int:
    return -(-length // _STREAM_ALIGNED) * _STREAM_ALIGNED


def copy_saved_image(source: Path, into: Path, document: str) -> None:
    """The same guest under another document, which may have another UUID. Raises `disk-full`, `storage-error`."""
    found = read_saved_image(source)
    text = document.encode() + b"\0"
    cookie_at = len(text) if found.cookie else 0
    part = text + (found.cookie + b"\0" if found.cookie else b"")
    if len(part) > found.length:
        raise CorralError("unsupported", f"copy {source}", "libvirt left no room for the document in it")
    try:
        with source.open("rb") as old, create_private(into) as new:
            _copy(old, new)
            numbers = _NUMBERS.pack(VERSION, found.length, found.was_running, _UNCOMPRESSED, cookie_at)
            new.flush()
            os.pwrite(new.fileno(), numbers, len(MAGIC))
            os.pwrite(new.fileno(), part.ljust(found.length, b"\0"), _HEADER_BYTES)
    except OSError as error:
        raise storage_error(f"write {into}", error) from error


def _copy(old: IO[bytes], new: IO[bytes]) -> None:
    """In the kernel; shares the blocks where the file system can."""
    left = os.fstat(old.fileno()).st_size
    while left > 0:
        copied = os.copy_file_range(old.fileno(), new.fileno(), min(left, _PART_MAX_BYTES))
        if not copied:
            break
        left -= copied
