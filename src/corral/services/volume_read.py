"""A volume's content as one file, for its user: streamed as it lies where it stands alone, else flattened first."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final

from corral import qemu_img
from corral.errors import CorralError
from corral.files import remove_file, storage_error
from corral.hypervisor.reach import GuestFile, GuestReader
from corral.services.access import audited, authorize, record
from corral.services.caller import Caller
from corral.services.context import Context
from corral.services.volume_create import quiet_volume
from corral.storage.base import DiskFormat, Source

PART_BYTES: Final = 256 * 1024
MODE: Final = 0o600


@dataclass
class DiskReader:
    """A `GuestReader` of a disk's file. What somebody wrote meanwhile is told at the end, before it is taken for whole."""

    file: GuestFile
    path: Path
    temporary: bool
    asked: str
    _stream: IO[bytes] | None = None
    _written_ns: int = field(default=0)

    async def read(self) -> bytes:
        try:
            return await asyncio.to_thread(self._read)
        except OSError as error:
            raise storage_error(self.asked, error) from error

    async def close(self) -> None:
        if self._stream is not None:
            self._stream.close()
        if self.temporary:
            await asyncio.to_thread(remove_file, self.path)

    def _read(self) -> bytes:
        if self._stream is None:
            self._written_ns = self.path.stat().st_mtime_ns
            self._stream = self.path.open("rb")
        part = self._stream.read(PART_BYTES)
        if not part and self.path.stat().st_mtime_ns != self._written_ns:
            raise CorralError("volume-in-use", self.asked, "a guest wrote it meanwhile", "shut its VM down first")
        return part


class VolumeReader:
    """Downloads."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def open(
        self, caller: Caller, project: str, name: str, disk_format: DiskFormat, on_share: Callable[[float], None]
    ) -> GuestReader:
        """The whole disk in that format, leaning on nothing. `on_share` hears how much of it was flattened."""
        context, action, asked = self._context, "volume.download", f"download volume {name!r}"
        await authorize(context, caller, project, action, name)
        async with audited(context, caller, project, action, name):
            volume = await quiet_volume(context, project, name, asked)
            path = context.volumes.volume_path(volume)
            alone = volume.spec.format == disk_format and not await asyncio.to_thread(_leans, path, disk_format)
            if not alone:
                path = await context.volumes.flatten(Source(path, volume.spec.format), disk_format, on_share)
        await record(context, caller, project, action, name, "accepted")
        try:
            size_bytes = (await asyncio.to_thread(path.stat)).st_size
        except OSError as error:
            raise storage_error(asked, error) from error
        return DiskReader(GuestFile(f"{volume.name}.{disk_format}", size_bytes, MODE), path, not alone, asked)


def _leans(path: Path, disk_format: DiskFormat) -> bool:
    """Whether it needs a file below it; one that cannot be read is not there as a file (a pretended one)."""
    try:
        return disk_format == "qcow2" and qemu_img.has_backing(path)
    except OSError:
        return True
