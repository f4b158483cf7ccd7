"""A pool in memory: volumes with their sidecars and seeds, and a disk that can be full."""

import asyncio
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter

from corral.errors import CorralError
from corral.model.volume import Volume
from corral.simulation import Simulation
from corral.storage.base import FoundVolume, PoolUsage

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
        self._volumes = simulation.section("volumes", _TEXT)
        self._seeds = simulation.section("seeds", _TEXT)
        self.pool = FakePool(self._volumes.restore(), set(self._seeds.restore()))

    def path(self, volume_uid: str) -> Path:
        return self.state_dir / "volumes" / f"{volume_uid}.qcow2"

    def seed_path(self, vm_uid: str) -> Path:
        return self.state_dir / "seeds" / f"{vm_uid}.iso"

    async def create(self, volume: Volume, image_disk: Path | None, image_format: str) -> Path:
        async with self._call("create"):
            self._room(f"make volume {volume.name}")
            self._volumes.keep(volume.uid, self.pool.volumes.setdefault(volume.uid, volume.model_dump_json()))
            return self.path(volume.uid)

    async def grow(self, volume: Volume, *, in_use: bool) -> None:
        async with self._call("grow"):
            self._room(f"grow volume {volume.name}")
            self.pool.volumes[volume.uid] = volume.model_dump_json()
            self._volumes.keep(volume.uid, self.pool.volumes[volume.uid])

    async def remove(self, volume_uid: str) -> None:
        async with self._call("remove"):
            self.pool.volumes.pop(volume_uid, None)
            self._volumes.keep(volume_uid, None)

    async def write_seed(self, vm_uid: str, files: Mapping[str, bytes]) -> Path:
        async with self._call("write_seed"):
            self._room(f"write the seed of {vm_uid}")
            self.pool.seeds.add(vm_uid)
            self._seeds.keep(vm_uid, "")
            return self.seed_path(vm_uid)

    async def remove_seed(self, vm_uid: str) -> None:
        async with self._call("remove_seed"):
            self.pool.seeds.discard(vm_uid)
            self._seeds.keep(vm_uid, None)

    async def allocated_bytes(self, volume_uid: str) -> int:
        async with self._call("allocated_bytes"):
            return OVERLAY_BYTES if volume_uid in self.pool.volumes else 0

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

    async def usage(self) -> PoolUsage:
        async with self._call("usage"):
            used = len(self.pool.volumes) * OVERLAY_BYTES
            return PoolUsage(POOL_BYTES, 0 if self.full else POOL_BYTES - used)

    def _call(self, name: str) -> AbstractAsyncContextManager[None]:
        return self.simulation.call(f"storage.{name}")

    def _room(self, asked: str) -> None:
        if self.full:
            raise CorralError("disk-full", asked, "no space left on the device", "free space or add a disk, then retry")
