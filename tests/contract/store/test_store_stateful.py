"""Random walks of each store beside a model so simple that it can be seen to be right."""

import asyncio
import tempfile
from collections.abc import Coroutine
from contextlib import aclosing
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from corral.errors import CorralError
from corral.store.base import Append, Change, Delete, JournalEntry, Precondition, Put, Record, Store, Write
from corral.store.memory import MemoryStore
from corral.store.sqlite import SqliteStore

T = TypeVar("T")

KEYS = ("/a/1", "/a/2", "/a/2/x", "/b/1", "/b/2")
PREFIXES = ("/", "/a/", "/a/2", "/b/1", "/c/")
CALL_S = 20.0


class Model:
    """All states that ever were, all changes, all journals."""

    def __init__(self) -> None:
        self.states: list[dict[str, Record]] = [{}]
        self.changes: list[Change] = []
        self.compacted = 0
        self.journals: dict[str, list[JournalEntry]] = {"events": [], "audit": []}
        self.trimmed = {"events": 0, "audit": 0}

    @property
    def revision(self) -> int:
        return len(self.states) - 1

    @property
    def now(self) -> dict[str, Record]:
        return self.states[-1]

    def revision_of(self, key: str) -> int:
        return self.now[key].revision if key in self.now else 0

    def apply(self, writes: list[Write], appends: list[Append]) -> None:
        state, revision = dict(self.now), self.revision + 1
        changes = []
        for write in writes:
            before = state.pop(write.key, None)
            previous = before.value if before else None
            if isinstance(write, Put):
                created = before.created_revision if before else revision
                state[write.key] = Record(write.key, write.value, revision, created)
                changes.append(Change(write.key, revision, write.value, previous))
            elif before:
                changes.append(Change(write.key, revision, None, previous))
        if changes:
            self.states.append(state)
            self.changes += sorted(changes, key=lambda change: change.key)
        for append in appends:
            entries = self.journals[append.journal]
            entries.append(JournalEntry(len(entries) + 1, append.value))

    def watched(self, prefix: str, since: int) -> list[Change]:
        return [change for change in self.changes if change.key.startswith(prefix) and change.revision > since]


class Watcher:
    """Collects what a watch says, in a task of its own."""

    def __init__(self, store: Store, prefix: str, since: int) -> None:
        self.prefix = prefix
        self.since = since
        self.seen: list[Change] = []
        self.ended: CorralError | None = None
        self.task = asyncio.get_running_loop().create_task(self._collect(store))

    async def _collect(self, store: Store) -> None:
        try:
            async with aclosing(store.watch(self.prefix, self.since)) as changes:
                async for change in changes:
                    self.seen.append(change)
        except CorralError as error:
            self.ended = error

    @property
    def cursor(self) -> int:
        return self.seen[-1].revision if self.seen else self.since

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.wait([self.task])


