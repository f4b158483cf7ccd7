"""The part of the plan that is about disks being moved to another pool, or made to lean on nothing. Pure.

How far it is, is looked at and not remembered: which file the domain's disk has now. That file counts; the other one goes.
Copying goes on beside the VM's turns. It is the guest's own QEMU that copies while it runs, and this process while it is off:
whenever that changes, the copy is begun anew.
"""

from dataclasses import replace
from typing import Final

from corral.agent.queue import Queue, cancelled
from corral.agent.steps import BeginDiskWork, RemoveCopy, SealDisk, Step, StopDiskWork, SwitchDisk
from corral.agent.view import Ending, Plan, Settle, View, Wait, Writes, reached
from corral.errors import CorralError
from corral.model.base import ConditionStatus
from corral.model.layer import Layer
from corral.model.operation import FlattenVolume, MoveVolume, Operation, OperationState, Problem
from corral.model.vm import DiskSpec, Power, VmState
from corral.model.volume import Volume

LOOK_AGAIN_S: Final = 30.0
OnDisk = MoveVolume | FlattenVolume


def intent_of(operation: Operation) -> OnDisk:
    assert isinstance(operation.spec.intent, OnDisk)
    return operation.spec.intent


def disk_with(view: View, operation: Operation) -> tuple[DiskSpec, Volume] | None:
    """The disk that is worked on; None: it was taken out of the VM."""
    volume = view.volumes.get(intent_of(operation).volume_uid or "")
    disk = next((found for found in view.vm.spec.disks if volume and found.volume_uid == volume.uid), None)
    return (disk, volume) if volume is not None and disk is not None else None


# ---- what it becomes -----------------------------------------------------------------------------------------------


def _after(view: View, operation: Operation, volume: Volume) -> tuple[Volume, Layer | None]:
    intent = intent_of(operation)
    pool = intent.pool if isinstance(intent, MoveVolume) else volume.spec.pool
    head = view.tree.layers.get(volume.head_uid)
    path = view.disk_work[operation.uid].path
    return volume.alone_in(pool, path), head.alone_in(pool) if head is not None else None


# ---- what comes before all else --------------------------------------------------------------------------------------


def plan_switched(view: View) -> Plan | None:
    """The guest writes the new file, or the store says so already: that is finished, whatever else is wished."""
    for operation in view.operations:
        if not isinstance(operation.spec.intent, MoveVolume) or operation.uid not in view.disk_work:
            continue
        found = disk_with(view, operation)
        if found is not None and is_switched(view, operation):
            return _sealed(view, operation, found[1])
    return None


def is_switched(view: View, operation: Operation) -> bool:
    """It is in its new file as far as the domain says, and the store does not say so yet."""
    intent, found = operation.spec.intent, disk_with(view, operation)
    if not isinstance(intent, MoveVolume) or found is None or view.domain is None:
        return False
    disk, volume = found
    seen = view.disk_work.get(operation.uid)
    files = dict(view.domain.files)
    return volume.spec.pool != intent.pool and seen is not None and files.get(disk.name) == seen.path


def is_past_return(view: View, operation: Operation) -> bool:
    """It can only be finished, or is being taken back: in both cases it is tried for as long as it takes."""
    intent = operation.spec.intent
    volume = view.volumes.get(getattr(intent, "volume_uid", None) or "")
    done = isinstance(intent, MoveVolume) and volume is not None and volume.spec.pool == intent.pool
    if isinstance(intent, FlattenVolume):
        done = view.disk_work[operation.uid].done
    return done or is_switched(view, operation) or operation.status.error is not None or cancelled(operation)


def plan_disks(view: View, queue: Queue) -> Plan | None:
    """The next step of what is beyond waiting. None: there is none such."""
    operation = next(iter(queue.disks), None)
    if operation is None or view.domain is None:
        return None
    found, seen, intent = disk_with(view, operation), view.disk_work[operation.uid], intent_of(operation)
    volume = view.volumes.get(intent.volume_uid or "")
    if isinstance(intent, MoveVolume) and volume is not None and volume.spec.pool == intent.pool:
        steps: tuple[Step, ...] = (StopDiskWork(operation.uid), RemoveCopy(volume, intent.from_pool))
        return Plan(steps, _ends(view, operation, OperationState.SUCCEEDED), operation_uid=operation.uid)
    if found is not None and seen.done and isinstance(intent, FlattenVolume):
        return _sealed(view, operation, found[1])
    problem = operation.status.error
    if found is None:
        problem = Problem(code="volume-not-found", asked=operation.spec.target_name, reason="it has the disk no more")
    elif seen.problem is not None and seen.by == doer(view):
        problem = seen.problem
    if problem is not None or cancelled(operation):
        state = OperationState.FAILED if problem is not None else OperationState.CANCELLED
        return _taken_back(view, operation, state, problem)
    if (seen.done and seen.by == doer(view)) or _stands_for_it(view, operation):
        return Plan((SwitchDisk(operation.uid),), again=True, operation_uid=operation.uid)
    return None


def doer(view: View) -> tuple[bool, int | None]:
    """Who could copy its disks now: the QEMU that has them open, and which one that is, or this process."""
    return (True, view.domain.pid) if view.domain is not None and view.active else (False, None)


def _stands_for_it(view: View, operation: Operation) -> bool:
    """A former process stopped the guest to switch its disk, and died."""
    paused = view.domain is not None and view.domain.state is VmState.PAUSED and not view.out_of_space
    begun = SwitchDisk.NAME in {step.name for step in operation.status.steps}
    return paused and begun and view.vm.spec.power is Power.ON


