"""qemu-img, with every format named: a disk that a guest could write is never probed."""

import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from corral import files, proc
from corral.errors import CorralError

Format = Literal["qcow2", "raw"]

CREATE_TIMEOUT_S: Final = 30.0
INFO_TIMEOUT_S: Final = 15.0
CONVERT_TIMEOUT_S: Final = 3600.0
CHECK_TIMEOUT_S: Final = 600.0
# What a conversion leaves to everybody else in its file system.
KEPT_FREE_BYTES: Final = 256 * 2**20

# A header made to hurt asks for huge tables or endless loops (qemu-img has had both); Nova settled on the same bounds.
HOSTILE_LIMITS: Final = proc.Limits(memory_bytes=2**30, cpu_s=30)
# Address space, not memory: QEMU has up to 64 worker threads, each with 8 MiB of stack and 64 MiB that glibc reserves for
# its heap. One GiB made qemu_thread_create fail now and then.
CONVERT_ADDRESS_SPACE_BYTES: Final = 8 * 2**30

_QCOW2_MAGIC: Final = b"QFI\xfb"
# qcow2 header (docs/interop/qcow2.txt in QEMU): the virtual size is a big-endian u64 at byte 24.
_QCOW2_SIZE_OFFSET: Final = 24
_QCOW2_FEATURES_OFFSET: Final = 72
_QCOW2_EXTERNAL_DATA_BIT: Final = 2
# qemu-img copies in pieces of 2 MiB at most.
_WRITE_MAX_BYTES: Final = 2 * 2**20
# Free space below which a failed write is taken for a full disk.
_FULL_BYTES: Final = 2**20


@dataclass(frozen=True)
class DiskInfo:
    """What a disk's header says. `backing` and `data_file` name other files that a reader would open."""

    format: str
    virtual_bytes: int
    allocated_bytes: int
    backing: str
    data_file: str
    encrypted: bool
    internal_snapshots: int


async def create_overlay(path: Path, backing: Path, backing_format: Format, size_bytes: int) -> None:
    """A qcow2 file of `size_bytes` whose unwritten parts are those of `backing`; constant time."""
    argv = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", backing_format, "-b", str(backing)]
    await _writing(path, [*argv, str(path), str(size_bytes)], CREATE_TIMEOUT_S)


async def create_empty(path: Path, size_bytes: int) -> None:
    """An empty qcow2 file of `size_bytes`; it takes space as the guest writes."""
    await _writing(path, ["qemu-img", "create", "-q", "-f", "qcow2", str(path), str(size_bytes)], CREATE_TIMEOUT_S)


async def grow(path: Path, disk_format: Format, size_bytes: int) -> None:
    """Make the disk larger. qemu-img refuses to make it smaller, and so do we."""
    await _writing(path, ["qemu-img", "resize", "-q", "-f", disk_format, str(path), str(size_bytes)], CREATE_TIMEOUT_S)


async def convert(source: Path, source_format: Format, target: Path, target_format: Format) -> None:
    """Copy a disk into a file of its own, holes kept; run under limits, since the source may be hostile."""
    argv = ["qemu-img", "convert", "-q", "-f", source_format, "-O", target_format, str(source), str(target)]
    # A few compressed clusters, named a million times, unpack to terabytes: running guests need what is free, too.
    room = max(1, files.free_bytes(target.parent) - KEPT_FREE_BYTES)
    limits = proc.Limits(memory_bytes=CONVERT_ADDRESS_SPACE_BYTES, file_bytes=room)
    try:
        await _writing(target, argv, CONVERT_TIMEOUT_S, limits)
    except CorralError as error:
        # qemu-img has one exit status for everything; the file's size says whether it came to its bound.
        if error.code != "command-failed" or _size(target) + _WRITE_MAX_BYTES < room:
            raise
        reason = f"it would leave less than {KEPT_FREE_BYTES} bytes free"
        raise CorralError("disk-full", f"write {target}", reason, "free space or add a disk, then retry") from error


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


