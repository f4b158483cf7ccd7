"""Volumes as files of a pool's directory, their sidecars beside them, and the seeds in a directory of the state's."""

import asyncio
import contextlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, TypeVar

from corral import files, qemu_img
from corral.errors import CorralError
from corral.model.base import DEFAULT_POOL
from corral.model.pool import Pool
from corral.model.volume import Volume
from corral.storage import filling
from corral.storage.base import DiskFormat, FoundVolume, PoolUsage, Source
from corral.storage.layers import DirLayers, OnShare
from corral.storage.places import DIRECTORY_MODE, PoolPlaces
from corral.storage.seed import build_seed

SIDECAR_MAX_BYTES: Final = 256 * 1024  # the store's own bound on an object
# libvirt gives the file to the VM's own uid when it starts; nobody else reads it (a seed holds password hashes).
FILE_MODE: Final = 0o600
FORMATS: Final = ("qcow2", "raw")
# Beside a layer that is no volume's own file.
LAYER_SIDECAR: Final = ".layer.json"

_UID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_T = TypeVar("_T")


class DirVolumes:
    """`VolumeStore` below a state directory: `volumes/<uid>.qcow2` (or `.raw`), `volumes/<uid>.json`, `seeds/<vm uid>.iso`;
    other pools' volumes lie in their own directories in the same way."""

    def __init__(self, state_dir: Path) -> None:
        self._volumes = state_dir / "volumes"
        self._seeds = state_dir / "seeds"
        self._places = PoolPlaces(self._volumes, state_dir / "pools")
        self.layers = DirLayers(state_dir, self.path, self._places.there)
        for directory in (self._volumes, self._seeds):
            try:
                directory.mkdir(parents=True, exist_ok=True)
                directory.chmod(DIRECTORY_MODE)
            except OSError as error:
                raise files.storage_error(f"make {directory}", error) from error

    def path(self, layer_uid: str, pool: str = DEFAULT_POOL) -> Path:
        return self._places.directory(pool) / f"{_checked(layer_uid)}.qcow2"

    def volume_path(self, volume: Volume) -> Path:
        return self._places.directory(volume.spec.pool) / f"{_checked(volume.head_uid)}.{volume.spec.format}"

    def seed_path(self, vm_uid: str) -> Path:
        return self._seeds / f"{_checked(vm_uid)}.iso"

    def sidecar_path(self, volume_uid: str, pool: str = DEFAULT_POOL) -> Path:
        return self._places.directory(pool) / f"{_checked(volume_uid)}.json"

    async def create(self, volume: Volume, image_disk: Path | None, image_format: str) -> Path:
        """Raises `invalid-size` if the volume is smaller than the image it lies on."""
        size_bytes = volume.spec.size_bytes

        async def make(temporary: Path) -> None:
            if image_disk is None:
                await _make_empty(temporary, volume)
                return
            backing_format = _known_format(image_format)
            await _blocking(f"read {image_disk}", lambda: _check_size(image_disk, backing_format, size_bytes))
            if volume.spec.format == "raw":
                await filling.fill(temporary, Source(image_disk, backing_format), volume, lambda _share: None)
            else:
                await qemu_img.create_overlay(temporary, image_disk, backing_format, size_bytes)

        return await self._make(volume, make)

    async def prepare(self, volume: Volume) -> Path:
        path = await self._reached(volume)
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
        try:
            await _make_empty(temporary, volume)
            await _blocking(f"publish {path}", lambda: files.publish(temporary, path, FILE_MODE))
        finally:
            temporary.unlink(missing_ok=True)
        return path

    async def fill(self, volume: Volume, source: Source, on_share: OnShare, bytes_per_s: int = 0) -> None:
        async def make(temporary: Path) -> None:
            async with self.layers.use.reading(source.path):
                await filling.fill(temporary, source, volume, on_share, bytes_per_s)

        await self._make(volume, make)

    async def flatten(self, source: Source, disk_format: DiskFormat, on_share: OnShare) -> Path:
        temporary = self._volumes / f".flat.{secrets.token_hex(8)}.tmp"
        async with self.layers.use.reading(source.path):
            await filling.flatten(temporary, source, disk_format, on_share)
        return temporary

    async def _make(self, volume: Volume, make: Callable[[Path], Awaitable[None]]) -> Path:
        """The sidecar, then the file: beside, by `make`, and put in place at once."""
        path = self.volume_path(volume)
        if await _blocking(f"write {path.name}'s sidecar", lambda: self._write_ahead(volume, path)):
            return path
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
        try:
            await make(temporary)
            await _blocking(f"publish {path}", lambda: files.publish(temporary, path, FILE_MODE))
        finally:
            temporary.unlink(missing_ok=True)
        return path

    async def _reached(self, volume: Volume) -> Path:
        """Its path, in a pool that is there."""
        await _blocking(f"look at pool {volume.spec.pool}", lambda: self._places.check(volume.spec.pool))
        return self.volume_path(volume)

    async def grow(self, volume: Volume, *, in_use: bool) -> None:
        path = await self._reached(volume)
        if not in_use:
            await qemu_img.grow(path, volume.spec.format, volume.spec.size_bytes)
        await _blocking(f"write {path.name}'s sidecar", lambda: self._write_sidecar(volume))

    async def stand_alone(self, volume: Volume, on_share: OnShare, bytes_per_s: int = 0) -> None:
        path = await self._reached(volume)
        if volume.spec.format == "raw":
            return

        async def take_in() -> None:
            await qemu_img.rebase(path, None, None, "qcow2", on_share, bytes_per_s)
            await _blocking(f"write {path}", lambda: files.fsync_file(path))

        await self.layers.use.merge(path, take_in)

    async def check_shrink(self, volume: Volume, size_bytes: int) -> None:
        await filling.check_shrink(await self._reached(volume), volume, size_bytes)

    async def shrink(self, volume: Volume) -> None:
        path, size_bytes = await self._reached(volume), volume.spec.size_bytes
        if await _blocking(f"read {path}", lambda: qemu_img.virtual_bytes(path, volume.spec.format)) > size_bytes:
            await filling.check_shrink(path, volume, size_bytes)
            await qemu_img.shrink(path, volume.spec.format, size_bytes)
        await _blocking(f"write {path.name}'s sidecar", lambda: self._write_sidecar(volume))

    async def remove(self, volume_uid: str, pool: str = DEFAULT_POOL) -> None:
        # The disk first: a sidecar without a disk is rubbish, a disk without a sidecar is a riddle.
        await _blocking(f"look at pool {pool}", lambda: self._places.check(pool))
        disk = self.path(volume_uid, pool)
        for path in (disk, disk.with_suffix(".raw"), self.sidecar_path(volume_uid, pool)):
            await asyncio.to_thread(files.remove_file, path)

    async def write_seed(self, vm_uid: str, files_: dict[str, bytes]) -> Path:
        path = self.seed_path(vm_uid)

        def write() -> None:
            files.write_atomic(path, build_seed(files_), FILE_MODE)

        await asyncio.to_thread(write)
        return path

    async def rewrite_seed(self, vm_uid: str, files_: dict[str, bytes]) -> Path:
        path = self.seed_path(vm_uid)

        def rewrite() -> None:
            content = build_seed(files_)
            if not path.exists() or path.stat().st_size < len(content):
                files.write_atomic(path, content, FILE_MODE)
                return
            with path.open("r+b") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())

        await _blocking(f"write {path}", rewrite)
        return path

    async def remove_seed(self, vm_uid: str) -> None:
        await asyncio.to_thread(files.remove_file, self.seed_path(vm_uid))

    async def allocated_bytes(self, volume_uid: str, pool: str = DEFAULT_POOL) -> int:
        return (await self.allocations(pool)).get(_checked(volume_uid), 0)

    async def allocations(self, pool: str = DEFAULT_POOL) -> dict[str, int]:
        directory = self._places.directory(pool)

        def measure() -> dict[str, int]:
            self._places.check(pool)
            found: dict[str, int] = {}
            for path in _disks_in(directory):
                with contextlib.suppress(FileNotFoundError):  # it went meanwhile
                    found[path.stem] = found.get(path.stem, 0) + files.allocated_bytes(path)
            return found

        return await _blocking(f"measure {directory}", measure)

    async def found(self) -> tuple[FoundVolume, ...]:
        return await _blocking(f"list {self._volumes}", self._found)

    async def found_seeds(self) -> tuple[str, ...]:
        names = await _blocking(f"list {self._seeds}", lambda: sorted(path.stem for path in self._seeds.glob("*.iso")))
        return tuple(name for name in names if _UID.fullmatch(name))

    async def clean(self) -> int:
        return await _blocking(f"clean {self._volumes}", self._clean)

    async def usage(self, pool: str = DEFAULT_POOL) -> PoolUsage:
        directory = self._places.directory(pool)

        def measure() -> PoolUsage:
            self._places.check(pool)
            usage = shutil.disk_usage(directory)
            return PoolUsage(total_bytes=usage.total, free_bytes=usage.free)

        return await _blocking(f"measure {directory}", measure)

    async def open_pool(self, pool: Pool) -> None:
        await _blocking(f"open pool {pool.name}", lambda: self._places.open(pool))

    async def close_pool(self, name: str) -> None:
        await _blocking(f"close pool {name}", lambda: self._places.close(name))

    def check_pool(self, name: str) -> None:
        self._places.directory(name)

    def pools(self) -> dict[str, Path]:
        return self._places.known()

    # ---- blocking parts, run in a thread ----

    def _write_ahead(self, volume: Volume, path: Path) -> bool:
        """Its sidecar, in a pool that is there; whether its file is there too."""
        self._places.check(volume.spec.pool)
        self._write_sidecar(volume)
        return path.exists()

    def _write_sidecar(self, volume: Volume) -> None:
        path = self.sidecar_path(volume.uid, volume.spec.pool)
        content = volume.model_dump_json().encode()
        if path.exists() and path.read_bytes() == content:
            return
        files.write_atomic(path, content, FILE_MODE)

    def _found(self) -> tuple[FoundVolume, ...]:
        found = []
        for pool, directory in self._places.there().items():
            sidecars = {path.stem: path for path in directory.glob("*.json") if _UID.fullmatch(path.stem)}
            for uid, sidecar in sorted(sidecars.items()):
                document = _read(sidecar)
                if (path := _head(sidecar, document)) is not None:
                    found.append(FoundVolume(uid, path, files.allocated_bytes(path), document, pool))
            found += [
                FoundVolume(path.stem, path, files.allocated_bytes(path), None, pool)
                for path in _disks_in(directory)
                if path.stem not in sidecars and not path.with_suffix(LAYER_SIDECAR).exists()
            ]
        return tuple(found)

    def _clean(self) -> int:
        count = files.remove_leftovers(self._seeds) + self.layers.remove_leftovers()
        for directory in self._places.there().values():
            count += files.remove_leftovers(directory)
            for sidecar in directory.glob("*.json"):
                if not _UID.fullmatch(sidecar.stem):
                    continue
                if _head(sidecar, _read(sidecar)) is None:
                    files.remove_file(sidecar)
                    count += 1
        return count


