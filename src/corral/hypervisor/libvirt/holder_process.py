"""Holds a template's memory for the QEMUs that are forked from it. A process of its own, of nothing but Python's library.

QEMU gives guest memory back by punching holes into the file behind it, also where it mapped the file privately: every
sibling would read zeros. So the memory lies in a memfd that is sealed against writing, and is served by it. A QEMU opens it
through /proc/PID/fd/N, which the kernel allows to the same uid and gid alone: for each QEMU that starts, a child with
those ids lives until the connection that asked for it is closed. The memory stays with the QEMUs that have mapped it,
whatever becomes of this process.

Run as `python -I -S holder_process.py MEMORY DIGEST SOCKET`. Exit status 3: the file is not what was frozen.
"""

import ctypes
import fcntl
import hashlib
import os
import signal
import socket
import struct
import sys
from pathlib import Path

BLOCK_BYTES = 1 << 16
LOOK_S = 60.0
DAMAGED_STATUS = 3
TAKEN_STATUS = 4
# linux/fcntl.h: no more writing, shrinking and growing. (Punching a hole is writing.)
_F_ADD_SEALS = 1033
_SEALS = 0x2 | 0x4 | 0x8
_PR_SET_DUMPABLE = 4
_ZEROS = bytes(BLOCK_BYTES)


class Digest:
    """Of memory: its size, and every block that is not all zeros with its place."""

    def __init__(self, size_bytes: int) -> None:
        self._hash = hashlib.sha256(struct.pack(">Q", size_bytes))

    def add(self, offset: int, block: bytes) -> None:
        self._hash.update(struct.pack(">Q", offset))
        self._hash.update(block)

    def text(self) -> str:
        return self._hash.hexdigest()


def copy_memory(source: int, target: int) -> str:
    """What is not zero of one file into the other, which is as long and empty. The digest."""
    size_bytes = os.fstat(source).st_size
    digest, offset = Digest(size_bytes), 0
    while offset < size_bytes:
        try:
            offset = os.lseek(source, offset, os.SEEK_DATA) // BLOCK_BYTES * BLOCK_BYTES
        except OSError:  # ENXIO: holes to the end
            break
        block = os.pread(source, BLOCK_BYTES, offset)
        if block != _ZEROS[: len(block)]:
            digest.add(offset, block)
            if target >= 0:
                os.pwrite(target, block, offset)
        offset += len(block)
    return digest.text()


def load(path: str, digest: str) -> int:
    """The sealed memfd."""
    with Path(path).open("rb") as stream:
        held = os.memfd_create("corral-template", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(held, os.fstat(stream.fileno()).st_size)
        if copy_memory(stream.fileno(), held) != digest:
            sys.exit(DAMAGED_STATUS)
    fcntl.fcntl(held, _F_ADD_SEALS, _SEALS)
    return held


def serve(listener: socket.socket, held: int, lock: int, memory: Path, path: Path) -> None:
    """Until it is told to quit, or the template is gone. One line asks: `UID GID`, or `quit`."""
    listener.settimeout(LOOK_S)
    size_bytes = os.fstat(held).st_size
    while True:
        try:
            connection, _ = listener.accept()
        except TimeoutError:
            if memory.exists():
                continue
            return leave(listener, lock, path)
        with connection:
            connection.settimeout(5)
            try:
                words = connection.recv(64).split()
            except OSError:
                continue
            if words == [b"quit"]:
                return leave(listener, lock, path)
            if len(words) == 2 and os.fork() == 0:
                listener.close()
                os.close(lock)
                _grant(connection, int(words[0]), int(words[1]), held, size_bytes)
                os._exit(0)


def leave(listener: socket.socket, lock: int, path: Path) -> None:
    """Whoever comes from now on finds nobody, and the way free for another holder: before who asked for it is told."""
    path.unlink(missing_ok=True)
    listener.close()
    os.close(lock)


def _grant(connection: socket.socket, uid: int, gid: int, held: int, size_bytes: int) -> None:
    """In the child: lend the descriptor to QEMUs of these ids for as long as the connection is open."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)
    connection.settimeout(None)
    connection.sendall(b"%d %d %d\n" % (os.getpid(), held, size_bytes))
    connection.recv(1)


def main(memory: str, digest: str, path: str) -> None:
    lock = os.open(path + ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.exit(TAKEN_STATUS)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    held = load(memory, digest)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # Bound under another name first: whoever can connect finds it listening.
    fresh = Path(path + ".new")
    fresh.unlink(missing_ok=True)
    listener.bind(str(fresh))
    listener.listen(64)
    fresh.rename(path)
    serve(listener, held, lock, Path(memory), Path(path))


if __name__ == "__main__":
    main(*sys.argv[1:4])
