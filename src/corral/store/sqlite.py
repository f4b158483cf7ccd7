"""The embedded store: one SQLite file in WAL mode, group commit, reads that never wait for writes.

Statements run on the event loop: each takes microseconds, and in a thread every one of them would have to win the
interpreter back, which takes milliseconds while the loop is busy. What waits for the disk, the commit with its fsync,
runs in the store's one thread; meanwhile requests queue, and the next commit takes all of them.
"""

import asyncio
import contextlib
import os
import sqlite3
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar, cast

from corral import log
from corral.clock import Clock, SystemClock
from corral.errors import CorralError
from corral.files import fsync_dir
from corral.store import rules, schema
from corral.store.backup import copy_to
from corral.store.base import (
    PAGE_MAX_RECORDS,
    Append,
    Change,
    Committed,
    JournalEntry,
    Page,
    Precondition,
    Record,
    Write,
)
from corral.store.feed import Feed, JournalBell
from corral.store.leases import LeaseTimers
from corral.store.spare import Spare
from corral.store.sqlite_errors import coded, lost_fsync, translated, unavailable
from corral.store.sqlite_reader import Readers, connect
from corral.store.sqlite_writer import Writer

T = TypeVar("T")

# Writes and appends in one commit: bounds how long applying them holds the event loop (about 20 µs each).
BATCH_MAX: Final = 256
# Rows handled between two turns of the event loop: below a millisecond or two.
ROWS_AT_ONCE: Final = 500
REVISIONS_AT_ONCE: Final = 256
WAL_KEEP_BYTES: Final = 16 * 2**20  # beyond this a checkpoint gives the file's space back


@dataclass(frozen=True, slots=True)
class _Queued:
    job: Callable[[Writer], object]
    durable: bool
    weight: int
    answer: "asyncio.Future[object]"


