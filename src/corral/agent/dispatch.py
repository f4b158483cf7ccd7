"""Who has a turn: one at a time for each VM, many VMs at a time, none sooner than its back-off allows."""

import asyncio
from collections.abc import Callable
from typing import Final

from corral.agent.bereft import end_bereft, is_bereft
from corral.agent.failures import BACKOFF_MAX_S
from corral.agent.memory import Found, Memory, Situation
from corral.agent.vm import Reconciler
from corral.clock import Clock
from corral.errors import CorralError
from corral.log import logger

PARALLEL_MAX: Final = 64
BEREFT_PAUSE_S: Final = 1.0

log = logger("agent.dispatch")


class Dispatcher:
    """Wakes VMs. `after_turn` hears of each turn that ended."""

    def __init__(
        self,
        reconciler: Reconciler,
        clock: Clock,
        situation: Callable[[], Situation],
        after_turn: Callable[[str], None],
    ) -> None:
        self.reconciler = reconciler
        self.clock = clock
        self.situation = situation
        self.after_turn = after_turn
        self.memories: dict[str, Memory] = {}
        self.open = False
        """Turns are taken only once the host is known."""
        self._waiting: dict[str, Found | None] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def memory(self, uid: str) -> Memory:
        found = self.memories.get(uid)
        if found is None:
            found = self.memories[uid] = Memory()
        return found

    def changed(self, uid: str) -> None:
        """Something was written about it; only a new wish is a reason for a turn."""
        memory = self.memory(uid)
        memory.changed = True
        wished = self.reconciler.wish(uid) != memory.wish
        if uid not in self._tasks and (wished or is_bereft(self.reconciler.cache, uid)):
            self._enqueue(uid, None)

    def wake(self, uid: str, snapshot: Found | None = None) -> None:
        """Something happened to it, or may have."""
        self.memory(uid).dirty = True
        if uid not in self._tasks:
            self._enqueue(uid, snapshot)

    def start(self) -> None:
        self.open = True
        self._pump()

    @property
    def idle(self) -> bool:
        return not self._tasks and not self._waiting

    async def stop(self, grace_s: float) -> None:
        """No new turns; those under way may end within `grace_s`, and are cut then."""
        self.open = False
        self._waiting.clear()
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        tasks = list(self._tasks.values())
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=grace_s)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late, timeout=1.0)

    def forgive(self) -> None:
        """The reason for waiting has gone (the hypervisor is back): everybody may try at once."""
        for memory in self.memories.values():
            memory.retry_at_s = 0.0

    def _enqueue(self, uid: str, snapshot: Found | None) -> None:
        if (timer := self._timers.pop(uid, None)) is not None:
            timer.cancel()
        self._waiting[uid] = snapshot
        self._pump()

    def _pump(self) -> None:
        while self.open and self._waiting and len(self._tasks) < PARALLEL_MAX:
            uid = next(iter(self._waiting))
            snapshot = self._waiting.pop(uid)
            self._tasks[uid] = asyncio.get_running_loop().create_task(self._work(uid, snapshot))

    async def _work(self, uid: str, snapshot: Found | None) -> None:
        next_s: float | None = None
        try:
            next_s = await self._turn(uid, snapshot)
        except Exception as error:  # top of a VM's loop: one VM's trouble is not another's
            log.exception("a turn failed unexpectedly", vm=uid, error=repr(error))
            next_s = self.clock.monotonic_s() + BACKOFF_MAX_S
        finally:
            self._tasks.pop(uid, None)
        self._after(uid, next_s)
        self._pump()

    async def _turn(self, uid: str, snapshot: Found | None) -> float | None:
        memory = self.memory(uid)
        vm = self.reconciler.cache.vms.get(uid)
        if vm is None:
            return await self._bereft(uid)
        situation = self.situation()
        try:
            if self.clock.monotonic_s() < memory.retry_at_s and memory.retry_for == self.reconciler.wish(uid):
                happened, memory.dirty, memory.changed = memory.dirty, False, False
                if happened:
                    await self.reconciler.watch(vm, memory, situation)
                return memory.retry_at_s
            return await self.reconciler.turn(vm, memory, situation, snapshot)
        except CorralError as error:
            current = self.reconciler.cache.vms.get(uid, vm)
            try:
                return await self.reconciler.failed(current, memory, situation, error)
            except CorralError as second:  # the store itself: nothing can be written about it now
                memory.attempts += 1
                log.warning("cannot record a failure", vm=vm.name, code=second.code, reason=second.reason)
                return self.clock.monotonic_s() + min(2.0 ** min(memory.attempts, 6), BACKOFF_MAX_S)

    async def _bereft(self, uid: str) -> float | None:
        """The VM is gone; whatever still waits for it ends."""
        known = self.reconciler
        try:
            await end_bereft(known.recorder.objects, known.cache, known.progress, self.clock, uid)
        except CorralError as error:
            log.warning("what waits for a VM that is gone could not be ended", vm=uid, code=error.code)
            return self.clock.monotonic_s() + BEREFT_PAUSE_S
        if uid not in known.cache.vms:
            self.memories.pop(uid, None)
        return None

    def _after(self, uid: str, next_s: float | None) -> None:
        memory = self.memories.get(uid)
        if memory is None or not self.open:
            return
        backing_off = next_s is not None and next_s <= memory.retry_at_s
        wished = memory.changed and self.reconciler.wish(uid) != memory.wish
        if wished or (memory.dirty and not backing_off):
            self._enqueue(uid, None)
        elif next_s is not None:
            delay_s = max(0.0, next_s - self.clock.monotonic_s())
            self._timers[uid] = asyncio.get_running_loop().call_later(delay_s, self._due, uid)
        self.after_turn(uid)

    def _due(self, uid: str) -> None:
        self._timers.pop(uid, None)
        if uid not in self._tasks:
            self._enqueue(uid, None)
