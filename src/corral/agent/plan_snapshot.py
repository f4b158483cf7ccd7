"""The part of the plan that is about points in time: taking one, going back to one, forgetting one. Pure.

An operation of these has begun once there are layers of its own that are not ready. From then on it comes before anything
else that is wished of the VM, so that nobody defines an old head over a new one. How far it is, is looked at and not
remembered: which files the domain's disks have. Where it is given up, its layers go, and all is as it was before.
"""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import PurePath
from typing import Final
from uuid import UUID, uuid5

from corral.agent.plan_disks import check_not_worked_on
from corral.agent.queue import Queue, cancelled, problem_of
from corral.agent.steps import (
    Destroy,
    MakeHeads,
    PlaceDisks,
    PutBack,
    RemoveHeads,
    RemovePoint,
    RestorePoint,
    SealPoint,
    StartReverted,
    Step,
    SyncClock,
    TakePoint,
    Thaw,
)
from corral.agent.view import Ending, Plan, Settle, Taken, View, Writes, reached
from corral.errors import CorralError
from corral.model.base import ConditionStatus, Object
from corral.model.layer import Layer, LayerSpec, LayerStatus
from corral.model.operation import DeleteSnapshot, Operation, OperationState, Problem, RevertVm, SnapshotVm
from corral.model.snapshot import Snapshot, SnapshotDisk
from corral.model.snapshot_rules import check_revert, check_take, disks_in_time, reverted_vm
from corral.model.vm import Power, VmSpec, VmState
from corral.model.volume import Volume

IN_TIME: Final = (SnapshotVm, RevertVm, DeleteSnapshot)


def plan_in_time(view: View, queue: Queue) -> Plan | None:  # noqa: PLR0911  (a decision table)
    """What is next for an operation of these that has begun, or that waits for nothing. None: there is none such."""
    operation = first_in_time(queue)
    if operation is None:
        return None
    intent = operation.spec.intent
    assert isinstance(intent, IN_TIME)
    snapshot = view.points.get(intent.snapshot_uid)
    if isinstance(intent, DeleteSnapshot):
        return _forget(view, operation, snapshot)
    if snapshot is None:
        problem = Problem(code="snapshot-not-found", asked=f"{intent.verb} of {view.vm.name}", reason="it is gone")
        return _ends(view, operation, OperationState.FAILED, problem)
    heads = begun_heads(view, operation)
    if heads and isinstance(intent, SnapshotVm):
        return _take(view, operation, snapshot, heads)
    if heads:
        return _revert(view, operation, snapshot, heads)
    if isinstance(intent, RevertVm) and not queue.declarative:
        return _begin_revert(view, operation, snapshot)
    return None


def plan_clock(view: View, queue: Queue) -> Plan | None:
    """A guest that went on from a point in time is told what time it is; nobody who asked for that waits for it."""
    operation = first_in_time(queue)
    if not view.clock_behind or (operation is not None and begun_heads(view, operation)):
        return None
    return Plan((SyncClock(),), again=True)


def first_in_time(queue: Queue) -> Operation | None:
    found = queue.imperative[0] if queue.imperative else None
    return found if found is not None and isinstance(found.spec.intent, IN_TIME) else None


def begun_heads(view: View, operation: Operation) -> tuple[Layer, ...]:
    """The layers that were made for an operation and that nobody has yet."""
    found = (layer for layer in view.tree.layers.values() if layer.spec.operation_uid == operation.uid)
    return tuple(sorted((layer for layer in found if not layer.status.ready), key=lambda layer: layer.uid))


# ---- taking one ----------------------------------------------------------------------------------------------------


