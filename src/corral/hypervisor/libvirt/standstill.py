"""How long a guest stands still, by libvirt's own events: what a call took tells nothing where the guest runs on meanwhile."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Final, Self

from corral.hypervisor.base import DomainEvent

# An event may come after the answer to the call that caused it.
GRACE_S: Final = 0.5

Listen = Callable[[], AsyncIterator[DomainEvent]]


class Standstill:
    """`async with`: from then on each stop of the domain is counted until it runs again."""

    def __init__(self, listen: Listen, uid: str) -> None:
        self._events = listen()
        self._uid = uid
        self._stopped_s: float | None = None
        self._total_s = 0.0
        self._seen = asyncio.Event()

    @property
    def ms(self) -> float | None:
        """All together; None: it was not seen to stop and to run again."""
        return self._total_s * 1000 if self._seen.is_set() else None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._follow())
        return self

    async def __aexit__(self, *_error: object) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GRACE_S):
                await self._seen.wait()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _follow(self) -> None:
        clock = asyncio.get_running_loop().time
        async for event in self._events:
            if event.uid != self._uid:
                continue
            if event.kind == "suspended":
                self._stopped_s = clock()
            elif event.kind == "resumed" and self._stopped_s is not None:
                self._total_s += clock() - self._stopped_s
                self._stopped_s = None
                self._seen.set()
