"""Layers as files of a pool, and what belongs to points in time. A head is made, frozen, merged, removed; never changed else."""

import asyncio
import shutil
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Protocol, TypeVar

from corral import files, qemu_img
from corral.errors import CorralError
from corral.model import limits
from corral.model.layer import Layer
from corral.model.snapshot import Snapshot
from corral.storage.chain_use import ChainUse
from corral.storage.heirs import Heirs

T = TypeVar("T")

LAYER_SIDECAR: Final = ".layer.json"
SIDECAR_MAX_BYTES: Final = 256 * 1024
SNAPSHOT_SIDECAR: Final = "snapshot.json"
# What lies beside a VM's disks, as it is kept in the directory of a point in time or a template.
NVRAM_FILE: Final = "nvram.fd"
TPM_DIR: Final = "tpm"
FILE_MODE: Final = 0o600
# QEMU, under a uid of its own, must pass to the memory that it is fed; it gets that file opened, and lists nothing.
DIRECTORY_MODE: Final = 0o711

OnShare = Callable[[float], None]
"""Hears how far it is, from 0 to 1."""
PathOf = Callable[[str, str], Path]


@dataclass(frozen=True)
class Backing:
    """What a layer lies on."""

    path: Path
    format: Literal["qcow2", "raw"]


@dataclass(frozen=True)
class FoundLayer:
    """`document`: the Layer's JSON. `there`: so is its file."""

    uid: str
    document: bytes
    there: bool


@dataclass(frozen=True)
class Run:
    """A piece of a disk; `zero`: it reads as zeros."""

    start: int
    length: int
    zero: bool = False


class LayerStore(Protocol):
    """Every method may be repeated after a crash at any instruction. Raises CorralError: `disk-full`, `storage-error`,
    `command-failed`."""

    async def make(self, layer: Layer, backing: Backing | None) -> None:
        """An empty overlay on `backing`, in constant time, its sidecar first. One that is there is left as it is."""
        ...

    async def make_anew(self, layer: Layer, backing: Backing | None) -> None:
        """As `make`, whatever was there."""
        ...

    async def write(self, layer: Layer) -> None:
        """The sidecar alone."""
        ...

    async def remove(self, layer_uid: str, pool: str) -> None: ...

    async def merge(
        self, layer: Layer, middle: Layer, base: Backing | None, on_share: OnShare, bytes_per_s: int = 0
    ) -> None:
        """Take `middle`, which `layer` lies on, into `layer`, which lies on `base` then; what is read through it stays the
        same at any instant. At most `bytes_per_s`; 0: without a limit. `volume-in-use` while a chain that `layer` is in is copied, or begins to be."""
        ...

    async def lay_on(self, above: Layer, below: Layer) -> None:
        """Its file, which nobody has open, lies on that one, which reads as what it lay on. Nothing where it is not there."""
        ...

    async def runs(self, layer: Layer) -> tuple[Run, ...]:
        """What was written to this layer alone, in order; a guest may be writing it. `unsupported` if that lies in more than
        `LAYER_PIECES_MAX` pieces."""
        ...

    async def forget_volume(self, volume_uid: str, pool: str) -> None:
        """Remove a volume's sidecar; its file is a layer's."""
        ...

    async def found(self) -> tuple[FoundLayer, ...]: ...

    # ---- points in time ----

    def point_dir(self, snapshot_uid: str) -> Path:
        """Where its memory, its UEFI variables and its TPM's state lie."""
        ...

    async def write_point(self, snapshot: Snapshot) -> None:
        """Its sidecar, the directory made where it is missing."""
        ...

    async def remove_point(self, snapshot_uid: str) -> None:
        """The directory with all that is in it, the sidecar first."""
        ...

    async def found_points(self) -> tuple[bytes, ...]:
        """The documents of all."""
        ...

    # ---- what a VM that comes from another one begins with ----

    async def inherit(self, vm_uid: str, directory: Path, names: Sequence[str]) -> None:
        """Keep what of `names` there is in a point in time's or a template's directory, for a VM that is yet to be."""
        ...

    def inheritance(self, vm_uid: str) -> Path | None:
        """Where that lies."""
        ...

    async def forget_inheritance(self, vm_uid: str) -> None:
        """It has it, or will not be."""
        ...

    async def forget_heirs(self, vms: Collection[str]) -> None:
        """Of what a former process kept, all but what is for these."""
        ...