def begin_take(view: View, operation: Operation, otherwise: Plan) -> Plan:
    """All that is wished of the VM is reached: its disks are looked at, and what they go on in is written down."""
    intent = operation.spec.intent
    assert isinstance(intent, SnapshotVm)
    snapshot = view.points[intent.snapshot_uid]
    if cancelled(operation):
        return _ends(view, operation, OperationState.CANCELLED, deleted=(snapshot,))
    vm, domain = view.vm, view.domain
    saved = domain is not None and domain.has_managed_save
    layers, with_memory = view.tree.layers, snapshot.spec.with_memory
    try:
        check_not_worked_on(view)
        check_take(vm, view.volumes, layers, with_memory=with_memory, active=view.active, saved=saved)
    except CorralError as error:
        return _ends(view, operation, OperationState.FAILED, problem_of(error), deleted=(snapshot,))
    disks, created, updated = [], [], []
    for disk in disks_in_time(vm):
        volume = view.volumes[disk.volume_uid or ""]
        frozen, head = _frozen(view, volume), _head(operation, disk.name)
        if volume.head_uid not in layers:
            created.append(frozen)
        elif frozen != layers[volume.head_uid]:
            updated.append(frozen)
        created.append(_layer(view, operation, volume, head, frozen.uid, volume.spec.size_bytes))
        disks.append(
            SnapshotDisk(
                name=disk.name,
                volume_uid=volume.uid,
                layer_uid=frozen.uid,
                head_uid=head,
                size_bytes=volume.spec.size_bytes,
            )
        )
    spec = snapshot.spec.model_copy(
        update={
            "disks": tuple(disks),
            "parent_uid": vm.spec.snapshot_uid,
            "vm_spec": vm.spec.model_copy(update={"cloud_init": None}),
        }
    )
    writes = Writes(created=tuple(created), updated=(*updated, snapshot.model_copy(update={"spec": spec})))
    return replace(otherwise, settle=replace(otherwise.settle, writes=writes, more=True))


def _take(view: View, operation: Operation, snapshot: Snapshot, heads: tuple[Layer, ...]) -> Plan:
    if not _switched(view, heads):
        if operation.status.error is not None or cancelled(operation):
            return _take_back(view, operation, heads, (Thaw(snapshot.spec.quiesce),), snapshot)
        return _acting(operation, MakeHeads(heads), TakePoint(operation.uid, snapshot))
    pairs = tuple((disk.volume_uid, disk.head_uid) for disk in snapshot.spec.disks)
    writes = _settled_heads(view, heads, {disk.head_uid: disk for disk in snapshot.spec.disks})
    if not _done(view, operation, SealPoint):
        volumes = tuple(found for found in writes.updated if isinstance(found, Volume))
        layers = tuple(found for found in writes.updated if isinstance(found, Layer))
        return _acting(operation, SealPoint(operation.uid, layers, volumes, (snapshot,), pairs))
    taken = finished(snapshot, view.taken or Taken(), operation)
    writes = replace(writes, updated=(*writes.updated, taken))
    spec = view.vm.spec.model_copy(update={"snapshot_uid": snapshot.uid})
    return _ends(view, operation, OperationState.SUCCEEDED, writes=writes, spec=spec)


def finished(snapshot: Snapshot, taken: Taken, operation: Operation | None = None) -> Snapshot:
    """As it is once it is taken."""
    began = operation.status.started_at or operation.created_at if operation is not None else snapshot.created_at
    status = snapshot.status.model_copy(
        update={
            "ready": True,
            "state": taken.state,
            "taken_at": taken.at or began,
            "pause_ms": taken.pause_ms,
            "quiesced": taken.quiesced,
            "memory_bytes": taken.memory_bytes,
            "kept": taken.kept,
        }
    )
    return snapshot.model_copy(update={"status": status})


# ---- going back ----------------------------------------------------------------------------------------------------


def _begin_revert(view: View, operation: Operation, snapshot: Snapshot) -> Plan:
    if cancelled(operation):
        return _ends(view, operation, OperationState.CANCELLED)
    saved = view.domain is not None and view.domain.has_managed_save
    try:
        check_revert(view.vm, snapshot, view.volumes, saved=saved)
        for disk in snapshot.spec.disks:
            view.tree.chain(disk.layer_uid)
    except CorralError as error:
        return _ends(view, operation, OperationState.FAILED, problem_of(error))
    created: list[Object] = []
    for disk in snapshot.spec.disks:
        volume = view.volumes[disk.volume_uid]
        head = _head(operation, disk.name)
        created.append(_layer(view, operation, volume, head, disk.layer_uid, disk.size_bytes))
    return _settles(view, Writes(created=tuple(created)))