class SqliteStore:
    """Implements `Store`. Made by `open`; belongs to the event loop that opened it."""

    def __init__(
        self, path: Path, connection: sqlite3.Connection, readers: Readers, clock: Clock, spare: Spare | None = None
    ) -> None:
        self.path = path
        self._spare = spare
        self._connection = connection
        self._writer = Writer(connection)
        self._readers = readers
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="corral-store")
        self._queue: deque[_Queued] = deque()
        self._pump: asyncio.Task[None] | None = None
        self._feed = Feed(self._writer.committed.revision)
        self._bell = JournalBell()
        self._timers = LeaseTimers(clock, self._expire)
        # Wall-clock deadlines would end every lease at once after a jump; who holds one after a restart renews it.
        for lease, ttl_s in self._writer.leases().items():
            self._timers.start(lease, ttl_s)
        self._refusal: CorralError | None = None
        self._failed = asyncio.Event()

    @classmethod
    async def open(
        cls,
        path: Path,
        *,
        clock: Clock | None = None,
        migrations: Sequence[schema.Migration] = schema.MIGRATIONS,
        spare: Spare | None = None,
    ) -> "SqliteStore":
        """Open or create the database at `path`: integrity is checked and an older schema brought up to date (the file
        as it was is kept beside, as `PATH.schema-N`). Raises `store-unavailable`, `store-corrupt`, `store-too-new`,
        `disk-full`."""
        connection = await asyncio.to_thread(_prepared, path, migrations, spare)
        try:
            with translated(f"open {path}", path):
                return cls(path, connection, Readers(path), clock or SystemClock(), spare)
        except BaseException:
            connection.close()
            raise

    @property
    def revision(self) -> int:
        return self._feed.revision

    # ---- reading --------------------------------------------------------------------------------------------------

    async def get(self, key: str) -> Record | None:
        self._check_open()
        return self._readers.get(key)

    async def range(
        self, prefix: str, *, after: str = "", limit: int = PAGE_MAX_RECORDS, revision: int | None = None
    ) -> Page:
        self._check_open()
        low, high = rules.bounds(prefix, after)
        records: list[Record] = []
        with self._readers.snapshot() as state:
            newest, oldest = state.heads()
            if revision is not None and not oldest <= revision <= newest:
                raise rules.compacted(revision, oldest, newest)
            past = revision if revision != newest else None
            rows = state.records(low, high, limit + 1, past)
            while chunk := rows.fetchmany(ROWS_AT_ONCE):
                if records:
                    await asyncio.sleep(0)
                records += map(Record._make, chunk)
        return Page(tuple(records[:limit]), newest if revision is None else revision, len(records) > limit)

    async def count(self, prefix: str) -> int:
        self._check_open()
        return self._readers.count(*rules.bounds(prefix))

    async def journal(self, name: str, *, after: int = 0, limit: int = 1000) -> tuple[JournalEntry, ...]:
        self._check_open()
        return self._readers.journal(name, after, limit)

    async def journal_last(self, name: str) -> JournalEntry | None:
        self._check_open()
        return self._readers.journal_last(name)

    def watch(self, prefix: str, since: int) -> AsyncGenerator[Change, None]:
        self._check_open()
        return self._feed.watch(prefix, since, self._past)

    async def _past(self, prefix: str, after: int, through: int) -> AsyncGenerator[Change, None]:
        """Changes in (after, through], a few revisions at a time, so that neither the loop nor a snapshot is held."""
        low, high = rules.bounds(prefix)
        while True:
            end = min(after + REVISIONS_AT_ONCE, through)
            with self._readers.snapshot() as state:
                newest, oldest = state.heads()
                if not oldest <= after <= newest:
                    raise rules.compacted(after, oldest, newest)
                found = state.changes(low, high, after, end) if after < end else []
            for change in found:
                yield change
            if end >= through:
                return
            after = end
            await asyncio.sleep(0)

    def follow(self, name: str, *, after: int) -> AsyncGenerator[JournalEntry, None]:
        return self._bell.follow(name, after, self.journal)

    # ---- writing --------------------------------------------------------------------------------------------------

    async def transact(
        self,
        writes: Sequence[Write],
        *,
        preconditions: Sequence[Precondition] = (),
        appends: Sequence[Append] = (),
        durable: bool = True,
    ) -> Committed:
        rules.check_transaction(writes, preconditions, appends)
        writes, preconditions, appends = tuple(writes), tuple(preconditions), tuple(appends)

        async def once() -> Committed:
            return await self._submit(
                lambda writer: writer.transact(writes, preconditions, appends),
                durable=durable,
                weight=len(writes) + len(appends) + 1,
            )

        try:
            return await once()
        except CorralError as error:
            if error.code != "disk-full" or self._spare is None or not self._spare.release():
                raise
        return await once()  # nothing of it was done, and now there is some space

    async def journal_trim(self, name: str, *, through: int) -> None:
        while await self._submit(lambda writer: writer.trim(name, through, ROWS_AT_ONCE), durable=False):
            pass

    async def compact(self, revision: int) -> None:
        await self._submit(lambda writer: writer.compact(revision), durable=True)
        while await self._submit(lambda writer: writer.sweep(ROWS_AT_ONCE), durable=False):
            pass

    async def lease_grant(self, ttl_s: float) -> int:
        lease = await self._submit(lambda writer: writer.grant(ttl_s), durable=True)
        self._timers.start(lease, ttl_s)
        return lease

    async def lease_keep_alive(self, lease: int) -> None:
        self._check_open()
        self._timers.keep_alive(lease)

    async def lease_revoke(self, lease: int) -> None:
        await self._expire(lease)
        self._timers.stop(lease)

    async def _expire(self, lease: int) -> None:
        await self._submit(lambda writer: writer.revoke(lease), durable=True)

    async def expire_leases(self) -> None:
        """Revoke what is due now; a timer does the same by itself."""
        await self._timers.expire_due()

    async def _submit(self, job: Callable[[Writer], T], *, durable: bool, weight: int = 1) -> T:
        self._check_open()
        loop = asyncio.get_running_loop()
        queued = _Queued(job, durable, weight, loop.create_future())
        self._queue.append(queued)
        if self._pump is None or self._pump.done():
            self._pump = loop.create_task(self._commit_queued())
        return cast("T", await queued.answer)

    async def _commit_queued(self) -> None:
        """Commit what is queued, and what queues up meanwhile, until nothing is left."""
        batch: list[_Queued] = []
        try:
            while self._queue:
                batch = self._take()
                if batch and not await self._commit(batch):
                    for queued in batch:
                        await self._commit([queued])
        except Exception as error:  # noqa: BLE001 - the top of the loop: nobody may wait for ever
            self._fail(unavailable("write to the store", f"an internal fault ({type(error).__name__}); restart"))
            log.logger(__name__).exception("the store stops writing")
            for queued in (*batch, *self._queue):
                _answer(queued, self._refusal)
            self._queue.clear()

    def _take(self) -> list[_Queued]:
        """What goes into the next commit. A caller that was cancelled before its turn leaves nothing behind."""
        batch: list[_Queued] = []
        weight = 0
        while self._queue and (not batch or weight + self._queue[0].weight <= BATCH_MAX):
            queued = self._queue.popleft()
            if not queued.answer.done():
                batch.append(queued)
                weight += queued.weight
        return batch

    async def _commit(self, batch: list[_Queued]) -> bool:
        """Commit these together and answer. False, with nothing answered, if several failed together: each may still
        pass alone, since a single one can be what does not fit on the disk."""
        loop = asyncio.get_running_loop()
        try:
            answers = self._writer.apply(
                [queued.job for queued in batch], durable=any(queued.durable for queued in batch)
            )
            await loop.run_in_executor(self._thread, self._writer.commit)
        except sqlite3.Error as error:
            failure = coded("write to the store", self.path, error)
            with contextlib.suppress(sqlite3.Error):
                self._writer.rollback()
            if lost_fsync(error):
                # A later fsync would report success for pages that the kernel has dropped: trust nothing, stop.
                failure = unavailable("write to the store", "the disk lost a write; restart the daemon")
                self._fail(failure)
            elif len(batch) > 1:
                return False
            for queued in batch:
                _answer(queued, failure)
            return True
        news = self._writer.done()
        for queued, answer in zip(batch, answers, strict=True):
            _answer(queued, answer)
        for revision, changes in news.changes:
            self._feed.publish(revision, changes)
        for journal in news.journals:
            self._bell.ring(journal)
        return True

    def _fail(self, why: CorralError) -> None:
        self._refusal = why
        self._failed.set()

    async def failure(self) -> CorralError:
        """Returns once this store has given up for good: only a new process may trust the file again."""
        await self._failed.wait()
        assert self._refusal is not None
        return self._refusal

    async def close(self) -> None:
        """Finish what is queued, refuse what comes later, put the write-ahead log back into the file."""
        if self._refusal is None:
            self._refusal = rules.closed()
        await self._timers.close()
        if self._pump is not None:
            await asyncio.wait([self._pump])
        self._feed.close()
        self._bell.close()
        self._readers.close()
        # The last connection's close does the checkpoint, and with it an fsync.
        await asyncio.get_running_loop().run_in_executor(self._thread, self._connection.close)
        self._thread.shutdown(wait=False)

    def _check_open(self) -> None:
        if self._refusal is not None:
            raise self._refusal


