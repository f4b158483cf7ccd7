"""Volumes that stand alone: made, filled, resized and removed, a few at a time. A crash anywhere repeats from the start."""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from typing import Final

from corral.agent.cache import Cache
from corral.agent.failures import Verdict, backoff_s, judge
from corral.agent.operations import Progress, Shown, ended, ended_event, running, write_end
from corral.agent.queue import problem_of
from corral.agent.view import Ending
from corral.agent.volume_work import PHASES, VolumeWork, is_long, users_of
from corral.clock import Clock
from corral.errors import CorralError
from corral.log import logger
from corral.model.layer import Layer
from corral.model.operation import (
    CreateVolume,
    DeleteVolume,
    FlattenVolume,
    MoveVolume,
    Operation,
    OperationState,
    Problem,
    ResizeVolume,
)
from corral.model.volume import Volume
from corral.storage.layers import OnShare
from corral.store.objects import Objects, work_claim

PARALLEL_MAX: Final = 8
LONG_MAX: Final = 2
"""Copies keep the disk busy, for minutes: so few at once, and what is short does not wait for them."""
DONE: Final = {
    "volume-create": "VolumeCreated",
    "volume-resize": "VolumeResized",
    "volume-move": "VolumeMoved",
    "volume-flatten": "VolumeFlattened",
    "volume-delete": "VolumeDeleted",
}

log = logger("agent.volume")


