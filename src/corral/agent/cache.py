"""The store's objects in memory, fed by its watch and by the agent's own writes, with the indexes that the agent needs."""

import asyncio
from collections.abc import Callable, Iterable
from typing import Final, TypeVar, cast

from corral.agent.definition import Surroundings
from corral.agent.layer_tree import LayerTree
from corral.model.address import FloatingAddress
from corral.model.balancer import Balancer
from corral.model.base import Object
from corral.model.forward import Forward
from corral.model.image import Image
from corral.model.layer import Layer
from corral.model.network import Network
from corral.model.network_policy import NetworkPolicy
from corral.model.operation import CreateTemplate, DeleteVm, Operation
from corral.model.router import Router
from corral.model.security_group import SecurityGroup
from corral.model.slot import WarmSlot
from corral.model.snapshot import Snapshot
from corral.model.template import Template
from corral.model.vm import Vm
from corral.model.volume import Volume
from corral.network.paths import Layout
from corral.store.base import Change, Record
from corral.store.objects import Objects, decode

T = TypeVar("T", bound=Object)

KINDS: Final[tuple[type[Object], ...]] = (
    *(Vm, Operation, Volume, Image, Network, Layer, Snapshot, Template, WarmSlot),
    *(SecurityGroup, NetworkPolicy, Router, Forward, FloatingAddress, Balancer),
)
ENDED_MAX: Final = 16_384
PAGE: Final = 50
"""Records read between two turns of the event loop: half a millisecond. A request takes several turns."""
_BY_PREFIX: Final[dict[str, type[Object]]] = {cls.prefix(): cls for cls in KINDS}


