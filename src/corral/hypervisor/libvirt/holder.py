"""The process that holds a template's memory (holder_process.py): found, or started, and asked for the memory's place."""

import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from corral import proc
from corral.errors import CorralError
from corral.files import storage_error
from corral.hypervisor.libvirt import holder_process

# 512 MiB are read, checked and copied in half a second; a slow disk under load gets more.
LOAD_S: Final = 120.0
ANSWER_S: Final = 10.0
LOOK_S: Final = 0.01


@dataclass(frozen=True)
class Place:
    """Where a QEMU of the ids that were asked for opens the memory."""

    path: str
    size_bytes: int


@contextmanager
def lent(memory: Path, digest: str, run_dir: Path, owner: tuple[int, int]) -> Iterator[Place]:
    """For as long as the block runs. Raises `template-damaged`, `storage-error`."""
    with _connected(memory, digest, run_dir) as connection:
        connection.settimeout(ANSWER_S)
        connection.sendall(f"{owner[0]} {owner[1]}\n".encode())
        answer = connection.recv(128).split()
        if len(answer) != 3:
            raise CorralError("hypervisor-error", f"open the memory in {memory}", "its holder does not answer")
        pid, number, size_bytes = map(int, answer)
        yield Place(f"/proc/{pid}/fd/{number}", size_bytes)


@contextmanager
def _connected(memory: Path, digest: str, run_dir: Path) -> Iterator[socket.socket]:
    path = run_dir / "memory.sock"
    asked = f"hold the memory in {memory}"
    try:
        run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        connection = _connect(path) or _start(memory, digest, path, asked)
    except OSError as error:
        raise storage_error(asked, error) from error
    with connection:
        yield connection


def _connect(path: Path) -> socket.socket | None:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.connect(str(path))
    except (FileNotFoundError, ConnectionRefusedError):
        connection.close()
        return None
    return connection


def _start(memory: Path, digest: str, path: Path, asked: str) -> socket.socket:
    program = holder_process.__file__
    log = os.open(path.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        argv = [sys.executable, "-I", "-S", program, str(memory), digest, str(path)]
        child = proc.spawn(argv, log, own_session=True)
    finally:
        os.close(log)
    deadline = time.monotonic() + LOAD_S
    while time.monotonic() < deadline:
        if (connection := _connect(path)) is not None:
            return connection
        status = child.poll()
        if status == holder_process.DAMAGED_STATUS:
            hint = "make it anew: `corral template refresh`"
            raise CorralError("template-damaged", asked, "it is not what was frozen", hint)
        if status not in (None, holder_process.TAKEN_STATUS):
            reason = f"the holder ended with status {status}; see {path.with_suffix('.log')}"
            raise CorralError("hypervisor-error", asked, reason)
        time.sleep(LOOK_S)
    child.kill()
    raise CorralError("hypervisor-timeout", asked, f"it was not read within {LOAD_S:g} s")


def release(run_dir: Path) -> None:
    """Let the memory go, as far as no guest has it. Nothing happens where nobody holds it."""
    connection = _connect(run_dir / "memory.sock")
    if connection is None:
        return
    with connection, suppress(OSError):
        connection.sendall(b"quit\n")
        connection.settimeout(ANSWER_S)
        connection.recv(1)