@dataclass
class VolumeKeeper:
    """Works through the unfinished operations on volumes, one at a time for each volume."""

    objects: Objects
    cache: Cache
    work: VolumeWork
    progress: Progress
    clock: Clock
    on_done: Callable[[], None] = lambda: None
    """Hears that something was made, resized or removed."""
    _wanted: asyncio.Event = field(default_factory=asyncio.Event)
    _tries: dict[str, tuple[int, float]] = field(default_factory=dict)
    """Of operations that failed: how often, and when to try again (monotonic)."""
    _tasks: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    """By volume."""
    _long: set[str] = field(default_factory=set)
    """The volumes among them that are being filled."""
    _fills: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    """What a cancellation may cut, by operation."""

    def wake(self) -> None:
        """Something was written about a volume; a cancellation is heard at once."""
        self._wanted.set()
        for operation in self._pending():
            if operation.spec.cancel_requested_at is not None and operation.uid in self._fills:
                self._fills[operation.uid].cancel()

    async def run(self) -> None:
        await self.cache.loaded.wait()
        try:
            while True:
                self._wanted.clear()
                pending = self._pending()
                self._tries = {o.uid: self._tries[o.uid] for o in pending if o.uid in self._tries}
                self._begin_due(pending)
                await self._wait(pending)
        finally:
            tasks = list(self._tasks.values())
            for task in tasks:
                task.cancel()
            if tasks:  # what is cut here goes on with the next daemon
                await asyncio.wait(tasks, timeout=5.0)

    def _begin_due(self, pending: Iterable[Operation]) -> None:
        while operation := next(
            (one for one in self._startable(pending) if self._due_s(one) <= self.clock.monotonic_s()), None
        ):
            uid = operation.spec.target_uid
            self._tasks[uid] = asyncio.get_running_loop().create_task(self._turn(operation))
            self._long |= {uid} if is_long(operation) else set()

    def _startable(self, pending: Iterable[Operation]) -> list[Operation]:
        """The oldest of each volume that nobody works on, as far as there is room for one of its kind."""
        taken, found = set(self._tasks), list[Operation]()
        for operation in pending:
            uid = operation.spec.target_uid
            if uid in taken:
                continue
            taken.add(uid)  # its later operations wait for this one
            if len(self._tasks) < PARALLEL_MAX and not (is_long(operation) and len(self._long) >= LONG_MAX):
                found.append(operation)
        return found

    async def _wait(self, pending: Iterable[Operation]) -> None:
        due = [self._due_s(operation) for operation in self._startable(pending)]
        pause_s = max(0.0, min(due) - self.clock.monotonic_s()) if due else None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause_s):
                await self._wanted.wait()

    async def _turn(self, operation: Operation) -> None:
        try:
            await self._try(operation)
        except Exception as error:  # top of a volume's turn: one volume's trouble is not another's
            log.exception("a volume's turn failed unexpectedly", operation=operation.uid, error=repr(error))
            self._tries[operation.uid] = (1, self.clock.monotonic_s() + backoff_s(16))
        finally:
            self._tasks.pop(operation.spec.target_uid, None)
            self._long.discard(operation.spec.target_uid)
            self._wanted.set()

    def _pending(self) -> list[Operation]:
        found = [o for o in self.cache.all_unfinished() if o.spec.target_kind == "volume"]
        return sorted(found, key=lambda o: (o.created_at, o.uid))

    def _due_s(self, operation: Operation) -> float:
        return self._tries.get(operation.uid, (0, 0.0))[1]

    async def _try(self, operation: Operation) -> None:
        """What fails and may pass by itself is waited for, as with the disks of a VM."""
        try:
            await self._one(operation)
            self.on_done()
        except CorralError as error:
            log.warning("a volume waits", volume=operation.spec.target_name, code=error.code)
            attempts = self._tries.get(operation.uid, (0, 0.0))[0] + 1
            self._tries[operation.uid] = (attempts, self.clock.monotonic_s() + backoff_s(attempts))
            shown = Shown(f"waiting: {error.code}", self.clock.now(), detail=error.reason, attempts=attempts)
            self.progress.show(operation, shown)
            await self.cache.refresh(Volume, operation.spec.target_uid)
            await self.cache.refresh(Operation, operation.uid)

    async def _one(self, operation: Operation) -> None:
        volume = self.cache.volumes.get(operation.spec.target_uid)
        intent = operation.spec.intent
        if volume is None:
            gone = Problem(code="volume-not-found", asked=operation.spec.target_name, reason="the volume is gone")
            done = isinstance(intent, DeleteVolume)
            await self._end(operation, OperationState.SUCCEEDED if done else OperationState.FAILED, None, gone)
        elif isinstance(intent, CreateVolume):
            await self._create(operation, intent, volume)
        elif isinstance(intent, MoveVolume):
            await self._move(operation, intent, volume)
        elif isinstance(intent, FlattenVolume):
            await self._flatten(operation, intent, volume)
        else:
            await self._change(operation, volume)

    # ---- made and filled ----

    async def _create(self, operation: Operation, intent: CreateVolume, volume: Volume) -> None:
        """Whole, or gone again with its object."""
        if volume.status.ready:
            return await self._end(operation, OperationState.SUCCEEDED, volume)
        if operation.spec.cancel_requested_at is not None:
            return await self._undo(operation, OperationState.CANCELLED, volume)
        state, problem = await self._filled(operation, lambda show: self.work.create(volume, intent, show))
        if state is not OperationState.SUCCEEDED:
            return await self._undo(operation, state, volume, problem)
        await self._end(operation, OperationState.SUCCEEDED, volume, changed=self.work.made(volume))
        await self.work.forget_staged(intent)
        return None

    async def _filled(
        self, operation: Operation, fill: Callable[[OnShare], Coroutine[None, None, None]]
    ) -> tuple[OperationState, Problem | None]:
        """How the filling of a disk ended, which may be cut. What may pass by itself is raised."""
        began_at, phase = self.clock.now(), PHASES[operation.spec.intent.verb]

        def show(share: float) -> None:
            self.progress.show(operation, Shown(phase, began_at, progress=share))

        task = asyncio.get_running_loop().create_task(fill(show))
        self._fills[operation.uid] = task
        try:
            await asyncio.wait([task])
        finally:
            self._fills.pop(operation.uid, None)
            if not task.done():
                task.cancel()
                await asyncio.wait([task], timeout=5.0)
        if task.cancelled():
            return OperationState.CANCELLED, None
        error = task.exception()
        if isinstance(error, CorralError) and self._gives_up(operation, error):
            return OperationState.FAILED, problem_of(error)
        if error is not None:
            raise error
        return OperationState.SUCCEEDED, None

    async def _move(self, operation: Operation, intent: MoveVolume, volume: Volume) -> None:
        """Whole in one place at any instant: copied beside, then known to be there, then the old file goes."""
        if volume.spec.pool != intent.pool:
            state, problem = OperationState.CANCELLED, None
            if operation.spec.cancel_requested_at is None:
                state, problem = await self._filled(operation, lambda show: self.work.move(volume, intent, show))
            if state is not OperationState.SUCCEEDED:
                await self.work.remove_from(volume, intent.pool)
                return await self._end(operation, state, volume, problem)
            volume = await self._stands_alone(volume, intent.pool)
        await self.work.remove_from(volume, intent.from_pool)
        unused = await self.work.remove_unused(volume)
        return await self._end(operation, OperationState.SUCCEEDED, volume, layers=unused)

    async def _flatten(self, operation: Operation, intent: FlattenVolume, volume: Volume) -> None:
        """What is read through its file is the same before and after, with what it leant on below or without."""
        state, problem = OperationState.CANCELLED, None
        if operation.spec.cancel_requested_at is None:
            state, problem = await self._filled(operation, lambda show: self.work.flatten(volume, intent, show))
        if state is not OperationState.SUCCEEDED:
            return await self._end(operation, state, volume, problem)
        volume = await self._stands_alone(volume, volume.spec.pool)
        unused = await self.work.remove_unused(volume)
        return await self._end(operation, OperationState.SUCCEEDED, volume, layers=unused)

    async def _stands_alone(self, volume: Volume, pool: str) -> Volume:
        """It leans on nothing: beside the file, and in the store."""
        found = self.work.alone(volume, pool)
        await self.work.record(found)
        transaction = self.objects.transaction()
        for one in found:
            transaction.update(one)
        committed = await transaction.commit()
        for one in found:
            self.cache.put(one.model_copy(update={"revision": committed.revision}))
        return self.cache.volumes[volume.uid]

    async def _undo(
        self, operation: Operation, state: OperationState, volume: Volume, problem: Problem | None = None
    ) -> None:
        layers = await self.work.remove(volume)
        await self._end(operation, state, volume, problem, delete=True, layers=layers)

    # ---- resized and removed ----

    async def _change(self, operation: Operation, volume: Volume) -> None:
        """From `running` on it is not taken back."""
        begun = operation.status.state is OperationState.RUNNING
        if not begun and operation.spec.cancel_requested_at is not None:
            return await self._end(operation, OperationState.CANCELLED, volume)
        if not begun and (user := next(users_of(self.cache, volume), "")):
            asked = f"{operation.spec.intent.verb} {volume.name}"
            problem = Problem(code="volume-in-use", asked=asked, reason=f"{user} has it")
            return await self._end(operation, OperationState.FAILED, volume, problem)
        operation = operation if begun else await self._begin(operation)
        if isinstance(operation.spec.intent, DeleteVolume):
            layers = await self.work.remove(volume)
            return await self._end(operation, OperationState.SUCCEEDED, volume, delete=True, layers=layers)
        assert isinstance(operation.spec.intent, ResizeVolume)
        try:
            resized = await self.work.resize(volume, operation.spec.intent.size_bytes)
        except CorralError as error:
            if not self._gives_up(operation, error):
                raise
            return await self._end(operation, OperationState.FAILED, volume, problem_of(error))
        return await self._end(operation, OperationState.SUCCEEDED, volume, changed=resized)

    def _gives_up(self, operation: Operation, error: CorralError) -> bool:
        attempts = self._tries.get(operation.uid, (0, 0.0))[0] + 1
        return judge(error, attempts, removing=False) is Verdict.GIVE_UP

    async def _begin(self, operation: Operation) -> Operation:
        """Said durably before the file changes: whoever cancels afterwards is late."""
        self.progress.discard(operation.uid)
        begun = running(operation, Shown(PHASES[operation.spec.intent.verb], self.clock.now()))
        transaction = self.objects.transaction()
        transaction.update(begun)
        committed = await transaction.commit()
        begun = begun.model_copy(update={"revision": committed.revision})
        self.cache.put(begun)
        return begun

    # ---- the end ----

    async def _end(
        self,
        operation: Operation,
        state: OperationState,
        volume: Volume | None = None,
        problem: Problem | None = None,
        *,
        changed: Volume | None = None,
        delete: bool = False,
        layers: tuple[Layer, ...] = (),
    ) -> None:
        """The operation's end, and what becomes of the volume, together."""
        self.progress.discard(operation.uid)
        transaction = self.objects.transaction()
        now = self.clock.now()
        problem = problem if state is OperationState.FAILED else None
        done = ended(Ending(operation, state, problem), now, (), now)
        if not write_end(transaction, self.cache, done):
            return
        stays = None if delete else changed
        if stays is None and volume is not None and volume.being_deleted and not delete:
            stays = volume.model_copy(update={"deletion_requested_at": None})
        for gone in (volume, *layers) if volume is not None and delete else layers:
            transaction.delete(gone)
        if stays is not None:
            transaction.update(stays)
        if isinstance(operation.spec.intent, ResizeVolume):
            transaction.release(work_claim(operation.spec.target_uid))
        transaction.event(ended_event(operation, state, problem, DONE[operation.spec.intent.verb], self.clock.now()))
        committed = await transaction.commit()
        self.cache.put(done.model_copy(update={"revision": committed.revision}))
        for gone in (volume, *layers) if volume is not None and delete else layers:
            self.cache.forget(type(gone), gone.uid)
        if stays is not None:
            self.cache.put(stays.model_copy(update={"revision": committed.revision}))
