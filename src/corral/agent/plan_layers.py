"""Layers that nobody refers to any more: removed, or merged into the one that lies on them, when nothing else is to do. Pure."""

from dataclasses import replace
from pathlib import PurePath

from corral.agent.plan_snapshot import files_of
from corral.agent.queue import Queue
from corral.agent.steps import MergeLayer, PlaceDisks, RemoveLayer, RemovePoint, SinkLayer, Step
from corral.agent.view import Plan, View, Wait, Writes
from corral.hypervisor.base import StopCause
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
    if view.domain is not None and (view.domain.has_managed_save or view.domain.stop_cause is StopCause.SAVED):
        return settled  # it resumes, perhaps from a file of the user's own (`virsh save`), with the chains that it had
    later_s: float | None = None
    for layer in view.tree.rubbish_of(view.vm.uid):
        due_s = view.known.postponed.get(layer.uid, 0.0)
        if due_s > view.now_s:
            later_s = due_s if later_s is None else min(later_s, due_s)
        elif (found := _one(view, layer, settled)) is not None:
            return found
    if said := tuple(volume for volume in view.volumes.values() if volume.status.merging is not None):
        ended = tuple(volume.model_copy(update={"status": volume.status.merged(None)}) for volume in said)
        return replace(settled, settle=replace(settled.settle, writes=Writes(updated=ended), more=True))
    return settled if later_s is None else replace(settled, wait=Wait(later_s, "merging later"))


def _stale(view: View) -> Snapshot | None:
    """A point in time whose making ended before it began."""
    wanted = {o.spec.intent.snapshot_uid for o in view.operations if isinstance(o.spec.intent, SnapshotVm)}
    return next((s for uid, s in view.points.items() if not s.status.ready and uid not in wanted), None)


def _one(view: View, layer: Layer, settled: Plan) -> Plan | None:
    children = view.tree.children(layer.uid)
    if not children:
        return _remove(view, layer, settled)
    if view.tree.is_rubbish(children[0]):
        # Cut before it was recorded, the merge of that one has left a header that names this one: it is ended first.
        return None
    return _merge(view, layer, view.tree.layers[children[0]], settled)


def _remove(view: View, layer: Layer, settled: Plan) -> Plan | None:
    if layer.uid in view.known.removed:
        return _without(settled, (layer,))
    if layer.uid in files_of(view):
        return None  # by somebody else's doing it is written to
    placed: tuple[Step, ...] = (PlaceDisks(),) if view.domain is not None else ()
    return Plan((*placed, RemoveLayer(layer)), again=True)


def _merge(view: View, middle: Layer, child: Layer, settled: Plan) -> Plan | None:
    """Into the child where it is a file that nobody has open, or the head of a running guest; elsewhere in such a guest's
    chain the other way round. Nothing while another VM stands on it."""
    base = view.tree.layers.get(middle.spec.parent_uid or "")
    if (child.uid, middle.uid) in view.known.merged:
        settle = replace(settled.settle, writes=Writes(updated=(lying_on(child, base),)), more=True)
        return replace(settled, settle=settle)
    is_broken = base is None and middle.spec.parent_uid is not None  # not mended by taking something away
    if is_broken or view.tree.users_of(child.uid) != {view.vm.uid}:
        return None
    if (middle.uid, child.uid) in view.known.merged:  # else who came meanwhile stands on `child`, which is what it was
        return _sunk(view, middle, child, settled)
    if not view.active:
        return Plan((MergeLayer(child, middle, base),), again=True)
    return _merge_live(view, middle, child, base)


def _merge_live(view: View, middle: Layer, child: Layer, base: Layer | None) -> Plan | None:
    written = {volume.head_uid: volume.uid for volume in view.volumes.values()}
    disk = next((d.name for d in view.vm.spec.disks if d.volume_uid == written.get(child.uid, "")), "")
    if not disk and _is_pulled(view, middle, child, base):
        return Plan((MergeLayer(child, middle, base, seen=True),), again=True)
    if not disk:
        return _sink(view, middle, child)
    if child.uid not in files_of(view):
        return None
    return Plan((MergeLayer(child, middle, base, disk),), again=True)


def _is_pulled(view: View, middle: Layer, child: Layer, base: Layer | None) -> bool:
    """QEMU took `middle` into `child` while that was the head, and a new head came before it was recorded. For that the
    tables of `child` were written (QEMU flushes what it freezes)."""
    for _, files in view.domain.chains if view.domain is not None else ():
        uids = [PurePath(path).stem for path in files]
        if child.uid in uids:
            below = uids[uids.index(child.uid) + 1 :]
            return middle.uid not in below and (base is None or below[:1] == [base.uid])
    return False


def _sink(view: View, middle: Layer, child: Layer) -> Plan | None:
    """QEMU takes a layer into its head, or, elsewhere in the chain, a layer into the one below: what is then read of
    `middle` is what `child` was."""
    tree, above = view.tree, view.tree.children(child.uid)
    heads = {disk.name: view.volumes.get(disk.volume_uid or "") for disk in view.vm.spec.disks}
    chains = {name: tree.chain(volume.head_uid) for name, volume in heads.items() if volume is not None}
    disk = next((name for name, chain in chains.items() if child in chain and chain[0].uid in files_of(view)), "")
    if not disk or len(above) != 1:
        return None
    return Plan((SinkLayer(child, middle, tree.layers[above[0]], disk),), again=True)


def _sunk(view: View, middle: Layer, child: Layer, settled: Plan) -> Plan:
    """Whoever referred to `child` refers to `middle`; nobody then lies on `child`."""
    above = (view.tree.layers[uid] for uid in view.tree.children(child.uid))
    updated = (
        grown_to(middle, child),
        *(lying_on(layer, middle) for layer in above),
        *(standing_on(point, child, middle) for point in view.points.values() if stands_on(point, child)),
    )
    return replace(settled, settle=replace(settled.settle, writes=Writes(updated=updated), more=True))


def grown_to(middle: Layer, child: Layer) -> Layer:
    """A disk that was grown between the two makes the lower one as large."""
    spec = middle.spec.model_copy(update={"size_bytes": child.spec.size_bytes})
    return middle.model_copy(update={"spec": spec})


def stands_on(point: Snapshot, layer: Layer) -> bool:
    return any(disk.layer_uid == layer.uid for disk in point.spec.disks)


def standing_on(point: Snapshot, old: Layer, new: Layer) -> Snapshot:
    """`point` with what it was in `new`."""
    disks = tuple(
        disk.model_copy(update={"layer_uid": new.uid}) if disk.layer_uid == old.uid else disk
        for disk in point.spec.disks
    )
    return point.model_copy(update={"spec": point.spec.model_copy(update={"disks": disks})})


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