def _read(sidecar: Path) -> bytes:
    """One that is no sidecar of ours (too long) says nothing."""
    try:
        return files.read_limited(sidecar, SIDECAR_MAX_BYTES)
    except CorralError:
        return b""


def _head(sidecar: Path, document: bytes) -> Path | None:
    """The file that the volume of this sidecar writes to, or one that bears its uid; None: nothing lies there."""
    try:
        spec = json.loads(document)["spec"]
        head = f"{spec.get('layer_uid') or sidecar.stem}.{spec['format']}"
    except (ValueError, KeyError, TypeError, AttributeError):  # not ours, or damaged: judged by its name
        head = sidecar.with_suffix(".qcow2").name
    places = (sidecar.with_name(head), *(sidecar.with_suffix(f".{kind}") for kind in FORMATS))
    return next((path for path in places if path.exists()), None)


def _disks_in(directory: Path) -> list[Path]:
    found = (path for kind in FORMATS for path in directory.glob(f"*.{kind}"))
    return sorted(path for path in found if _UID.fullmatch(path.stem))


async def _make_empty(path: Path, volume: Volume) -> None:
    if volume.spec.format == "raw":
        await _blocking(f"write {path.name}", lambda: _make_sparse(path, volume.spec.size_bytes))
    else:
        await qemu_img.create_empty(path, volume.spec.size_bytes)


def _make_sparse(path: Path, size_bytes: int) -> None:
    with files.create_private(path) as stream:
        stream.truncate(size_bytes)


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
