"""SQLite's result codes as coded errors; decided by number, never by text."""

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from corral.errors import CorralError
from corral.files import free_bytes, storage_error

# Less than this left: a failed write is for want of space, whatever the system call said (EDQUOT, EFBIG, a short write).
FULL_BYTES: Final = 64 * 1024
_PRIMARY: Final = 0xFF  # the low byte of an extended result code (sqlite.org/rescode.html)
_CORRUPT_HINT: Final = "corral admin restore-db BACKUP, or corral recover to rebuild it from the running VMs"


@contextlib.contextmanager
def translated(asked: str, path: Path) -> Iterator[None]:
    """Raise what SQLite or the system refuses as `disk-full`, `store-corrupt` or `store-unavailable`."""
    try:
        yield
    except sqlite3.Error as error:
        raise coded(asked, path, error) from error
    except OSError as error:
        found = storage_error(asked, error)
        if found.code == "disk-full":
            raise found from error
        raise unavailable(asked, found.reason) from error


def coded(asked: str, path: Path, error: sqlite3.Error) -> CorralError:
    """The coded error of a failed call on the database at `path`."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    primary = code & _PRIMARY
    if primary in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return CorralError("store-corrupt", asked, f"the database is damaged ({_name(error)})", _CORRUPT_HINT)
    if primary == sqlite3.SQLITE_FULL or (primary in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN) and _full(path)):
        return CorralError("disk-full", asked, f"no space left for {path}", "free space or add a disk, then retry")
    return unavailable(asked, f"the database answered {_name(error)}: {error}")


def unavailable(asked: str, reason: str) -> CorralError:
    return CorralError(
        "store-unavailable",
        asked,
        reason,
        "see `corral doctor`: the state directory must be writable and its disk healthy",
    )


def lost_fsync(error: sqlite3.Error) -> bool:
    """The kernel could not keep what it had taken: nothing written since the last fsync can be trusted any more."""
    return getattr(error, "sqlite_errorcode", 0) in (sqlite3.SQLITE_IOERR_FSYNC, sqlite3.SQLITE_IOERR_DIR_FSYNC)


def _name(error: sqlite3.Error) -> str:
    return getattr(error, "sqlite_errorname", type(error).__name__)


def _full(path: Path) -> bool:
    try:
        return free_bytes(path.parent) < FULL_BYTES
    except OSError:
        return False
