"""Denied packets as the kernel tells them (NFLOG over netlink): read, understood as far as a line needs, the last ones kept."""

import asyncio
import contextlib
import errno
import ipaddress
import os
import socket
import struct
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from corral.errors import CorralError
from corral.log import logger
from corral.model import limits
from corral.network.firewall.base import Firewall

log = logger("firewall.log")

# linux/netfilter/nfnetlink.h and nfnetlink_log.h
_NETLINK_NETFILTER: Final = 12
_SUBSYSTEM: Final = 4
_PACKET: Final = _SUBSYSTEM << 8
_CONFIG: Final = _SUBSYSTEM << 8 | 1
_REQUEST_ACK: Final = 0x5
_NLMSG_ERROR: Final = 2
_BIND: Final = 1
_COPY_PACKET: Final = 2
_CFG_CMD, _CFG_MODE = 1, 2
_IN, _OUT, _PHYSIN, _PHYSOUT, _PAYLOAD, _PREFIX = 4, 5, 6, 7, 9, 10
_SNAP_BYTES: Final = 128
_BUFFER_BYTES: Final = 65536
_RETRY_S: Final = 5.0
_ATTRIBUTE_MASK: Final = 0x3FFF

_PROTOCOLS: Final = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmpv6", 132: "sctp"}
_WITH_PORTS: Final = ("tcp", "udp", "sctp")


@dataclass(frozen=True)
class Denial:
    """One packet that was denied, and why."""

    number: int
    """Counts up; ask for what came after it."""
    time_s: float
    """Since 1970."""
    reason: str
    """`deny-in`, `deny-out`, `deny-transit`, `spoofed` …, or a policy's uid behind `deny-policy`."""
    inward: str
    """The port of the bridge that it came by; else the interface."""
    outward: str
    protocol: str
    source: str
    target: str
    source_port: int | None = None
    port: int | None = None
    icmp_type: int | None = None


class DenialLog:
    """The last denials, in memory. `run` once; readers wait for what comes."""

    def __init__(self, kept: int = limits.FIREWALL_LOG_MAX) -> None:
        self._kept: deque[Denial] = deque(maxlen=kept)
        self._number = 0
        self._came = asyncio.Event()
        self.reason = "nothing has been listened to yet"
        """Why nothing comes; empty: it would."""

    def after(self, number: int) -> tuple[Denial, ...]:
        """A number beyond the last one was told by a daemon before this one: all are new to whoever has it."""
        number = number if number <= self._number else 0
        return tuple(denial for denial in self._kept if denial.number > number)

    async def wait_after(self, number: int, timeout_s: float) -> tuple[Denial, ...]:
        """Those after `number`; waits for one, at most so long."""
        deadline = time.monotonic() + timeout_s
        while not (found := self.after(number)):
            self._came.clear()
            try:
                await asyncio.wait_for(self._came.wait(), max(0.0, deadline - time.monotonic()))
            except TimeoutError:
                return ()
        return found

    def add(self, denial: Denial) -> None:
        self._number += 1
        self._kept.append(replace(denial, number=self._number))
        self._came.set()

    async def run(self, firewall: Firewall) -> None:
        """Listen for ever; where that cannot be done, say why and try again slowly."""
        while True:
            try:
                state = await firewall.state()
                if state.active and state.log_group:
                    await self._listen(state.log_group)
                self.reason = state.reason or "the firewall logs nothing"
            except (OSError, CorralError) as error:
                self.reason = str(error)
                log.warning("denied packets are not heard of", reason=self.reason)
            await asyncio.sleep(_RETRY_S)

    async def _listen(self, group: int) -> None:
        with contextlib.closing(open_group(group)) as heard:
            self.reason = ""
            loop = asyncio.get_running_loop()
            while True:
                try:
                    data = await loop.sock_recv(heard, _BUFFER_BYTES)
                except OSError as error:
                    if error.errno != errno.ENOBUFS:  # more came than was read; what was lost is lost
                        raise
                    continue
                for denial in parse_packets(data, time.time()):
                    self.add(denial)


