"""Memory of a frozen guest: read from its QEMU, checked, and named in QEMU's stream as forks have it."""

import os
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from corral.errors import CorralError
from corral.files import storage_error
from corral.hypervisor.forking import MemoryShare
from corral.hypervisor.libvirt import holder_process
from corral.hypervisor.libvirt.domains import PID_DIR

_MEMFD: Final = "/memfd:memory-backend-memfd"
_LIBVIRT_ID: Final = "pc.ram"
_TEMPLATE: Final = b"/memfd:corral-template"
_ROLLUP: Final = ("Rss:", "Pss:", "Private_Clean:", "Private_Dirty:", "Anonymous:")


def pid_of(name: str) -> int | None:
    """Of the running domain's QEMU."""
    try:
        return int((PID_DIR / f"{name}.pid").read_text())
    except (OSError, ValueError):
        return None


def copy_guest_memory(pid: int, size_bytes: int, into: Path) -> str:
    """Of the paused QEMU `pid`, sparse, on disk when this returns; the digest. Raises `disk-full`, `storage-error`."""
    try:
        source = os.open(_memory_file(pid, size_bytes), os.O_RDONLY | os.O_CLOEXEC)
        try:
            target = os.open(into, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                os.ftruncate(target, size_bytes)
                digest = holder_process.copy_memory(source, target)
                os.fsync(target)
                return digest
            finally:
                os.close(target)
        finally:
            os.close(source)
    except OSError as error:
        raise storage_error(f"keep a guest's memory in {into}", error) from error


def _memory_file(pid: int, size_bytes: int) -> str:
    for path in Path(f"/proc/{pid}/fd").iterdir():
        if str(path.readlink()).startswith(_MEMFD) and path.stat().st_size == size_bytes:
            return str(path)
    raise CorralError("hypervisor-error", "read a guest's memory", f"QEMU {pid} has it in no file")


def rename_memory(state: bytes, size_bytes: int, name: str) -> bytes:
    """QEMU's stream with the guest's memory called `name`. QEMU's migration/ram.c (7.2): the set-up of the section `ram`
    lists each block as the name's length, the name, and its size as a big-endian 64-bit number. It stands there once."""
    before, after = (_block(text, size_bytes) for text in (_LIBVIRT_ID, name))
    if state.count(after) == 1 and not state.count(before):
        return state  # it was forked itself
    if state.count(before) != 1:
        reason = f"its memory stands {state.count(before)} times in the saved state"
        raise CorralError("unsupported", "freeze a guest with its memory", reason)
    return state.replace(before, after)


def _block(name: str, size_bytes: int) -> bytes:
    return bytes([len(name)]) + name.encode() + struct.pack(">Q", size_bytes)


def read_share(uid: str, pid: int) -> MemoryShare | None:
    """None: it has ended. A page of the template's that one fork alone has mapped is private to the kernel; but it is the
    holder's, and what is the fork's own of its memory is anonymous."""
    found = dict.fromkeys(_ROLLUP, 0)
    process = Path(f"/proc/{pid}")
    try:
        holds = _TEMPLATE in (process / "maps").read_bytes()
        with (process / "smaps_rollup").open(encoding="ascii") as stream:
            for name, value in _values(stream):
                if name in found:
                    found[name] += value
    except (OSError, ValueError):
        return None
    own = found["Anonymous:"] if holds else found["Private_Dirty:"]
    return MemoryShare(uid, found["Rss:"], own + found["Private_Clean:"], found["Pss:"])


def _values(lines: Iterable[str]) -> Iterator[tuple[str, int]]:
    for line in lines:
        words = line.split()
        if len(words) == 3 and words[2] == "kB":
            yield words[0], int(words[1]) * 1024
