"""The audit log: who asked for what and what was answered, each record chained to the one before by its hash.

A record is appended in the transaction of the change that it tells of. Its place in the chain is filled in by the
store at that moment (`Append.seal`), so that concurrent changes need no lock. Anchors, written now and then to a file
beside the database and to the daemon's log, show if the chain was cut or rewritten as a whole.
"""

import asyncio
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from corral import log
from corral.clock import Clock
from corral.errors import CorralError
from corral.model.event import AuditRecord
from corral.security.anchors import Anchor, append_anchor, read_anchors
from corral.store.base import Append, JournalEntry, Store
from corral.store.objects import AUDIT, Transaction

FIRST_PREVIOUS_HASH: Final = "0" * 64
FIELD_MAX_CHARS: Final = 1024
ANCHOR_INTERVAL_S: Final = 3600.0
_PAGE: Final = 500


@dataclass(frozen=True)
class AuditEntry:
    """What there is to say; the log adds time, writer and the place in the chain. `detail` never holds secrets."""

    identity: str
    project: str
    action: str
    target: str
    outcome: str
    request_id: str
    detail: str = ""


@dataclass(frozen=True)
class Verification:
    """What `verify` found. `problem` is empty if the chain holds; `problem_sequence` is where it breaks.

    `rewinds` tells of each time the log was found shorter than an anchor: a restored backup, or somebody's doing.
    """

    records: int
    first_sequence: int
    last_sequence: int
    anchors: int
    problem: str = ""
    problem_sequence: int = 0
    rewinds: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        return not self.problem


class AuditLog:
    """One writer's chain. `anchors` is the file of anchors; None keeps none (tests, trials in memory)."""

    def __init__(self, store: Store, writer: str, clock: Clock, anchors: Path | None = None) -> None:
        self._store = store
        self._writer = writer
        self._clock = clock
        self._anchors = anchors
        self._log = log.logger(__name__)

    def add(self, transaction: Transaction, entry: AuditEntry) -> None:
        """Have `transaction` carry this record: both are there or neither is."""
        transaction.appends.append(self._append(entry))

    async def record(self, entry: AuditEntry) -> None:
        """Write a record of its own, durably: a denial, a console, an exec."""
        await self._store.transact([], appends=[self._append(entry)])

    async def list(self, *, after: int = 0, limit: int = 1000) -> tuple[AuditRecord, ...]:
        """Records with a sequence greater than `after`, oldest first. Raises `invalid-document` for a spoilt one."""
        entries = await self._store.journal(AUDIT, after=after, limit=limit)
        return tuple(_record(entry) for entry in entries)

    async def verify(self) -> Verification:
        """Follow the whole chain and compare it with every anchor."""
        anchors = [] if self._anchors is None else await asyncio.to_thread(read_anchors, self._anchors)
        wanted = {anchor.sequence: anchor.hash for anchor in _in_force(anchors)}
        records, first, last, previous_hash = 0, 0, 0, ""
        problem: tuple[str, int] = ("", 0)
        while not problem[0] and (entries := await self._store.journal(AUDIT, after=last, limit=_PAGE)):
            for entry in entries:
                found = _broken(entry, last, previous_hash)
                previous_hash = _hash_of(entry)
                if not found and wanted.pop(entry.sequence, previous_hash) != previous_hash:
                    found = "it is not the record that was anchored"
                if found:
                    problem = (found, entry.sequence)
                    break
                records, first, last = records + 1, first or entry.sequence, entry.sequence
            await asyncio.sleep(0)
        missing = max((sequence for sequence in wanted if sequence >= first), default=0)
        if not problem[0] and missing:
            problem = (f"records up to {missing} were anchored, but the log ends at {last}", last + 1)
        return Verification(records, first, last, len(anchors), *problem, _rewinds(anchors))

    async def anchor(self) -> Anchor | None:
        """Write down the chain's end outside of the database; None if nothing was added since the last time.

        Call it at start too: that is when a log that a restored backup made shorter, or that was lost with its
        database, is noticed and said.
        """
        if self._anchors is None:
            return None
        head = await self._store.journal_last(AUDIT)
        sequence, digest = (head.sequence, _hash_of(head)) if head is not None else (0, FIRST_PREVIOUS_HASH)
        known = await asyncio.to_thread(read_anchors, self._anchors)
        last = (known[-1].sequence, known[-1].hash) if known else (0, FIRST_PREVIOUS_HASH)
        if last == (sequence, digest):
            return None
        rewound = bool(known) and sequence <= last[0]
        anchor = Anchor(self._clock.now().isoformat(), self._writer, sequence, digest, rewound)
        await asyncio.to_thread(append_anchor, self._anchors, anchor)
        tell = self._log.warning if rewound else self._log.info
        tell("audit log anchored", sequence=anchor.sequence, hash=anchor.hash, rewound=rewound)
        return anchor

    async def keep_anchored(self, interval_s: float = ANCHOR_INTERVAL_S) -> None:
        """Anchor now and every so often, until cancelled. A full disk costs an anchor, not the daemon."""
        while True:
            try:
                await self.anchor()
            except CorralError as error:
                self._log.warning("audit log not anchored", code=error.code, reason=error.reason)
            await asyncio.sleep(interval_s)

    def _append(self, entry: AuditEntry) -> Append:
        now = self._clock.now()
        return Append(AUDIT, seal=lambda sequence, before: _sealed(entry, now, self._writer, sequence, before))


