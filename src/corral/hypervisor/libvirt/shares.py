"""Folders of the host's as guests get them: a bind mount of each, read-only where it is so wished.

libvirt 9's virtio-fs has no read-only mode (it came with 11.0), and virtiofsd serves whatever path it is told. The mount
gives both: the kernel refuses every write, and what is served is the directory that was checked, not a link that
somebody put in its place since. File systems mounted inside of the folder are not part of it.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from corral import proc
from corral.errors import CorralError
from corral.files import storage_error
from corral.model.hardware import Share

MOUNT_TIMEOUT_S: Final = 10.0
_OURS: Final = Path("/proc/self/ns/mnt")
_HOSTS: Final = Path("/proc/1/ns/mnt")


def ensure_mounted(share: Share, place: Path) -> None:
    """Mount it anew. Raises `storage-error` where it is not a directory or is reached through a link."""
    remove_mount(place)
    try:
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        place.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise storage_error(f"make {place}", error) from error
    with _opened(Path(share.path)) as opened:
        options = "bind,ro" if share.read_only else "bind"
        _run("mount", "-o", options, share.path, str(place))
        if _identity(place) != _identity(opened):
            remove_mount(place)
            raise _refused(share.path, "another directory was put in its place meanwhile")


def remove_mount(place: Path) -> None:
    """Every mount that lies on it, if any, and the directory."""
    while place.is_dir() and _run("umount", str(place), check=False):
        pass
    try:
        if place.is_dir():
            place.rmdir()
    except OSError as error:
        raise storage_error(f"remove {place}", error) from error


def _run(program: str, *argv: str, check: bool = True) -> bool:
    """In the host's mount namespace, where libvirt lives; a service of systemd's may have one of its own."""
    inside = [] if _same_namespace() else ["nsenter", f"--mount={_HOSTS}", "--"]
    done = proc.call([*inside, program, *argv], timeout_s=MOUNT_TIMEOUT_S, check=check)
    return done.returncode == 0


def _same_namespace() -> bool:
    try:
        return _OURS.readlink() == _HOSTS.readlink()
    except OSError:
        return True


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    """The directory itself, reached without following a link."""
    fd = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in path.parts[1:]:
            below = os.open(part, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
            os.close(fd)
            fd = below
        yield fd
    except OSError as error:
        raise _refused(
            str(path), f"{error.strerror or error}: it must be a directory, reached without links"
        ) from error
    finally:
        os.close(fd)


def _identity(place: Path | int) -> tuple[int, int]:
    found = os.fstat(place) if isinstance(place, int) else place.stat()
    return found.st_dev, found.st_ino


def _refused(path: str, reason: str) -> CorralError:
    return CorralError("storage-error", f"share {path}", reason, "give the path of the directory itself")
