"""Disks filled from other disks: by sharing their blocks where the file system can, else by copying, never by probing."""

import asyncio
import errno
import fcntl
import os
from pathlib import Path
from typing import Final

from corral import files, qemu_img
from corral.errors import CorralError
from corral.model.volume import Volume
from corral.names import format_bytes
from corral.storage.base import DiskFormat, Source
from corral.storage.layers import OnShare

# ioctl(2) FICLONE, from linux/fs.h: the target shares all blocks of the source.
_FICLONE: Final = 0x40049409
_CANNOT_SHARE: Final = frozenset({errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.ENOSYS, errno.EPERM})


async def fill(target: Path, source: Source, volume: Volume, on_share: OnShare, bytes_per_s: int = 0) -> None:
    """`target`, a new file, becomes the volume's content: `source` alone, as large as the volume."""
    size_bytes = await _content(target, source, volume.spec.format, on_share, bytes_per_s)
    if size_bytes < volume.spec.size_bytes:
        await qemu_img.grow(target, volume.spec.format, volume.spec.size_bytes)


async def flatten(target: Path, source: Source, disk_format: DiskFormat, on_share: OnShare) -> None:
    """`target` holds all of `source`, chain and all. Whatever it takes is left over by running guests."""
    if disk_format == "raw":
        await asyncio.to_thread(_check_room, target, source)
    try:
        await _content(target, source, disk_format, on_share)
    except BaseException:
        await asyncio.to_thread(target.unlink, missing_ok=True)
        raise


def _check_room(target: Path, source: Source) -> None:
    """A raw disk's length bounds nothing that qemu-img could be told: it is taken at its full size."""
    needed, free = qemu_img.virtual_bytes(source.path, source.format), files.free_bytes(target.parent)
    if needed + qemu_img.KEPT_FREE_BYTES > free:
        reason = f"it may take {format_bytes(needed)} meanwhile, {format_bytes(free)} are free"
        raise CorralError("disk-full", f"copy {source.path.name}", reason, "free space, or take it as qcow2")


async def _content(
    target: Path, source: Source, disk_format: DiskFormat, on_share: OnShare, bytes_per_s: int = 0
) -> int:
    """Returns the size that a guest sees."""
    asked = f"copy {source.path.name}"
    if source.foreign:
        info = await qemu_img.info(source.path, source.format)
        qemu_img.check_alone(source.path, source.format, info)
        await qemu_img.convert(source.path, source.format, target, disk_format, on_share)
        return info.virtual_bytes
    before = await asyncio.to_thread(_written_at, source.path, asked)
    size_bytes = await asyncio.to_thread(qemu_img.virtual_bytes, source.path, source.format)
    alone = source.format == "raw" or not await asyncio.to_thread(qemu_img.has_backing, source.path)
    if not (alone and source.format == disk_format and await asyncio.to_thread(_shares, source.path, target)):
        await qemu_img.convert_ours(source.path, source.format, target, disk_format, on_share, bytes_per_s)
    if await asyncio.to_thread(_written_at, source.path, asked) != before:
        reason = "a guest wrote it while it was copied"
        raise CorralError("volume-in-use", asked, reason, "shut the VM down first, or copy a snapshot of it")
    return size_bytes


def _written_at(path: Path, asked: str) -> tuple[int, int]:
    """Changes with each write, whoever writes."""
    try:
        found = path.stat()
    except OSError as error:
        raise files.storage_error(asked, error) from error
    return found.st_mtime_ns, found.st_size


def _shares(source: Path, target: Path) -> bool:
    """Whether the file system could make `target` share the blocks of `source`: constant time, no space."""
    with source.open("rb") as below, files.create_private(target) as above:
        try:
            fcntl.ioctl(above.fileno(), _FICLONE, below.fileno())
        except OSError as error:
            if error.errno not in _CANNOT_SHARE:
                raise files.storage_error(f"copy {source.name}", error) from error
        else:
            os.fsync(above.fileno())
            return True
    target.unlink()
    return False


async def check_shrink(path: Path, volume: Volume, size_bytes: int) -> None:
    """Measured, not assumed: where the disk and all that lies below it have data."""
    end = await qemu_img.data_end(path, volume.spec.format)
    if end > size_bytes:
        raise CorralError(
            "invalid-size",
            f"shrink volume {volume.name!r} to {format_bytes(size_bytes)}",
            f"data lies up to {format_bytes(end)} of it: a smaller one would cut it off",
            f"ask for {format_bytes(end)} or more, or trim what is free in its file systems first (fstrim)",
            {"wanted_bytes": size_bytes, "data_end_bytes": end},
        )
