"""What the agent writes about VMs: status, ends of operations, the one spec field, and goodbye; each in one transaction."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final

from corral.agent.cache import Cache
from corral.agent.operations import Progress, ended, write_end
from corral.agent.status import (
    GuestKnown,
    HostKnown,
    observed_status,
    stands_still,
    unreachable,
    with_shared_identity,
)
from corral.agent.view import ACTIVE, Ending, Settle, View, Writes
from corral.clock import Clock
from corral.errors import CorralError
from corral.model.base import Object
from corral.model.event import Event, EventLevel
from corral.model.layer import LayerStatus
from corral.model.operation import Operation, OperationState, Problem, StepRecord
from corral.model.vm import DAC_UID_ANNOTATION, DAC_UID_FIRST, Vm, VmState, VmStatus
from corral.model.volume import Volume, VolumeStatus
from corral.security.audit import AuditEntry, AuditLog
from corral.store.base import Committed
from corral.store.objects import Objects, Transaction, claim_key

DONE: Final = {
    "create": "VmCreated",
    "update": "VmChanged",
    "adopt": "VmAdopted",
    "snapshot-create": "SnapshotTaken",
    "snapshot-revert": "VmReverted",
    "snapshot-delete": "SnapshotDeleted",
    "volume-move": "VolumeMoved",
    "volume-flatten": "VolumeFlattened",
    "reset": "VmReset",
    "reboot": "VmRebooted",
}


@dataclass
class Recorder:
    """Writes through compare-and-swap: `precondition-failed` means that somebody else was first, look again."""

    objects: Objects
    cache: Cache
    clock: Clock
    progress: Progress
    audit: AuditLog
    volume_path: Callable[[Volume], Path]
    timeout_s: float
    """How long a transaction may take; one that is late may still have happened, and the next look sees it."""
    host: HostKnown = field(default_factory=lambda: HostKnown("", ""))

    async def settle(
        self, view: View, settle: Settle, guest: GuestKnown, journal: list[StepRecord], began_at: datetime | None
    ) -> Vm | None:
        """Status, endings and whatever else goes with them. Returns the VM as it stands now, None if it is gone."""
        now = self.clock.now()
        status = observed_status(view, settle, guest, self.host, now)
        if view.vm.uid in self.cache.doubles:
            status = with_shared_identity(status, now)
        return await self._write(view, settle, status, journal, began_at, seen=True)

    async def settle_unseen(self, view: View, settle: Settle, journal: list[StepRecord]) -> Vm | None:
        """As `settle`, where the hypervisor was not, or could not be, looked at: only the failure is written."""
        failed = next((e.problem for e in settle.endings if e.problem is not None), None)
        update = {"last_error_code": failed.code, "last_error": failed.reason} if failed is not None else {}
        status = view.vm.status.model_copy(update=update)
        return await self._write(view, settle, status, journal, None, seen=False)

    async def begin_undo(self, create: Operation, problem: Problem) -> None:
        """From now on this create is being taken back, whatever happens to this process."""
        status = create.status.model_copy(
            update={"state": OperationState.RUNNING, "error": problem, "phase": f"undoing: {problem.code}"}
        )
        await self.journal(create.model_copy(update={"status": status}))

    async def journal(self, operation: Operation) -> None:
        """Write an operation durably before something is done that must be remembered."""
        self.progress.discard(operation.uid)
        current = {found.uid: found for found in self.cache.unfinished(operation.spec.target_uid)}.get(operation.uid)
        if current is None:
            raise CorralError("precondition-failed", f"operation {operation.uid}", "it has ended")
        merged = operation.model_copy(update={"revision": current.revision, "spec": current.spec})
        transaction = self.objects.transaction()
        transaction.update(merged)
        committed = await self._commit(transaction)
        self.cache.put(merged.model_copy(update={"revision": committed.revision}))

    async def note_failure(self, vm: Vm, error: CorralError) -> None:
        """On the VM: why nothing moves. Not durable; the next failure says it again."""
        status = unreachable(vm.status, error.code, error.reason, self.clock.now())
        current = self.cache.vms.get(vm.uid)
        if current is None or status == current.status:
            return
        transaction = self.objects.transaction()
        changed = current.model_copy(update={"status": status})
        transaction.update(changed)
        try:
            committed = await self._commit(transaction, durable=False)
        except CorralError:  # the store is what fails, or somebody was first: said again at the next failure
            return
        self.cache.put(changed.model_copy(update={"revision": committed.revision}))

    # ---- one transaction ----

    async def _commit(self, transaction: Transaction, *, durable: bool = True) -> Committed:
        try:
            async with asyncio.timeout(self.timeout_s):
                return await transaction.commit(durable=durable)
        except TimeoutError as error:
            reason = f"the store did not answer within {self.timeout_s:g} s"
            raise CorralError("store-unavailable", "record a change", reason) from error

    async def _write(
        self,
        view: View,
        settle: Settle,
        status: VmStatus,
        journal: list[StepRecord],
        began_at: datetime | None,
        *,
        seen: bool,
    ) -> Vm | None:
        transaction = self.objects.transaction()
        vm = self._changed(view, settle, status)
        operations = self._endings(transaction, settle, journal, began_at)
        volumes = [] if settle.forget else self._changed_volumes(transaction, view)
        objects = _write(transaction, settle.writes)
        if settle.forget:
            self._forget(transaction, view, settle)
        elif vm is not view.vm:
            transaction.update(vm)
        self._say(transaction, view, settle, vm if seen else view.vm)
        if not transaction.writes:
            return vm
        durable = bool(operations or settle.writes) or settle.power is not None or settle.forget
        committed = await self._commit(transaction, durable=durable)
        for gone in settle.writes.deleted:
            self.cache.forget(type(gone), gone.uid)
        for changed in (*operations, *volumes, *objects):
            self.cache.put(changed.model_copy(update={"revision": committed.revision}))
        if settle.forget:
            for uid in view.volumes:
                if uid not in settle.kept:
                    self.cache.forget(Volume, uid)
            self.cache.forget(Vm, vm.uid)
            return None
        if vm is not view.vm:
            vm = vm.model_copy(update={"revision": committed.revision})
            self.cache.put(vm)
        return vm

    def _changed(self, view: View, settle: Settle, status: VmStatus) -> Vm:
        update: dict[str, object] = {}
        if status is not view.vm.status and status != view.vm.status:
            update["status"] = status
        if settle.power is not None and settle.power is not view.vm.spec.power:
            update["spec"] = view.vm.spec.model_copy(update={"power": settle.power})
            update["generation"] = view.vm.generation + 1
        if settle.spec is not None:
            update["spec"] = settle.spec
        if settle.undelete:
            update["deletion_requested_at"] = None
            update["generation"] = view.vm.generation + 1
        return view.vm.model_copy(update=update) if update else view.vm

    def _endings(
        self, transaction: Transaction, settle: Settle, journal: list[StepRecord], began_at: datetime | None
    ) -> list[Operation]:
        now = self.clock.now()
        written: list[Operation] = []
        for ending in settle.endings:
            self.progress.discard(ending.operation.uid)
            operation = ended(ending, now, tuple(journal), began_at or now)
            if write_end(transaction, self.cache, operation):
                written.append(operation)
        return written

    def _changed_volumes(self, transaction: Transaction, view: View) -> list[Object]:
        """What is known of its volumes since: those made by a create become ready with its success, not before (until
        then they are undone); one that was taken out belongs to nobody once no guest can hold it any more."""
        changed: list[Object] = []
        kept = {disk.volume_uid for disk in view.vm.spec.disks}
        grown = dict(sorted(view.known.grown))  # of several sizes, the largest
        for uid in (*view.volumes, *(uid for uid in view.known.made if uid not in view.volumes)):
            volume = self.cache.volumes.get(uid)
            if volume is None:
                continue
            status, spec = volume.status, volume.spec
            if uid not in kept and not status.ready and uid in view.known.removed:
                transaction.require(view.vm)
                transaction.delete(volume)  # taken out before it was made
                continue
            if uid in view.known.made and not status.ready and view.domain is not None:
                status = VolumeStatus(ready=True, path=str(self.volume_path(volume)))
            if uid in grown:
                status = status.model_copy(update={"size_bytes": grown[uid]})
            if uid not in kept and status.ready and spec.vm_uid == view.vm.uid and not _may_hold(view):
                transaction.require(view.vm)  # as newly written, it may have it again
                spec = spec.model_copy(update={"vm_uid": None})
            if (status, spec) != (volume.status, volume.spec):
                after = volume.model_copy(update={"status": status, "spec": spec})
                transaction.update(after)
                changed.append(after)
            head = self.cache.layers.get(uid)
            if status.ready and head is not None and not head.status.ready:  # it began on another disk's layer
                made = head.model_copy(update={"status": LayerStatus(ready=True)})
                transaction.update(made)
                changed.append(made)
        return changed

    def _forget(self, transaction: Transaction, view: View, settle: Settle) -> None:
        vm = view.vm
        transaction.delete(vm)
        for nic in vm.spec.nics:
            transaction.release(claim_key("mac", "host", nic.mac))
            for address in nic.addresses:
                transaction.release(claim_key("address", nic.network_uid, address))
        dac_uid = vm.annotations.get(DAC_UID_ANNOTATION)
        if dac_uid is not None and dac_uid.isdecimal():
            transaction.release(claim_key("dac-uid", "host", str(int(dac_uid) - DAC_UID_FIRST)))
        for uid, volume in view.volumes.items():
            if uid in settle.kept:
                spec = volume.spec.model_copy(update={"vm_uid": None})
                status = VolumeStatus(ready=True, path=str(self.volume_path(volume)))
                transaction.update(volume.model_copy(update={"spec": spec, "status": status}))
            else:
                transaction.delete(volume)

    # ---- what is said about it ----

    def _say(self, transaction: Transaction, view: View, settle: Settle, vm: Vm) -> None:
        was, now_active = view.vm.status.seen_state in ACTIVE, vm.status.seen_state in ACTIVE
        if now_active and not was:
            self._event(transaction, vm, "VmStarted", f"{vm.name} runs")
        elif was and not now_active and not settle.forget:
            self._event(transaction, vm, "VmStopped", f"{vm.name} is {vm.status.state}")
        self._say_space(transaction, view.vm, vm)
        for ending in settle.endings:
            self._say_end(transaction, vm, ending)
        if settle.forget:
            self._event(transaction, vm, "VmDeleted", f"{vm.name} is gone")
        if settle.reason:
            self._event(transaction, vm, settle.reason, settle.message, source=settle.source or "agent")
        if settle.power is not None and settle.source.startswith("external:"):
            detail = f"power {view.vm.spec.power} -> {settle.power}: {settle.message}"
            entry = AuditEntry(settle.source, vm.project, "vm.power", vm.name, "accepted", "", detail)
            self.audit.add(transaction, entry)

    def _say_space(self, transaction: Transaction, before: Vm, now: Vm) -> None:
        stood, stands = stands_still(before), stands_still(now)
        if stands and not stood:
            message = (
                f"{now.name} is paused: its guest wrote to a disk that has no space; it goes on once there is some"
            )
            self._event(transaction, now, "VmOutOfSpace", message, level=EventLevel.ERROR)
        elif stood and now.status.state is VmState.RUNNING:
            self._event(transaction, now, "VmHasSpace", f"{now.name} goes on")

    def _say_end(self, transaction: Transaction, vm: Vm, ending: Ending) -> None:
        verb, uid = ending.operation.spec.intent.verb, ending.operation.uid
        if ending.state is OperationState.SUCCEEDED and verb in DONE:
            self._event(transaction, vm, DONE[verb], f"{verb} of {vm.name} is done", operation_uid=uid)
        elif ending.state in (OperationState.FAILED, OperationState.INTERRUPTED):
            why = f"{ending.problem.reason} [{ending.problem.code}]" if ending.problem else "it was cut by a crash"
            message = f"{verb} of {vm.name}: {why}"
            self._event(transaction, vm, "OperationFailed", message, operation_uid=uid, level=EventLevel.ERROR)

    def _event(
        self,
        transaction: Transaction,
        vm: Vm,
        reason: str,
        message: str,
        *,
        source: str = "agent",
        operation_uid: str = "",
        level: EventLevel = EventLevel.INFO,
    ) -> None:
        transaction.event(
            Event.model_construct(
                time=self.clock.now(),
                project=vm.project,
                level=level,
                reason=reason,
                message=message,
                object_kind="vm",
                object_uid=vm.uid,
                object_name=vm.name,
                operation_uid=operation_uid,
                source=source,
            )
        )


def _write(transaction: Transaction, writes: Writes) -> tuple[Object, ...]:
    """Put them into the transaction; those that are there afterwards."""
    for created in writes.created:
        transaction.create(created)
    for updated in writes.updated:
        transaction.update(updated)
    for deleted in writes.deleted:
        transaction.delete(deleted)
    return (*writes.created, *writes.updated)


def _may_hold(view: View) -> bool:
    """A running guest that does not have all of its newest definition may still have a disk that it should not."""
    domain = view.domain
    if domain is None or domain.definition_hash not in view.wanted_hashes:
        return domain is not None
    if domain.has_managed_save:
        return True  # it resumes with what it had
    return view.active and (bool(domain.pending) or domain.live_spec_json != view.wanted_json)
