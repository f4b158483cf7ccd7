"""Initramfs archives: cpio in the `newc` form, made in memory and the same bytes for the same entries."""

import stat
from collections.abc import Iterable
from dataclasses import dataclass

_TRAILER = "TRAILER!!!"


@dataclass(frozen=True)
class Entry:
    """One file. `mode` holds the type bits too; a symbolic link's `content` is its target."""

    path: str
    mode: int
    content: bytes = b""
    device: tuple[int, int] = (0, 0)


def directory(path: str) -> Entry:
    return Entry(path, stat.S_IFDIR | 0o755)


def regular(path: str, content: bytes, mode: int = 0o644) -> Entry:
    return Entry(path, stat.S_IFREG | mode, content)


def symlink(path: str, target: str) -> Entry:
    return Entry(path, stat.S_IFLNK | 0o777, target.encode())


def character_device(path: str, major: int, minor: int) -> Entry:
    return Entry(path, stat.S_IFCHR | 0o600, device=(major, minor))


def build_archive(entries: Iterable[Entry]) -> bytes:
    """The archive of `entries` and the directories above them, owned by root and dated 1970."""
    named = {entry.path: entry for entry in entries}
    for path in list(named):
        parent = path.rpartition("/")[0]
        while parent and parent not in named:
            named[parent] = directory(parent)
            parent = parent.rpartition("/")[0]
    parts = [_record(inode, named[path]) for inode, path in enumerate(sorted(named), start=1)]
    return b"".join([*parts, _record(0, Entry(_TRAILER, 0))])


def _record(inode: int, entry: Entry) -> bytes:
    """A header of 13 fields of 8 hex digits, the name, the content; name and content end on 4-byte boundaries."""
    name = entry.path.encode() + b"\0"
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    major, minor = entry.device
    values = (inode, entry.mode, 0, 0, links, 0, len(entry.content), 0, 0, major, minor, len(name), 0)
    header = b"070701" + b"".join(b"%08x" % value for value in values)
    return _padded(header + name) + _padded(entry.content)


def _padded(content: bytes) -> bytes:
    return content + b"\0" * (-len(content) % 4)
