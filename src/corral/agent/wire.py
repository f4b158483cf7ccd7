"""What is kept on this host's wires and follows VMs and networks: each keeper in a loop of its own, woken together."""

import asyncio
from collections.abc import Iterable
from functools import partial
from typing import Final, Protocol

from corral.agent.supervised import supervised

SETTLE_S: Final = 0.05
"""What changes together is looked at together."""
CHANGING_KINDS: Final = frozenset(
    {"vm", "network", "router", "forward", "address", "balancer", "security-group", "network-policy"}
)
"""Objects that keepers look at; each noun adds its own."""


class Keeper(Protocol):
    @property
    def name(self) -> str:
        """For the log."""
        ...

    async def sync(self) -> None:
        """Look at what is wished and what there is, and change what differs. It may be cut at any point."""
        ...


class Wire:
    """Runs the keepers. `wake` after a change of an object, a guest's start, a relist, or word from the kernel."""

    def __init__(self, keepers: Iterable[Keeper]) -> None:
        self._keepers = [(keeper, asyncio.Event()) for keeper in keepers]

    def add(self, keeper: Keeper) -> None:
        """Before it runs."""
        self._keepers.append((keeper, asyncio.Event()))

    def changed(self, kind: str) -> None:
        if kind in CHANGING_KINDS:
            self.wake()

    def wake(self) -> None:
        for _, news in self._keepers:
            news.set()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for keeper, news in self._keepers:
                group.create_task(supervised(keeper.name, partial(_turn, keeper, news)))


async def _turn(keeper: Keeper, news: asyncio.Event) -> None:
    await news.wait()
    await asyncio.sleep(SETTLE_S)
    news.clear()
    try:
        await keeper.sync()
    except BaseException:
        news.set()  # what was wished is still to be done
        raise
