"""Typed objects over the store's bytes: load, find by name, and one transaction that carries claims and journals too.

A *claim* makes something unique (a name in a project, a MAC, an address, an idempotency key): a key whose value is the
uid of its owner, written with the precondition that it does not exist.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from corral.errors import CorralError
from corral.model.base import Object
from corral.model.event import Event
from corral.store.base import NO_KEY, Append, Committed, Delete, Page, Precondition, Put, Record, Store

T = TypeVar("T", bound=Object)

EVENTS = "events"
AUDIT = "audit"


def name_claim(kind: str, project: str, name: str) -> str:
    """The claim key that makes `name` unique among objects of `kind` in `project`."""
    return f"/claims/name/{kind}/{project}/{name}"


def claim_key(what: str, scope: str, value: str) -> str:
    """The claim key of anything else: `mac`, `address` (scope: network uid), `client-key` (scope: identity)."""
    return f"/claims/{what}/{scope}/{value}"


def work_claim(volume_uid: str) -> str:
    """Held while a volume's file is resized or moved: no VM gets it meanwhile."""
    return claim_key("volume-work", "host", volume_uid)


def host_port_claim(protocol: str, port: int) -> str:
    """Held by the forward that leads a port of the host's to a VM, whichever project it is in."""
    return claim_key("host-port", "host", f"{protocol}-{port}")


def encode(value: Object) -> bytes:
    """Stored bytes: JSON without `revision`, which is the store's own and put in front by `with_revision`."""
    return value.model_dump_json(exclude={"revision"}).encode()


def decode(cls: type[T], record: Record) -> T:
    """The object of a record, with the record's revision."""
    return cls.model_validate_json(with_revision(record))


def with_revision(record: Record) -> bytes:
    """The API's document: the stored bytes with the revision in front; lists are served so, without decoding."""
    return b'{"revision":%d,' % record.revision + record.value[1:]


def host_address_claim(address: str) -> str:
    """Held by the floating address that leads one of the host's own to a VM."""
    return claim_key("host-address", "host", address)


@dataclass(frozen=True)
class ObjectChange(Generic[T]):
    """A watched change, decoded; `value` is None for a deletion (then `previous` is the last one)."""

    revision: int
    uid: str
    value: T | None
    previous: T | None


@dataclass
class Transaction:
    """Writes to be made together. Build it, then `commit`; nothing is written before."""

    store: Store
    writes: dict[str, Put | Delete] = field(default_factory=dict)
    preconditions: dict[str, Precondition] = field(default_factory=dict)
    appends: list[Append] = field(default_factory=list)

    def create(self, value: Object) -> None:
        """Write a new object and claim its name, if it claims one (operations and layers are found by uid alone)."""
        self.preconditions[value.key] = Precondition(value.key, NO_KEY)
        self.writes[value.key] = Put(value.key, encode(value))
        if (name := value.claimed_name) is not None:
            self.claim(name_claim(value.KIND, value.project, name), value.uid)

    def update(self, value: Object) -> None:
        """Write a changed object, on condition that its revision is still the one that it was read at."""
        self.preconditions[value.key] = Precondition(value.key, value.revision)
        self.writes[value.key] = Put(value.key, encode(value))

    def delete(self, value: Object) -> None:
        """Remove an object and its claim to its name, on condition that it is unchanged."""
        self.preconditions[value.key] = Precondition(value.key, value.revision)
        self.writes[value.key] = Delete(value.key)
        if (name := value.claimed_name) is not None:
            self.release(name_claim(value.KIND, value.project, name))

    def require(self, value: Object) -> None:
        """Condition alone: `value` is unchanged (an image still there while an overlay on it is made)."""
        self.preconditions.setdefault(value.key, Precondition(value.key, value.revision))

    def claim(self, key: str, owner_uid: str) -> None:
        self.preconditions[key] = Precondition(key, NO_KEY)
        self.writes[key] = Put(key, owner_uid.encode())

    def take_turn(self, key: str, last: Record | None) -> None:
        """Nobody else took it since it was read."""
        self.preconditions[key] = Precondition(key, last.revision if last is not None else NO_KEY)
        self.writes[key] = Put(key, b"")

    def require_unclaimed(self, key: str) -> None:
        """Condition alone: nobody holds it."""
        self.preconditions.setdefault(key, Precondition(key, NO_KEY))

    def hand_over(self, key: str, owner_uid: str) -> None:
        """A claim gets another owner. Whoever calls this has a condition on the one who holds it."""
        self.writes[key] = Put(key, owner_uid.encode())

    def release(self, key: str) -> None:
        self.writes[key] = Delete(key)

    def event(self, event: Event) -> None:
        self.appends.append(Append(EVENTS, event.model_dump_json().encode()))

    def append(self, journal: str, value: bytes) -> None:
        self.appends.append(Append(journal, value))

    async def commit(self, *, durable: bool = True) -> Committed:
        """All or nothing. Raises `precondition-failed` with the key in its context: the caller says what it means."""
        return await self.store.transact(
            list(self.writes.values()),
            preconditions=list(self.preconditions.values()),
            appends=self.appends,
            durable=durable,
        )


class Objects:
    """The typed door to the store."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def transaction(self) -> Transaction:
        return Transaction(self.store)

    async def get(self, cls: type[T], uid: str) -> T | None:
        record = await self.store.get(f"{cls.prefix()}{uid}")
        return None if record is None else decode(cls, record)

    async def find(self, cls: type[T], project: str, name: str) -> T | None:
        """By name, through its claim."""
        claim = await self.store.get(name_claim(cls.KIND, project, name))
        return None if claim is None else await self.get(cls, claim.value.decode())

    async def require(self, cls: type[T], project: str, name: str) -> T:
        """By name; raises `<kind>-not-found`."""
        found = await self.find(cls, project, name)
        if found is None:
            raise CorralError(
                f"{cls.KIND}-not-found",
                f"{cls.KIND} {name!r}",
                f"there is none of that name in project {project!r}",
                "`corral list --all` shows the VMs there are" if cls.KIND == "vm" else f"corral {cls.KIND} list",
            )
        return found

    async def owner(self, claim: str) -> str | None:
        """The uid that holds a claim."""
        record = await self.store.get(claim)
        return None if record is None else record.value.decode()

    async def list(self, cls: type[T]) -> list[T]:
        """All objects of a kind, in key order, as of one revision."""
        return [decode(cls, record) for record in (await self.records(cls)).records]

    async def records(self, cls: type[T], *, after: str = "", limit: int = 10_000, revision: int | None = None) -> Page:
        """The stored records of a kind, undecoded; `after` is a uid."""
        start = f"{cls.prefix()}{after}" if after else ""
        return await self.store.range(cls.prefix(), after=start, limit=limit, revision=revision)

    async def watch(self, cls: type[T], since: int) -> AsyncGenerator[ObjectChange[T], None]:
        """Changes of a kind after revision `since`. Raises `compacted`. `previous` carries no revision of its own."""
        async with aclosing(self.store.watch(cls.prefix(), since)) as changes:
            async for change in changes:
                yield ObjectChange(
                    change.revision,
                    change.key.removeprefix(cls.prefix()),
                    _decoded(cls, change.key, change.value, change.revision),
                    _decoded(cls, change.key, change.previous, NO_KEY),
                )


def _decoded(cls: type[T], key: str, value: bytes | None, revision: int) -> T | None:
    return None if value is None else decode(cls, Record(key, value, revision, 0))
