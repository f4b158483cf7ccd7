"""Routes on the host to networks behind routers. What a router has there is noted before it is made, and goes with it."""

import asyncio
import ipaddress
import json
from collections.abc import Iterable
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
            return  # the host's table may be very long
        there = await asyncio.to_thread(present)
        stale = [one for one in noted if one not in wished]
        missing = [one for one in wished if _key(one) not in there]
        if not stale and not missing and len(noted) == len(wished):
            return
        await asyncio.to_thread(_write_note, note, [*wished, *stale])
        await _remove(stale)
        for one in missing:
            await _ip("route", "replace", one.to, "via", one.via, "dev", one.bridge, "proto", PROTOCOL)
        if stale:
            await asyncio.to_thread(_write_note, note, wished)

    async def remove(self, note: Path) -> None:
        await _remove(await asyncio.to_thread(read_note, note))


def present() -> frozenset[tuple[str, str, str]]:
    """Of the kernel's main table: destination, next hop and device, as it writes them."""
    found = set()
    try:
        lines = _TABLE4.read_text().splitlines()[1:]
    except OSError:
        return frozenset()
    for line in lines:
        words = line.split()
        if len(words) >= _COLUMNS:
            length = int(words[_MASK], 16).bit_count()
            found.add((f"{_dotted(words[_TO])}/{length}", _dotted(words[_VIA]), words[_DEVICE]))
    return frozenset(found) | _present6()


def _present6() -> frozenset[tuple[str, str, str]]:
    found = set()
    try:
        lines = _TABLE6.read_text().splitlines()
    except OSError:  # a kernel without IPv6
        return frozenset()
    for line in lines:
        words = line.split()
        if len(words) >= _COLUMNS6:
            to, length, via = words[0], int(words[1], 16), words[_VIA6]
            found.add((f"{_spelt(to)}/{length}", _spelt(via), words[-1]))
    return frozenset(found)


def _spelt(number: str) -> str:
    return str(ipaddress.IPv6Address(int(number, 16)))


def stand(wished: Iterable[HostRouteWish]) -> bool:
    wanted = {_key(one) for one in wished}
    return not wanted or wanted <= present()


def _key(one: HostRouteWish) -> tuple[str, str, str]:
    return one.to, one.via, one.bridge


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
