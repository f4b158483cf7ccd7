"""Layers and points in time in memory, with what their blocks hold."""

from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter

from corral.model.layer import Layer
from corral.model.snapshot import Snapshot
from corral.simulated_disks import disks_of
from corral.simulation import Simulation
from corral.storage.layers import Backing, FoundLayer, OnShare, PathOf, Run

BLOCK_BYTES: Final = 65_536
_TEXT: Final = TypeAdapter(str)


class FakeLayers:
    """The contract over the simulated disks. `room` raises `disk-full` where the pool is to be full."""

    def __init__(
        self,
        simulation: Simulation,
        state_dir: Path,
        path: PathOf,
        room: Callable[[str], None],
        forget_volume: Callable[[str, str], None],
    ) -> None:
        self._simulation, self._state_dir, self._path = simulation, state_dir, path
        self._room, self._forget_volume = room, forget_volume
        self.disks = disks_of(simulation)
        self._layers = simulation.section("layers", _TEXT)
        self._points = simulation.section("points", _TEXT)
        self.layers = self._layers.restore()
        self.points = self._points.restore()
        self._heirs = simulation.section("heirs", _TEXT)
        self.heirs = self._heirs.restore()

    async def make(self, layer: Layer, backing: Backing | None) -> None:
        async with self._call("make_layer"):
            self._room(f"make layer {layer.uid}")
            self._keep(layer)
            self.disks.make(self._file(layer), str(backing.path) if backing else "")

    async def make_anew(self, layer: Layer, backing: Backing | None) -> None:
        async with self._call("make_layer_anew"):
            self._room(f"make layer {layer.uid}")
            self._keep(layer)
            self.disks.remove(self._file(layer))
            self.disks.make(self._file(layer), str(backing.path) if backing else "")

    async def write(self, layer: Layer) -> None:
        async with self._call("write_layer"):
            self._keep(layer)

    async def remove(self, layer_uid: str, pool: str) -> None:
        async with self._call("remove_layer"):
            self.disks.remove(str(self._path(layer_uid, pool)))
            self.layers.pop(layer_uid, None)
            self._layers.keep(layer_uid, None)

    async def merge(
        self, layer: Layer, middle: Layer, base: Backing | None, on_share: OnShare, bytes_per_s: int = 0
    ) -> None:
        async with self._call("merge_layer"):
            self._room(f"merge into {layer.uid}")
            on_share(0.5)
            self.disks.merge(self._file(layer), str(base.path) if base else "")

    async def lay_on(self, above: Layer, below: Layer) -> None:
        async with self._call("lay_layer_on"):
            self.disks.lay_on(self._file(above), self._file(below))

    async def runs(self, layer: Layer) -> tuple[Run, ...]:
        async with self._call("runs"):
            self.disks.check(self._file(layer))
            blocks = self.disks.files[self._file(layer)].blocks
            return tuple(Run(block * BLOCK_BYTES, BLOCK_BYTES, not blocks[block]) for block in sorted(blocks))

    async def forget_volume(self, volume_uid: str, pool: str) -> None:
        async with self._call("forget_volume"):
            self._forget_volume(volume_uid, pool)

    async def found(self) -> tuple[FoundLayer, ...]:
        async with self._call("found_layers"):
            found = ((uid, document.encode()) for uid, document in self.layers.items())
            return tuple(FoundLayer(uid, document, there=True) for uid, document in found)

    def point_dir(self, snapshot_uid: str) -> Path:
        return self._state_dir / "snapshots" / snapshot_uid

    async def write_point(self, snapshot: Snapshot) -> None:
        async with self._call("write_point"):
            self.points[snapshot.uid] = snapshot.model_dump_json()
            self._points.keep(snapshot.uid, self.points[snapshot.uid])

    async def remove_point(self, snapshot_uid: str) -> None:
        async with self._call("remove_point"):
            self.points.pop(snapshot_uid, None)
            self._points.keep(snapshot_uid, None)

    async def found_points(self) -> tuple[bytes, ...]:
        async with self._call("found_points"):
            return tuple(document.encode() for document in self.points.values())

    async def inherit(self, vm_uid: str, directory: Path, names: Sequence[str]) -> None:
        async with self._call("inherit"):
            self._room(f"keep what is in {directory}")
            self.heirs[vm_uid] = f"{directory.name}: {' '.join(names)}"
            self._heirs.keep(vm_uid, self.heirs[vm_uid])

    def inheritance(self, vm_uid: str) -> Path | None:
        return self._state_dir / "inherited" / vm_uid if vm_uid in self.heirs else None

    async def forget_inheritance(self, vm_uid: str) -> None:
        async with self._call("forget_inheritance"):
            self.heirs.pop(vm_uid, None)
            self._heirs.keep(vm_uid, None)

    async def forget_heirs(self, vms: Collection[str]) -> None:
        async with self._call("forget_heirs"):
            for uid in set(self.heirs) - set(vms):
                del self.heirs[uid]
                self._heirs.keep(uid, None)

    def _file(self, layer: Layer) -> str:
        return str(self._path(layer.uid, layer.spec.pool))

    def _keep(self, layer: Layer) -> None:
        self.layers[layer.uid] = layer.model_dump_json()
        self._layers.keep(layer.uid, self.layers[layer.uid])

    def _call(self, name: str) -> AbstractAsyncContextManager[None]:
        return self._simulation.call(f"storage.{name}")
