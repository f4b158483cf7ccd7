"""The storage contract: volumes as files of a pool, seeds beside them, and what recovery can find of both.

What a driver of a pool must do, whatever it keeps volumes on:
- A volume is there whole or not at all, in a place that its spec alone tells (`volume_path`): made beside, made durable,
  put there in one step (a rename; with LVM `lvrename`, with RBD `rbd rename`). Its sidecar, the Volume's document,
  is there before it is (with LVM a tag, with RBD image metadata).
- Formats are told and never probed; a chain is what the objects say it is.
- Every call may be repeated after a crash at any instruction, and says `disk-full` where space is what is missing.
- A pool that is away (a file system that is not mounted, a cluster that is down) answers `pool-unavailable`, in bounded
  time: the empty directory in its place is not taken for an empty pool.
- A shared file system is a `dir` pool whose marker every host finds. Where volumes are block devices (LVM, RBD) they are
  `raw`, `volume_path` is the device, and a point in time is a snapshot of the device's own.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from corral.model.base import DEFAULT_POOL
from corral.model.pool import Pool
from corral.model.volume import Volume
from corral.storage.layers import LayerStore, OnShare

DiskFormat = Literal["qcow2", "raw"]


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
    pool: str = DEFAULT_POOL


@dataclass(frozen=True)
class Source:
    """A disk to be copied. `foreign`: somebody handed it over, and it is hostile until it has been read under limits;
    others are of our own making, with the chain below them."""

    path: Path
    format: DiskFormat
    foreign: bool = False


class VolumeStore(Protocol):
    """Every method may be repeated after a crash at any instruction. A volume is there whole or not at all: made
    beside, fsynced, renamed; its sidecar (`<uid>.json`, the Volume's document) lies there before it does.
    Raises CorralError: `disk-full`, `storage-error`, `command-failed`, `pool-not-found`, `pool-unavailable`."""

    @property
    def layers(self) -> LayerStore:
        """The files of chains, and of points in time."""
        ...

    def path(self, layer_uid: str, pool: str = DEFAULT_POOL) -> Path:
        """Of a qcow2 layer."""
        ...

    def volume_path(self, volume: Volume) -> Path:
        """The file that its guest writes."""
        ...

    def seed_path(self, vm_uid: str) -> Path: ...

    async def create(self, volume: Volume, image_disk: Path | None, image_format: str) -> Path:
        """An overlay on `image_disk` (constant time), or an empty disk; grown to the volume's size."""
        ...

    async def grow(self, volume: Volume, *, in_use: bool) -> None:
        """To the size of its spec; `in_use`: QEMU has grown the file itself, and only the sidecar is written."""
        ...

    async def prepare(self, volume: Volume) -> Path:
        """An empty file where the volume is to lie, for somebody else to fill; nothing says of it that it is the volume.
        What an earlier try left there goes."""
        ...

    async def fill(self, volume: Volume, source: Source, on_share: OnShare, bytes_per_s: int = 0) -> None:
        """The volume as a copy of `source` that stands alone; at most so fast, 0: without a limit. Constant time where the
        file system shares blocks. `image-invalid` for a foreign disk that leans on other files, `volume-in-use` if somebody wrote the source
        meanwhile."""
        ...

    async def flatten(self, source: Source, disk_format: DiskFormat, on_share: OnShare) -> Path:
        """A temporary file that holds all of `source`, in the default pool; whoever asked removes it."""
        ...

    async def stand_alone(self, volume: Volume, on_share: OnShare, bytes_per_s: int = 0) -> None:
        """All that the volume's file leans on comes into it. Nobody writes it meanwhile; what is read through it stays the
        same at any instant, whatever is then taken for lying below. At most `bytes_per_s`; 0: without a limit."""
        ...

    async def check_shrink(self, volume: Volume, size_bytes: int) -> None:
        """Nothing if no byte of the volume, or of what it stands on, lies beyond `size_bytes`; `invalid-size` else."""
        ...

    async def shrink(self, volume: Volume) -> None:
        """To the size of its spec, once that is proven to lose nothing."""
        ...

    async def remove(self, volume_uid: str, pool: str = DEFAULT_POOL) -> None: ...

    async def write_seed(self, vm_uid: str, files: dict[str, bytes]) -> Path:
        """A NoCloud ISO (volume id `cidata`) of `files`, replaced atomically."""
        ...

    async def rewrite_seed(self, vm_uid: str, files: dict[str, bytes]) -> Path:
        """As `write_seed`, into the file that is there: a QEMU that has it open sees it."""
        ...

    async def remove_seed(self, vm_uid: str) -> None: ...

    async def allocated_bytes(self, volume_uid: str, pool: str = DEFAULT_POOL) -> int: ...

    async def allocations(self, pool: str = DEFAULT_POOL) -> dict[str, int]:
        """What each volume and layer takes, by uid."""
        ...

    async def found(self) -> tuple[FoundVolume, ...]:
        """All that lies in the pool, for recovery and for orphans."""
        ...

    async def found_seeds(self) -> tuple[str, ...]:
        """The vm uids of the seeds in the pool."""
        ...

    async def clean(self) -> int:
        """Remove temporary files that a crash left; how many."""
        ...

    async def usage(self, pool: str = DEFAULT_POOL) -> PoolUsage: ...

    # ---- pools ----

    async def open_pool(self, pool: Pool) -> None:
        """Make its place, or take it where it is marked as this pool's, and know it from now on. `storage-error` for a
        place that holds something else, or that QEMU could not reach."""
        ...

    async def close_pool(self, name: str) -> None:
        """Forget it; `pool-in-use` while a volume's file lies in it."""
        ...

    def check_pool(self, name: str) -> None:
        """`pool-not-found` unless it is known."""
        ...

    def pools(self) -> dict[str, Path]:
        """What is known, also with the database lost."""
        ...