def _answer(queued: _Queued, answer: object) -> None:
    if queued.answer.done():
        return
    if isinstance(answer, Exception):
        queued.answer.set_exception(answer)
    else:
        queued.answer.set_result(answer)


def _prepared(path: Path, migrations: Sequence[schema.Migration], spare: Spare | None) -> sqlite3.Connection:
    """What was killed left a log to be read, for which SQLite makes a file anew: that takes space."""
    try:
        return _prepare(path, migrations)
    except CorralError as error:
        if error.code != "disk-full" or spare is None or not spare.release():
            raise
    return _prepare(path, migrations)


def _prepare(path: Path, migrations: Sequence[schema.Migration]) -> sqlite3.Connection:
    """A checked, migrated, writing connection to the database at `path`, made if it is not there."""
    asked = f"open {path}"
    with translated(asked, path):
        # Made here so that nobody else can read it; SQLite gives its side files the same mode.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    connection = connect(path)
    try:
        schema.check_file(connection, path, len(migrations))
        with translated(asked, path):
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(f"PRAGMA journal_size_limit = {WAL_KEEP_BYTES}")
            found = schema.version(connection)
            if 0 < found < len(migrations):
                copy_to(connection, path.with_name(f"{path.name}.schema-{found}"))
            schema.migrate(connection, migrations)
            fsync_dir(path.parent)
    except BaseException:
        connection.close()
        raise
    return connection
