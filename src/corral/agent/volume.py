"""Volumes that are to go: their files first, then what is known of them. A crash anywhere repeats from the start."""

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from corral.agent.cache import Cache
from corral.agent.failures import backoff_s
from corral.agent.operations import Progress, Shown, ended, running, write_end
from corral.agent.view import Ending
from corral.clock import Clock
from corral.errors import CorralError
from corral.log import logger
from corral.model.event import Event, EventLevel
from corral.model.operation import Operation, OperationState, Problem
from corral.model.volume import Volume
from corral.storage.base import VolumeStore
from corral.store.objects import Objects, Transaction

PHASE: Final = "deleting"

log = logger("agent.volume")


@dataclass
class VolumeKeeper:
    """Works through the unfinished operations on volumes. From `running` on a deletion is not taken back."""

    objects: Objects
    cache: Cache
    volumes: VolumeStore
    progress: Progress
    clock: Clock
    _wanted: asyncio.Event = field(default_factory=asyncio.Event)
    _tries: dict[str, tuple[int, float]] = field(default_factory=dict)
    """Of operations that failed: how often, and when to try again (monotonic)."""

    def wake(self) -> None:
        """Something was written about a volume."""
        self._wanted.set()

    async def run(self) -> None:
        while True:
            self._wanted.clear()
            pending = self._pending()
            self._tries = {o.uid: self._tries[o.uid] for o in pending if o.uid in self._tries}
            for operation in pending:
                if self._due_s(operation) <= self.clock.monotonic_s():
                    await self._try(operation)
            due_s = min((self._due_s(operation) for operation in self._pending()), default=None)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if due_s is None else max(0.0, due_s - self.clock.monotonic_s())):
                    await self._wanted.wait()

    def _pending(self) -> list[Operation]:
        found = [o for o in self.cache.all_unfinished() if o.spec.target_kind == "volume"]
        return sorted(found, key=lambda o: (o.created_at, o.uid))

    def _due_s(self, operation: Operation) -> float:
        return self._tries.get(operation.uid, (0, 0.0))[1]

    async def _try(self, operation: Operation) -> None:
        """A file that cannot be removed is waited for, as with the disks of a VM."""
        try:
            await self._one(operation)
        except CorralError as error:
            log.warning("a volume stays for now", volume=operation.spec.target_name, code=error.code)
            attempts = self._tries.get(operation.uid, (0, 0.0))[0] + 1
            self._tries[operation.uid] = (attempts, self.clock.monotonic_s() + backoff_s(attempts))
            shown = Shown(f"waiting: {error.code}", self.clock.now(), detail=error.reason, attempts=attempts)
            self.progress.show(operation, shown)
            await self.cache.refresh(Volume, operation.spec.target_uid)
            await self.cache.refresh(Operation, operation.uid)

    async def _one(self, operation: Operation) -> None:
        volume = self.cache.volumes.get(operation.spec.target_uid)
        begun = operation.status.state is OperationState.RUNNING
        if volume is None:
            await self._end(operation, OperationState.SUCCEEDED)
        elif not begun and operation.spec.cancel_requested_at is not None:
            await self._end(operation, OperationState.CANCELLED, volume)
        elif not begun and (user := next(self._users(volume), "")):
            asked = f"delete volume {volume.name}"
            problem = Problem(code="volume-in-use", asked=asked, reason=f"VM {user} has it")
            await self._end(operation, OperationState.FAILED, volume, problem)
        else:
            if not begun:
                operation = await self._begin(operation)
            await self.volumes.remove(volume.uid)
            await self._end(operation, OperationState.SUCCEEDED, volume)

    def _users(self, volume: Volume) -> Iterator[str]:
        for vm in self.cache.vms.values():
            if vm.uid == volume.spec.vm_uid or any(disk.volume_uid == volume.uid for disk in vm.spec.disks):
                yield vm.name

    async def _begin(self, operation: Operation) -> Operation:
        """Said durably before the file goes: whoever cancels afterwards is late."""
        self.progress.discard(operation.uid)
        begun = running(operation, Shown(PHASE, self.clock.now()))
        transaction = self.objects.transaction()
        transaction.update(begun)
        committed = await transaction.commit()
        begun = begun.model_copy(update={"revision": committed.revision})
        self.cache.put(begun)
        return begun

    async def _end(
        self,
        operation: Operation,
        state: OperationState,
        volume: Volume | None = None,
        problem: Problem | None = None,
    ) -> None:
        """The operation's end, and the volume's, or its staying, together."""
        self.progress.discard(operation.uid)
        transaction = self.objects.transaction()
        now = self.clock.now()
        done = ended(Ending(operation, state, problem), now, (), now)
        if not write_end(transaction, self.cache, done):
            return
        stays = None
        if volume is not None and state is OperationState.SUCCEEDED:
            transaction.delete(volume)
        elif volume is not None:
            stays = volume.model_copy(update={"deletion_requested_at": None})
            transaction.update(stays)
        self._say(transaction, operation, state, problem)
        committed = await transaction.commit()
        self.cache.put(done.model_copy(update={"revision": committed.revision}))
        if stays is not None:
            self.cache.put(stays.model_copy(update={"revision": committed.revision}))
        elif volume is not None:
            self.cache.forget(Volume, volume.uid)

    def _say(
        self, transaction: Transaction, operation: Operation, state: OperationState, problem: Problem | None
    ) -> None:
        spec, failed = operation.spec, state is OperationState.FAILED
        done = "VolumeDeleted" if state is OperationState.SUCCEEDED else "OperationEnded"
        transaction.event(
            Event(
                time=self.clock.now(),
                project=operation.project,
                level=EventLevel.ERROR if failed else EventLevel.INFO,
                reason="OperationFailed" if failed else done,
                message=f"{spec.intent.verb} of {spec.target_name}: {problem.reason if problem else state}",
                object_kind="volume",
                object_uid=spec.target_uid,
                object_name=spec.target_name,
                operation_uid=operation.uid,
                source="agent",
            )
        )