def _sealed(view: View, operation: Operation, volume: Volume) -> Plan:
    after, layer = _after(view, operation, volume)
    if (operation.uid, SealDisk.NAME) not in view.known.steps_done:
        return Plan((SealDisk(operation.uid, after, layer),), again=True, operation_uid=operation.uid)
    writes = Writes(updated=(after, *((layer,) if layer is not None else ())))
    flattened = isinstance(operation.spec.intent, FlattenVolume)
    endings = (Ending(operation, OperationState.SUCCEEDED),) if flattened else ()
    return Plan(settle=_seen(view, Settle(writes=writes, endings=endings, more=True)), operation_uid=operation.uid)


def _taken_back(view: View, operation: Operation, state: OperationState, problem: Problem | None) -> Plan:
    return Plan(removal_of_copy(view, operation), _ends(view, operation, state, problem), operation_uid=operation.uid)


def removal_of_copy(view: View, operation: Operation) -> tuple[Step, ...]:
    """The work ends, and the file goes that does not count."""
    intent = operation.spec.intent
    if not isinstance(intent, OnDisk):
        return ()
    steps: tuple[Step, ...] = (StopDiskWork(operation.uid, thaw=True),)
    volume = view.volumes.get(intent.volume_uid or "")
    if volume is None or not isinstance(intent, MoveVolume):
        return steps
    pool = intent.pool if volume.spec.pool != intent.pool else intent.from_pool
    return (*steps, RemoveCopy(volume, pool))


def _ends(view: View, operation: Operation, state: OperationState, problem: Problem | None = None) -> Settle:
    return _seen(view, Settle(endings=(Ending(operation, state, problem),), more=True))


def _seen(view: View, settle: Settle) -> Settle:
    drifted = any(c.type == "Drifted" and c.status is ConditionStatus.TRUE for c in view.vm.status.conditions)
    is_reached = view.vm.generation == view.vm.status.observed_generation and reached(view)
    return replace(settle, reached=is_reached, drifted=drifted)


# ---- what goes on beside ----------------------------------------------------------------------------------------------


def beside(view: View, queue: Queue, planned: Plan) -> Plan:  # noqa: PLR0911  (a decision table)
    """`planned`, with the copying that goes on meanwhile: begun where nothing else is to be done, stopped where a guest is
    about to start that would write what is read."""
    operation = next(iter(queue.disks), None)
    if operation is None or planned.settle.forget:
        return planned
    seen = view.disk_work[operation.uid]
    if planned.steps:
        stop = (StopDiskWork(operation.uid),) if seen.running and not seen.by[0] else ()
        return replace(planned, steps=(*stop, *planned.steps))
    if planned.again or planned.settle.more or planned.settle.endings:
        return planned
    if seen.running and seen.by == doer(view):
        return _waiting(view, planned, Wait(view.now_s + LOOK_AGAIN_S, BeginDiskWork.PHASE, seen.share))
    if seen.running or seen.done or seen.problem is not None:  # it was started, or has stopped, since
        return _acting(operation, StopDiskWork(operation.uid))
    if not _may_begin(view, queue, planned):
        return _waiting(view, planned, Wait(view.now_s + LOOK_AGAIN_S, "waiting for its VM to run, or to be off"))
    try:
        check_begin(view, operation)
    except CorralError as error:
        problem = Problem(code=error.code, asked=error.asked, reason=error.reason, hint=error.hint)
        return _taken_back(view, operation, OperationState.FAILED, problem)
    return _acting(operation, BeginDiskWork(operation.uid, doer(view)))


def _acting(operation: Operation, *steps: Step) -> Plan:
    return Plan(steps, again=True, operation_uid=operation.uid)


def _waiting(view: View, planned: Plan, wait: Wait) -> Plan:
    if planned.wait is not None and planned.wait.until_s < wait.until_s:
        return replace(planned, wait=replace(planned.wait, progress=wait.progress))
    return replace(planned, wait=wait)


def _may_begin(view: View, queue: Queue, planned: Plan) -> bool:
    others = queue.declarative or queue.imperative or queue.superseded
    if others or view.domain is None or not view.ours or planned.settle.refused is not None:
        return False
    return view.active or (view.vm.spec.power is Power.OFF and planned.settle.reached)


def check_begin(view: View, operation: Operation) -> None:
    """Raises `wrong-state` or `unsupported` where the disk is not to be touched."""
    found = disk_with(view, operation)
    asked = f"{operation.spec.intent.verb} of {view.vm.name}"
    if found is None or view.domain is None:
        raise CorralError("volume-not-found", asked, "it does not have the disk")
    if view.domain.has_managed_save:
        reason = "its memory is saved, and knows the disk where it is"
        raise CorralError("wrong-state", asked, reason, f"corral start {view.vm.name}")
    points = [p.name for p in view.points.values() if any(d.volume_uid == found[1].uid for d in p.spec.disks)]
    if points:
        reason = f"there are points in time of it ({points[0]}), which lie where it does"
        raise CorralError("unsupported", asked, reason, "delete its snapshots first")


def check_not_worked_on(view: View) -> None:
    """A disk that is on its way has no instant that could be kept."""
    found = next((o for o in view.operations if isinstance(o.spec.intent, OnDisk)), None)
    if found is not None:
        disk = disk_with(view, found)
        raise CorralError(
            "wrong-state",
            f"take a snapshot of {view.vm.name}",
            f"its disk {disk[0].name if disk else ''} is being moved or flattened",
            f"wait for it, or: corral operation cancel {found.uid}",
        )
