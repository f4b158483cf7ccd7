"""The bookkeeping of operations: their journal, their progress for people, their end, and how long they are kept."""

import asyncio
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from corral.agent.cache import Cache
from corral.agent.view import Ending
from corral.clock import Clock
from corral.errors import CorralError
from corral.log import logger
from corral.model.base import Object
from corral.model.event import Event, EventLevel
from corral.model.operation import (
    FlattenVolume,
    Intent,
    MoveVolume,
    Operation,
    OperationSpec,
    OperationState,
    OperationStatus,
    Problem,
    StepRecord,
)
from corral.model.volume import Volume
from corral.names import new_uid
from corral.store.objects import EVENTS, Objects, Transaction, claim_key, decode, work_claim

PROGRESS_INTERVAL_S: Final = 0.2
MERGE_PARTS: Final = 20
STEPS_KEPT: Final = 64
EVENTS_KEPT: Final = 10_000
REVISIONS_KEPT: Final = 10_000
TRIM_AT_ONCE: Final = 60  # two keys each: below a transaction's bound

log = logger("agent.operations")


@dataclass(frozen=True)
class Shown:
    """What is to be seen of an operation under way."""

    phase: str
    started_at: datetime
    steps: tuple[StepRecord, ...] = ()
    progress: float | None = None
    detail: str = ""
    attempts: int = 0


def requested(target: Object, intent: Intent, requested_by: str, request_id: str, now: datetime) -> Operation:
    """An operation that the agent asks for itself, in somebody's name."""
    uid, kind = new_uid(), target.kind
    assert kind in ("vm", "template")
    return Operation(
        project=target.project,
        name=uid,
        uid=uid,
        created_at=now,
        spec=OperationSpec(
            intent=intent,
            target_kind=kind,
            target_uid=target.uid,
            target_name=target.name,
            requested_by=requested_by,
            request_id=request_id,
        ),
    )


def ended_event(
    operation: Operation, state: OperationState, problem: Problem | None, done: str, now: datetime
) -> Event:
    """What is told of an operation's end; `done` is the word for a good one."""
    spec, failed = operation.spec, state is OperationState.FAILED
    return Event(
        time=now,
        project=operation.project,
        level=EventLevel.ERROR if failed else EventLevel.INFO,
        reason="OperationFailed" if failed else done if state is OperationState.SUCCEEDED else "OperationEnded",
        message=f"{spec.intent.verb} of {spec.target_name}: {problem.reason if problem else state}",
        object_kind=spec.target_kind,
        object_uid=spec.target_uid,
        object_name=spec.target_name,
        operation_uid=operation.uid,
        source="agent",
    )


def running(operation: Operation, shown: Shown) -> Operation:
    """`operation` as it is seen under way."""
    status = operation.status.model_copy(
        update={
            "state": OperationState.RUNNING,
            "phase": shown.phase,
            "progress": shown.progress,
            "detail": shown.detail,
            "steps": shown.steps or operation.status.steps,
            "attempts": max(shown.attempts, operation.status.attempts),
            "started_at": operation.status.started_at or shown.started_at,
        }
    )
    return operation.model_copy(update={"status": status})


def ended(ending: Ending, now: datetime, steps: tuple[StepRecord, ...], started_at: datetime | None) -> Operation:
    """The operation in its final state; a step that never ended stays open in the journal."""
    operation = ending.operation
    status: OperationStatus = operation.status.model_copy(
        update={
            "state": ending.state,
            "phase": "",
            "detail": "",
            "progress": 1.0 if ending.state is OperationState.SUCCEEDED else operation.status.progress,
            "steps": steps[-STEPS_KEPT:] or operation.status.steps,
            "error": ending.problem,
            "started_at": operation.status.started_at or started_at,
            "ended_at": now,
        }
    )
    return operation.model_copy(update={"status": status})


def write_end(transaction: Transaction, cache: Cache, operation: Operation) -> bool:
    """Put a final operation into `transaction`. False: it has ended already, once is enough."""
    current = {found.uid: found for found in cache.unfinished(operation.spec.target_uid)}.get(operation.uid)
    if current is None:
        return False
    transaction.update(operation.model_copy(update={"revision": current.revision}))
    intent = operation.spec.intent
    if isinstance(intent, MoveVolume | FlattenVolume):
        transaction.release(work_claim(intent.volume_uid or operation.spec.target_uid))
    return True


