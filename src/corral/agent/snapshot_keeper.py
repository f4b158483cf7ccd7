"""Snapshots that VMs' policies ask for: taken when they are due, and deleted when nothing keeps them any more."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from corral.agent.cache import Cache
from corral.agent.hidden_points import forgetting, is_forgotten
from corral.agent.operations import requested
from corral.agent.view import ACTIVE
from corral.clock import Clock
from corral.errors import CorralError
from corral.log import logger
from corral.model.event import Event
from corral.model.operation import Operation, SnapshotVm
from corral.model.snapshot import Snapshot, SnapshotSpec
from corral.model.snapshot_policy import POLICY_ANNOTATION, SnapshotPolicy, expired, is_due
from corral.model.vm import Vm
from corral.names import MIB, format_bytes, new_uid
from corral.storage.base import VolumeStore
from corral.store.objects import Objects

BY: Final = "service:snapshot-policy"
# After a try, whatever came of it: a disk that is full is not asked every half minute.
AGAIN_S: Final = 600.0
# A schedule must not be what fills the disk.
FREE_LEAST_BYTES: Final = 512 * MIB

log = logger("agent.snapshots")


@dataclass
class SnapshotKeeper:
    """`look` at each relist."""

    objects: Objects
    cache: Cache
    volumes: VolumeStore
    clock: Clock
    tried_s: dict[str, float] = field(default_factory=dict)

    async def look(self) -> None:
        for vm in [vm for vm in self.cache.vms.values() if vm.spec.snapshot_policy is not None]:
            policy = vm.spec.snapshot_policy
            if policy is None or vm.being_deleted:
                continue
            try:
                await self._keep(vm, policy)
            except CorralError as error:
                log.warning("a snapshot policy waits", vm=vm.name, code=error.code, reason=error.reason)

    async def _keep(self, vm: Vm, policy: SnapshotPolicy) -> None:
        ours = [found for found in self.cache.points_of(vm).values() if POLICY_ANNOTATION in found.annotations]
        taken = {found.uid: found.created_at for found in ours}
        now = self.clock.now()
        if is_due(policy, taken, now) and self._may_try(vm) and _has_changed(vm, taken):
            self.tried_s[vm.uid] = self.clock.monotonic_s()
            await self._take(vm, policy, now)
        ready = {found.uid: found.created_at for found in ours if found.status.ready}
        for uid in expired(policy, ready):
            if not is_forgotten(self.cache, vm, uid):
                await self._submit(forgetting(vm, uid, BY, "", now))

    def _may_try(self, vm: Vm) -> bool:
        last_s = self.tried_s.get(vm.uid)
        return last_s is None or self.clock.monotonic_s() - last_s >= AGAIN_S

    async def _take(self, vm: Vm, policy: SnapshotPolicy, now: datetime) -> None:
        free_bytes = (await self.volumes.usage()).free_bytes
        if free_bytes < FREE_LEAST_BYTES:
            left = f"{format_bytes(free_bytes)} of disk are free, it leaves {format_bytes(FREE_LEAST_BYTES)} alone"
            await self._say(vm, "SnapshotSkipped", f"no snapshot of {vm.name} by its policy: {left}", now)
            return
        active = vm.status.seen_state in ACTIVE
        snapshot = Snapshot(
            project=vm.project,
            name=f"auto-{now:%Y%m%d-%H%M%S}",
            uid=new_uid(),
            created_at=now,
            annotations={POLICY_ANNOTATION: "true"},
            spec=SnapshotSpec(
                vm_uid=vm.uid,
                description="by the snapshot policy",
                quiesce=policy.quiesce and active and vm.status.agent_connected,
            ),
        )
        await self._submit(requested(vm, SnapshotVm(snapshot_uid=snapshot.uid), BY, "", now), snapshot)

    async def _submit(self, operation: Operation, snapshot: Snapshot | None = None) -> None:
        transaction = self.objects.transaction()
        transaction.create(operation)
        if snapshot is not None:
            transaction.create(snapshot)
        committed = await transaction.commit()
        if snapshot is not None:
            self.cache.put(snapshot.model_copy(update={"revision": committed.revision}))
        self.cache.put(operation.model_copy(update={"revision": committed.revision}))

    async def _say(self, vm: Vm, reason: str, message: str, now: datetime) -> None:
        transaction = self.objects.transaction()
        transaction.event(
            Event(
                time=now, project=vm.project, reason=reason, message=message, object_kind="vm",
                object_uid=vm.uid, object_name=vm.name, source=BY,
            )
        )  # fmt: skip
        await transaction.commit(durable=False)


def _has_changed(vm: Vm, taken: dict[str, datetime]) -> bool:
    """A VM that was off all the time since the last one holds what that one holds."""
    started_at = vm.status.started_at
    running = vm.status.seen_state in ACTIVE
    return running or not taken or (started_at is not None and started_at > max(taken.values()))