def _revert(view: View, operation: Operation, snapshot: Snapshot, heads: tuple[Layer, ...]) -> Plan:
    after = reverted_vm(view.vm, snapshot)
    runs = after.spec.power is not Power.OFF
    by_head = {_head(operation, disk.name): disk for disk in snapshot.spec.disks}
    pairs = tuple((disk.volume_uid, uid) for uid, disk in by_head.items())
    came_up = _done(view, operation, RestorePoint) or _done(view, operation, StartReverted)
    there = _switched(view, heads) and (view.active is runs or came_up)
    if not there:
        if operation.status.error is not None or cancelled(operation):
            return _put_back(view, operation, heads)
        steps: list[Step] = [MakeHeads(heads, anew=True), PlaceDisks(pairs)]
        if view.active:  # as short as can be; but what it has open is not made anew
            steps = [Destroy(), *steps] if _switched(view, heads) else [steps[0], Destroy(), *steps[1:]]
        steps += [PutBack(snapshot)] if snapshot.status.kept else []
        if runs and snapshot.spec.with_memory:
            steps.append(RestorePoint(operation.uid, snapshot, pairs))
        elif runs:
            steps.append(StartReverted(operation_uid=operation.uid))
        return _acting(operation, *steps)
    restored = _done(view, operation, RestorePoint)  # else by a former process
    if snapshot.spec.with_memory and view.active and not restored and not _done(view, operation, SyncClock):
        return _acting(operation, SyncClock(operation.uid))
    writes = _settled_heads(view, heads, by_head)
    if not _done(view, operation, SealPoint):
        volumes = tuple(found for found in writes.updated if isinstance(found, Volume))
        layers = tuple(found for found in writes.updated if isinstance(found, Layer))
        return _acting(operation, SealPoint(operation.uid, layers, volumes, (), pairs))
    return _ends(view, operation, OperationState.SUCCEEDED, writes=writes, spec=after.spec)


def _put_back(view: View, operation: Operation, heads: tuple[Layer, ...]) -> Plan:
    """The disks are what they were before; a guest that was stopped for it stays off, and its operation says why."""
    steps: tuple[Step, ...] = (PlaceDisks(),) if view.domain is not None else ()
    if view.active and _switched(view, heads):
        steps = (Destroy(), *steps)
    return _take_back(view, operation, heads, steps, None)


# ---- forgetting one ------------------------------------------------------------------------------------------------


def _forget(view: View, operation: Operation, snapshot: Snapshot | None) -> Plan:
    """Its layers are seen to in a quiet moment: nobody waits for that."""
    if snapshot is None:
        return _ends(view, operation, OperationState.SUCCEEDED)
    removed = _done(view, operation, RemovePoint)
    begun = removed or any(step.name == RemovePoint.NAME for step in operation.status.steps)
    if cancelled(operation) and not begun:
        return _ends(view, operation, OperationState.CANCELLED)
    children = tuple(_under(other, snapshot.spec.parent_uid) for other in _from(view, snapshot))
    if not removed:
        return _acting(operation, RemovePoint(operation.uid, snapshot.uid, children))
    spec = view.vm.spec
    if spec.snapshot_uid == snapshot.uid:
        spec = spec.model_copy(update={"snapshot_uid": snapshot.spec.parent_uid})
    writes = Writes(updated=children, deleted=(snapshot,))
    return _ends(view, operation, OperationState.SUCCEEDED, writes=writes, spec=spec)


def _from(view: View, snapshot: Snapshot) -> Iterable[Snapshot]:
    return (other for other in view.points.values() if other.spec.parent_uid == snapshot.uid)


def _under(snapshot: Snapshot, parent_uid: str | None) -> Snapshot:
    return snapshot.model_copy(update={"spec": snapshot.spec.model_copy(update={"parent_uid": parent_uid})})


# ---- within --------------------------------------------------------------------------------------------------------


def _head(operation: Operation, disk: str) -> str:
    """The same for every try: what is made twice is made once."""
    return str(uuid5(UUID(operation.uid), disk))


def _layer(view: View, operation: Operation, volume: Volume, uid: str, parent_uid: str, size_bytes: int) -> Layer:
    return Layer(
        project=volume.project,
        name=uid,
        uid=uid,
        created_at=operation.created_at,
        spec=LayerSpec(
            pool=volume.spec.pool,
            size_bytes=size_bytes,
            parent_uid=parent_uid,
            image_uid=volume.spec.image_uid,
            image_digest=volume.spec.image_digest,
            volume_uid=volume.uid,
            vm_uid=view.vm.uid,
            operation_uid=operation.uid,
        ),
    )