@dataclass
class Progress:
    """Publishes phases, and how far layers are merged, not durably and at most five times a second; what ends sooner is
    never published."""

    objects: Objects
    cache: Cache
    clock: Clock
    _pending: dict[str, tuple[str, Shown]] = field(default_factory=dict)
    _merging: dict[str, float | None] = field(default_factory=dict)
    _timer: asyncio.TimerHandle | None = None
    _task: asyncio.Task[None] | None = None

    def show(self, operation: Operation, shown: Shown) -> None:
        self._pending[operation.uid] = (operation.spec.target_uid, shown)
        self._arm()

    def show_share(self, operation: Operation, phase: str, share: float) -> None:
        """What is done beside the turns of its VM, where nothing else is known of it."""
        self.show(operation, Shown(phase, self.clock.now(), progress=share))

    def show_merge(self, volume_uid: str, share: float | None) -> None:
        """Of a layer in a volume's chain; None: that has ended. To a twentieth of it: each word is a revision."""
        self._merging[volume_uid] = share if share is None else int(share * MERGE_PARTS) / MERGE_PARTS
        self._arm()

    def discard(self, operation_uid: str) -> None:
        self._pending.pop(operation_uid, None)

    async def close(self) -> None:
        self._pending.clear()
        self._merging.clear()
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait([self._task], timeout=1.0)

    def _arm(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(PROGRESS_INTERVAL_S, self._fire)

    def _fire(self) -> None:
        self._timer = None
        if self._task is not None and not self._task.done():
            self._arm()
        elif self._pending or self._merging:
            self._task = asyncio.get_running_loop().create_task(self._flush())

    async def _flush(self) -> None:
        pending, self._pending = self._pending, {}
        merging, self._merging = self._merging, {}
        for uid, share in merging.items():
            volume = self.cache.volumes.get(uid)
            if volume is not None and volume.status.merging != share:
                await self._publish(volume.model_copy(update={"status": volume.status.merged(share)}))
        for uid, (target, shown) in pending.items():
            found = {operation.uid: operation for operation in self.cache.unfinished(target)}.get(uid)
            if found is None:
                continue
            await self._publish(running(found, shown))

    async def _publish(self, changed: Operation | Volume) -> None:
        transaction = self.objects.transaction()
        transaction.update(changed)
        try:
            committed = await transaction.commit(durable=False)
        except CorralError as error:  # somebody else wrote it: the watch brings that, the next phase comes
            log.debug("progress was not published", of=changed.uid, code=error.code)
            return
        self.cache.put(changed.model_copy(update={"revision": committed.revision}))


async def trim_history(objects: Objects, keep: int) -> int:
    """Forget the oldest finished operations beyond `keep`, with their idempotency claims; how many went."""
    finished: list[Operation] = []
    after = ""
    while True:
        page = await objects.records(Operation, after=after)
        decoded = (decode(Operation, record) for record in page.records)
        finished += [operation for operation in decoded if operation.status.state.final]
        if not page.more:
            break
        after = page.records[-1].key.removeprefix(Operation.prefix())
    finished.sort(key=lambda operation: operation.revision)
    gone = finished[: max(0, len(finished) - keep)]
    for start in range(0, len(gone), TRIM_AT_ONCE):
        transaction = objects.transaction()
        for operation in gone[start : start + TRIM_AT_ONCE]:
            transaction.delete(operation)
            if operation.spec.client_key:
                transaction.release(claim_key("client-key", operation.spec.requested_by, operation.spec.client_key))
        await transaction.commit(durable=False)
    return len(gone)


async def trim_journals(objects: Objects) -> None:
    """Keep the newest events, and the revisions that a watcher may resume from. The audit journal is never trimmed."""
    last = await objects.store.journal_last(EVENTS)
    if last is not None and last.sequence > EVENTS_KEPT:
        await objects.store.journal_trim(EVENTS, through=last.sequence - EVENTS_KEPT)
    if objects.store.revision > REVISIONS_KEPT:
        await objects.store.compact(objects.store.revision - REVISIONS_KEPT)
