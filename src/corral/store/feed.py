"""How committed changes reach watchers: bounded queues that are dropped, never waited for, when a watcher is slow."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing
from typing import Final, Protocol

from corral.store import rules
from corral.store.base import Change, JournalEntry

# A watcher this far behind loses its queue and goes on from the store's history.
QUEUE_MAX_CHANGES: Final = 4096
QUEUE_MAX_BYTES: Final = 8 * 2**20

# Changes under a prefix with a revision in (after, through], in order; raises `compacted`.
ReadHistory = Callable[[str, int, int], AsyncGenerator[Change, None]]


class ReadJournal(Protocol):
    """A store's `journal`."""

    async def __call__(self, name: str, *, after: int) -> tuple[JournalEntry, ...]: ...


class Subscription:
    """What one watcher has yet to see: whole transactions, so that it can always say where it stands."""

    def __init__(self, prefix: str, start: int) -> None:
        self.prefix = prefix
        self.start = start
        self._groups: deque[tuple[Change, ...]] = deque()
        self._changes = 0
        self._bytes = 0
        self._wake = asyncio.Event()
        self._behind = False
        self._closed = False

    def offer(self, changes: tuple[Change, ...]) -> None:
        """Queue a transaction's changes, or forget the queue if the watcher is too far behind."""
        mine = tuple(change for change in changes if change.key.startswith(self.prefix))
        if not mine or self._behind:
            return
        self._groups.append(mine)
        self._changes += len(mine)
        self._bytes += sum(_size(change) for change in mine)
        if self._changes > QUEUE_MAX_CHANGES or self._bytes > QUEUE_MAX_BYTES:
            self._groups.clear()
            self._behind = True
        self._wake.set()

    def close(self) -> None:
        self._closed = True
        self._wake.set()

    async def next(self) -> tuple[Change, ...] | None:
        """The next transaction's changes; None when the queue was lost. Raises `store-unavailable` after `close`."""
        while not self._groups:
            if self._closed:
                raise rules.closed()
            if self._behind:
                return None
            self._wake.clear()
            await self._wake.wait()
        group = self._groups.popleft()
        self._changes -= len(group)
        self._bytes -= sum(_size(change) for change in group)
        return group


class Feed:
    """All watchers of a store. Used on the event loop alone."""

    def __init__(self, revision: int = 0) -> None:
        self.revision = revision
        self._subscriptions: set[Subscription] = set()
        self._closed = False

    def publish(self, revision: int, changes: Iterable[Change]) -> None:
        """Tell everybody of one committed transaction; within it, changes go in key order as history has them."""
        group = tuple(sorted(changes, key=_key))
        self.revision = revision
        for subscription in self._subscriptions:
            subscription.offer(group)

    def close(self) -> None:
        self._closed = True
        for subscription in self._subscriptions:
            subscription.close()

    async def watch(self, prefix: str, since: int, history: ReadHistory) -> AsyncGenerator[Change, None]:
        """First history, then what is published; exact, because the queue is opened before history is read and history
        is read up to that very revision."""
        while True:
            if self._closed:
                raise rules.closed()
            subscription = Subscription(prefix, self.revision)
            self._subscriptions.add(subscription)
            try:
                async with aclosing(history(prefix, since, subscription.start)) as past:
                    async for change in past:
                        yield change
                since = max(since, subscription.start)
                while (group := await subscription.next()) is not None:
                    if group[0].revision > since:
                        for change in group:
                            yield change
                        since = group[0].revision
            finally:
                self._subscriptions.discard(subscription)


def _key(change: Change) -> str:
    return change.key


def _size(change: Change) -> int:
    return len(change.value or b"") + len(change.previous or b"")


class JournalBell:
    """Wakes those who follow a journal; they then read it, so that nothing has to be queued for them."""

    def __init__(self) -> None:
        self._waiting: dict[str, asyncio.Event] = {}
        self._closed = False

    def ring(self, journal: str) -> None:
        if (event := self._waiting.pop(journal, None)) is not None:
            event.set()

    def close(self) -> None:
        self._closed = True
        for journal in list(self._waiting):
            self.ring(journal)

    async def follow(self, journal: str, after: int, read: ReadJournal) -> AsyncGenerator[JournalEntry, None]:
        """What is there after `after`, and what comes."""
        while True:
            if self._closed:
                raise rules.closed()
            wake = self._waiting.setdefault(journal, asyncio.Event())  # taken before reading, waited for afterwards
            entries = await read(journal, after=after)
            for entry in entries:
                yield entry
                after = entry.sequence
            if not entries:
                await wake.wait()
