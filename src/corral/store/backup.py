"""Copies of the database: online backup into a whole file, and restore that verifies first and keeps what it replaces."""

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from corral.errors import CorralError
from corral.files import exclusive_lock, fsync_dir, replacing
from corral.store import schema
from corral.store.sqlite_errors import translated
from corral.store.sqlite_reader import connect

# A restored store goes on this far beyond its backup's revision, all before it compacted: nobody who watched the store
# that was replaced can mistake a new revision for one that he has seen (etcd's `--bump-revision --mark-compacted`).
RESTORE_REVISION_STEP: Final = 1_000_000
_SIDE_FILES: Final = ("-wal", "-shm")


@dataclass(frozen=True)
class Contents:
    """What a database file holds."""

    schema: int
    revision: int
    records: int
    bytes: int


@dataclass(frozen=True)
class Restored:
    """What was put in place, and where the replaced file went (None: there was none)."""

    contents: Contents
    replaced: Path | None


def backup(database: Path, target: Path) -> Contents:
    """Copy the database of a running (or stopped) daemon to `target`, whole, checked and in one file; blocking, so call
    it in a thread. Raises `disk-full`, `store-unavailable`, `store-corrupt`, `invalid-argument`."""
    if target.exists() and target.samefile(database):
        raise CorralError("invalid-argument", f"back up {database}", "the target is the database itself")
    with _opened(database) as connection:
        copy_to(connection, target)
    return inspect(target)


def copy_to(connection: sqlite3.Connection, target: Path) -> None:
    """One consistent state of `connection`'s database as a single file; `target` is there whole or not at all."""
    with translated(f"copy the database to {target}", target), replacing(target) as temporary:
        os.close(os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        with contextlib.closing(connect(temporary)) as copy:
            connection.backup(copy)
            # The copy carries the mark of WAL mode; without it, it needs no files beside it.
            copy.execute("PRAGMA journal_mode = DELETE")


def inspect(path: Path) -> Contents:
    """What the file holds, after a whole integrity check. Raises `store-corrupt` or `store-too-new`."""
    with _opened(path) as connection:
        schema.check_file(connection, path)
        asked = f"read {path}"
        with translated(asked, path):
            if connection.execute("PRAGMA application_id").fetchone()[0] != schema.APPLICATION_ID:
                raise CorralError("store-corrupt", asked, "it is not a Corral database", "name another file")
            problems = [str(row[0]) for row in connection.execute("PRAGMA integrity_check(5)")]
            if problems != ["ok"]:
                raise CorralError("store-corrupt", asked, "; ".join(problems)[:500], "use an older backup")
            return Contents(
                schema.version(connection),
                connection.execute("SELECT value FROM state WHERE name = 'revision'").fetchone()[0],
                connection.execute("SELECT count(*) FROM records").fetchone()[0],
                path.stat().st_size,
            )


def restore(source: Path, database: Path, *, now: datetime | None = None) -> Restored:
    """Put the backup `source` in the place of `database`, while no daemon runs there (`daemon-already-running` else).

    The backup is verified before anything is touched; the replaced database stays beside, as `NAME.replaced-TIME`.
    """
    moment = (now or datetime.now(UTC)).strftime("%Y%m%dT%H%M%SZ")
    with exclusive_lock(database.parent / "lock"):
        inspect(source)
        incoming = database.with_name(f".{database.name}.restore.tmp")
        incoming.unlink(missing_ok=True)
        try:
            with _opened(source) as connection:
                copy_to(connection, incoming)
            with _opened(incoming) as connection, translated(f"restore {database}", database):
                connection.execute("PRAGMA synchronous = FULL")
                connection.execute(
                    "UPDATE state SET value = ? + (SELECT value FROM state WHERE name = 'revision')"
                    " WHERE name IN ('revision', 'compacted')",
                    (RESTORE_REVISION_STEP,),
                )
            contents = inspect(incoming)
            with translated(f"restore {database}", database):
                replaced = _set_aside(database, moment) if database.exists() else None
                incoming.rename(database)
                fsync_dir(database.parent)
        finally:
            incoming.unlink(missing_ok=True)
    return Restored(contents, replaced)


def _set_aside(database: Path, moment: str) -> Path:
    """Give the database a second name, so that its own name can be replaced in one step.

    Its write-ahead log must not meet another database: it is put into the file, or, if the file is too damaged for
    that, moved along under the new name.
    """
    aside = database.with_name(f"{database.name}.replaced-{moment}")
    try:
        with contextlib.closing(connect(database)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    except sqlite3.Error:
        pass  # damaged: that is why it is being replaced
    for suffix in _SIDE_FILES:
        with contextlib.suppress(FileNotFoundError):
            database.with_name(database.name + suffix).rename(aside.with_name(aside.name + suffix))
    os.link(database, aside)
    fsync_dir(database.parent)
    return aside


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection to a database that exists; SQLite itself would make an empty one."""
    if not path.is_file():
        raise CorralError("invalid-argument", f"open {path}", "there is no such file", "name a database or a backup")
    with contextlib.closing(connect(path)) as connection:
        yield connection
