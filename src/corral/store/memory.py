"""The store in memory: for tests and trials; the same contract, nothing kept."""

import asyncio
from bisect import bisect_left, insort
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

from corral.clock import Clock, SystemClock
from corral.store import rules
from corral.store.base import (
    PAGE_MAX_RECORDS,
    Append,
    Change,
    Committed,
    Delete,
    JournalEntry,
    Page,
    Precondition,
    Put,
    Record,
    Write,
)
from corral.store.feed import Feed, JournalBell
from corral.store.leases import LeaseTimers


@dataclass(frozen=True, slots=True)
class _Past:
    """One change, with the record that it replaced: history can be walked both ways."""

    change: Change
    before: Record | None


class MemoryStore:
    """Implements `Store`. One event loop; a transaction is one uninterrupted stretch of code."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._revision = 0
        self._compacted = 0
        self._records: dict[str, Record] = {}
        self._keys: list[str] = []
        self._history: list[_Past] = []
        self._journals: dict[str, list[JournalEntry]] = {}
        self._journal_last: dict[str, JournalEntry] = {}
        self._lease_of: dict[str, int] = {}
        self._leases: set[int] = set()
        self._lease_last = 0
        self._feed = Feed()
        self._bell = JournalBell()
        self._timers = LeaseTimers(clock or SystemClock(), self.lease_revoke)
        self._closed = False

    @property
    def revision(self) -> int:
        return self._revision

    async def get(self, key: str) -> Record | None:
        self._check_open()
        return self._records.get(key)

    async def range(
        self, prefix: str, *, after: str = "", limit: int = PAGE_MAX_RECORDS, revision: int | None = None
    ) -> Page:
        self._check_open()
        low, high = rules.bounds(prefix, after)
        if revision is None or revision == self._revision:
            revision, records, keys = self._revision, self._records, self._keys
        else:
            records = self._at(revision)
            keys = sorted(records)
        start, end = bisect_left(keys, low), bisect_left(keys, high)
        chosen = keys[start : min(end, start + limit)]
        return Page(tuple(records[key] for key in chosen), revision, end - start > limit)

    def _at(self, revision: int) -> dict[str, Record]:
        """The state at a past revision: today's, walked back."""
        if not self._compacted <= revision <= self._revision:
            raise rules.compacted(revision, self._compacted, self._revision)
        records = dict(self._records)
        for past in reversed(self._history):
            if past.change.revision <= revision:
                break
            if past.before is None:
                records.pop(past.change.key, None)
            else:
                records[past.change.key] = past.before
        return records

    async def count(self, prefix: str) -> int:
        self._check_open()
        low, high = rules.bounds(prefix)
        return bisect_left(self._keys, high) - bisect_left(self._keys, low)

    async def transact(
        self,
        writes: Sequence[Write],
        *,
        preconditions: Sequence[Precondition] = (),
        appends: Sequence[Append] = (),
        durable: bool = True,
    ) -> Committed:
        self._check_open()
        rules.check_transaction(writes, preconditions, appends)
        for precondition in preconditions:
            record = self._records.get(precondition.key)
            found = 0 if record is None else record.revision
            if found != precondition.revision:
                raise rules.precondition_failed(precondition.key, precondition.revision, found)
        for write in writes:
            if isinstance(write, Put) and write.lease is not None and write.lease not in self._leases:
                raise rules.lease_not_found(write.lease)
        entries = self._sealed(appends)
        self._write(writes)
        for journal, entry in entries:
            self._journals.setdefault(journal, []).append(entry)
            self._journal_last[journal] = entry
            self._bell.ring(journal)
        committed = Committed(self._revision, tuple(entry.sequence for _, entry in entries))
        # As a real store would, let others run before the answer: callers meet the races that they will meet.
        await asyncio.sleep(0)
        return committed

    def _sealed(self, appends: Sequence[Append]) -> list[tuple[str, JournalEntry]]:
        last = dict(self._journal_last)
        entries = []
        for append in appends:
            before = last.get(append.journal)
            sequence = before.sequence + 1 if before else 1
            value = append.value if append.seal is None else append.seal(sequence, before)
            rules.check_size(f"journal {append.journal}", value)
            last[append.journal] = JournalEntry(sequence, value)
            entries.append((append.journal, last[append.journal]))
        return entries

    def _write(self, writes: Sequence[Write]) -> None:
        revision = self._revision + 1
        changes = []
        for write in writes:
            before = self._records.get(write.key)
            previous = before.value if before else None
            self._lease_of.pop(write.key, None)
            if isinstance(write, Put):
                created = before.created_revision if before else revision
                self._records[write.key] = Record(write.key, write.value, revision, created)
                if before is None:
                    insort(self._keys, write.key)
                if write.lease is not None:
                    self._lease_of[write.key] = write.lease
                change = Change(write.key, revision, write.value, previous)
            elif before is not None:
                del self._records[write.key]
                del self._keys[bisect_left(self._keys, write.key)]
                change = Change(write.key, revision, None, previous)
            else:
                continue
            changes.append(change)
            self._history.append(_Past(change, before))
        if changes:
            self._revision = revision
            self._feed.publish(revision, changes)

    def watch(self, prefix: str, since: int) -> AsyncGenerator[Change, None]:
        self._check_open()
        return self._feed.watch(prefix, since, self._past)

    async def _past(self, prefix: str, after: int, through: int) -> AsyncGenerator[Change, None]:
        if not self._compacted <= after <= self._revision:
            raise rules.compacted(after, self._compacted, self._revision)
        start = bisect_left(self._history, after + 1, key=_past_revision)
        end = bisect_left(self._history, through + 1, key=_past_revision)
        found = [past.change for past in self._history[start:end] if past.change.key.startswith(prefix)]
        for change in sorted(found, key=_order):
            yield change

    async def journal(self, name: str, *, after: int = 0, limit: int = 1000) -> tuple[JournalEntry, ...]:
        self._check_open()
        entries = self._journals.get(name, [])
        start = bisect_left(entries, after + 1, key=_sequence)
        return tuple(entries[start : start + limit])

    async def journal_last(self, name: str) -> JournalEntry | None:
        self._check_open()
        entries = self._journals.get(name)
        return entries[-1] if entries else None

    async def journal_trim(self, name: str, *, through: int) -> None:
        self._check_open()
        entries = self._journals.get(name, [])
        del entries[: bisect_left(entries, through + 1, key=_sequence)]

    def follow(self, name: str, *, after: int) -> AsyncGenerator[JournalEntry, None]:
        return self._bell.follow(name, after, self.journal)

    async def compact(self, revision: int) -> None:
        self._check_open()
        self._compacted = max(self._compacted, min(revision, self._revision))
        del self._history[: bisect_left(self._history, self._compacted + 1, key=_past_revision)]

    async def lease_grant(self, ttl_s: float) -> int:
        self._check_open()
        self._lease_last += 1
        self._leases.add(self._lease_last)
        self._timers.start(self._lease_last, ttl_s)
        return self._lease_last

    async def lease_keep_alive(self, lease: int) -> None:
        self._check_open()
        self._timers.keep_alive(lease)

    async def lease_revoke(self, lease: int) -> None:
        self._check_open()
        if lease not in self._leases:
            raise rules.lease_not_found(lease)
        self._leases.discard(lease)
        self._timers.stop(lease)
        self._write([Delete(key) for key, owner in self._lease_of.items() if owner == lease])

    async def expire_leases(self) -> None:
        """Revoke what is due now; a timer does the same by itself."""
        await self._timers.expire_due()

    async def close(self) -> None:
        self._closed = True
        self._feed.close()
        self._bell.close()
        await self._timers.close()

    def _check_open(self) -> None:
        if self._closed:
            raise rules.closed()


def _past_revision(past: _Past) -> int:
    return past.change.revision


def _order(change: Change) -> tuple[int, str]:
    return change.revision, change.key


def _sequence(entry: JournalEntry) -> int:
    return entry.sequence
