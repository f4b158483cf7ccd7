"""Files that are either there whole or not there at all."""

import contextlib
import ctypes
import errno
import fcntl
import os
import resource
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final

from corral.errors import CorralError

OPEN_MAX: Final = 65_536
_SYNC_FILE_RANGE_WRITE: Final = 2  # linux/fs.h


def fsync_dir(path: Path) -> None:
    """Make a rename or unlink in `path` durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def fsync_file(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def make_dirs(path: Path, mode: int = 0o700) -> None:
    """Make `path`, and what is missing above it, durably."""
    if not path.is_dir():
        make_dirs(path.parent, mode)
        path.mkdir(mode=mode, exist_ok=True)
        fsync_dir(path.parent)


def publish(temporary: Path, path: Path, mode: int) -> None:
    """Make a finished file durable under its name."""
    fd = os.open(temporary, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fchmod(fd, mode)
        os.fsync(fd)
    finally:
        os.close(fd)
    temporary.rename(path)
    fsync_dir(path.parent)


def start_writeback(path: Path) -> None:
    """Let the kernel begin to write what is dirty of it (sync_file_range(2)); nobody waits for that. A hint: where it cannot
    be given, nothing happens."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return
    try:
        ctypes.CDLL(None).sync_file_range(fd, ctypes.c_int64(0), ctypes.c_int64(0), _SYNC_FILE_RANGE_WRITE)
    finally:
        os.close(fd)


@contextlib.contextmanager
def replacing(path: Path, mode: int = 0o600) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is fsynced and renamed over `path`, else removed.

    The temporary name starts with `.` and ends with `.tmp`, so that `remove_leftovers` finds what a crash left.
    """
    temporary = path.with_name(f".{path.name}.{os.urandom(4).hex()}.tmp")
    try:
        yield temporary
        publish(temporary, path, mode)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_atomic(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Replace `path` by `content`: beside, fsync, rename, fsync of the directory. Raises `disk-full` or `storage-error`."""
    try:
        with replacing(path, mode) as temporary, create_private(temporary) as stream:
            stream.write(content)
    except OSError as error:
        raise storage_error(f"write {path}", error) from error


def create_private(path: Path) -> IO[bytes]:
    """A new file, its owner's alone until it is whole: it may hold secrets, and its directory may be open to others."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600), "wb")


def remove_file(path: Path) -> None:
    """Remove `path` durably; nothing happens if it is not there."""
    try:
        path.unlink()
    except FileNotFoundError:
        return
    except OSError as error:
        raise storage_error(f"remove {path}", error) from error
    fsync_dir(path.parent)


def check_not_others(directory: Path, asked: str) -> None:
    """Raise `storage-error` if somebody else could rename or replace what lies in `directory`: it is another user's, or
    every user's without the sticky bit. Root would follow what they put there."""
    found = directory.stat()
    for_all = found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX
    if found.st_uid in (0, os.geteuid()) and not for_all:
        return
    whose = "every user may write it" if for_all else f"it belongs to uid {found.st_uid}"
    raise CorralError("storage-error", asked, f"{directory}: {whose}", "choose a place of your own, or mend its mode")


def remove_leftovers(directory: Path) -> int:
    """Remove temporary files of `replacing` that a crash left in `directory`; return how many."""
    count = 0
    for path in directory.glob(".*.tmp"):
        path.unlink(missing_ok=True)
        count += 1
    return count


def read_limited(path: Path, max_bytes: int) -> bytes:
    """The content of a regular file of at most `max_bytes`. Raises `invalid-document` for anything else."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(fd, "rb") as stream:
        content = stream.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise CorralError("invalid-document", f"read {path}", f"larger than {max_bytes} bytes")
    return content


def free_bytes(path: Path) -> int:
    """Bytes an unprivileged writer may still use in the file system of `path`."""
    stat = os.statvfs(path)
    return stat.f_bavail * stat.f_frsize


def total_and_free_bytes(path: Path) -> tuple[int, int]:
    """Of the file system of `path`."""
    found = os.statvfs(path)
    return found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize


def why_not_writable(path: Path, needed_bytes: int) -> str:
    """Why nothing could be written below `path`; empty if it could. Asks the file system and writes nothing."""
    try:
        found = os.statvfs(path)
    except OSError as error:
        return f"{path}: {error.strerror}"
    if found.f_flag & os.ST_RDONLY:
        return f"{path} is read-only"
    free = found.f_bavail * found.f_frsize
    return f"{path} has {free >> 20} MiB left" if free < needed_bytes else ""


def allocated_bytes(path: Path) -> int:
    """Bytes `path` really takes on disk; sparse files take less than their length. st_blocks counts 512-byte units."""
    return path.stat().st_blocks * 512


def raise_open_limit() -> None:
    """Allow this process as many open files as it may have, up to a bound: a thousand, the usual soft limit, is less
    than two listeners' connections take, and the store and every child process need some too."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_MAX if hard == resource.RLIM_INFINITY else min(OPEN_MAX, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


@contextlib.contextmanager
def exclusive_lock(path: Path) -> Iterator[None]:
    """Hold `path` as a lock file for as long as the process lives; `daemon-already-running` if another one holds it."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise CorralError(
                "daemon-already-running",
                f"use {path.parent}",
                "another daemon owns this state directory",
                "stop it first (corral daemon stop) or choose another one with --state-dir",
            ) from error
        # Over what is there: on a full disk nothing new could be written. It is for people to read.
        with contextlib.suppress(OSError):
            os.ftruncate(fd, os.pwrite(fd, f"{os.getpid()}\n".encode(), 0))
        yield
    finally:
        os.close(fd)


def storage_error(asked: str, error: OSError) -> CorralError:
    """The coded error of an operating system's refusal: `disk-full` for ENOSPC and EDQUOT, else `storage-error`."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return CorralError("disk-full", asked, "no space left on the device", "free space or add a disk, then retry")
    return CorralError("storage-error", asked, error.strerror or str(error), "see `corral doctor`")
