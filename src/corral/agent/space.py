"""Guests that stand still because a disk of theirs has no space: looked after until there is some, then they go on."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

from corral.agent.cache import Cache
from corral.agent.dispatch import Dispatcher
from corral.agent.status import stands_still
from corral.clock import Clock
from corral.model.vm import Power
from corral.storage.base import VolumeStore
from corral.storage.room import has_room

LOOK_FIRST_S: Final = 1.0
LOOK_MAX_S: Final = 30.0
SOON_S: Final = 60.0
"""A guest that stands still again so soon had too little: it waits twice as long as before."""


@dataclass
class _Looking:
    timer: asyncio.TimerHandle
    pause_s: float


@dataclass
class SpaceWatch:
    """One timer for each guest that stands still, none for the others."""

    cache: Cache
    volumes: VolumeStore
    dispatcher: Dispatcher
    clock: Clock
    on_error: Callable[[BaseException], None]
    noticed: Callable[[], None]
    """A guest stands still for want of space, or goes on."""
    _looking: dict[str, _Looking] = field(default_factory=dict)
    _went_on: dict[str, tuple[float, float]] = field(default_factory=dict)
    """When it last went on, and how long it was waited before."""
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def consider(self, uid: str) -> None:
        """After a turn."""
        vm = self.cache.vms.get(uid)
        if vm is None or not stands_still(vm) or vm.spec.power is Power.PAUSED:
            if (known := self._looking.pop(uid, None)) is not None:
                known.timer.cancel()
            return
        if uid not in self._looking and not self.dispatcher.memory(uid).known.room:
            at_s, pause_s = self._went_on.get(uid, (0.0, 0.0))
            soon = pause_s and self.clock.monotonic_s() - at_s < SOON_S
            self._arm(uid, min(pause_s * 2, LOOK_MAX_S) if soon else LOOK_FIRST_S)
            self.noticed()

    async def stop(self) -> None:
        for known in self._looking.values():
            known.timer.cancel()
        self._looking.clear()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=1.0)

    def _arm(self, uid: str, pause_s: float) -> None:
        timer = asyncio.get_running_loop().call_later(pause_s, self._fire, uid)
        self._looking[uid] = _Looking(timer, pause_s)

    def _fire(self, uid: str) -> None:
        task = asyncio.get_running_loop().create_task(self._look(uid))
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.on_error(error)

    async def _look(self, uid: str) -> None:
        vm, known = self.cache.vms.get(uid), self._looking.get(uid)
        if vm is None or known is None:
            return
        if not await has_room(self.volumes, vm, self.cache.volumes):
            if uid in self._looking:
                self._arm(uid, known.pause_s)
            return
        self._looking.pop(uid, None)
        self.noticed()
        self._went_on = {u: seen for u, seen in self._went_on.items() if self.clock.monotonic_s() - seen[0] < SOON_S}
        self._went_on[uid] = (self.clock.monotonic_s(), known.pause_s)
        memory = self.dispatcher.memory(uid)
        memory.known = replace(memory.known, room=True)
        memory.seen = None  # what was seen last is to be thought over
        self.dispatcher.wake(uid)
