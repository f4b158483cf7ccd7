"""Routers in memory: what was wished last of each, and what guests were told."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Final

from pydantic import TypeAdapter

from corral.network.router import RouterWish
from corral.simulation import Simulation

_WISH: Final = TypeAdapter(RouterWish)
_LINES: Final = TypeAdapter(tuple[str, ...])


class FakeRouters:
    """The router contract over a dictionary."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self._kept = simulation.section("routers", _WISH)
        self._kept_options = simulation.section("router-options", _LINES)
        self.known = self._kept.restore()
        self._read = self._kept_options.restore()
        self.options = dict(self._read)
        self.wake: Callable[[], None] = lambda: None

    def tell(self, wake: Callable[[], None]) -> None:
        self.wake = wake

    async def events(self) -> AsyncGenerator[None, None]:
        """Nothing changes by itself in here."""
        await asyncio.get_running_loop().create_future()
        yield None

    async def standing(self, wishes: Sequence[RouterWish]) -> frozenset[str]:
        return frozenset(wish.uid for wish in wishes if self.known.get(wish.uid) == wish)

    async def ensure(self, wish: RouterWish) -> None:
        async with self._call("ensure"):
            self.known[wish.uid] = wish
            self._kept.keep(wish.uid, wish)

    async def remove(self, uid: str) -> None:
        async with self._call("remove"):
            if self.known.pop(uid, None) is not None:
                self._kept.keep(uid, None)

    async def tell_guests(self, network_uid: str, lines: Sequence[str]) -> bool:
        async with self._call("tell_guests"):
            self.options[network_uid] = tuple(lines)
            return self._read.get(network_uid, ()) != tuple(lines)

    async def guests_told(self, network_uid: str, lines: Sequence[str]) -> None:
        async with self._call("guests_told"):
            self._read[network_uid] = tuple(lines)
            self._kept_options.keep(network_uid, tuple(lines))

    def _call(self, name: str) -> AbstractAsyncContextManager[None]:
        return self._simulation.call(f"router.{name}")
