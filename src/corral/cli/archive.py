"""Directories as tar archives, made and unpacked here. What comes out of a guest is hostile: it cannot leave its place."""

import os
import shutil
import stat
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Final

from corral.errors import CorralError

MEMBERS_MAX: Final = 200_000
CHUNK_BYTES: Final = 1024 * 1024
MODE_MAX: Final = 0o777  # neither setuid nor what else a guest would like


@contextmanager
def packed(directory: Path) -> Iterator[tuple[IO[bytes], list[str]]]:
    """An archive of what is in `directory`, at its beginning, and what was left out: neither file, directory nor link.

    Owners are left out too: in the guest all is root's, or whose tar's user is."""
    left_out: list[str] = []

    def plain(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
        if not (member.isreg() or member.isdir() or member.issym() or member.islnk()):
            left_out.append(member.name)
            return None
        member.uid = member.gid = 0
        member.uname = member.gname = ""
        return member

    with tempfile.TemporaryFile() as stream:
        try:
            with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
                archive.add(directory.resolve(), arcname=".", filter=plain)
        except OSError as error:
            raise CorralError("storage-error", f"read {directory}", error.strerror or str(error)) from error
        stream.seek(0)
        yield stream, left_out


def unpack(stream: IO[bytes], target: Path) -> list[str]:
    """Make the new directory `target` of the archive in `stream`: all of it, or nothing. What was left out, for people.

    Files and directories alone are made first, each inside of a new directory, then the links: nothing is ever written
    through one. Raises `invalid-document` for an archive that would leave its place or claims more than it holds."""
    beside = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent))
    try:
        left_out = _unpack_into(stream, beside)
        beside.rename(target)
    except (tarfile.TarError, EOFError, UnicodeError) as error:
        raise _hostile(f"it is no archive: {error}") from error
    except OSError as error:
        raise CorralError("storage-error", f"unpack into {target}", error.strerror or str(error)) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return left_out


def _unpack_into(stream: IO[bytes], place: Path) -> list[str]:
    size_bytes = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    links: list[tuple[Path, str]] = []
    directories: list[tuple[Path, int]] = []
    left_out: list[str] = []
    total = 0
    with tarfile.open(fileobj=stream, mode="r:") as archive:
        for count, member in enumerate(archive):
            path = place / _inside(member.name)
            total += member.size
            if count >= MEMBERS_MAX or total > size_bytes or member.issparse():
                raise _hostile("it claims more than it holds")
            if member.isdir():
                path.mkdir(mode=0o700, parents=True, exist_ok=True)
                directories.append((path, member.mode & MODE_MAX))
            elif member.isreg():
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                _write(archive, member, path)
            elif member.issym():
                links.append((path, member.linkname))
            elif member.islnk():
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                os.link(place / _inside(member.linkname), path, follow_symlinks=False)
            else:
                left_out.append(member.name)
    for path, mode in reversed(directories):
        path.chmod(mode)
    for path, aim in links:
        if not os.path.lexists(path) and path.parent.is_dir():
            path.symlink_to(aim)
    return left_out


def _write(archive: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
    content = archive.extractfile(member)
    assert content is not None  # a regular file
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as out:
        shutil.copyfileobj(content, out, CHUNK_BYTES)
        os.fchmod(fd, stat.S_IMODE(member.mode) & MODE_MAX)


def _inside(name: str) -> PurePosixPath:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\0" in name:
        raise _hostile(f"{name[:64]!r} is outside of it")
    return path


def _hostile(reason: str) -> CorralError:
    return CorralError("invalid-document", "unpack what the guest sent", reason, "copy single files, or use SSH")