def open_group(group: int) -> socket.socket:
    """A socket that hears this NFLOG group. Raises OSError: no rights, or somebody else listens."""
    heard = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER)
    try:
        heard.bind((0, 0))
        heard.settimeout(2.0)
        for attribute in (
            _attribute(_CFG_CMD, struct.pack("B", _BIND)),
            _attribute(_CFG_MODE, struct.pack(">IBx", _SNAP_BYTES, _COPY_PACKET)),
        ):
            body = struct.pack(">BBH", socket.AF_UNSPEC, 0, group) + attribute
            heard.send(struct.pack("=IHHII", 16 + len(body), _CONFIG, _REQUEST_ACK, 1, 0) + body)
            _check_answer(heard.recv(_BUFFER_BYTES))
        heard.setblocking(False)
    except OSError:
        heard.close()
        raise
    return heard


def _attribute(kind: int, value: bytes) -> bytes:
    padded = value + bytes(-len(value) % 4)
    return struct.pack("=HH", 4 + len(value), kind) + padded


def _check_answer(data: bytes) -> None:
    _, kind, _, _, _ = struct.unpack_from("=IHHII", data)
    if kind == _NLMSG_ERROR and (code := struct.unpack_from("=i", data, 16)[0]):
        raise OSError(-code, os.strerror(-code))


# ---- reading -------------------------------------------------------------------------------------------------------


def parse_packets(data: bytes, now_s: float) -> Iterator[Denial]:
    """The denials of one read. What is cut short, or is nothing of the kind, is passed over."""
    place = 0
    while place + 16 <= len(data):
        length, kind = struct.unpack_from("=IH", data, place)
        if length < 16:
            return
        if kind == _PACKET and (found := _denial(data[place + 20 : place + length], now_s)) is not None:
            yield found
        place += (length + 3) & ~3


def _denial(body: bytes, now_s: float) -> Denial | None:
    found = dict(_attributes(body))
    packet = parse_packet(found.get(_PAYLOAD, b""))
    if packet is None:
        return None
    reason = found.get(_PREFIX, b"").rstrip(b"\0").decode("ascii", "replace")
    inward = _interface(found.get(_PHYSIN) or found.get(_IN))
    outward = _interface(found.get(_PHYSOUT) or found.get(_OUT))
    return replace(packet, time_s=now_s, reason=reason, inward=inward, outward=outward)


def _attributes(body: bytes) -> Iterator[tuple[int, bytes]]:
    place = 0
    while place + 4 <= len(body):
        length, kind = struct.unpack_from("=HH", body, place)
        if length < 4:
            return
        yield kind & _ATTRIBUTE_MASK, body[place + 4 : place + length]
        place += (length + 3) & ~3


def _interface(index: bytes | None) -> str:
    """By its name, as long as it is there."""
    if index is None or len(index) != 4:
        return ""
    with contextlib.suppress(OSError):
        return socket.if_indextoname(struct.unpack(">I", index)[0])
    return ""


def parse_packet(data: bytes) -> Denial | None:
    """Who wanted what of whom. ARP and what else has no IP header is None; text of guests never gets into it."""
    if len(data) < 20:
        return None
    if data[0] >> 4 == 4:
        header, number = (data[0] & 15) * 4, data[9]
        source, target = ipaddress.IPv4Address(data[12:16]), ipaddress.IPv4Address(data[16:20])
        is_first = struct.unpack_from(">H", data, 6)[0] & 0x1FFF == 0
        return _packet(number, str(source), str(target), data[header:] if is_first else b"")
    if data[0] >> 4 == 6 and len(data) >= 40:
        source6, target6 = ipaddress.IPv6Address(data[8:24]), ipaddress.IPv6Address(data[24:40])
        return _packet(data[6], str(source6), str(target6), data[40:])
    return None


def _packet(number: int, source: str, target: str, rest: bytes) -> Denial:
    protocol = _PROTOCOLS.get(number, str(number))
    plain = Denial(0, 0.0, "", "", "", protocol, source, target)
    if protocol in _WITH_PORTS and len(rest) >= 4:
        source_port, port = struct.unpack_from(">HH", rest)
        return replace(plain, source_port=source_port, port=port)
    if protocol in ("icmp", "icmpv6") and rest:
        return replace(plain, icmp_type=rest[0])
    return plain