def _sealed(entry: AuditEntry, now: datetime, writer: str, sequence: int, before: JournalEntry | None) -> bytes:
    fields: dict[str, str | int] = {
        "time": now.isoformat(),
        "writer": writer,
        "sequence": sequence,
        "identity": _bounded(entry.identity),
        "project": _bounded(entry.project),
        "action": _bounded(entry.action),
        "target": _bounded(entry.target),
        "outcome": _bounded(entry.outcome),
        "request_id": _bounded(entry.request_id),
        "detail": _bounded(entry.detail),
        "previous_hash": FIRST_PREVIOUS_HASH if before is None else _hash_of(before),
    }
    return _canonical({**fields, "hash": _digest(fields)})


def _bounded(text: str) -> str:
    """What a caller sent may be long, or no Unicode at all (a lone surrogate): neither may keep it from being told."""
    shown = text if len(text) <= FIELD_MAX_CHARS else text[: FIELD_MAX_CHARS - 1] + "…"
    return shown.encode(errors="backslashreplace").decode()


def _canonical(fields: Mapping[str, object]) -> bytes:
    """One and only one spelling: sorted keys, no spaces, ASCII."""
    return json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()


def _digest(fields: Mapping[str, object]) -> str:
    return hashlib.sha256(_canonical(fields)).hexdigest()


def _record(entry: JournalEntry) -> AuditRecord:
    try:
        return AuditRecord.model_validate_json(entry.value)
    except ValidationError as error:
        raise CorralError(
            "invalid-document",
            f"read audit record {entry.sequence}",
            "it is no audit record: somebody changed it",
            f"corral audit verify; the records after it: --after {entry.sequence}",
        ) from error


def _parsed(entry: JournalEntry) -> dict[str, object]:
    """The record's fields as stored; empty if it is not a record."""
    try:
        fields = json.loads(entry.value)
    except ValueError:
        return {}
    return fields if isinstance(fields, dict) else {}


def _hash_of(entry: JournalEntry) -> str:
    """The record's hash. One that somebody made unreadable must not stop all changes: then that of its bytes."""
    stored = _parsed(entry).get("hash")
    return stored if isinstance(stored, str) else hashlib.sha256(entry.value).hexdigest()


def _broken(entry: JournalEntry, last: int, previous_hash: str) -> str:
    """What is wrong with this link, or nothing. The first one that is kept has nothing before it to compare with."""
    fields = _parsed(entry)
    stored = fields.pop("hash", None)
    if stored != _digest(fields) or fields.get("sequence") != entry.sequence:
        return "the record was changed: its hash does not fit its content"
    if entry.sequence == 1:
        last, previous_hash = 0, FIRST_PREVIOUS_HASH
    if last and entry.sequence != last + 1:
        return f"records between {last} and {entry.sequence} are missing"
    if previous_hash and fields.get("previous_hash") != previous_hash:
        return "the record before it was changed or replaced"
    return ""


def _in_force(anchors: list[Anchor]) -> list[Anchor]:
    """Anchors that still bind: a rewind ends those at or beyond where it went back to."""
    kept: list[Anchor] = []
    for anchor in anchors:
        if anchor.rewound:
            kept = [old for old in kept if old.sequence < anchor.sequence]
        kept.append(anchor)
    return kept


def _rewinds(anchors: list[Anchor]) -> tuple[str, ...]:
    return tuple(
        f"{anchor.time}: the log went back to record {anchor.sequence} (from {before.sequence})"
        for before, anchor in pairwise(anchors)
        if anchor.rewound
    )
