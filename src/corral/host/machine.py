"""The host as the checks see it: files of /proc, /sys and /etc below a root that a test can choose, read under limits."""

import contextlib
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from corral.files import read_limited
from corral.model.doctor import Finding, Level

FILE_MAX_BYTES: Final = 256 * 1024


@dataclass(frozen=True)
class Machine:
    """Paths are given as on the host (`/proc/cpuinfo`) and looked up below `root`."""

    root: Path = Path("/")
    uid: int = field(default_factory=os.geteuid)
    """Of this process."""

    def path(self, name: str) -> Path:
        return self.root / name.lstrip("/")

    def text(self, name: str) -> str | None:
        """A small file's text, stripped; None where it cannot be read."""
        try:
            path = self.path(name)
            return read_limited(path, FILE_MAX_BYTES).decode(errors="replace").strip() if path.is_file() else None
        except OSError:
            return None

    def exists(self, name: str) -> bool:
        return self.path(name).exists()

    def link(self, name: str) -> str | None:
        """Where a symbolic link points; None where it is none or may not be read."""
        try:
            return str(self.path(name).readlink())
        except OSError:
            return None

    def names(self, name: str) -> tuple[str, ...]:
        """What a directory holds, sorted; empty where it is not there."""
        with contextlib.suppress(OSError):
            return tuple(sorted(entry.name for entry in self.path(name).iterdir()))
        return ()

    def usable(self, name: str) -> bool:
        """Whether this process may read and write it."""
        return os.access(self.path(name), os.R_OK | os.W_OK)

    def owner_and_mode(self, name: str) -> tuple[int, int, int] | None:
        """Owner's uid, group's gid and permission bits; None where it is not there."""
        try:
            found = self.path(name).stat()
        except OSError:
            return None
        return found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)

    def status_of(self, pid: int) -> dict[str, str]:
        """The fields of /proc/PID/status; empty when the process is gone."""
        lines = (self.text(f"/proc/{pid}/status") or "").splitlines()
        return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def ok(what: str, found: str) -> Finding:
    return Finding(id=what, level=Level.OK, found=found)


def info(what: str, found: str, action: str = "") -> Finding:
    return Finding(id=what, level=Level.INFO, found=found, action=action)


def warning(what: str, found: str, action: str) -> Finding:
    return Finding(id=what, level=Level.WARNING, found=found, action=action)


def error(what: str, found: str, action: str) -> Finding:
    return Finding(id=what, level=Level.ERROR, found=found, action=action)
