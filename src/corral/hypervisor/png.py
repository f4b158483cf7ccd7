"""A screen as PNG: what the hypervisor gave as such is let through, a PPM picture is packed. Bounded."""

import struct
import zlib
from typing import Final

from corral.errors import CorralError

# 3840 x 2160 pixels of three bytes, and room for what frames them.
PICTURE_MAX_BYTES: Final = 32 * 2**20
SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
HEADER_MAX_BYTES: Final = 64
# Level 1: a text screen shrinks two hundred times as it is, and a screenshot is waited for.
LEVEL: Final = 1
COLOURS_MAX: Final = 255
RGB: Final = 2  # PNG's colour type
NO_FILTER: Final = b"\0"


def to_png(picture: bytes) -> bytes:
    """PNG of a PNG or a binary PPM (P6, 8 bits). Raises `hypervisor-error` for anything else."""
    if len(picture) > PICTURE_MAX_BYTES:
        raise _unreadable(f"the picture has more than {PICTURE_MAX_BYTES} bytes")
    if picture.startswith(SIGNATURE):
        return picture
    width, height, start = _ppm_header(picture)
    row_bytes = 3 * width
    if len(picture) - start < row_bytes * height:
        raise _unreadable("the picture breaks off")
    packer = zlib.compressobj(LEVEL)
    view = memoryview(picture)[start:]
    packed = []
    for row in range(height):
        packed.append(packer.compress(NO_FILTER))
        packed.append(packer.compress(view[row * row_bytes : (row + 1) * row_bytes]))
    packed.append(packer.flush())
    head = struct.pack(">IIBBBBB", width, height, 8, RGB, 0, 0, 0)
    return b"".join((SIGNATURE, _chunk(b"IHDR", head), _chunk(b"IDAT", b"".join(packed)), _chunk(b"IEND", b"")))


def _ppm_header(picture: bytes) -> tuple[int, int, int]:
    """Width, height and where the pixels begin (ppm(5): words apart by white space, one of it before the pixels)."""
    fields = picture[:HEADER_MAX_BYTES].split(maxsplit=4)
    if len(fields) < 4 or fields[0] != b"P6" or not all(field.isdigit() for field in fields[1:4]):
        raise _unreadable("the picture is neither PNG nor PPM")
    width, height, colours = (int(field) for field in fields[1:4])
    if colours != COLOURS_MAX or not width or not height or 3 * width * height > PICTURE_MAX_BYTES:
        raise _unreadable(f"a PPM picture of {width} x {height} pixels and {colours} colours")
    start = 0
    for field in fields[:4]:
        start = picture.index(field, start) + len(field)
    return width, height, start + 1


def _chunk(kind: bytes, content: bytes) -> bytes:
    """One chunk of PNG (RFC 2083, 3.2)."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _unreadable(reason: str) -> CorralError:
    return CorralError("hypervisor-error", "take a screenshot", reason)
