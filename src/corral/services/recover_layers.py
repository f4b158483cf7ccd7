"""Layers and points in time after the database is lost, from the sidecars beside them and from what the domains' disks are.

Only what somebody needs comes back: what a volume, or a point in time, stands on. Files that nobody knows are left as they lie.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePath

from pydantic import ValidationError

from corral.errors import CorralError
from corral.hypervisor.base import ObservedDomain
from corral.model.layer import Layer, LayerStatus, chain_of
from corral.model.snapshot import Snapshot
from corral.model.vm import Vm
from corral.model.volume import Volume
from corral.storage.layers import LayerStore


@dataclass
class FoundTree:
    """`lost` tells people what could not be brought back, and by which name they know it."""

    layers: dict[str, Layer] = field(default_factory=dict)
    snapshots: dict[str, Snapshot] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)

    def needed(self, volumes: Mapping[str, Volume]) -> tuple[Layer, ...]:
        """What volumes and points in time stand on, those below first."""
        found: dict[str, Layer] = {}
        wanted = [(f"volume {volume.name}", volume.head_uid) for volume in volumes.values()]
        for snapshot in self.snapshots.values():
            wanted += [(f"snapshot {snapshot.name}", disk.layer_uid) for disk in snapshot.spec.disks]
        heads = {volume.spec.layer_uid: volume.name for volume in volumes.values() if volume.spec.layer_uid}
        self.lost += [
            f"volume {name}: layer {uid}, which it writes to, is missing"
            for uid, name in heads.items()
            if uid not in self.layers
        ]
        for what, uid in wanted:
            try:
                chain = chain_of(self.layers, uid)
            except CorralError as error:
                self.lost.append(f"{what}: {error.reason}")
                chain = self._rest_of(uid)
            found.update({layer.uid: layer for layer in reversed(chain)})
        unknown = sorted(self.layers.keys() - found.keys())
        if unknown:
            self.lost.append(f"layers that nothing stands on are left as they lie: {', '.join(unknown[:8])}")
        return tuple(found.values())

    def _rest_of(self, head_uid: str) -> tuple[Layer, ...]:
        """Of a broken chain what is there: without it nobody would see that it is broken, and the disk would be opened on the
        image alone."""
        found: dict[str, Layer] = {}
        layer = self.layers.get(head_uid)
        while layer is not None and layer.uid not in found:
            found[layer.uid] = layer
            layer = self.layers.get(layer.spec.parent_uid or "")
        return tuple(found.values())


async def find_tree(store: LayerStore, domains: Iterable[ObservedDomain]) -> FoundTree:
    """What the sidecars tell, of VMs that are there."""
    tree = FoundTree()
    for found in await store.found():
        try:
            layer = Layer.model_validate_json(found.document)
        except ValidationError:
            tree.lost.append(f"the sidecar of layer {found.uid} cannot be read, the file is left as it is")
            continue
        if found.there and layer.uid == found.uid:
            spec = layer.spec.model_copy(update={"operation_uid": None})
            update = {"revision": 0, "spec": spec, "status": LayerStatus(ready=True)}
            tree.layers[layer.uid] = layer.model_copy(update=update)
    vms = {domain.uid for domain in domains}
    for document in await store.found_points():
        try:
            snapshot = Snapshot.model_validate_json(document)
        except ValidationError:
            tree.lost.append("the sidecar of a snapshot cannot be read, its files are left as they are")
            continue
        missing = [disk.name for disk in snapshot.spec.disks if disk.layer_uid not in tree.layers]
        if missing:
            tree.lost.append(f"snapshot {snapshot.name}: the layer of its disk {missing[0]!r} is not there")
        elif snapshot.status.ready and snapshot.spec.vm_uid in vms:
            tree.snapshots[snapshot.uid] = snapshot.model_copy(update={"revision": 0})
    for uid, snapshot in tree.snapshots.items():
        if snapshot.spec.parent_uid not in tree.snapshots:
            alone = snapshot.spec.model_copy(update={"parent_uid": None})
            tree.snapshots[uid] = snapshot.model_copy(update={"spec": alone})
    return tree


def with_heads(
    volumes: Mapping[str, Volume], tree: FoundTree, vms: Iterable[tuple[Vm, ObservedDomain]]
) -> dict[str, Volume]:
    """The volumes as their domains have them: what a guest writes to is its disk, whatever a sidecar says of an instant
    before."""
    found = dict(volumes)
    for vm, domain in vms:
        files = {name: PurePath(path).stem for name, path in domain.files}
        for disk in vm.spec.disks:
            volume, head = found.get(disk.volume_uid or ""), files.get(disk.name, "")
            layer = tree.layers.get(head)
            if volume is None or layer is None or layer.spec.volume_uid != volume.uid or head == volume.head_uid:
                continue
            spec = volume.spec.model_copy(update={"layer_uid": head, "size_bytes": layer.spec.size_bytes})
            found[volume.uid] = volume.model_copy(update={"spec": spec})
    return found
