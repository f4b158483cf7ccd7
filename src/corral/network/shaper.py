"""Limits and promises of bandwidth made so in the kernel, by `tc` and `ip`."""

import asyncio
import json
import socket
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from pydantic import BaseModel, TypeAdapter

from corral import proc
from corral.names import ifb_name
from corral.network.shaping import HANDLE, INGRESS, PLAIN_QUEUES, Link, Shape, plan_all, plan_leftovers

_TIMEOUT_S: Final = 20.0
# Somebody may have taken a queue away by hand, which no device's name tells.
LOOK_S: Final = 25.0


class _Device(BaseModel):
    ifindex: int
    ifname: str
    ifalias: str = ""


class _Queue(BaseModel):
    dev: str
    kind: str
    handle: str = ""
    root: bool = False


_DEVICES: Final = TypeAdapter(tuple[_Device, ...])
_QUEUES: Final = TypeAdapter(tuple[_Queue, ...])


class TcShaper:
    """Level-triggered: it looks at what there is and changes what differs. `owner` is written at what it makes."""

    def __init__(self, owner: str, look_s: float = LOOK_S) -> None:
        self._owner = owner
        self._look_s = look_s
        self._done: dict[str, tuple[int, Shape]] = {}
        self._looked = False
        self._kept: tuple[frozenset[Shape], Mapping[str, int]] | None = None
        """What is wished, and the devices of it, as they were after the last look."""
        self._look_at_s = 0.0
        self._turn = asyncio.Lock()

    async def shape(self, shapes: Sequence[Shape], ours: frozenset[str]) -> None:
        """All devices of `ours` as `shapes` wish them, the others without a limit; those that are not there are left out.

        It is asked after each change of anything on the wire: nothing is run where none of it was a limit's.
        Raises `command-failed`, `command-missing`."""
        async with self._turn:
            wished = frozenset(shape for shape in shapes if shape.wished)
            if self._looked and not self._done and not wished:
                return  # nothing was ever limited: the rule
            loop = asyncio.get_running_loop()
            if self._kept == (wished, _devices(wished)) and loop.time() < self._look_at_s:
                return
            self._kept = None
            await self._make(shapes, ours)
            self._kept, self._look_at_s = (wished, _devices(wished)), loop.time() + self._look_s

    async def _make(self, shapes: Sequence[Shape], ours: frozenset[str]) -> None:
        links = await observe()
        # First, so that what another device refuses does not keep it from being done.
        if gone := plan_leftovers(links, self._owner).removed:
            await _batch(("ip", "-force", "-batch", "-"), gone)
        plan, now = plan_all(shapes, ours, links, self._owner, self._done)
        self._done = {}  # what is cut half way is done again
        if plan.made:
            await _batch(("ip", "-batch", "-"), plan.made)
        if plan.queues:
            # What one device refuses, or one that has just gone, keeps no other from its limit.
            await _batch(("tc", "-force", "-batch", "-"), plan.queues)
        if plan.removed:
            await _batch(("ip", "-force", "-batch", "-"), plan.removed)
        self._done, self._looked = now, True


def _devices(shapes: Iterable[Shape]) -> Mapping[str, int]:
    """Those of the limits that there are now, by index: one that went and came back has another."""
    names = {name for shape in shapes for name in (shape.device, ifb_name(shape.device))}
    return {name: index for index, name in socket.if_nameindex() if name in names}


async def observe() -> dict[str, Link]:
    """Every device of the host's, with what it has of ours."""
    ip, tc = proc.require("ip", "iproute2"), proc.require("tc", "iproute2")
    devices = await proc.run((ip, "-j", "link", "show"), timeout_s=_TIMEOUT_S)
    queues = await proc.run((tc, "-j", "qdisc", "show"), timeout_s=_TIMEOUT_S)
    queued, ingress, foreign = set(), set(), set()
    for queue in _QUEUES.validate_python(json.loads(queues.stdout or b"[]")):
        if queue.root and queue.kind == "htb" and queue.handle == HANDLE:
            queued.add(queue.dev)
        elif queue.root and queue.kind not in PLAIN_QUEUES:
            foreign.add(queue.dev)
        if queue.kind == "ingress" and queue.handle == INGRESS:
            ingress.add(queue.dev)
    return {
        found.ifname: Link(
            found.ifindex, found.ifalias, found.ifname in queued, found.ifname in ingress, found.ifname in foreign
        )
        for found in _DEVICES.validate_python(json.loads(devices.stdout or b"[]"))
    }


async def _batch(argv: Sequence[str], lines: Sequence[str]) -> None:
    program = proc.require(argv[0], "iproute2")
    await proc.run((program, *argv[1:]), stdin=("\n".join(lines) + "\n").encode(), timeout_s=_TIMEOUT_S)