class StoreMachine(RuleBasedStateMachine):
    """Does the same to a store and to the model, and compares."""

    restarts: ClassVar[bool] = False

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.model = Model()
        self.watchers: list[Watcher] = []
        self.directory = tempfile.TemporaryDirectory(prefix="corral-store-")
        self.store = self.run(self.open())

    async def open(self) -> MemoryStore | SqliteStore:
        return MemoryStore()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(asyncio.wait_for(work, CALL_S))

    def teardown(self) -> None:
        self.run(self._stop())
        self.run(self.store.close())
        self.loop.close()
        self.directory.cleanup()

    async def _stop(self) -> None:
        for watcher in self.watchers:
            await watcher.stop()
        self.watchers = []

    # ---- writing ----

    @rule(data=st.data(), durable=st.booleans())
    def transact(self, data: st.DataObject, durable: bool) -> None:
        writes, preconditions, appends = self._draw(data)
        failing = next((p for p in preconditions if p.revision != self.model.revision_of(p.key)), None)
        work = self.store.transact(writes, preconditions=preconditions, appends=appends, durable=durable)
        if failing is not None:
            with pytest.raises(CorralError) as failed:
                self.run(work)
            assert failed.value.code == "precondition-failed"
            assert failed.value.context == {"key": failing.key, "revision": self.model.revision_of(failing.key)}
            return
        committed = self.run(work)
        self.model.apply(writes, appends)
        assert committed.revision == self.model.revision
        assert len(committed.sequences) == len(appends)

    @rule(data=st.data(), count=st.integers(2, 6))
    def transact_together(self, data: st.DataObject, count: int) -> None:
        """Transactions asked for at once are committed in the order in which they were asked for."""
        batch = [self._draw(data) for _ in range(count)]

        async def all_at_once() -> list[object]:
            return await asyncio.gather(
                *(self.store.transact(w, preconditions=p, appends=a) for w, p, a in batch), return_exceptions=True
            )

        for (writes, preconditions, appends), answer in zip(batch, self.run(all_at_once()), strict=True):
            if all(p.revision == self.model.revision_of(p.key) for p in preconditions):
                self.model.apply(writes, appends)
                assert getattr(answer, "revision", answer) == self.model.revision
            else:
                assert isinstance(answer, CorralError)
                assert answer.code == "precondition-failed"

    def _draw(self, data: st.DataObject) -> tuple[list[Write], list[Precondition], list[Append]]:
        keys = data.draw(st.lists(st.sampled_from(KEYS), unique=True, max_size=4))
        values = st.one_of(st.none(), st.binary(max_size=4))
        writes: list[Write] = []
        for key in keys:
            value = data.draw(values)
            writes.append(Delete(key) if value is None else Put(key, value))
        conditions = data.draw(st.lists(st.sampled_from(KEYS), unique=True, max_size=2))
        preconditions = [
            Precondition(
                key, self.model.revision_of(key) if data.draw(st.integers(0, 3)) else data.draw(st.integers(0, 3))
            )
            for key in conditions
        ]
        journals = data.draw(st.lists(st.sampled_from(["events", "audit"]), max_size=2))
        return writes, preconditions, [Append(journal, b"%d" % n) for n, journal in enumerate(journals)]

    @rule(back=st.integers(0, 20))
    def compact(self, back: int) -> None:
        revision = max(0, self.model.revision - back)
        self.run(self.store.compact(revision))
        self.model.compacted = max(self.model.compacted, revision)

    @rule(journal=st.sampled_from(["events", "audit"]), back=st.integers(0, 4))
    def trim(self, journal: str, back: int) -> None:
        through = max(0, len(self.model.journals[journal]) - back)
        self.run(self.store.journal_trim(journal, through=through))
        self.model.trimmed[journal] = max(self.model.trimmed[journal], through)

    # ---- reading ----

    @rule(prefix=st.sampled_from(PREFIXES), limit=st.integers(1, 4))
    def pages(self, prefix: str, limit: int) -> None:
        """The newest state and each of the last that are kept, page by page; those before are refused."""
        newest, oldest = self.model.revision, self.model.compacted
        assert self._all_pages(prefix, limit, None) == self._expected(prefix, newest)
        for revision in range(max(oldest, newest - 8), newest + 1):
            assert self._all_pages(prefix, limit, revision) == self._expected(prefix, revision)
        for revision in (oldest - 1, newest + 1):
            with pytest.raises(CorralError) as refused:
                self.run(self.store.range(prefix, revision=revision))
            assert refused.value.code == "compacted"

    def _expected(self, prefix: str, revision: int) -> list[Record]:
        state = self.model.states[revision]
        return [state[key] for key in sorted(state) if key.startswith(prefix)]

    def _all_pages(self, prefix: str, limit: int, revision: int | None) -> list[Record]:
        found: list[Record] = []
        more = True
        while more:
            after = found[-1].key if found else ""
            page = self.run(self.store.range(prefix, after=after, limit=limit, revision=revision))
            assert page.revision == (self.model.revision if revision is None else revision)
            assert len(page.records) <= limit
            found += page.records
            more = page.more
        return found

    @rule(key=st.sampled_from(KEYS), prefix=st.sampled_from(PREFIXES))
    def read(self, key: str, prefix: str) -> None:
        assert self.run(self.store.get(key)) == self.model.now.get(key)
        assert self.run(self.store.count(prefix)) == sum(k.startswith(prefix) for k in self.model.now)

    @rule(journal=st.sampled_from(["events", "audit"]), after=st.integers(0, 20), limit=st.integers(1, 5))
    def read_journal(self, journal: str, after: int, limit: int) -> None:
        entries = [e for e in self.model.journals[journal] if e.sequence > self.model.trimmed[journal]]
        wanted = [entry for entry in entries if entry.sequence > after][:limit]
        assert self.run(self.store.journal(journal, after=after, limit=limit)) == tuple(wanted)
        assert self.run(self.store.journal_last(journal)) == (entries[-1] if entries else None)

    # ---- watching ----

    @rule(prefix=st.sampled_from(PREFIXES), back=st.integers(0, 12), turns=st.integers(0, 3))
    def watch(self, prefix: str, back: int, turns: int) -> None:
        """Start at a random point of the past; the next rule may come before the watcher has read its history."""

        async def start() -> Watcher:
            watcher = Watcher(self.store, prefix, max(0, self.model.revision - back))
            for _ in range(turns):
                await asyncio.sleep(0)
            return watcher

        self.watchers.append(self.run(start()))

    @precondition(lambda self: self.watchers)
    @rule(data=st.data())
    def resume(self, data: st.DataObject) -> None:
        """Stop a watcher wherever it is and go on from the last whole revision that it saw."""
        self.settle()
        if not self.watchers:
            return
        watcher = self.watchers.pop(data.draw(st.integers(0, len(self.watchers) - 1)))
        self.run(watcher.stop())
        if watcher.ended is None:

            async def again() -> Watcher:
                return Watcher(self.store, watcher.prefix, watcher.cursor)

            self.watchers.append(self.run(again()))

    @rule()
    def settle(self) -> None:
        """Give every watcher the time to see what there is; then it has seen exactly that."""

        async def wait() -> None:
            for watcher in self.watchers:
                wanted = self.model.watched(watcher.prefix, watcher.since)
                while len(watcher.seen) < len(wanted) and watcher.ended is None:
                    await asyncio.sleep(0.0005)
            await asyncio.sleep(0.0005)

        self.run(wait())
        for watcher in self.watchers:
            if watcher.ended is not None:
                assert watcher.ended.code == "compacted"
                assert watcher.since < self.model.compacted
                assert watcher.seen == []
            else:
                assert watcher.seen == self.model.watched(watcher.prefix, watcher.since)
        self.watchers = [watcher for watcher in self.watchers if watcher.ended is None]

    @invariant()
    def nothing_comes_twice_or_out_of_order(self) -> None:
        assert self.store.revision == self.model.revision
        for watcher in self.watchers:
            wanted = self.model.watched(watcher.prefix, watcher.since)
            assert watcher.seen == wanted[: len(watcher.seen)]

    @precondition(lambda self: self.restarts)
    @rule()
    def restart(self) -> None:
        self.run(self._stop())
        self.run(self.store.close())
        self.store = self.run(self.open())


class SqliteMachine(StoreMachine):
    restarts = True

    async def open(self) -> SqliteStore:
        return await SqliteStore.open(Path(self.directory.name) / "corral.db")


# Without shrinking: a failed walk is shown as it went, instead of being walked for minutes.
BUDGET = settings(
    max_examples=40,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=True,
    phases=[Phase.generate],
)


@pytest.mark.parametrize("machine", [StoreMachine, SqliteMachine])
def test_a_store_behaves_as_its_model(machine: type[StoreMachine]) -> None:
    run_state_machine_as_test(machine, settings=BUDGET)
