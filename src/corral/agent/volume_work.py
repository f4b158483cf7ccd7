"""What is done to a volume that no VM has. Every effect may be repeated."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from corral import files
from corral.agent.cache import Cache
from corral.errors import CorralError
from corral.images.base import ImageLibrary
from corral.model.base import Object
from corral.model.layer import Layer
from corral.model.operation import CreateVolume, FlattenVolume, MoveVolume, Operation
from corral.model.volume import Volume, VolumeStatus
from corral.storage.base import Source, VolumeStore
from corral.storage.layers import OnShare

PHASES: Final = {
    "volume-create": "making the volume",
    "volume-resize": "changing its size",
    "volume-move": "moving it",
    "volume-flatten": "taking in what it leans on",
    "volume-delete": "deleting",
}


def is_long(operation: Operation) -> bool:
    """It reads and writes a whole disk."""
    intent = operation.spec.intent
    filled = isinstance(intent, CreateVolume) and (intent.copy_of is not None or bool(intent.staged))
    return filled or isinstance(intent, MoveVolume | FlattenVolume)


def users_of(cache: Cache, volume: Volume) -> Iterator[str]:
    """Who has it, or is being made of it."""
    for vm in cache.vms.values():
        if vm.uid == volume.spec.vm_uid or any(disk.volume_uid == volume.uid for disk in vm.spec.disks):
            yield f"VM {vm.name}"
    for point in cache.snapshots.values():
        if any(disk.volume_uid == volume.uid for disk in point.spec.disks):
            owner = cache.vms.get(point.spec.vm_uid)
            yield f"the snapshot {point.name} of VM {owner.name if owner is not None else point.spec.vm_uid}"
    for operation in cache.all_unfinished():
        intent = operation.spec.intent
        if isinstance(intent, CreateVolume) and intent.copy_of == volume.uid:
            yield f"the copy {operation.spec.target_name}"


@dataclass(frozen=True)
class VolumeWork:
    """Effects over the storage, with what the cache knows of the objects."""

    cache: Cache
    volumes: VolumeStore
    library: ImageLibrary

    async def create(self, volume: Volume, intent: CreateVolume, on_share: OnShare) -> None:
        if intent.copy_of is not None:
            original = self.cache.volumes.get(intent.copy_of)
            if original is None:
                raise CorralError("volume-not-found", f"make volume {volume.name}", "its original is gone")
            source = Source(self.volumes.volume_path(original), original.spec.format)
            await self.volumes.fill(volume, source, on_share)
        elif intent.staged:
            await self.volumes.fill(volume, Source(Path(intent.staged), intent.staged_format, foreign=True), on_share)
        else:
            await self._make(volume)

    async def _make(self, volume: Volume) -> None:
        if volume.spec.image_uid is None:
            await self.volumes.create(volume, None, "")
            return
        image = self.cache.images.get(volume.spec.image_uid)
        facts = image.status.facts if image is not None else None
        disk = self.library.files(facts).disk if facts is not None else None
        if facts is None or disk is None:
            raise CorralError("image-not-found", f"make volume {volume.name}", "its image is gone or not ready")
        await self.volumes.create(volume, disk, facts.disk_format)

    def made(self, volume: Volume) -> Volume:
        """As it is known once its file is there."""
        path, size_bytes = str(self.volumes.volume_path(volume)), volume.spec.size_bytes
        status = VolumeStatus(ready=True, path=path, size_bytes=size_bytes)
        return volume.model_copy(update={"status": status})

    async def resize(self, volume: Volume, size_bytes: int) -> Volume:
        """Grow it, or shrink it once that is proven to lose nothing."""
        spec = volume.spec.model_copy(update={"size_bytes": size_bytes})
        status = volume.status.model_copy(update={"size_bytes": size_bytes})
        resized = volume.model_copy(update={"spec": spec, "status": status})
        if size_bytes < volume.spec.size_bytes:
            await self.volumes.shrink(resized)
        else:
            await self.volumes.grow(resized, in_use=False)
        return resized

    async def move(self, volume: Volume, intent: MoveVolume, on_share: OnShare) -> None:
        """A whole one in the new pool, beside the old one."""
        source = Source(self.volumes.volume_path(volume), volume.spec.format)
        there = self.alone(volume, intent.pool)[0]
        assert isinstance(there, Volume)
        await self.volumes.fill(there, source, on_share, intent.bytes_per_s)

    async def flatten(self, volume: Volume, intent: FlattenVolume, on_share: OnShare) -> None:
        if user := next(users_of(self.cache, volume), ""):
            raise CorralError("volume-in-use", f"flatten volume {volume.name}", f"{user} has it", "try again later")
        await self.volumes.stand_alone(volume, on_share, intent.bytes_per_s)

    def alone(self, volume: Volume, pool: str) -> tuple[Object, ...]:
        """The volume, and its head where it has one, once it lies there and leans on nothing."""
        head = self.cache.layers.get(volume.head_uid)
        there = volume.alone_in(pool, str(self.volumes.volume_path(volume.alone_in(pool, ""))))
        return (there, *((head.alone_in(pool),) if head is not None else ()))

    async def record(self, found: tuple[Object, ...]) -> None:
        """Beside the files, before the store says so."""
        for one in found:
            if isinstance(one, Layer):
                await self.volumes.layers.write(one)
            elif isinstance(one, Volume):
                await self.volumes.grow(one, in_use=True)  # which writes the sidecar, and nothing else

    async def remove_from(self, volume: Volume, pool: str) -> None:
        """Its head alone, where it has layers."""
        if volume.head_uid in self.cache.layers:
            await self.volumes.layers.remove(volume.head_uid, pool)
            await self.volumes.layers.forget_volume(volume.uid, pool)
        else:
            await self.volumes.remove(volume.uid, pool)

    async def remove_unused(self, volume: Volume) -> tuple[Layer, ...]:
        """Layers that were made for it, and that nobody stands on: returns them."""
        gone = self.cache.layer_tree().unused_of(volume.uid) if volume.head_uid in self.cache.layers else ()
        for layer in gone:
            await self.volumes.layers.remove(layer.uid, layer.spec.pool)
        return gone

    async def remove(self, volume: Volume) -> tuple[Layer, ...]:
        """Its file, or what of its layers nobody else stands on: returns those."""
        layered = volume.uid in self.cache.layers or volume.head_uid in self.cache.layers
        gone = self.cache.layer_tree().without("", [volume.uid], ()) if layered else ()
        for layer in gone:
            await self.volumes.layers.remove(layer.uid, layer.spec.pool)
        if volume.uid in self.cache.layers:
            await self.volumes.layers.forget_volume(volume.uid, volume.spec.pool)
        else:
            await self.volumes.remove(volume.uid, volume.spec.pool)
        return gone

    async def forget_staged(self, intent: CreateVolume) -> None:
        if intent.staged:
            await asyncio.to_thread(files.remove_file, Path(intent.staged))
