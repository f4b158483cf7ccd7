"""Every test of this directory runs against each implementation of the store."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from corral.clock import Clock, ManualClock
from corral.store.base import Store
from corral.store.memory import MemoryStore
from corral.store.sqlite import SqliteStore

DEADLINE_S = 30.0


@dataclass
class Subject:
    """One implementation: opens fresh stores and runs scenarios against them."""

    name: str
    directory: Path
    clock: ManualClock = field(default_factory=ManualClock)
    opened: int = 0

    async def open(self, clock: Clock | None = None) -> MemoryStore | SqliteStore:
        self.opened += 1
        if self.name == "memory":
            return MemoryStore(clock)
        return await SqliteStore.open(self.directory / f"{self.opened}.db", clock=clock)

    def run(self, scenario: Callable[[Store], Awaitable[None]]) -> None:
        """Run `scenario` with a fresh store, closed afterwards, within a bounded time."""

        async def bounded() -> None:
            store = await self.open()
            try:
                async with asyncio.timeout(DEADLINE_S):
                    await scenario(store)
            finally:
                await store.close()

        asyncio.run(bounded())


@pytest.fixture(params=["memory", "sqlite"])
def subject(request: pytest.FixtureRequest, tmp_path: Path) -> Subject:
    return Subject(request.param, tmp_path)