class DirLayers:
    """`LayerStore` in the pools' directories: `<uid>.qcow2` with `<uid>.layer.json`; `snapshots/<uid>/` in the state's."""

    def __init__(self, state_dir: Path, path: PathOf, directories: Callable[[], dict[str, Path]]) -> None:
        self._snapshots = state_dir / "snapshots"
        self._heirs = Heirs(state_dir / "inherited")
        self._path = path
        self._directories = directories
        self.use = ChainUse(lambda: directories().values())
        try:
            self._snapshots.mkdir(parents=True, exist_ok=True)
            self._snapshots.chmod(DIRECTORY_MODE)
        except OSError as error:
            raise files.storage_error(f"make {self._snapshots}", error) from error

    async def make(self, layer: Layer, backing: Backing | None) -> None:
        path = self._path(layer.uid, layer.spec.pool)
        if backing is not None:
            await self.use.stop_merges(backing.path)

        def make() -> None:
            self._write(layer)
            _make(path, layer.spec.size_bytes, backing)

        await _blocking(f"make {path}", make)

    async def make_anew(self, layer: Layer, backing: Backing | None) -> None:
        await asyncio.to_thread(files.remove_file, self._path(layer.uid, layer.spec.pool))
        await self.make(layer, backing)

    async def write(self, layer: Layer) -> None:
        await asyncio.to_thread(self._write, layer)

    def _write(self, layer: Layer) -> None:
        path, content = self._sidecar(layer.uid, layer.spec.pool), layer.model_dump_json().encode()
        files.write_atomic(path, content, FILE_MODE)

    async def remove(self, layer_uid: str, pool: str) -> None:
        for path in (self._path(layer_uid, pool), self._sidecar(layer_uid, pool)):
            await asyncio.to_thread(files.remove_file, path)

    async def merge(
        self, layer: Layer, middle: Layer, base: Backing | None, on_share: OnShare, bytes_per_s: int = 0
    ) -> None:
        path, below = self._path(layer.uid, layer.spec.pool), self._path(middle.uid, middle.spec.pool)

        async def merge() -> None:
            onto, kind = (base.path, base.format) if base else (None, None)
            await qemu_img.rebase(path, below, onto, kind or "qcow2", on_share, bytes_per_s)
            await _blocking(f"write {path}", lambda: files.fsync_file(path))

        await self.use.merge(path, merge)

    async def lay_on(self, above: Layer, below: Layer) -> None:
        path = self._path(above.uid, above.spec.pool)
        if await _blocking(f"look for {path}", path.exists):
            await qemu_img.lay_on(path, self._path(below.uid, below.spec.pool))
            await _blocking(f"write {path}", lambda: files.fsync_file(path))

    async def runs(self, layer: Layer) -> tuple[Run, ...]:
        path, found = self._path(layer.uid, layer.spec.pool), list[Run]()
        async with self.use.reading(path):
            async for start, length, zero in qemu_img.own_extents(path):
                last = found[-1] if found else None
                if last is not None and last.start + last.length == start and last.zero == zero:
                    found[-1] = Run(last.start, last.length + length, zero)
                    continue
                found.append(Run(start, length, zero))
                if len(found) > limits.LAYER_PIECES_MAX:
                    reason = f"it holds more than {limits.LAYER_PIECES_MAX} pieces"
                    raise CorralError("unsupported", f"list what layer {layer.uid} holds", reason)
        return tuple(found)

    async def forget_volume(self, volume_uid: str, pool: str) -> None:
        await asyncio.to_thread(files.remove_file, self._path(volume_uid, pool).with_suffix(".json"))

    async def found(self) -> tuple[FoundLayer, ...]:
        def look() -> tuple[FoundLayer, ...]:
            found = []
            for directory in self._directories().values():
                for sidecar in sorted(directory.glob(f"*{LAYER_SIDECAR}")):
                    uid = sidecar.name.removesuffix(LAYER_SIDECAR)
                    document = files.read_limited(sidecar, SIDECAR_MAX_BYTES)
                    found.append(FoundLayer(uid, document, (directory / f"{uid}.qcow2").exists()))
            return tuple(found)

        return await _blocking("list the layers", look)

    def point_dir(self, snapshot_uid: str) -> Path:
        return self._snapshots / snapshot_uid

    async def write_point(self, snapshot: Snapshot) -> None:
        directory = self.point_dir(snapshot.uid)

        def write() -> None:
            directory.mkdir(mode=DIRECTORY_MODE, exist_ok=True)
            for path in directory.iterdir():  # what a crash of the machine must not take
                if path.is_file():
                    files.fsync_file(path)
            files.write_atomic(directory / SNAPSHOT_SIDECAR, snapshot.model_dump_json().encode(), FILE_MODE)
            files.fsync_dir(self._snapshots)

        await _blocking(f"write {directory}", write)

    async def remove_point(self, snapshot_uid: str) -> None:
        directory = self.point_dir(snapshot_uid)

        def remove() -> None:
            files.remove_file(directory / SNAPSHOT_SIDECAR)
            if directory.exists():
                shutil.rmtree(directory)

        await _blocking(f"remove {directory}", remove)

    async def found_points(self) -> tuple[bytes, ...]:
        def look() -> tuple[bytes, ...]:
            sidecars = sorted(self._snapshots.glob(f"*/{SNAPSHOT_SIDECAR}"))
            return tuple(files.read_limited(path, SIDECAR_MAX_BYTES) for path in sidecars)

        return await _blocking("list the snapshots", look)

    def remove_leftovers(self) -> int:
        """Temporary files beside sidecars that a crash left; how many. Blocking."""
        return sum(files.remove_leftovers(directory) for directory in self._snapshots.iterdir())

    async def inherit(self, vm_uid: str, directory: Path, names: Sequence[str]) -> None:
        asked = f"keep what is in {directory} for VM {vm_uid}"
        await _blocking(asked, lambda: self._heirs.keep(vm_uid, directory, names))

    def inheritance(self, vm_uid: str) -> Path | None:
        return self._heirs.find(vm_uid)

    async def forget_inheritance(self, vm_uid: str) -> None:
        await _blocking(f"remove what was kept for VM {vm_uid}", lambda: self._heirs.remove(vm_uid))

    async def forget_heirs(self, vms: Collection[str]) -> None:
        await _blocking("remove what was kept for VMs", lambda: self._heirs.remove_former(vms))

    def _sidecar(self, layer_uid: str, pool: str) -> Path:
        return self._path(layer_uid, pool).with_suffix(LAYER_SIDECAR)


def _make(path: Path, size_bytes: int, backing: Backing | None) -> None:
    """An empty file, beside and then in place, unless there is one."""
    if path.exists():
        return
    with files.replacing(path, FILE_MODE) as temporary:
        if backing is None:
            qemu_img.write_empty(temporary, size_bytes)
        else:
            qemu_img.write_overlay(temporary, backing.path, backing.format, size_bytes)


async def _blocking(asked: str, call: Callable[[], T]) -> T:
    try:
        return await asyncio.to_thread(call)
    except OSError as error:
        raise files.storage_error(asked, error) from error
