"""qemu-img, with every format named: a disk that a guest could write is never probed."""

import asyncio
import json
import re
import struct
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

from corral import files, proc
from corral.errors import CorralError

Format = Literal["qcow2", "raw"]

CREATE_TIMEOUT_S: Final = 30.0
INFO_TIMEOUT_S: Final = 15.0
CONVERT_TIMEOUT_S: Final = 3600.0
CHECK_TIMEOUT_S: Final = 600.0
MAP_TIMEOUT_S: Final = 60.0
# A copy that is slower than this for an hour longer is stuck.
COPIED_BYTES_PER_S_MIN: Final = 10 * 2**20
FOREIGN_MAX_BYTES: Final = 2 * 2**40
PUSH_S: Final = 0.02
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
# Version 3: magic, version, backing file (offset, length), cluster bits, size, encryption, L1 table (entries, offset),
# refcount table (offset, clusters), snapshots (number, offset), three words of features, refcount order, length; padded.
_EMPTY_HEADER: Final = struct.Struct(">4sIQIIQIIQQIIQQQQII8x")
_SECTOR_BYTES: Final = 512
_BACKING_FORMAT: Final = 0xE2792ACA  # the header extension that names the format of what lies below
_CLUSTER_BITS: Final = 16  # qemu-img's own choices: clusters of 64 KiB, reference counts of 16 bits
_CLUSTER_BYTES: Final = 1 << _CLUSTER_BITS
_REFCOUNT_ORDER: Final = 4
# qemu-img copies in pieces of 2 MiB at most.
_WRITE_MAX_BYTES: Final = 2 * 2**20
# Free space below which a failed write is taken for a full disk.
_FULL_BYTES: Final = 2**20
_SHARE: Final = re.compile(rb"\((\d+(?:\.\d+)?)/100%\)")


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
    """A qcow2 file of `size_bytes` whose unwritten parts are those of `backing`; constant time. Written here, as an empty
    one is."""
    try:
        await asyncio.to_thread(write_overlay, path, backing, backing_format, size_bytes)
    except OSError as error:
        raise files.storage_error(f"make an overlay on {backing}", error) from error


def write_overlay(path: Path, backing: Path, backing_format: Format, size_bytes: int) -> None:
    """`create_overlay`, blocking. Raises `OSError`."""
    backing.stat()  # what is missing is said now, and not by a guest's start
    write_empty(path, size_bytes, str(backing).encode(), backing_format.encode())


async def lay_on(path: Path, below: Path) -> None:
    """Tell the header of a qcow2 file of our own making that it lies on `below`, another one, which reads as what it says now."""
    if backing_name(path) != str(below):
        argv = [*proc.tied(["qemu-img", "rebase"]), "-u", "-f", "qcow2", "-b", str(below), "-F", "qcow2", str(path)]
        await _writing(path, argv, CREATE_TIMEOUT_S)


async def rebase(
    path: Path,
    middle: Path | None,
    base: Path | None,
    base_format: Format,
    on_share: Callable[[float], None] = lambda _share: None,
    bytes_per_s: int = 0,
) -> None:
    """Let a qcow2 file of our own making, which lies on `middle` (None: on what its header says), lie on `base` (None: on
    nothing), having copied into it all that lay between, at most `bytes_per_s` (0: no limit). Cut at any instant it reads
    the same, on either of the two.

    The header is told first what it lies on: qemu-img believes it, and a job that was cut may have changed it. And each
    write goes through at once: qemu-img changes the header before its own cache of tables is written back (7.2, found by
    killing it). It dies with this process: its lock would keep the VM from starting until it is done."""
    if middle is None and not backing_name(path):
        return
    if middle is not None:
        await lay_on(path, middle)
    target = ["-b", str(base), "-F", base_format] if base else ["-b", ""]
    file = ["-f", "qcow2", str(path)]
    if bytes_per_s:  # it has no option of its own for that, but knows the block layer's filters
        name = str(path).replace(",", ",,")
        file = ["--object", f"throttle-group,id=limit,x-bps-write={bytes_per_s}", "--image-opts"]
        file += [
            f"driver=qcow2,file.driver=throttle,file.throttle-group=limit,file.file.driver=file,file.file.filename={name}"
        ]
    argv = [*proc.tied(["qemu-img", "rebase"]), "-p", "-t", "writethrough", *target, *file]
    timeout_s = _copy_timeout_s(virtual_bytes(path, "qcow2"), bytes_per_s)
    await _writing(path, argv, timeout_s, on_output=lambda output: _told(output, on_share))


def backing_name(path: Path) -> str:
    """What the header of a qcow2 file of our own making says that it lies on; empty for nothing (docs/interop/qcow2.txt:
    the name's offset at byte 8, its length at byte 16)."""
    with path.open("rb") as stream:
        header = stream.read(20)
        offset, length = struct.unpack_from(">QI", header, 8)
        stream.seek(offset)
        return stream.read(length).decode(errors="replace") if offset else ""