async def check(path: Path, disk_format: Literal["qcow2"]) -> bool:
    """Whether the disk's own tables are consistent; leaked clusters are no damage."""
    argv = ["qemu-img", "check", "-q", "-U", "-f", disk_format, str(path)]
    done = await proc.run(argv, timeout_s=CHECK_TIMEOUT_S, check=False, limits=HOSTILE_LIMITS)
    # qemu-img(1): 0 consistent, 1 check not completed, 2 corrupted, 3 leaked clusters only, 63 format has no checks
    return done.returncode in (0, 3)


async def info(path: Path, disk_format: Format) -> DiskInfo:
    """What the header of a possibly hostile disk says, read under limits; raises `image-invalid` if it says nothing."""
    proc.require("qemu-img", "qemu-utils")
    argv = ["qemu-img", "info", "--force-share", "--output=json", "-f", disk_format, str(path)]
    asked = f"read {path.name} as {disk_format}"
    try:
        done = await proc.run(argv, timeout_s=INFO_TIMEOUT_S, limits=HOSTILE_LIMITS)
    except CorralError as error:
        if error.code == "command-missing":
            raise
        raise CorralError("image-invalid", asked, error.reason, f"is it really a {disk_format} disk?") from error
    try:
        return _parse_info(json.loads(done.stdout))
    except (ValueError, KeyError, TypeError) as error:
        raise CorralError("image-invalid", asked, "qemu-img's answer cannot be read") from error


def _parse_info(answer: dict[str, object]) -> DiskInfo:
    specific = answer.get("format-specific")
    data = specific.get("data") if isinstance(specific, dict) else None
    data_file = str(data.get("data-file", "")) if isinstance(data, dict) else ""
    snapshots = answer.get("snapshots")
    return DiskInfo(
        format=str(answer["format"]),
        virtual_bytes=int(str(answer["virtual-size"])),
        allocated_bytes=int(str(answer.get("actual-size", 0))),
        backing=str(answer.get("full-backing-filename") or answer.get("backing-filename") or ""),
        data_file=data_file,
        encrypted=bool(answer.get("encrypted", False)),
        internal_snapshots=len(snapshots) if isinstance(snapshots, list) else 0,
    )


def virtual_bytes(path: Path, disk_format: Format) -> int:
    """The size that a guest sees of a disk of our own making; reads 32 bytes and starts no process."""
    if disk_format == "raw":
        return path.stat().st_size
    with path.open("rb") as stream:
        header = stream.read(_QCOW2_SIZE_OFFSET + 8)
    if not header.startswith(_QCOW2_MAGIC) or len(header) < _QCOW2_SIZE_OFFSET + 8:
        raise CorralError("image-invalid", f"read {path.name} as qcow2", "it has no qcow2 header")
    (size,) = struct.unpack_from(">Q", header, _QCOW2_SIZE_OFFSET)
    return int(size)


def has_external_data(path: Path) -> bool:
    """Whether a qcow2 header says that the disk's data lies in another file (docs/interop/qcow2.txt: bit 2 of the
    incompatible features, at byte 72 since version 3). `image-invalid` for what is no qcow2 disk."""
    with path.open("rb") as stream:
        header = stream.read(_QCOW2_FEATURES_OFFSET + 8)
    if not header.startswith(_QCOW2_MAGIC) or len(header) < _QCOW2_SIZE_OFFSET + 8:
        raise CorralError("image-invalid", f"read {path.name} as qcow2", "it has no qcow2 header", "is it a raw disk?")
    (version,) = struct.unpack_from(">I", header, 4)
    if version < 3 or len(header) < _QCOW2_FEATURES_OFFSET + 8:
        return False
    (features,) = struct.unpack_from(">Q", header, _QCOW2_FEATURES_OFFSET)
    return bool(features & 1 << _QCOW2_EXTERNAL_DATA_BIT)


async def _writing(path: Path, argv: list[str], timeout_s: float, limits: proc.Limits | None = None) -> None:
    proc.require("qemu-img", "qemu-utils")
    try:
        await proc.run(argv, timeout_s=timeout_s, limits=limits)
    except CorralError as error:
        # qemu-img has one exit status for everything; the file system itself says whether it is full.
        if error.code == "command-failed" and files.free_bytes(path.parent) < _FULL_BYTES:
            raise CorralError(
                "disk-full", f"write {path}", "no space left on the device", "free space or add a disk, then retry"
            ) from error
        raise
