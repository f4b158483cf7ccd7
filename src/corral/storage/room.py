"""Whether a guest that stands still at a write could go on."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from corral import files
from corral.errors import CorralError
from corral.model.vm import Vm
from corral.model.volume import Volume
from corral.names import MIB
from corral.storage.base import VolumeStore

ROOM_MIN_BYTES: Final = 64 * MIB
ROOM_SHARE: Final = 32
"""Of a small file system such a part is room enough."""
ROOM_LEAST_BYTES: Final = 16 * MIB
"""More than what the database has set aside for itself, which is given up when a disk is full."""


async def has_room(store: VolumeStore, vm: Vm, volumes: Mapping[str, Volume]) -> bool:
    """In every file system that it writes to; one that cannot be looked at has none."""
    try:
        for disk in vm.spec.disks:
            if disk.read_only or disk.device == "cdrom":
                continue
            volume = volumes.get(disk.volume_uid or "")
            if volume is not None:
                usage = await store.usage(volume.spec.pool)
                total, free = usage.total_bytes, usage.free_bytes
            elif disk.path is not None:
                total, free = await asyncio.to_thread(files.total_and_free_bytes, Path(disk.path).parent)
            else:
                continue
            if free < max(min(ROOM_MIN_BYTES, total // ROOM_SHARE), min(ROOM_LEAST_BYTES, total // 4)):
                return False
    except (CorralError, OSError):
        return False
    return True
