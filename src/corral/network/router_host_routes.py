"""Routes on the host to networks behind routers. What a router has there is noted before it is made, and goes with it."""

import asyncio
import ipaddress
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

from corral import files, proc
from corral.network.router import HostRouteWish

_TIMEOUT_S: Final = 10.0
# Of what is in /etc/iproute2/rt_protos nothing has it: by it, other people's routes are known from ours.
PROTOCOL: Final = "157"
_TABLE4: Final = Path("/proc/net/route")
_TABLE6: Final = Path("/proc/net/ipv6_route")
_COLUMNS: Final = 8
_COLUMNS6: Final = 10
_VIA6: Final = 4
_DEVICE, _TO, _VIA, _MASK = 0, 1, 2, 7


class HostRoutes:
    """`note` is a router's file: it says what of the host's was ever made for it, and not taken away yet."""

    async def ensure(self, note: Path, wished: tuple[HostRouteWish, ...]) -> None:
        noted = await asyncio.to_thread(read_note, note)
        if not noted and not wished:
            return
        stale = [one for one in noted if one not in wished]
        lost = await asyncio.to_thread(missing, wished)
        if not stale and not lost and len(noted) == len(wished):
            return
        await asyncio.to_thread(_write_note, note, [*wished, *stale])
        await _remove(stale)
        for one in lost:
            await _ip("route", "replace", one.to, "via", one.via, "dev", one.bridge, "proto", PROTOCOL)
        if stale:
            await asyncio.to_thread(_write_note, note, wished)

    async def remove(self, note: Path) -> None:
        await _remove(await asyncio.to_thread(read_note, note))


def missing(wished: Sequence[HostRouteWish]) -> list[HostRouteWish]:
    """Those that the kernel's main table does not have. It may be very long: read once for all of them, and of it what goes by
    their bridges alone."""
    bridges = frozenset(one.bridge for one in wished)
    there = {*_present4(bridges), *_present6(bridges)} if bridges else ()
    return [one for one in wished if (one.to, one.via, one.bridge) not in there]


def _present4(bridges: frozenset[str]) -> Iterator[tuple[str, str, str]]:
    """Destination, next hop and device, as the kernel writes them."""
    for line in _lines(_TABLE4):
        if line.partition("\t")[0] in bridges and len(words := line.split()) >= _COLUMNS:
            length = int(words[_MASK], 16).bit_count()
            yield f"{_dotted(words[_TO])}/{length}", _dotted(words[_VIA]), words[_DEVICE]


def _present6(bridges: frozenset[str]) -> Iterator[tuple[str, str, str]]:
    for line in _lines(_TABLE6):
        if line.rstrip().rpartition(" ")[2] in bridges and len(words := line.split()) >= _COLUMNS6:
            yield f"{_spelt(words[0])}/{int(words[1], 16)}", _spelt(words[_VIA6]), words[-1]


def _lines(table: Path) -> Iterator[str]:
    """None, where the kernel has no such protocol."""
    try:
        with table.open() as lines:
            yield from lines
    except OSError:
        return


def _spelt(number: str) -> str:
    return str(ipaddress.IPv6Address(int(number, 16)))


def _dotted(number: str) -> str:
    """As the kernel's words of memory are on this machine: little end first."""
    return str(ipaddress.IPv4Address(int(number, 16).to_bytes(4, "little")))


async def _remove(routes: Iterable[HostRouteWish]) -> None:
    for one in routes:  # with its bridge a route is gone by itself
        await _ip("route", "del", one.to, "via", one.via, "dev", one.bridge, "proto", PROTOCOL, check=False)


async def _ip(*words: str, check: bool = True) -> None:
    await proc.run((proc.require("ip", "iproute2"), *words), timeout_s=_TIMEOUT_S, check=check)


def read_note(note: Path) -> list[HostRouteWish]:
    try:
        content = note.read_bytes()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise files.storage_error(f"read {note}", error) from error
    return [HostRouteWish(**one) for one in json.loads(content or b"[]")]


def _write_note(note: Path, routes: Iterable[HostRouteWish]) -> None:
    files.write_atomic(note, json.dumps([asdict(one) for one in routes]).encode())
