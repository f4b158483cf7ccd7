"""The reading side of the SQLite store: connections that see one committed state each, and the queries."""

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from corral.store.base import Change, JournalEntry, Record
from corral.store.sqlite_errors import translated

IDLE_MAX: Final = 2
INTEGER_MAX: Final = 2**63 - 1  # SQLite's
CACHE_KIB: Final = 8 * 1024  # a connection; a list of 1,000 VMs with everything between them fits

_RANGE: Final = "SELECT key, value, revision, created FROM records WHERE key >= ?1 AND key < ?2 ORDER BY key LIMIT ?3"
_RANGE_AT: Final = (
    "SELECT key, value, revision, created FROM records WHERE key >= ?1 AND key < ?2 AND revision <= ?4"
    " UNION ALL SELECT key, value, revision, created FROM history"
    " WHERE ended > ?4 AND revision <= ?4 AND key >= ?1 AND key < ?2"
    " ORDER BY key LIMIT ?3"
)
# Every change in (?3, ?4]: what was written then and still is, was written then and has ended since, or was deleted then.
_CHANGES: Final = (
    "SELECT now.key, now.revision, now.value, before.value FROM ("
    " SELECT key, revision, value FROM records WHERE revision > ?3 AND revision <= ?4 AND key >= ?1 AND key < ?2"
    " UNION ALL SELECT key, revision, value FROM history"
    " WHERE ended > ?3 AND revision > ?3 AND revision <= ?4 AND key >= ?1 AND key < ?2"
    " UNION ALL SELECT key, ended, NULL FROM history"
    " WHERE ended > ?3 AND ended <= ?4 AND deleted AND key >= ?1 AND key < ?2"
    ") AS now LEFT JOIN history AS before ON before.ended = now.revision AND before.key = now.key"
    " ORDER BY now.revision, now.key"
)


def connect(path: Path) -> sqlite3.Connection:
    """A connection in manual transaction mode; statements are bounded by a busy time-out of 5 s."""
    with translated(f"open {path}", path):
        # check_same_thread is off because commits run in a thread of their own; never two at a time.
        return sqlite3.connect(path, timeout=5.0, isolation_level=None, check_same_thread=False)


class Snapshot:
    """One committed state; nothing that happens later is seen through it."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._execute = connection.execute

    def heads(self) -> tuple[int, int]:
        """Newest revision and compaction point."""
        state = dict(self._execute("SELECT name, value FROM state").fetchall())
        return state["revision"], state["compacted"]

    def records(self, low: str, high: str, limit: int, revision: int | None) -> sqlite3.Cursor:
        if revision is None:
            return self._execute(_RANGE, (low, high, limit))
        return self._execute(_RANGE_AT, (low, high, limit, revision))

    def changes(self, low: str, high: str, after: int, through: int) -> list[Change]:
        rows = self._execute(_CHANGES, (low, high, after, through)).fetchall()
        return [Change(*row) for row in rows]


class Readers:
    """A few connections that only read. Used on the event loop: a read takes microseconds a row and no lock waits."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._idle: list[sqlite3.Connection] = []
        self._closed = False
        self._direct = self._open()

    def get(self, key: str) -> Record | None:
        with translated(f"read {key}", self._path):
            row = self._direct.execute(
                "SELECT key, value, revision, created FROM records WHERE key = ?", (key,)
            ).fetchone()
        return None if row is None else Record(*row)

    def count(self, low: str, high: str) -> int:
        with translated("count records", self._path):
            found: int = self._direct.execute(
                "SELECT count(*) FROM records WHERE key >= ? AND key < ?", (low, high)
            ).fetchone()[0]
        return found

    def journal(self, name: str, after: int, limit: int) -> tuple[JournalEntry, ...]:
        with translated(f"read journal {name}", self._path):
            rows = self._direct.execute(
                "SELECT sequence, value FROM journal WHERE name = ? AND sequence > ? ORDER BY sequence LIMIT ?",
                (name, min(after, INTEGER_MAX), limit),
            ).fetchall()
        return tuple(JournalEntry(*row) for row in rows)

    def journal_last(self, name: str) -> JournalEntry | None:
        with translated(f"read journal {name}", self._path):
            row = self._direct.execute(
                "SELECT sequence, value FROM journal WHERE name = ? ORDER BY sequence DESC LIMIT 1", (name,)
            ).fetchone()
        return None if row is None else JournalEntry(*row)

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[Snapshot]:
        """Hold one committed state, over waits too; others read through other connections meanwhile."""
        with translated("read the store", self._path):
            connection = self._idle.pop() if self._idle else self._open()
            try:
                connection.execute("BEGIN")
                yield Snapshot(connection)
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                if len(self._idle) < IDLE_MAX and not self._closed:
                    self._idle.append(connection)
                else:
                    connection.close()

    def close(self) -> None:
        self._closed = True
        for connection in (self._direct, *self._idle):
            connection.close()
        self._idle.clear()

    def _open(self) -> sqlite3.Connection:
        connection = connect(self._path)
        connection.execute("PRAGMA query_only = 1")
        connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        return connection
