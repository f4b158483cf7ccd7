"""Layers that nobody refers to any more: removed, or merged into the one that lies on them, when nothing else is to do. Pure."""

from dataclasses import replace

from corral.agent.plan_snapshot import files_of
from corral.agent.queue import Queue
from corral.agent.steps import MergeLayer, PlaceDisks, RemoveLayer, RemovePoint, Step
from corral.agent.view import Plan, View, Wait, Writes
from corral.model.base import Object
from corral.model.layer import Layer
from corral.model.operation import SnapshotVm
from corral.model.snapshot import Snapshot

OBJECTS_AT_ONCE = 40
"""Of a transaction's 128 keys: a snapshot and its name are two."""


def plan_tidying(view: View, queue: Queue, settled: Plan) -> Plan:
    """`settled`, or what is to be done for the VM's layers where that is all there is to do."""
    if settled.steps or settled.wait is not None or queue.everything or not settled.settle.reached:
        return settled
    if (stale := _stale(view)) is not None:
        return _without(settled, (stale,))
    if view.domain is not None and view.domain.has_managed_save:
        return settled  # it resumes with the chains that it had
    later_s: float | None = None
    for layer in view.tree.rubbish_of(view.vm.uid):
        due_s = view.known.postponed.get(layer.uid, 0.0)
        if due_s > view.now_s:
            later_s = due_s if later_s is None else min(later_s, due_s)
        elif (found := _one(view, layer, settled)) is not None:
            return found
    return settled if later_s is None else replace(settled, wait=Wait(later_s, "merging later"))


def _stale(view: View) -> Snapshot | None:
    """A point in time whose making ended before it began."""
    wanted = {o.spec.intent.snapshot_uid for o in view.operations if isinstance(o.spec.intent, SnapshotVm)}
    return next((s for uid, s in view.points.items() if not s.status.ready and uid not in wanted), None)


def _one(view: View, layer: Layer, settled: Plan) -> Plan | None:
    children = view.tree.children(layer.uid)
    if not children:
        return _remove(view, layer, settled)
    return _merge(view, layer, view.tree.layers[children[0]], settled)


def _remove(view: View, layer: Layer, settled: Plan) -> Plan | None:
    if layer.uid in view.known.removed:
        return _without(settled, (layer,))
    if layer.uid in files_of(view):
        return None  # by somebody else's doing it is written to
    placed: tuple[Step, ...] = (PlaceDisks(),) if view.domain is not None else ()
    return Plan((*placed, RemoveLayer(layer)), again=True)


def _merge(view: View, middle: Layer, child: Layer, settled: Plan) -> Plan | None:
    """Offline whatever it is, while no other VM stands on it; in a running guest only its own head."""
    base = view.tree.layers.get(middle.spec.parent_uid or "")
    if (child.uid, middle.uid) in view.known.merged:
        settle = replace(settled.settle, writes=Writes(updated=(lying_on(child, base),)), more=True)
        return replace(settled, settle=settle)
    if view.tree.users_of(child.uid) != {view.vm.uid}:
        return None
    if not view.active:
        return Plan((MergeLayer(child, middle, base),), again=True)
    written = {volume.head_uid: volume.uid for volume in view.volumes.values()}
    disk = next((d.name for d in view.vm.spec.disks if d.volume_uid == written.get(child.uid, "")), "")
    if not disk or child.uid not in files_of(view):
        return None
    return Plan((MergeLayer(child, middle, base, disk),), again=True)


def lying_on(child: Layer, base: Layer | None) -> Layer:
    spec = child.spec.model_copy(update={"parent_uid": base.uid if base is not None else None})
    return child.model_copy(update={"spec": spec})


def _without(settled: Plan, objects: tuple[Object, ...]) -> Plan:
    return replace(settled, settle=replace(settled.settle, writes=Writes(deleted=objects), more=True))


# ---- with the VM ---------------------------------------------------------------------------------------------------


def leftovers(view: View, kept: frozenset[str]) -> tuple[Object, ...]:
    """What goes with a VM but for the volumes that are `kept`: its points in time, and the layers that nobody else
    stands on."""
    gone = [uid for uid in view.volumes if uid not in kept]
    return (*view.points.values(), *view.tree.without(view.vm.uid, gone, view.points))


def removal_of(found: tuple[Object, ...]) -> tuple[Step, ...]:
    """Of their files."""
    steps: list[Step] = [RemovePoint("", one.uid) for one in found if isinstance(one, Snapshot)]
    return (*steps, *(RemoveLayer(one) for one in found if isinstance(one, Layer)))
