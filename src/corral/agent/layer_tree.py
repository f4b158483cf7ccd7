"""All layers, who lies on whom, and who refers to them. Pure; made for one look,
and worked out as far as that look asks."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from corral.model.layer import Layer, chain_of, children_of
from corral.model.snapshot import Snapshot
from corral.model.volume import Volume

NOBODY = ""
"""Stands for a user that is no VM: a volume that none has."""


@dataclass(frozen=True)
class LayerTree:
    """`held`: layers that something else refers to (templates, copies that are being made), by uid."""

    layers: Mapping[str, Layer] = field(default_factory=dict)
    volumes: Mapping[str, Volume] = field(default_factory=dict)
    snapshots: Mapping[str, Snapshot] = field(default_factory=dict)
    held: frozenset[str] = frozenset()
    unfinished: frozenset[str] = frozenset()
    """Operations that have not ended: what they made and is not ready is theirs."""

    @cached_property
    def _children(self) -> dict[str, tuple[str, ...]]:
        return children_of(self.layers)

    @cached_property
    def _referenced(self) -> frozenset[str]:
        heads = {volume.head_uid for volume in self.volumes.values()}
        frozen = {disk.layer_uid for snapshot in self.snapshots.values() for disk in snapshot.spec.disks}
        made = {
            layer.uid
            for layer in self.layers.values()
            if not layer.status.ready and layer.spec.operation_uid in self.unfinished
        }
        return frozenset(heads | frozen | made | self.held)

    def chain(self, head_uid: str) -> tuple[Layer, ...]:
        return chain_of(self.layers, head_uid)

    def children(self, uid: str) -> tuple[str, ...]:
        return self._children.get(uid, ())

    def users_of(self, uid: str) -> frozenset[str]:
        """The VMs whose disks or points in time stand on this layer; NOBODY for what belongs to none."""
        above = self._above(uid)
        found = {volume.spec.vm_uid or NOBODY for volume in self.volumes.values() if volume.head_uid in above}
        for snapshot in self.snapshots.values():
            if any(disk.layer_uid in above for disk in snapshot.spec.disks):
                found.add(snapshot.spec.vm_uid)
        return frozenset(found | ({NOBODY} if above & self.held else set()))

    def _above(self, uid: str) -> set[str]:
        found: set[str] = set()
        waiting = [uid]
        while waiting:
            one = waiting.pop()
            if one not in found:
                found.add(one)
                waiting.extend(self.children(one))
        return found

    def rubbish(self) -> tuple[Layer, ...]:
        """Layers that nobody refers to and that at most one lies on: to be removed, or merged into that one."""
        return tuple(layer for uid, layer in sorted(self.layers.items()) if self.is_rubbish(uid))

    def is_rubbish(self, uid: str) -> bool:
        return uid not in self._referenced and len(self.children(uid)) <= 1

    def rubbish_of(self, vm_uid: str) -> tuple[Layer, ...]:
        """What this VM's turns see to: what was made for it and nobody stands on, and what only it stands on."""
        return tuple(layer for layer in self.rubbish() if self._is_for(layer, vm_uid))

    def _is_for(self, layer: Layer, vm_uid: str) -> bool:
        users = self.users_of(layer.uid)
        if users:
            return users == {vm_uid}
        if layer.spec.vm_uid is None:  # a template's, which is gone: whoever merged it, or stands beside it, sees to it
            return vm_uid in self.users_of(layer.spec.parent_uid or "")
        return layer.spec.vm_uid == vm_uid

    def without(self, vm_uid: str, volumes: Iterable[str], snapshots: Iterable[str]) -> tuple[Layer, ...]:
        """The layers that are of no use once a VM is gone with these volumes and points in time; those on top first."""
        gone, forgotten = frozenset(volumes), frozenset(snapshots)
        heads = {v.head_uid for uid, v in self.volumes.items() if uid not in gone}
        frozen = {d.layer_uid for uid, s in self.snapshots.items() if uid not in forgotten for d in s.spec.disks}
        kept = {layer.uid for uid in heads | frozen | self.held for layer in self._below(uid)}
        starts = [self.volumes[uid].head_uid for uid in gone if uid in self.volumes]
        starts += [d.layer_uid for uid in forgotten if uid in self.snapshots for d in self.snapshots[uid].spec.disks]
        starts += [layer.uid for layer in self.layers.values() if layer.spec.vm_uid == vm_uid]
        found = {layer.uid: layer for start in starts for layer in self._below(start) if layer.uid not in kept}
        return tuple(sorted(found.values(), key=lambda layer: (-len(self._below(layer.uid)), layer.uid)))

    def without_held(self, layers: Iterable[str]) -> tuple[Layer, ...]:
        """The layers that are of no use once nobody holds these any more; those on top first."""
        released = frozenset(layers)
        heads = {volume.head_uid for volume in self.volumes.values()}
        frozen = {disk.layer_uid for snapshot in self.snapshots.values() for disk in snapshot.spec.disks}
        kept = {layer.uid for uid in heads | frozen | (self.held - released) for layer in self._below(uid)}
        found = {layer.uid: layer for uid in released for layer in self._below(uid) if layer.uid not in kept}
        return tuple(sorted(found.values(), key=lambda layer: (-len(self._below(layer.uid)), layer.uid)))

    def unused_of(self, volume_uid: str) -> tuple[Layer, ...]:
        """What was made for a volume, and nobody stands on any more; those on top first."""
        kept = {layer.uid for uid in self._referenced for layer in self._below(uid)}
        found = [
            layer for layer in self.layers.values() if layer.spec.volume_uid == volume_uid and layer.uid not in kept
        ]
        return tuple(sorted(found, key=lambda layer: (-len(self._below(layer.uid)), layer.uid)))

    def _below(self, uid: str) -> tuple[Layer, ...]:
        """The chain, as far as it is there: what is to go need not be whole."""
        found: dict[str, Layer] = {}
        layer = self.layers.get(uid)
        while layer is not None and layer.uid not in found:
            found[layer.uid] = layer
            layer = self.layers.get(layer.spec.parent_uid or "")
        return tuple(found.values())