async def create_empty(path: Path, size_bytes: int) -> None:
    """An empty qcow2 file of `size_bytes`; it takes space as the guest writes.

    Written here, as `qemu-img create` would: to start a process for it takes a quarter of a hot plug's time."""
    try:
        await asyncio.to_thread(write_empty, path, size_bytes)
    except OSError as error:
        raise files.storage_error(f"write {path}", error) from error


def write_empty(path: Path, size_bytes: int, backing: bytes = b"", backing_format: bytes = b"") -> None:
    """Header (behind it the format and the name of what lies below), refcount table, one refcount block, L1 table, each from a cluster of its own on (docs/interop/qcow2.txt
    in QEMU). An empty disk's tables are zeros, but for the reference counts of the clusters that they take themselves."""
    size_bytes = -(-size_bytes // _SECTOR_BYTES) * _SECTOR_BYTES
    l1_entries = -(-size_bytes // (_CLUSTER_BYTES * (_CLUSTER_BYTES // 8)))
    clusters = 3 + -(-l1_entries * 8 // _CLUSTER_BYTES)
    extension = b""
    if backing:
        extension = struct.pack(">II", _BACKING_FORMAT, len(backing_format)) + backing_format
        extension += bytes(-len(extension) % 8 + 8)  # to a multiple of eight; then the end of the extensions
    name_at = _EMPTY_HEADER.size + len(extension) if backing else 0
    header = _EMPTY_HEADER.pack(
        _QCOW2_MAGIC, 3, name_at, len(backing), _CLUSTER_BITS, size_bytes, 0,
        l1_entries, 3 * _CLUSTER_BYTES, _CLUSTER_BYTES, 1, 0, 0, 0, 0, 0, _REFCOUNT_ORDER, _EMPTY_HEADER.size,
    )  # fmt: skip
    with path.open("wb") as stream:
        stream.write(header + extension + backing)
        stream.seek(_CLUSTER_BYTES)
        stream.write(struct.pack(">Q", 2 * _CLUSTER_BYTES))
        stream.seek(2 * _CLUSTER_BYTES)
        stream.write(struct.pack(">H", 1) * clusters)
        stream.truncate(3 * _CLUSTER_BYTES + l1_entries * 8)


async def grow(path: Path, disk_format: Format, size_bytes: int) -> None:
    """Make the disk larger. qemu-img refuses to make it smaller, and so do we."""
    await _writing(path, ["qemu-img", "resize", "-q", "-f", disk_format, str(path), str(size_bytes)], CREATE_TIMEOUT_S)


async def shrink(path: Path, disk_format: Format, size_bytes: int) -> None:
    """Cut off what lies beyond `size_bytes`, whatever it is."""
    argv = ["qemu-img", "resize", "-q", "-f", disk_format, "--shrink", str(path), str(size_bytes)]
    await _writing(path, argv, CREATE_TIMEOUT_S)


async def data_end(path: Path, disk_format: Format) -> int:
    """The byte after the last one that was ever written, in the disk or below it; what reads as zeros is no data."""
    argv = ["qemu-img", "map", "-U", "--output=json", "-f", disk_format, str(path)]
    end = 0
    async for line in proc.lines(argv, timeout_s=CHECK_TIMEOUT_S):
        # One extent a line, within the brackets of a list.
        found = json.loads(line.strip().strip("[],") or "{}")
        if found.get("data") and not found.get("zero"):
            end = max(end, int(found["start"]) + int(found["length"]))
    return end


async def own_extents(path: Path) -> AsyncIterator[tuple[int, int, bool]]:
    """Where this qcow2 file alone holds something, whatever it lies on, as (start, length, reads as zeros). A guest may write
    it meanwhile, and decides what is in it: read under limits."""
    opened = {"driver": "qcow2", "backing": None, "file": {"driver": "file", "filename": str(path)}}
    argv = ["qemu-img", "map", "-U", "--output=json", f"json:{json.dumps(opened)}"]
    async for line in proc.lines(argv, timeout_s=MAP_TIMEOUT_S, limits=HOSTILE_LIMITS):
        # One extent a line, within the brackets of a list.
        found = json.loads(line.strip().strip("[],") or "{}")
        if found.get("present"):
            # Where there is a place for it in the file, that may be a hole, whatever was written.
            yield int(found["start"]), int(found["length"]), bool(found["zero"]) and "offset" not in found


async def convert_ours(
    source: Path,
    source_format: Format,
    target: Path,
    target_format: Format,
    on_share: Callable[[float], None],
    bytes_per_s: int = 0,
) -> None:
    """Copy a disk of our own making, with all that lies below it, into a file of its own. No lock is taken on it: a VM
    may start meanwhile, and whoever copies looks afterwards whether it was written."""
    limit = ["-r", str(bytes_per_s)] if bytes_per_s else []
    formats = ["-f", source_format, "-O", target_format]
    argv = ["qemu-img", "convert", "-p", "-U", *limit, *formats, str(source), str(target)]
    timeout_s = _copy_timeout_s(virtual_bytes(source, source_format), bytes_per_s)
    await _bounded(target, argv, timeout_s, _room(target, target_format), on_share)


def _copy_timeout_s(size_bytes: int, bytes_per_s: int) -> float:
    return CONVERT_TIMEOUT_S + size_bytes / min(COPIED_BYTES_PER_S_MIN, bytes_per_s // 2 or COPIED_BYTES_PER_S_MIN)


async def convert(
    source: Path,
    source_format: Format,
    target: Path,
    target_format: Format,
    on_share: Callable[[float], None] | None = None,
) -> None:
    """Copy a disk into a file of its own, holes kept; run under limits, since the source may be hostile."""
    argv = ["qemu-img", "convert", "-p", "-f", source_format, "-O", target_format, str(source), str(target)]
    # A few compressed clusters, named a million times, unpack to terabytes: running guests need what is free, too.
    if target_format == "raw" and virtual_bytes(source, source_format) > _room_bytes(target):
        raise _too_full(target)
    limits = replace(_room(target, target_format), memory_bytes=CONVERT_ADDRESS_SPACE_BYTES)
    await _bounded(target, argv, CONVERT_TIMEOUT_S, limits, on_share or (lambda _share: None))


def _room(target: Path, target_format: Format) -> proc.Limits:
    """A raw disk is as long as a guest sees it, holes and all: its length says nothing of the space that it takes."""
    if target_format == "raw":
        return proc.Limits()
    return proc.Limits(file_bytes=_room_bytes(target))


def _room_bytes(target: Path) -> int:
    return max(1, files.free_bytes(target.parent) - KEPT_FREE_BYTES)


def _too_full(target: Path) -> CorralError:
    reason = f"it would leave less than {KEPT_FREE_BYTES} bytes free"
    return CorralError("disk-full", f"write {target}", reason, "free space or add a disk, then retry")


async def _bounded(
    target: Path, argv: list[str], timeout_s: float, limits: proc.Limits, on_share: Callable[[float], None]
) -> None:
    room = limits.file_bytes

    pushing = asyncio.get_running_loop().create_task(_push(target))
    try:
        await _writing(target, argv, timeout_s, limits, lambda output: _told(output, on_share))
    except CorralError as error:
        # qemu-img has one exit status for everything; the file's size says whether it came to its bound.
        if error.code != "command-failed" or room is None or _size(target) + _WRITE_MAX_BYTES < room:
            raise
        raise _too_full(target) from error
    finally:
        pushing.cancel()


async def _push(target: Path) -> None:
    """What is written goes to disk meanwhile, and not all at once when it is to be durable at the end."""
    while True:
        await asyncio.sleep(PUSH_S)
        await asyncio.to_thread(files.start_writeback, target)


def _told(output: bytes, on_share: Callable[[float], None]) -> None:
    # qemu-img -p: `    (12.34/100%)`, again and again on one line.
    if shares := _SHARE.findall(output):
        on_share(min(1.0, float(shares[-1]) / 100))


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


def check_alone(path: Path, disk_format: Format, info: DiskInfo) -> None:
    """Raise `image-invalid` unless a disk from elsewhere is what was told, and all of it lies in this one file."""
    reason = ""
    if info.format != disk_format:
        reason = f"it is {info.format}, not {disk_format}"
    elif info.backing:
        reason = f"it needs another file below it ({info.backing[:200]})"
    elif info.data_file:
        reason = f"its data lies in another file ({info.data_file[:200]})"
    elif info.encrypted:
        reason = "it is encrypted"
    elif not 0 < info.virtual_bytes <= FOREIGN_MAX_BYTES:
        reason = f"it has {info.virtual_bytes} bytes, at most {FOREIGN_MAX_BYTES}"
    if reason:
        hint = "flatten it where it comes from: qemu-img convert -O qcow2 SOURCE TARGET"
        raise CorralError("image-invalid", f"use {path.name} as a disk", reason, hint)


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


def has_backing(path: Path) -> bool:
    """Whether a qcow2 disk of our own making leans on another one (docs/interop/qcow2.txt: the name's offset at byte 8)."""
    with path.open("rb") as stream:
        header = stream.read(16)
    (offset,) = struct.unpack_from(">Q", header, 8)
    return bool(offset)


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


async def _writing(
    path: Path,
    argv: list[str],
    timeout_s: float,
    limits: proc.Limits | None = None,
    on_output: Callable[[bytes], None] | None = None,
) -> None:
    proc.require("qemu-img", "qemu-utils")
    try:
        await proc.run(argv, timeout_s=timeout_s, limits=limits, on_output=on_output)
    except CorralError as error:
        # qemu-img has one exit status for everything; the file system itself says whether it is full.
        if error.code == "command-failed" and files.free_bytes(path.parent) < _FULL_BYTES:
            raise CorralError(
                "disk-full", f"write {path}", "no space left on the device", "free space or add a disk, then retry"
            ) from error
        raise
