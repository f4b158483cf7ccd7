"""What the steps about layers and points in time do. Every effect may be repeated."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from corral.agent.cache import Cache
from corral.agent.definition import Places, build_definition
from corral.agent.plan_layers import grown_to, lying_on, standing_on, stands_on
from corral.agent.plan_snapshot import finished
from corral.agent.steps import (
    MakeHeads,
    MergeLayer,
    PlaceDisks,
    PutBack,
    RemoveHeads,
    RemoveLayer,
    RemovePoint,
    RestorePoint,
    SealPoint,
    SinkLayer,
    Step,
    SyncClock,
    TakePoint,
    Thaw,
)
from corral.agent.view import Taken
from corral.clock import Clock
from corral.errors import CorralError
from corral.hypervisor.base import DomainDefinition, DomainDisk, HypervisorDriver
from corral.hypervisor.points import PointWanted, Sinking
from corral.model.layer import Layer
from corral.model.snapshot import Snapshot
from corral.model.vm import Power, Vm, VmState
from corral.storage.base import VolumeStore
from corral.storage.layers import Backing, OnShare

MEMORY_FILE = "memory"
CLOCK_PATIENCE_S: Final = 2.0
CLOCK_LOOK_S: Final = 0.1
KEPT_FILES = {"nvram": "nvram.fd", "tpm": "tpm"}


@dataclass
class PointEffects:
    """`taken`: what was seen when a point in time was taken, by operation, for as long as that is under way."""

    cache: Cache
    hypervisor: HypervisorDriver
    volumes: VolumeStore
    clock: Clock
    places: Callable[[], Places]
    bytes_per_s: int = 0
    """At which layers of running guests are merged, at most; 0: no limit."""
    taken: dict[str, Taken] = field(default_factory=dict)

    def effect(self, step: Step, vm: Vm, active: bool, on_share: OnShare) -> Awaitable[None] | None:  # noqa: C901, PLR0911, PLR0912  (a decision table)
        """None: the step is about something else."""
        match step:
            case MakeHeads():
                return self._make_heads(step)
            case TakePoint():
                return self._take(vm, step, active)
            case PlaceDisks(heads=heads):
                return self._place(vm, dict(heads))
            case PutBack(snapshot=snapshot):
                return self._put_back(vm, snapshot)
            case RestorePoint():
                return self._restore(vm, step)
            case SyncClock():
                return self._sync_clock(vm)
            case SealPoint():
                return self._seal(vm, step)
            case Thaw(frozen=frozen):
                return self._thaw(vm, frozen=frozen)
            case RemoveHeads():
                return self._remove_heads(step)
            case RemovePoint():
                return self._remove_point(step)
            case RemoveLayer(layer=layer):
                return self.volumes.layers.remove(layer.uid, layer.spec.pool)
            case MergeLayer():
                return self._merge(vm, step, on_share)
            case SinkLayer():
                return self._sink(vm, step, on_share)
        return None

    def forget(self, operations: set[str]) -> None:
        for uid in operations:
            self.taken.pop(uid, None)

    async def make_head(self, layer: Layer, *, anew: bool = False) -> None:
        """An overlay on the layer's parent."""
        parent = self.cache.layers.get(layer.spec.parent_uid or "")
        make = self.volumes.layers.make_anew if anew else self.volumes.layers.make
        await make(layer, self._backing(parent, layer))

    def _backing(self, below: Layer | None, layer: Layer) -> Backing | None:
        """The layer below, or the image at the bottom."""
        if below is None and layer.spec.parent_uid is not None and layer.spec.parent_uid not in self.cache.layers:
            reason = f"layer {layer.spec.parent_uid}, which it lies on, is missing"
            raise CorralError("chain-broken", f"make layer {layer.uid}", reason, "corral doctor")
        if below is not None:
            return Backing(self.volumes.path(below.uid, below.spec.pool), below.spec.format)
        image = self.cache.images.get(layer.spec.image_uid or "")
        facts = image.status.facts if image is not None else None
        files = self.places().image_files(image) if image is not None else None
        if layer.spec.image_uid is not None and (facts is None or files is None):
            raise CorralError("image-not-found", f"make layer {layer.uid}", "the image below it is gone")
        if facts is None or files is None or files.disk is None:
            return None
        return Backing(files.disk, "raw" if facts.disk_format == "raw" else "qcow2")

    # ---- effects ----

    async def _make_heads(self, step: MakeHeads) -> None:
        for layer in step.layers:
            await self.make_head(layer, anew=step.anew)

    async def _take(self, vm: Vm, step: TakePoint, active: bool) -> None:
        """Of a VM that is off its disks are put on their new heads: nobody writes meanwhile."""
        snapshot, spec = step.snapshot, step.snapshot.spec
        if spec.with_memory and not active:
            raise CorralError("wrong-state", f"take a snapshot of {vm.name}", "it has stopped, so there is no memory")
        await self.volumes.layers.write_point(snapshot)
        for disk in spec.disks:  # what was a volume's only file has no sidecar as a layer yet
            await self.volumes.layers.write(self.cache.layers[disk.layer_uid])
        heads = {disk.volume_uid: disk.head_uid for disk in spec.disks}
        definition = self._definition(vm, heads)
        wanted = PointWanted(
            disks=_of(definition, snapshot),
            directory=self.volumes.layers.point_dir(snapshot.uid),
            with_memory=spec.with_memory,
            quiesce=spec.quiesce,
            dac_uid=definition.dac_uid,
            runs=vm.spec.power is Power.ON,
        )
        at = self.clock.now()
        seen = await self.hypervisor.points.take(vm.uid, wanted)
        kept = tuple(name for name in seen.kept if name in KEPT_FILES)
        self.taken[step.operation_uid] = Taken(at, seen.state, seen.pause_ms, seen.quiesced, 0, kept)
        await self.hypervisor.points.place(vm.uid, wanted.disks, definition.dac_uid)

    async def _place(self, vm: Vm, heads: Mapping[str, str]) -> None:
        definition = self._definition(vm, heads)
        ours = {disk.name for disk in vm.spec.disks if disk.volume_uid is not None}
        disks = tuple(disk for disk in definition.disks if disk.name in ours)
        await self.hypervisor.points.place(vm.uid, disks, definition.dac_uid)

    async def _put_back(self, vm: Vm, snapshot: Snapshot) -> None:
        directory = self.volumes.layers.point_dir(snapshot.uid)
        dac_uid = self._definition(vm, {}).dac_uid
        await self.hypervisor.points.put_back(vm.uid, directory, snapshot.status.kept, dac_uid)

    async def _restore(self, vm: Vm, step: RestorePoint) -> None:
        directory = self.volumes.layers.point_dir(step.snapshot.uid)
        disks = _of(self._definition(vm, dict(step.heads)), step.snapshot)
        paused = step.snapshot.status.state is VmState.PAUSED
        await self.hypervisor.points.restore(vm.uid, directory, disks, paused=paused)

    async def _sync_clock(self, vm: Vm) -> None:
        """A guest without an agent, or whose agent cannot, finds the time by itself. In its first instant after a restore
        an agent is not connected."""
        until_s = self.clock.monotonic_s() + CLOCK_PATIENCE_S
        while True:
            try:
                return await self.hypervisor.guests.set_time(vm.uid, int(self.clock.now().timestamp() * 1e9))
            except CorralError as error:
                if error.code == "hypervisor-unavailable":
                    raise
                late = error.code in ("guest-agent-unavailable", "guest-agent-timeout")
                if not late or self.clock.monotonic_s() >= until_s:
                    return None
            await asyncio.sleep(CLOCK_LOOK_S)

    async def _seal(self, vm: Vm, step: SealPoint) -> None:
        """The persistent definition once more: between the switch and now the daemon may have died."""
        await self._place(vm, dict(step.heads))
        for layer in step.layers:
            await self.volumes.layers.write(layer)
        for volume in step.volumes:
            await self.volumes.grow(volume, in_use=True)  # which writes the sidecar, and nothing else
        for snapshot in step.snapshots:
            await self._thaw(vm, frozen=snapshot.spec.quiesce)
            directory = self.volumes.layers.point_dir(snapshot.uid)
            taken = self.taken.get(step.operation_uid) or Taken(None, self._state(vm))
            taken = replace(taken, memory_bytes=_size(directory / MEMORY_FILE), kept=taken.kept or _kept(directory))
            self.taken[step.operation_uid] = taken
            await self.volumes.layers.write_point(finished(snapshot, taken))

    def _state(self, vm: Vm) -> VmState:
        """As it was at that instant; one that is to run was stopped for it alone."""
        runs = vm.spec.power is Power.ON and vm.status.seen_state is VmState.PAUSED
        return VmState.RUNNING if runs else vm.status.seen_state

    async def _thaw(self, vm: Vm, *, frozen: bool) -> None:
        try:
            await self.hypervisor.points.thaw(vm.uid, frozen=frozen, runs=vm.spec.power is Power.ON)
        except CorralError as error:
            if error.code != "domain-not-found":
                raise

    async def _remove_heads(self, step: RemoveHeads) -> None:
        for layer in step.layers:
            await self.volumes.layers.remove(layer.uid, layer.spec.pool)
        if step.snapshot_uid:
            await self.volumes.layers.remove_point(step.snapshot_uid)

    async def _remove_point(self, step: RemovePoint) -> None:
        for child in step.children:
            await self.volumes.layers.write_point(child)
        await self.volumes.layers.remove_point(step.snapshot_uid)

    async def _merge(self, vm: Vm, step: MergeLayer, on_share: OnShare) -> None:
        base = self._backing(step.base, step.child)
        if step.disk:
            path = str(base.path) if base is not None else ""
            await self.hypervisor.points.pull(vm.uid, step.disk, path, on_share, self.bytes_per_s)
        elif not step.seen:
            await self.volumes.layers.merge(step.child, step.middle, base, on_share, self.bytes_per_s)
            # QEMU may have taken the child into the middle before the guest was off, and nobody recorded that: what lies on the
            # child says since then that it lies on the middle, which goes now.
            for above in [one for one in self.cache.layers.values() if one.spec.parent_uid == step.child.uid]:
                await self.volumes.layers.lay_on(above, step.child)
        await self.volumes.layers.write(lying_on(step.child, step.base))

    async def _sink(self, vm: Vm, step: SinkLayer, on_share: OnShare) -> None:
        """The sidecars last: until then what they say reads the same."""
        top, base, above = (self._path(layer) for layer in (step.child, step.middle, step.above))
        sinking = Sinking(step.disk, top, base, above, self._definition(vm, {}).dac_uid)
        await self.hypervisor.points.sink(vm.uid, sinking, on_share, self.bytes_per_s)
        layers = self.volumes.layers
        await layers.write(grown_to(step.middle, step.child))
        for point in self.cache.points_of(vm).values():
            if stands_on(point, step.child):
                await layers.write_point(standing_on(point, step.child, step.middle))
        await layers.write(lying_on(step.above, step.middle))

    def _path(self, layer: Layer) -> Path:
        return self.volumes.path(layer.uid, layer.spec.pool)

    def _definition(self, vm: Vm, heads: Mapping[str, str]) -> DomainDefinition:
        """As it is with these heads in the place of the volumes' own."""
        volumes = dict(self.cache.around.volumes)
        for uid, head in heads.items():
            volume = volumes[uid]
            volumes[uid] = volume.model_copy(update={"spec": volume.spec.model_copy(update={"layer_uid": head})})
        return build_definition(vm, replace(self.cache.around, volumes=volumes), self.places())


def _of(definition: DomainDefinition, snapshot: Snapshot) -> tuple[DomainDisk, ...]:
    names = {disk.name for disk in snapshot.spec.disks}
    return tuple(disk for disk in definition.disks if disk.name in names)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _kept(directory: Path) -> tuple[str, ...]:
    return tuple(name for name, file in KEPT_FILES.items() if (directory / file).exists())
