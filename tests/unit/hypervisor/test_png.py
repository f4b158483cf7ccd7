"""Screens as PNG: what is packed can be unpacked, and what is no picture is refused."""

import struct
import zlib

import pytest

from corral.errors import CorralError
from corral.hypervisor.png import PICTURE_MAX_BYTES, SIGNATURE, to_png


def _chunks(picture: bytes) -> dict[bytes, bytes]:
    assert picture.startswith(SIGNATURE)
    at, found = len(SIGNATURE), {}
    while at < len(picture):
        length, kind = struct.unpack_from(">I4s", picture, at)
        content = picture[at + 8 : at + 8 + length]
        assert struct.unpack_from(">I", picture, at + 8 + length) == (zlib.crc32(kind + content),)
        found[kind] = content
        at += 12 + length
    return found


def test_a_ppm_picture_is_packed() -> None:
    pixels = bytes(range(18))
    chunks = _chunks(to_png(b"P6\n3 2\n255\n" + pixels))
    assert list(chunks) == [b"IHDR", b"IDAT", b"IEND"]
    assert struct.unpack(">IIBBBBB", chunks[b"IHDR"]) == (3, 2, 8, 2, 0, 0, 0)
    assert zlib.decompress(chunks[b"IDAT"]) == b"\0" + pixels[:9] + b"\0" + pixels[9:]


def test_pixels_that_look_like_the_header_are_pixels() -> None:
    pixels = b"\n 2 255 \n"
    assert zlib.decompress(_chunks(to_png(b"P6 3 1 255\n" + pixels))[b"IDAT"]) == b"\0" + pixels


def test_a_png_is_let_through() -> None:
    assert to_png(SIGNATURE + b"rest") == SIGNATURE + b"rest"


@pytest.mark.parametrize(
    "picture",
    [
        b"",
        b"P5\n1 1\n255\n0",
        b"P6\n3 2\n255\n" + bytes(17),
        b"P6\n0 2\n255\n",
        b"P6\n1 1\n65535\n" + bytes(6),
        b"P6\n99999 99999\n255\n",
        b"P6\n-1 1\n255\nxxx",
        SIGNATURE + bytes(PICTURE_MAX_BYTES),
    ],
)
def test_what_is_no_picture_is_refused(picture: bytes) -> None:
    with pytest.raises(CorralError) as refused:
        to_png(picture)
    assert refused.value.code == "hypervisor-error"
