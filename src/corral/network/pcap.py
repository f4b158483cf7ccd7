"""A capture file as it comes, cut at whole packets. Pure."""

import struct
from typing import Final

from corral.errors import CorralError

# The classic format (draft-ietf-opsawg-pcap): a header of 24 bytes, then for each packet 16 bytes, of which the third
# word says how much of it follows.
HEADER_BYTES: Final = 24
RECORD_BYTES: Final = 16
_LITTLE: Final = (b"\xd4\xc3\xb2\xa1", b"\x4d\x3c\xb2\xa1")
_BIG: Final = (b"\xa1\xb2\xc3\xd4", b"\xa1\xb2\x3c\x4d")
ETHERNET: Final = 1


class PacketCutter:
    """Hands on what it is fed, whole packets only, as long as they fit into `bytes_max`."""

    def __init__(self, bytes_max: int) -> None:
        self._left = bytes_max
        self._waiting = b""
        self._order = ""
        self.packets = 0
        self.bytes = 0
        self.full = False

    def feed(self, data: bytes) -> bytes:
        """The packets that are complete now. Raises `command-failed` for what is no capture."""
        self._waiting += data
        out: list[bytes] = []
        if not self._order:
            if len(self._waiting) < HEADER_BYTES:
                return b""
            self._order = _order_of(self._waiting[:4])
            out.append(self._take(HEADER_BYTES))
        while not self.full and len(self._waiting) >= RECORD_BYTES:
            length = RECORD_BYTES + struct.unpack_from(f"{self._order}I", self._waiting, 8)[0]
            if length > self._left:
                self.full = True
            elif len(self._waiting) < length:
                break
            else:
                out.append(self._take(length))
                self.packets += 1
        return b"".join(out)

    def _take(self, length: int) -> bytes:
        taken, self._waiting = self._waiting[:length], self._waiting[length:]
        self._left -= length
        self.bytes += length
        return taken


def empty_capture(snap_bytes: int) -> bytes:
    """The header of a capture of Ethernet frames."""
    return struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, snap_bytes, ETHERNET)


def _order_of(magic: bytes) -> str:
    if magic in _LITTLE:
        return "<"
    if magic in _BIG:
        return ">"
    raise CorralError("command-failed", "capture packets", "tcpdump wrote something that is no capture")
