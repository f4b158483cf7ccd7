"""The store's contract, in etcd's terms, so that the cluster is an adapter and not a rewrite.

Keys are text like `/vms/<uid>`, ordered by their UTF-8 bytes. Every committed transaction that writes gets the next
global revision (starting at 1; an empty store is at revision 0). All writes of one transaction share one revision.
Reads see the newest committed state unless a revision is named.
"""

from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

TRANSACTION_MAX_KEYS: Final = 128  # etcd's --max-txn-ops
OBJECT_MAX_BYTES: Final = 256 * 1024
KEY_MAX_BYTES: Final = 1024
PAGE_MAX_RECORDS: Final = 10_000
NO_KEY: Final = 0


class Record(NamedTuple):
    """A stored value. `revision` is that of its last write, `created_revision` that of its creation.

    A tuple, as the rows that thousands of them are made of in one list."""

    key: str
    value: bytes
    revision: int
    created_revision: int


@dataclass(frozen=True, slots=True)
class Page:
    """Part of a range. `revision` is what it was read at: name it to read the following pages of the same state."""

    records: tuple[Record, ...]
    revision: int
    more: bool


@dataclass(frozen=True, slots=True)
class Precondition:
    """Holds if `key` was last written at `revision`; NO_KEY (0): if it does not exist."""

    key: str
    revision: int


@dataclass(frozen=True, slots=True)
class Put:
    """Write `value`; with a lease the key is deleted when the lease ends."""

    key: str
    value: bytes
    lease: int | None = None


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove `key`; no error if it is not there."""

    key: str


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """`sequence` counts from 1 in each journal and never repeats."""

    sequence: int
    value: bytes


# Given the sequence the entry gets and the journal's last entry (None: the first one), the bytes to be written.
Seal = Callable[[int, JournalEntry | None], bytes]


@dataclass(frozen=True, slots=True)
class Append:
    """Add `value` to a journal (`events`, `audit`) in the same transaction.

    With `seal`, the store asks it for the bytes at the moment when the entry's place is certain: so a chain of hashes
    grows without a lock. It must be quick and pure; it may be asked again if the transaction has to be repeated.
    """

    journal: str
    value: bytes = b""
    seal: Seal | None = None


Write = Put | Delete


@dataclass(frozen=True, slots=True)
class Committed:
    """`revision` of the transaction (the newest one if it changed no key); `sequences` of its entries in order."""

    revision: int
    sequences: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Change:
    """One change as a watcher sees it; `value` is None for a deletion (then `previous` is what was there)."""

    key: str
    revision: int
    value: bytes | None
    previous: bytes | None


class Store(Protocol):
    """Where everything is kept. Raises CorralError: `precondition-failed` (context: key, revision found),
    `compacted`, `object-too-large`, `transaction-too-large`, `store-unavailable`, `disk-full`, `lease-not-found`."""

    @property
    def revision(self) -> int:
        """The newest committed revision."""
        ...

    async def get(self, key: str) -> Record | None: ...

    async def range(
        self, prefix: str, *, after: str = "", limit: int = PAGE_MAX_RECORDS, revision: int | None = None
    ) -> Page:
        """Records whose key starts with `prefix` and is greater than `after`, in key order, newest or at `revision`."""
        ...

    async def count(self, prefix: str) -> int: ...

    async def transact(
        self,
        writes: Sequence[Write],
        *,
        preconditions: Sequence[Precondition] = (),
        appends: Sequence[Append] = (),
        durable: bool = True,
    ) -> Committed:
        """All or nothing. Returns after fsync; with `durable=False` (progress, observations that the next relist
        would find again) it may be lost with the machine, never reordered or half done."""
        ...

    def watch(self, prefix: str, since: int) -> AsyncGenerator[Change, None]:
        """Every change under `prefix` with a revision greater than `since`, exactly once and in order, for ever.

        Raises `compacted` when `since` lies before what is kept, or beyond what this store has ever committed (a restored
        one): list again. A watcher that does not keep up never slows writers: it is fed from history, and ended with
        `compacted` once that is gone. Within a revision, changes come in key order. Stop by closing it (`aclose`)."""
        ...

    async def journal(self, name: str, *, after: int = 0, limit: int = 1000) -> tuple[JournalEntry, ...]:
        """Entries with a sequence greater than `after`, oldest first."""
        ...

    async def journal_last(self, name: str) -> JournalEntry | None: ...

    async def journal_trim(self, name: str, *, through: int) -> None:
        """Forget entries up to and including `through`."""
        ...

    def follow(self, name: str, *, after: int) -> AsyncGenerator[JournalEntry, None]:
        """Entries greater than `after`, for ever; those already there first."""
        ...

    async def compact(self, revision: int) -> None:
        """Forget history before `revision`; the newest state stays."""
        ...

    async def lease_grant(self, ttl_s: float) -> int: ...

    async def lease_keep_alive(self, lease: int) -> None: ...

    async def lease_revoke(self, lease: int) -> None: ...

    async def close(self) -> None: ...
