"""A pool in memory: volumes with their sidecars and seeds, and a disk that can be full."""

import asyncio
import json
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter

from corral.errors import CorralError
from corral.model.base import DEFAULT_POOL
from corral.model.pool import Pool
from corral.model.volume import Volume
from corral.simulation import Simulation
from corral.storage.base import DiskFormat, FoundVolume, PoolUsage, Source
from corral.storage.fake_layers import FakeLayers
from corral.storage.layers import OnShare

POOL_BYTES: Final = 2**50
OVERLAY_BYTES: Final = 200 * 1024
FOUND_AT_ONCE: Final = 250


@dataclass
class FakePool:
    """What lies on the simulated disk: volume uid to its sidecar's text, and the vm uids of the seeds."""

    volumes: dict[str, str] = field(default_factory=dict)
    seeds: set[str] = field(default_factory=set)


_TEXT: Final = TypeAdapter(str)


class FakeVolumes:
    """The storage contract over two dictionaries."""

    def __init__(self, simulation: Simulation, state_dir: Path) -> None:
        self.simulation = simulation
        self.state_dir = state_dir
        self.full = False
        self.data_end_bytes = 0
        """Up to where guests have written each volume."""
        self._places = simulation.section("pools", _TEXT)
        self.places = dict(self._places.restore())
        self._volumes = simulation.section("volumes", _TEXT)
        self._seeds = simulation.section("seeds", _TEXT)
        self._displaced: dict[str, str] = {}
        """Sidecars of volumes that lie in one more place, by uid: as of the first."""
        self.pool = FakePool(self._volumes.restore(), set(self._seeds.restore()))
        self.layers = FakeLayers(simulation, state_dir, self.path, self._room, self._forget_in)

    def path(self, layer_uid: str, pool: str = DEFAULT_POOL) -> Path:
        return self._directory(pool) / f"{layer_uid}.qcow2"

    def volume_path(self, volume: Volume) -> Path:
        return self._directory(volume.spec.pool) / f"{volume.head_uid}.{volume.spec.format}"

    def seed_path(self, vm_uid: str) -> Path:
        return self.state_dir / "seeds" / f"{vm_uid}.iso"

    async def create(self, volume: Volume, image_disk: Path | None, image_format: str) -> Path:
        async with self._call("create"):
            self._room(f"make volume {volume.name}")
            self._volumes.keep(volume.uid, self.pool.volumes.setdefault(volume.uid, volume.model_dump_json()))
            self.layers.disks.make(str(self.volume_path(volume)), str(image_disk or ""))
            return self.volume_path(volume)

    async def grow(self, volume: Volume, *, in_use: bool) -> None:
        async with self._call("grow"):
            self._room(f"grow volume {volume.name}")
            self.pool.volumes[volume.uid] = volume.model_dump_json()
            self._volumes.keep(volume.uid, self.pool.volumes[volume.uid])

    async def prepare(self, volume: Volume) -> Path:
        async with self._call("prepare"):
            self._room(f"make volume {volume.name}")
            path = self.volume_path(volume)
            self.layers.disks.remove(str(path))
            self.layers.disks.make(str(path), "")
            return path

    async def stand_alone(self, volume: Volume, on_share: OnShare, bytes_per_s: int = 0) -> None:
        async with self._call("stand_alone"):
            self._room(f"flatten volume {volume.name}")
            on_share(0.5)
            self.layers.disks.merge(str(self.volume_path(volume)), "")

    async def fill(self, volume: Volume, source: Source, on_share: OnShare, bytes_per_s: int = 0) -> None:
        async with self._call("fill"):
            self._room(f"copy {source.path.name}")
            on_share(0.5)
            path, disks = str(self.volume_path(volume)), self.layers.disks
            disks.make(path, "")
            disks.check(str(source.path))
            for block, value in ({} if source.foreign else disks.content(str(source.path))).items():
                disks.write(path, block, value)
            if volume.uid not in self._volumes_in(volume.spec.pool):
                self._displaced[volume.uid] = self.pool.volumes.get(volume.uid, "")
                self.pool.volumes[volume.uid] = volume.model_dump_json()
                self._volumes.keep(volume.uid, self.pool.volumes[volume.uid])

    async def flatten(self, source: Source, disk_format: DiskFormat, on_share: OnShare) -> Path:
        async with self._call("flatten"):
            self._room(f"copy {source.path.name}")
            target = self.state_dir / f".flat.{source.path.stem}.tmp"
            await asyncio.to_thread(target.write_bytes, b"a disk of the fake world")
            return target

    async def check_shrink(self, volume: Volume, size_bytes: int) -> None:
        async with self._call("check_shrink"):
            if size_bytes < self.data_end_bytes:
                reason = f"data lies up to {self.data_end_bytes} bytes of it"
                raise CorralError("invalid-size", f"shrink volume {volume.name!r}", reason, "ask for more")

    async def shrink(self, volume: Volume) -> None:
        await self.check_shrink(volume, volume.spec.size_bytes)
        async with self._call("shrink"):
            self.pool.volumes[volume.uid] = volume.model_dump_json()
            self._volumes.keep(volume.uid, self.pool.volumes[volume.uid])

    async def remove(self, volume_uid: str, pool: str = DEFAULT_POOL) -> None:
        async with self._call("remove"):
            for path in self._files(volume_uid, pool):
                self.layers.disks.remove(path)
            if volume_uid in self._volumes_in(pool):
                self._forget(volume_uid, next((name for name in self.pools() if self._lies_in(volume_uid, name)), None))

    async def write_seed(self, vm_uid: str, files: Mapping[str, bytes]) -> Path:
        async with self._call("write_seed"):
            self._room(f"write the seed of {vm_uid}")
            self.pool.seeds.add(vm_uid)
            self._seeds.keep(vm_uid, "")
            return self.seed_path(vm_uid)

    async def rewrite_seed(self, vm_uid: str, files: Mapping[str, bytes]) -> Path:
        return await self.write_seed(vm_uid, files)

    async def remove_seed(self, vm_uid: str) -> None:
        async with self._call("remove_seed"):
            self.pool.seeds.discard(vm_uid)
            self._seeds.keep(vm_uid, None)

    async def allocated_bytes(self, volume_uid: str, pool: str = DEFAULT_POOL) -> int:
        async with self._call("allocated_bytes"):
            return OVERLAY_BYTES if volume_uid in self.pool.volumes else 0

    async def allocations(self, pool: str = DEFAULT_POOL) -> dict[str, int]:
        async with self._call("allocations"):
            return dict.fromkeys(self._volumes_in(pool), OVERLAY_BYTES)

    async def found(self) -> tuple[FoundVolume, ...]:
        async with self._call("found"):
            found = []
            for number, (uid, document) in enumerate(list(self.pool.volumes.items())):
                if number % FOUND_AT_ONCE == 0:  # the real one takes a thread for it
                    await asyncio.sleep(0)
                found.append(FoundVolume(uid, self.path(uid), OVERLAY_BYTES, document.encode() if document else None))
            return tuple(found)

    async def found_seeds(self) -> tuple[str, ...]:
        async with self._call("found_seeds"):
            return tuple(self.pool.seeds)

    async def clean(self) -> int:
        async with self._call("clean"):
            return 0

    async def usage(self, pool: str = DEFAULT_POOL) -> PoolUsage:
        async with self._call("usage"):
            self._directory(pool)
            used = len(self.pool.volumes) * OVERLAY_BYTES
            return PoolUsage(POOL_BYTES, 0 if self.full else POOL_BYTES - used)

    async def open_pool(self, pool: Pool) -> None:
        async with self._call("open_pool"):
            if pool.name != DEFAULT_POOL:
                self.places[pool.name] = pool.spec.path
                self._places.keep(pool.name, pool.spec.path)

    async def close_pool(self, name: str) -> None:
        async with self._call("close_pool"):
            if self._volumes_in(name):
                raise CorralError("pool-in-use", f"delete pool {name!r}", "volumes lie in it", "move them first")
            self.places.pop(name, None)
            self._places.keep(name, None)

    def check_pool(self, name: str) -> None:
        self._directory(name)

    def pools(self) -> dict[str, Path]:
        return {name: self._directory(name) for name in (DEFAULT_POOL, *self.places)}

    def _directory(self, pool: str) -> Path:
        if pool == DEFAULT_POOL:
            return self.state_dir / "volumes"
        if pool not in self.places:
            raise CorralError("pool-not-found", f"pool {pool!r}", "there is none of that name", "corral pool list")
        return Path(self.places[pool])

    def _volumes_in(self, pool: str) -> list[str]:
        return [uid for uid, text in self.pool.volumes.items() if _pool_of(text) == pool]

    def _call(self, name: str) -> AbstractAsyncContextManager[None]:
        return self.simulation.call(f"storage.{name}")

    def _files(self, volume_uid: str, pool: str) -> tuple[str, ...]:
        path = self.path(volume_uid, pool)
        return str(path), str(path.with_suffix(".raw"))

    def _lies_in(self, volume_uid: str, pool: str) -> bool:
        return any(path in self.layers.disks.files for path in self._files(volume_uid, pool))

    def _forget_in(self, volume_uid: str, pool: str) -> None:
        if volume_uid in self._volumes_in(pool):
            self._forget(volume_uid)

    def _forget(self, volume_uid: str, pool: str | None = None) -> None:
        """With one more file of it in `pool` (its move was cut), that is what it has."""
        document = self.pool.volumes.pop(volume_uid, None)
        before = self._displaced.pop(volume_uid, "")
        if pool is not None and before and _pool_of(before) == pool:
            self.pool.volumes[volume_uid] = before
        elif pool is not None and document:
            volume = Volume.model_validate_json(document)
            spec = volume.spec.model_copy(update={"pool": pool})
            self.pool.volumes[volume_uid] = volume.model_copy(update={"spec": spec}).model_dump_json()
        self._volumes.keep(volume_uid, self.pool.volumes.get(volume_uid))

    def _room(self, asked: str) -> None:
        if self.full:
            raise CorralError("disk-full", asked, "no space left on the device", "free space or add a disk, then retry")


def _pool_of(sidecar: str) -> str:
    """A sidecar that says nothing of it lies in the default one."""
    try:
        return str(json.loads(sidecar)["spec"]["pool"])
    except (ValueError, KeyError, TypeError):
        return DEFAULT_POOL
