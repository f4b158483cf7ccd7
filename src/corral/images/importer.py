"""Disks from elsewhere are hostile until they are copied: told a format, read under limits, made to stand alone."""

import asyncio
import os
import stat
from pathlib import Path
from typing import Final

from corral import files, proc, qemu_img
from corral.errors import CorralError

COPY_TIMEOUT_S: Final = 3600.0


async def take_copy(source: Path, target: Path) -> None:
    """Copy a user's file once, holes kept; nobody can change it under us afterwards.

    Raises `image-invalid` unless it is a regular file, `disk-full`, `storage-error`.
    """
    fd = await asyncio.to_thread(_open_regular, source)
    try:
        needed, free = os.fstat(fd).st_blocks * 512, files.free_bytes(target.parent)
        if needed > free:
            raise CorralError(
                "disk-full", f"import {source}", f"it takes {needed} bytes, {free} are free", "free space, then retry"
            )
        argv = ["cp", "--sparse=always", "--reflink=auto", f"/proc/self/fd/{fd}", str(target)]
        await proc.run(argv, timeout_s=COPY_TIMEOUT_S, pass_fds=[fd])
    finally:
        os.close(fd)


def _open_regular(source: Path) -> int:
    asked = f"import {source}"
    if not source.is_absolute():
        raise CorralError("image-invalid", asked, "not an absolute path", "give the path from /")
    try:
        # O_NONBLOCK: opening a FIFO must not wait for its writer.
        fd = os.open(source, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise CorralError(
            "image-invalid", asked, error.strerror or str(error), "name a file that the daemon may read, not a link"
        ) from error
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise CorralError("image-invalid", asked, "not a regular file", "copy the device into a file first")
    return fd


async def make_standalone(source: Path, disk_format: qemu_img.Format, target: Path) -> int:
    """Check `source` and convert it into a qcow2 of its own at `target`; return the virtual size in bytes."""
    info = await qemu_img.info(source, disk_format)
    qemu_img.check_alone(source, disk_format, info)
    try:
        await qemu_img.convert(source, disk_format, target, "qcow2")
    except CorralError as error:
        if error.code != "command-failed":
            raise
        raise CorralError("image-invalid", f"copy {source.name}", error.reason, "the disk's data is damaged") from error
    return info.virtual_bytes
