"""The writing side of the SQLite store: applies transactions to the one connection that writes. Synchronous.

A batch is one SQLite transaction; each request of it runs in a savepoint of its own, so that one that fails takes
nothing with it and leaves nothing behind. What was decided becomes known only when the whole batch is committed.
"""

import sqlite3
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, field

from corral.store import rules
from corral.store.base import Append, Change, Committed, JournalEntry, Precondition, Put, Write

Job = Callable[["Writer"], object]


@dataclass
class Heads:
    """Where the next transaction continues: newest revision, compaction point, last entry of each journal."""

    revision: int
    compacted: int
    journals: dict[str, JournalEntry] = field(default_factory=dict)

    def copy(self) -> "Heads":
        return Heads(self.revision, self.compacted, copy(self.journals))


@dataclass
class News:
    """What a batch changed, to be told after its commit."""

    changes: list[tuple[int, list[Change]]] = field(default_factory=list)
    journals: set[str] = field(default_factory=set)


class Writer:
    """Owns the writing connection. One user at a time: the event loop applies, the commit thread commits."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._execute = connection.execute
        self._full_sync = True
        self._execute("PRAGMA synchronous = FULL")
        state = dict(self._execute("SELECT name, value FROM state").fetchall())
        self._heads = Heads(state["revision"], state["compacted"])
        self._committed = self._heads.copy()
        self._news = News()

    @property
    def committed(self) -> Heads:
        return self._committed

    def leases(self) -> dict[int, float]:
        """Every lease and its time to live in seconds."""
        return dict(self._execute("SELECT id, ttl_s FROM leases").fetchall())

    def apply(self, jobs: Sequence[Job], *, durable: bool) -> list[object | Exception]:
        """Begin a batch and run every job; the answers (an exception is one) hold once `commit` has returned."""
        if durable != self._full_sync:
            self._execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            self._full_sync = durable
        self._execute("BEGIN IMMEDIATE")
        self._heads = self._committed.copy()
        self._news = News()
        answers = [self._apply_one(job) for job in jobs]
        if self._heads.revision != self._committed.revision:
            self._set("revision", self._heads.revision)
        for name in self._news.journals & self._heads.journals.keys():
            self._execute(
                "INSERT INTO journals (name, last) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET last = ?2",
                (name, self._heads.journals[name].sequence),
            )
        return answers

    def commit(self) -> None:
        """End the batch: on disk when this returns, if it was begun durable. The only call that waits for the disk."""
        self._execute("COMMIT")

    def rollback(self) -> None:
        if self._connection.in_transaction:
            self._execute("ROLLBACK")

    def done(self) -> News:
        """After `commit`: the heads move on; returns what is to be told."""
        self._committed = self._heads
        return self._news

    def _apply_one(self, job: Job) -> object | Exception:
        heads, news = self._heads.copy(), len(self._news.changes)
        self._execute("SAVEPOINT one")
        try:
            answer = job(self)
        except sqlite3.Error:
            raise  # the batch is lost; its requests are tried one by one
        except Exception as error:  # noqa: BLE001 - the top of a request: its caller gets the error
            self._execute("ROLLBACK TO one")
            self._heads = heads
            del self._news.changes[news:]
            answer = error
        self._execute("RELEASE one")
        return answer

    # ---- jobs -----------------------------------------------------------------------------------------------------

    def transact(
        self, writes: Sequence[Write], preconditions: Sequence[Precondition], appends: Sequence[Append]
    ) -> Committed:
        found = {}
        for precondition in preconditions:
            row = found[precondition.key] = self._find(precondition.key)
            revision = row[1] if row else 0
            if revision != precondition.revision:
                raise rules.precondition_failed(precondition.key, precondition.revision, revision)
        changes = []
        revision = self._heads.revision + 1
        for write in writes:
            row = found[write.key] if write.key in found else self._find(write.key)
            if isinstance(write, Put):
                changes.append(self._put(write, row, revision))
            elif row is not None:
                changes.append(self._delete(write.key, row, revision))
        self._changed(revision, changes)
        return Committed(self._heads.revision, tuple(self._append(append) for append in appends))

    def compact(self, revision: int) -> None:
        """Move the compaction point; `sweep` then removes what lies before it."""
        self._heads.compacted = max(self._heads.compacted, min(revision, self._heads.revision))
        self._set("compacted", self._heads.compacted)

    def sweep(self, limit: int) -> bool:
        """Remove up to `limit` rows of compacted history; True if there may be more."""
        rows: int = self._execute(
            "DELETE FROM history WHERE id IN (SELECT id FROM history WHERE ended <= ? ORDER BY ended LIMIT ?)",
            (self._heads.compacted, limit),
        ).rowcount
        return rows == limit

    def trim(self, name: str, through: int, limit: int) -> bool:
        """Remove up to `limit` of a journal's entries up to `through`; True if there may be more."""
        self._last(name)
        first: int | None = self._execute("SELECT min(sequence) FROM journal WHERE name = ?", (name,)).fetchone()[0]
        if first is None:
            return False
        end = min(through, first + limit - 1)
        self._execute("DELETE FROM journal WHERE name = ? AND sequence <= ?", (name, end))
        return end < through

    def grant(self, ttl_s: float) -> int:
        lease = self._execute("INSERT INTO leases (ttl_s) VALUES (?)", (ttl_s,)).lastrowid
        assert lease is not None
        return lease

    def revoke(self, lease: int) -> None:
        """End a lease: every key that hangs on it goes, in one revision."""
        if self._execute("DELETE FROM leases WHERE id = ?", (lease,)).rowcount == 0:
            raise rules.lease_not_found(lease)
        keys = [key for (key,) in self._execute("SELECT key FROM records WHERE lease = ?", (lease,))]
        revision = self._heads.revision + 1
        rows = [(key, self._find(key)) for key in keys]
        self._changed(revision, [self._delete(key, row, revision) for key, row in rows if row is not None])

    # ---- rows -----------------------------------------------------------------------------------------------------

    def _find(self, key: str) -> tuple[int, int, int, bytes] | None:
        """id, revision, created and value of a record."""
        row: tuple[int, int, int, bytes] | None = self._execute(
            "SELECT id, revision, created, value FROM records WHERE key = ?", (key,)
        ).fetchone()
        return row

    def _put(self, put: Put, row: tuple[int, int, int, bytes] | None, revision: int) -> Change:
        if put.lease is not None and not self._execute("SELECT 1 FROM leases WHERE id = ?", (put.lease,)).fetchone():
            raise rules.lease_not_found(put.lease)
        if row is None:
            self._execute(
                "INSERT INTO records (key, revision, created, lease, value) VALUES (?1, ?2, ?2, ?3, ?4)",
                (put.key, revision, put.lease, put.value),
            )
            return Change(put.key, revision, put.value, None)
        self._end(put.key, row, revision, deleted=0)
        self._execute(
            "UPDATE records SET revision = ?, lease = ?, value = ? WHERE id = ?",
            (revision, put.lease, put.value, row[0]),
        )
        return Change(put.key, revision, put.value, row[3])

    def _delete(self, key: str, row: tuple[int, int, int, bytes], revision: int) -> Change:
        self._end(key, row, revision, deleted=1)
        self._execute("DELETE FROM records WHERE id = ?", (row[0],))
        return Change(key, revision, None, row[3])

    def _end(self, key: str, row: tuple[int, int, int, bytes], revision: int, deleted: int) -> None:
        self._execute(
            "INSERT INTO history (key, revision, created, ended, deleted, value) VALUES (?, ?, ?, ?, ?, ?)",
            (key, row[1], row[2], revision, deleted, row[3]),
        )

    def _append(self, append: Append) -> int:
        before = self._last(append.journal)
        sequence = before.sequence + 1
        value = append.value
        if append.seal is not None:
            value = append.seal(sequence, before if before.sequence else None)
            rules.check_size(f"journal {append.journal}", value)
        self._execute("INSERT INTO journal (name, sequence, value) VALUES (?, ?, ?)", (append.journal, sequence, value))
        self._heads.journals[append.journal] = JournalEntry(sequence, value)
        self._news.journals.add(append.journal)
        return sequence

    def _last(self, name: str) -> JournalEntry:
        """The last entry ever of a journal; sequence 0 for one that has had none. Remembered beyond a trim."""
        if name not in self._heads.journals:
            row = self._execute(
                "SELECT last, value FROM journals LEFT JOIN journal"
                " ON journal.name = journals.name AND sequence = last WHERE journals.name = ?",
                (name,),
            ).fetchone()
            self._heads.journals[name] = JournalEntry(row[0], row[1] or b"") if row else JournalEntry(0, b"")
        return self._heads.journals[name]

    def _changed(self, revision: int, changes: list[Change]) -> None:
        if changes:
            self._heads.revision = revision
            self._news.changes.append((revision, changes))

    def _set(self, name: str, value: int) -> None:
        self._execute("UPDATE state SET value = ? WHERE name = ?", (value, name))
