"""Volumes as qcow2 files of one directory, their sidecars beside them, and the seeds in a directory next to it."""

import asyncio
import os
import re
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from corral import files, qemu_img
from corral.errors import CorralError
from corral.model.volume import Volume
from corral.storage.base import FoundVolume, PoolUsage
from corral.storage.seed import build_seed

SIDECAR_MAX_BYTES: Final = 256 * 1024  # the store's own bound on an object
# A QEMU under its own uid must reach its files through these directories, and list none of them.
DIRECTORY_MODE: Final = 0o711
# libvirt gives the file to the VM's own uid when it starts; nobody else reads it (a seed holds password hashes).
FILE_MODE: Final = 0o600

_UID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_T = TypeVar("_T")


class DirVolumes:
    """`VolumeStore` below a state directory: `volumes/<uid>.qcow2`, `volumes/<uid>.json`, `seeds/<vm uid>.iso`."""

    def __init__(self, state_dir: Path) -> None:
        self._volumes = state_dir / "volumes"
        self._seeds = state_dir / "seeds"
        for directory in (self._volumes, self._seeds):
            try:
                directory.mkdir(parents=True, exist_ok=True)
                directory.chmod(DIRECTORY_MODE)
            except OSError as error:
                raise files.storage_error(f"make {directory}", error) from error

    def path(self, volume_uid: str) -> Path:
        return self._volumes / f"{_checked(volume_uid)}.qcow2"

    def seed_path(self, vm_uid: str) -> Path:
        return self._seeds / f"{_checked(vm_uid)}.iso"

    def sidecar_path(self, volume_uid: str) -> Path:
        return self._volumes / f"{_checked(volume_uid)}.json"

    async def create(self, volume: Volume, image_disk: Path | None, image_format: str) -> Path:
        """Raises `invalid-size` if the volume is smaller than the image it lies on."""
        path = self.path(volume.uid)
        size_bytes = volume.spec.size_bytes
        await _blocking(f"write {path.name}'s sidecar", lambda: self._write_sidecar(volume))
        if await _blocking(f"look for {path}", path.exists):
            return path
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
        try:
            if image_disk is None:
                await qemu_img.create_empty(temporary, size_bytes)
            else:
                backing_format = _known_format(image_format)
                await _blocking(f"read {image_disk}", lambda: _check_size(image_disk, backing_format, size_bytes))
                await qemu_img.create_overlay(temporary, image_disk, backing_format, size_bytes)
            await _blocking(f"publish {path}", lambda: _publish(temporary, path))
        finally:
            temporary.unlink(missing_ok=True)
        return path

    async def grow(self, volume: Volume, *, in_use: bool) -> None:
        path = self.path(volume.uid)
        if not in_use:
            await qemu_img.grow(path, "qcow2", volume.spec.size_bytes)
        await _blocking(f"write {path.name}'s sidecar", lambda: self._write_sidecar(volume))

    async def remove(self, volume_uid: str) -> None:
        # The disk first: a sidecar without a disk is rubbish, a disk without a sidecar is a riddle.
        for path in (self.path(volume_uid), self.sidecar_path(volume_uid)):
            await asyncio.to_thread(files.remove_file, path)

    async def write_seed(self, vm_uid: str, files_: dict[str, bytes]) -> Path:
        path = self.seed_path(vm_uid)

        def write() -> None:
            files.write_atomic(path, build_seed(files_), FILE_MODE)

        await asyncio.to_thread(write)
        return path

    async def remove_seed(self, vm_uid: str) -> None:
        await asyncio.to_thread(files.remove_file, self.seed_path(vm_uid))

    async def allocated_bytes(self, volume_uid: str) -> int:
        path = self.path(volume_uid)
        try:
            return await asyncio.to_thread(files.allocated_bytes, path)
        except FileNotFoundError:
            return 0
        except OSError as error:
            raise files.storage_error(f"look at {path}", error) from error

    async def found(self) -> tuple[FoundVolume, ...]:
        return await _blocking(f"list {self._volumes}", self._found)

    async def found_seeds(self) -> tuple[str, ...]:
        names = await _blocking(f"list {self._seeds}", lambda: sorted(path.stem for path in self._seeds.glob("*.iso")))
        return tuple(name for name in names if _UID.fullmatch(name))

    async def clean(self) -> int:
        return await _blocking(f"clean {self._volumes}", self._clean)

    async def usage(self) -> PoolUsage:
        usage = await _blocking(f"measure {self._volumes}", lambda: shutil.disk_usage(self._volumes))
        return PoolUsage(total_bytes=usage.total, free_bytes=usage.free)

    # ---- blocking parts, run in a thread ----

    def _write_sidecar(self, volume: Volume) -> None:
        path = self.sidecar_path(volume.uid)
        content = volume.model_dump_json().encode()
        if path.exists() and path.read_bytes() == content:
            return
        files.write_atomic(path, content, FILE_MODE)

    def _found(self) -> tuple[FoundVolume, ...]:
        found = []
        for path in sorted(self._volumes.glob("*.qcow2")):
            if not _UID.fullmatch(path.stem):
                continue
            sidecar = self.sidecar_path(path.stem)
            document = files.read_limited(sidecar, SIDECAR_MAX_BYTES) if sidecar.is_file() else None
            found.append(FoundVolume(path.stem, path, files.allocated_bytes(path), document))
        return tuple(found)

    def _clean(self) -> int:
        count = files.remove_leftovers(self._volumes) + files.remove_leftovers(self._seeds)
        for sidecar in self._volumes.glob("*.json"):
            if _UID.fullmatch(sidecar.stem) and not self.path(sidecar.stem).exists():
                files.remove_file(sidecar)
                count += 1
        return count


async def _blocking(asked: str, call: Callable[[], _T]) -> _T:
    """Run `call` in a thread; an operating system's refusal becomes a coded error."""
    try:
        return await asyncio.to_thread(call)
    except OSError as error:
        raise files.storage_error(asked, error) from error


def _checked(uid: str) -> str:
    if not _UID.fullmatch(uid):
        raise CorralError("invalid-argument", f"uid {uid[:64]!r}", "not a UUID")
    return uid


def _known_format(text: str) -> qemu_img.Format:
    match text:
        case "qcow2":
            return "qcow2"
        case "raw":
            return "raw"
    raise CorralError("image-invalid", f"image format {text!r}", "only qcow2 and raw can lie below a volume")


def _check_size(image_disk: Path, image_format: qemu_img.Format, size_bytes: int) -> None:
    least = qemu_img.virtual_bytes(image_disk, image_format)
    if size_bytes < least:
        raise CorralError(
            "invalid-size",
            f"a disk of {size_bytes} bytes",
            f"smaller than its image, which has {least} bytes",
            "leave the size out, or give at least the image's",
        )


def _publish(temporary: Path, path: Path) -> None:
    """Make a finished file durable under its name."""
    fd = os.open(temporary, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fchmod(fd, FILE_MODE)
        os.fsync(fd)
    finally:
        os.close(fd)
    temporary.rename(path)
    files.fsync_dir(path.parent)