class Cache:
    """Newest known objects. `on_change` hears of the target that a change concerns: kind and uid."""

    def __init__(self, objects: Objects, on_change: Callable[[str, str], None]) -> None:
        self.objects = objects
        self.on_change = on_change
        self._began = objects.store.revision
        self.vms: dict[str, Vm] = {}
        self.volumes: dict[str, Volume] = {}
        self.images: dict[str, Image] = {}
        self.networks: dict[str, Network] = {}
        self.layers: dict[str, Layer] = {}
        self.snapshots: dict[str, Snapshot] = {}
        self.templates: dict[str, Template] = {}
        self.slots: dict[str, WarmSlot] = {}
        self.security_groups: dict[str, SecurityGroup] = {}
        self.network_policies: dict[str, NetworkPolicy] = {}
        self.routers: dict[str, Router] = {}
        self.forwards: dict[str, Forward] = {}
        self.addresses: dict[str, FloatingAddress] = {}
        self.balancers: dict[str, Balancer] = {}
        self.layout = Layout(self.networks, self.vms, self.routers, self.forwards, self.addresses, self.balancers)
        self.seen = 0
        """The revision that everything here is at least as new as."""
        self._awaited: list[tuple[int, asyncio.Future[None]]] = []
        self.loaded = asyncio.Event()
        """Everything is known: who acts before that takes for gone what was only not read yet."""
        self.doubles: set[str] = set()
        """VMs that go on from a template's memory and could not be told who they are, as far as this process knows."""
        self.around = Surroundings(self.volumes, self.images, self.networks, self.layers)
        self._tables = cast(
            "dict[type[Object], dict[str, Object]]",
            {Vm: self.vms, Volume: self.volumes, Image: self.images, Network: self.networks}
            | {Layer: self.layers, Snapshot: self.snapshots, Template: self.templates, WarmSlot: self.slots}
            | {SecurityGroup: self.security_groups, NetworkPolicy: self.network_policies}
            | {Router: self.routers, Forward: self.forwards}
            | {FloatingAddress: self.addresses, Balancer: self.balancers},
        )
        self._unfinished: dict[str, dict[str, Operation]] = {}
        self._created: dict[str, int] = {}
        self._volumes_of: dict[str, set[str]] = {}
        self._points_of: dict[str, set[str]] = {}
        self._ended: dict[str, int] = {}
        """Operations that ended lately, by the revision of their end: their own news need not be read again."""

    async def load(self) -> int:
        """Everything, none of it older than the revision that is returned; the watch goes on from there."""
        revision = self.objects.store.revision
        for cls in KINDS:
            await self._load(cls, revision)
        self.loaded.set()
        self._see_revision(revision)
        return revision

    async def _load(self, cls: type[Object], revision: int) -> None:
        seen: set[str] = set()
        after = ""
        while True:
            page = await self.objects.records(cls, after=after, limit=PAGE)
            for record in page.records:
                seen.add(record.key.removeprefix(cls.prefix()))
                self._see(cls, record)
            if not page.more:
                break
            after = page.records[-1].key.removeprefix(cls.prefix())
            # Not between reading and seeing: what is deleted then would be taken for what is there.
            await asyncio.sleep(0)
        self._drop_others(cls, seen, revision)

    async def until(self, revision: int) -> None:
        """Everything that was written up to there is known."""
        if self.seen < revision:
            news = asyncio.get_running_loop().create_future()
            self._awaited.append((revision, news))
            await news

    def _see_revision(self, revision: int) -> None:
        self.seen = max(self.seen, revision)
        if self._awaited:
            # What one revision changed comes without a pause: whoever waits goes on after the last of it.
            for wanted, news in self._awaited:
                if wanted <= self.seen and not news.done():
                    news.set_result(None)
            self._awaited = [one for one in self._awaited if not one[1].done()]

    async def know_deletion(self, vm: Vm) -> None:
        """A VM may be known to go before the operation that says what becomes of its disks: the watch brings one after the
        other, and after a lost race the VM alone is read anew."""
        if vm.being_deleted and not any(isinstance(o.spec.intent, DeleteVm) for o in self.unfinished(vm.uid)):
            await self._load(Operation, self.objects.store.revision)

    def apply(self, change: Change) -> None:
        """One change of the watch."""
        self._see_revision(change.revision)
        slash = change.key.find("/", 1)
        cls = _BY_PREFIX.get(change.key[: slash + 1])
        if cls is None:
            return
        if change.value is None:
            self.forget(cls, change.key[slash + 1 :])
        else:
            self._see(cls, Record(change.key, change.value, change.revision, change.revision))

    async def refresh(self, cls: type[T], uid: str) -> T | None:
        """Read one object anew: after a lost race the cache may be behind."""
        record = await self.objects.store.get(f"{cls.prefix()}{uid}")
        if record is None:
            self.forget(cls, uid)
            return None
        value = decode(cls, record)
        if cls is Operation:
            self._created.setdefault(uid, record.created_revision)
        self.put(value)
        return value

    def put(self, value: Object) -> None:
        """What was just written, or read; older news than what is known is dropped."""
        known = self._known(type(value), value.uid)
        if known is not None and known.revision > value.revision:
            return
        if isinstance(value, Operation):
            self._put_operation(value)
        elif isinstance(value, Volume):
            self._put_volume(value)
        elif isinstance(value, Snapshot):
            self.snapshots[value.uid] = value
            self._points_of.setdefault(value.spec.vm_uid, set()).add(value.uid)
        else:
            self._tables[type(value)][value.uid] = value
            self.on_change(value.KIND, value.uid)

    def forget(self, cls: type[Object], uid: str) -> None:
        """It is gone from the store."""
        if cls is Operation:
            for unfinished in self._unfinished.values():
                unfinished.pop(uid, None)
            self._created.pop(uid, None)
        elif cls is Volume:
            old = self.volumes.pop(uid, None)
            if old is not None and old.spec.vm_uid is not None:
                self._volumes_of.get(old.spec.vm_uid, set()).discard(uid)
        elif cls is Snapshot:
            gone = self.snapshots.pop(uid, None)
            if gone is not None:
                self._points_of.get(gone.spec.vm_uid, set()).discard(uid)
        elif self._tables[cls].pop(uid, None) is not None:
            self.on_change(cls.KIND, uid)

    def unfinished(self, target_uid: str) -> tuple[Operation, ...]:
        """Unfinished operations on one object, in the order of their creation."""
        found = self._unfinished.get(target_uid)
        if not found:
            return ()
        if len(found) == 1:
            return tuple(found.values())
        return tuple(sorted(found.values(), key=lambda op: (self._created.get(op.uid, op.revision), op.uid)))

    def is_new(self, operation: Operation) -> bool:
        """It was asked for since this process began: no former one has done anything for it."""
        return self._created.get(operation.uid, 0) > self._began

    def all_unfinished(self) -> Iterable[Operation]:
        return [operation for found in self._unfinished.values() for operation in found.values()]

    def volumes_of(self, vm: Vm) -> dict[str, Volume]:
        """The volumes that name the VM as theirs. One that is detached belongs to nobody, whoever may name it."""
        return {uid: self.volumes[uid] for uid in sorted(self._volumes_of.get(vm.uid, ())) if uid in self.volumes}

    def points_of(self, vm: Vm) -> dict[str, Snapshot]:
        """Its points in time, the hidden ones too."""
        return {uid: self.snapshots[uid] for uid in sorted(self._points_of.get(vm.uid, ())) if uid in self.snapshots}

    def layers_of(self, vm: Vm) -> tuple[Layer, ...]:
        """Those that were made for it."""
        return tuple(layer for layer in self.layers.values() if layer.spec.vm_uid == vm.uid)

    def layer_tree(self) -> LayerTree:
        """All layers as they are known now."""
        held = {disk.layer_uid for found in self.templates.values() for disk in found.spec.disks}
        held |= {found.spec.copy_of_layer or "" for found in self.volumes.values() if not found.status.ready}
        unfinished = frozenset(o.uid for o in self.all_unfinished())
        return LayerTree(self.layers, self.volumes, self.snapshots, frozenset(held), unfinished)

    def frozen_of(self, vm: Vm) -> tuple[str, ...]:
        """The templates that are being made of its points in time."""
        taken = {uid for uid, point in self.points_of(vm).items() if point.status.ready}
        return tuple(
            template.name
            for template in self.templates.values()
            if template.spec.snapshot_uid in taken
            and any(isinstance(o.spec.intent, CreateTemplate) for o in self.unfinished(template.uid))
        )

    def is_layered(self, vm: Vm) -> bool:
        """There is something to know of its layers."""
        if self._points_of.get(vm.uid):
            return True
        volumes = self._volumes_of.get(vm.uid, ())
        return bool(self.layers) and any(
            uid in self.layers or (uid in self.volumes and self.volumes[uid].spec.layer_uid) for uid in volumes
        )

    def _see(self, cls: type[Object], record: Record) -> None:
        uid = record.key[len(cls.prefix()) :]
        if cls is Operation:
            if self._ended.get(uid, 0) >= record.revision:
                return
            self._created.setdefault(uid, record.created_revision)
        known = self._known(cls, uid)
        if known is None or known.revision < record.revision:
            self.put(decode(cls, record))

    def _known(self, cls: type[Object], uid: str) -> Object | None:
        return self._tables[cls].get(uid) if cls is not Operation else None

    def _put_operation(self, value: Operation) -> None:
        target = value.spec.target_uid
        if value.status.state.final:
            found = self._unfinished.get(target)
            if found is not None:
                found.pop(value.uid, None)
                if not found:
                    del self._unfinished[target]
            self._created.pop(value.uid, None)
            self._ended[value.uid] = value.revision
            if len(self._ended) > ENDED_MAX:
                del self._ended[next(iter(self._ended))]
            return
        if self._ended.get(value.uid, 0) > value.revision:
            return
        found = self._unfinished.setdefault(target, {})
        known = found.get(value.uid)
        if known is None or known.revision < value.revision:
            found[value.uid] = value
            self._created.setdefault(value.uid, value.revision)
            self.on_change(value.spec.target_kind, target)

    def _put_volume(self, value: Volume) -> None:
        old = self.volumes.get(value.uid)
        if old is not None and old.spec.vm_uid is not None and old.spec.vm_uid != value.spec.vm_uid:
            self._volumes_of.get(old.spec.vm_uid, set()).discard(value.uid)
        self.volumes[value.uid] = value
        if value.spec.vm_uid is not None:
            self._volumes_of.setdefault(value.spec.vm_uid, set()).add(value.uid)

    def _drop_others(self, cls: type[Object], seen: set[str], revision: int) -> None:
        """Forget what was not listed, unless it came after the listing had begun."""
        known: dict[str, Object] = {}
        if cls is Operation:
            for found in self._unfinished.values():
                known |= found
        else:
            known = self._tables[cls]
        for uid in known.keys() - seen:
            if known[uid].revision <= revision:
                self.forget(cls, uid)