def _frozen(view: View, volume: Volume) -> Layer:
    """What a volume writes to, as the layer that it becomes."""
    known = view.tree.layers.get(volume.head_uid)
    if known is not None:
        return known.model_copy(update={"spec": known.spec.model_copy(update={"size_bytes": volume.spec.size_bytes})})
    return Layer(
        project=volume.project,
        name=volume.uid,
        uid=volume.uid,
        created_at=volume.created_at,
        spec=LayerSpec(
            pool=volume.spec.pool,
            size_bytes=volume.spec.size_bytes,
            image_uid=volume.spec.image_uid,
            image_digest=volume.spec.image_digest,
            volume_uid=volume.uid,
            vm_uid=view.vm.uid,
        ),
        status=LayerStatus(ready=True),
    )


def files_of(view: View) -> frozenset[str]:
    """The uids of the layers that the domain's disks write to now."""
    files = view.domain.files if view.domain is not None else ()
    return frozenset(PurePath(path).stem for _, path in files)


def _switched(view: View, heads: tuple[Layer, ...]) -> bool:
    """All at once or not at all: one of them says it for all."""
    files = files_of(view)
    return any(head.uid in files for head in heads)


def _settled_heads(view: View, heads: tuple[Layer, ...], disks: dict[str, SnapshotDisk]) -> Writes:
    """The heads are ready, and the volumes write to them."""
    updated: list[Object] = []
    for head in heads:
        updated.append(head.model_copy(update={"status": LayerStatus(ready=True)}))
        volume, size_bytes = view.volumes[disks[head.uid].volume_uid], disks[head.uid].size_bytes
        spec = volume.spec.model_copy(update={"layer_uid": head.uid, "size_bytes": size_bytes})
        update: dict[str, object] = {"path": str(PurePath(volume.status.path).with_name(f"{head.uid}.qcow2"))}
        if size_bytes != volume.spec.size_bytes:
            update["size_bytes"] = size_bytes
        status = volume.status.model_copy(update=update if volume.status.path else {})
        updated.append(volume.model_copy(update={"spec": spec, "status": status}))
    return Writes(updated=tuple(updated))


def _done(view: View, operation: Operation, step: type[Step]) -> bool:
    return (operation.uid, step.NAME) in view.known.steps_done


def _acting(operation: Operation, *steps: Step) -> Plan:
    return Plan(steps, again=True, operation_uid=operation.uid)


def _take_back(
    view: View, operation: Operation, heads: tuple[Layer, ...], steps: tuple[Step, ...], snapshot: Snapshot | None
) -> Plan:
    """The operation failed, or was cancelled, and its layers go."""
    if not _done(view, operation, RemoveHeads):
        removal = RemoveHeads(operation.uid, heads, snapshot.uid if snapshot is not None else "")
        return _acting(operation, *steps, removal)
    state = OperationState.FAILED if operation.status.error is not None else OperationState.CANCELLED
    deleted: tuple[Object, ...] = (*heads, *((snapshot,) if snapshot is not None else ()))
    found = _ends(view, operation, state, operation.status.error, deleted=deleted)
    if snapshot is None and not view.active and view.vm.spec.power is not Power.OFF:
        name = view.vm.name
        message = (
            f"{name} was stopped to go back in time, which failed; its disks are as they were: corral start {name}"
        )
        settle = replace(found.settle, power=Power.OFF, source="agent", reason="RevertFailed", message=message)
        return replace(found, settle=settle)
    return found


def _ends(
    view: View,
    operation: Operation,
    state: OperationState,
    problem: Problem | None = None,
    *,
    writes: Writes | None = None,
    deleted: tuple[Object, ...] = (),
    spec: VmSpec | None = None,
) -> Plan:
    found = writes if writes is not None else Writes(deleted=deleted)
    return _settles(view, found, (Ending(operation, state, problem),), spec, operation.uid)


def _settles(
    view: View, writes: Writes, endings: tuple[Ending, ...] = (), spec: VmSpec | None = None, operation_uid: str = ""
) -> Plan:
    """Written together with what is seen; the next look is at once."""
    conditions = view.vm.status.conditions
    drifted = any(found.type == "Drifted" and found.status is ConditionStatus.TRUE for found in conditions)
    settle = Settle(
        endings=endings,
        writes=writes,
        spec=spec if spec != view.vm.spec else None,
        reached=view.vm.generation == view.vm.status.observed_generation and reached(view),
        drifted=drifted,
        more=True,
    )
    return Plan(settle=settle, operation_uid=operation_uid)


def state_seen(view: View) -> VmState:
    return view.domain.state if view.domain is not None else VmState.SHUT_OFF
