"""The storage contract: volumes as files of a pool, seeds beside them, and what recovery can find of both."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from corral.model.volume import Volume


@dataclass(frozen=True)
class PoolUsage:
    """Bytes of the pool's file system."""

    total_bytes: int
    free_bytes: int


@dataclass(frozen=True)
class FoundVolume:
    """A volume's file as it lies on disk; `document` is the Volume's JSON from its sidecar, None if that is missing."""

    uid: str
    path: Path
    allocated_bytes: int
    document: bytes | None


class VolumeStore(Protocol):
    """Every method may be repeated after a crash at any instruction. A volume is there whole or not at all: made
    beside, fsynced, renamed; its sidecar (`<uid>.json`, the Volume's document) lies there before it does.
    Raises CorralError: `disk-full`, `storage-error`, `command-failed`."""

    def path(self, volume_uid: str) -> Path: ...

    def seed_path(self, vm_uid: str) -> Path: ...

    async def create(self, volume: Volume, image_disk: Path | None, image_format: str) -> Path:
        """An overlay on `image_disk` (constant time), or an empty disk; grown to the volume's size."""
        ...

    async def grow(self, volume: Volume, *, in_use: bool) -> None:
        """To the size of its spec; `in_use`: QEMU has grown the file itself, and only the sidecar is written."""
        ...

    async def remove(self, volume_uid: str) -> None: ...

    async def write_seed(self, vm_uid: str, files: dict[str, bytes]) -> Path:
        """A NoCloud ISO (volume id `cidata`) of `files`, replaced atomically."""
        ...

    async def remove_seed(self, vm_uid: str) -> None: ...

    async def allocated_bytes(self, volume_uid: str) -> int: ...

    async def found(self) -> tuple[FoundVolume, ...]:
        """All that lies in the pool, for recovery and for orphans."""
        ...

    async def found_seeds(self) -> tuple[str, ...]:
        """The vm uids of the seeds in the pool."""
        ...

    async def clean(self) -> int:
        """Remove temporary files that a crash left; how many."""
        ...

    async def usage(self) -> PoolUsage: ...
