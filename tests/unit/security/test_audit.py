"""The audit log's chain: what it proves, and what it shows when somebody meddled."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from itertools import pairwise
from pathlib import Path

import pytest

from corral.clock import ManualClock
from corral.errors import CorralError
from corral.security.anchors import read_anchors
from corral.security.audit import FIRST_PREVIOUS_HASH, AuditEntry, AuditLog
from corral.store.base import JournalEntry, Precondition, Put
from corral.store.memory import MemoryStore
from corral.store.objects import AUDIT, Transaction

WRITER = "installation-1"


def _entry(target: str = "web", **fields: str) -> AuditEntry:
    named = {"project": "default", "action": "vm.create", "outcome": "accepted", "request_id": "r1", **fields}
    return AuditEntry(identity="local:root", target=target, **named)


def _run(scenario: Callable[[MemoryStore, AuditLog], Awaitable[None]], anchors: Path | None = None) -> None:
    async def run() -> None:
        store = MemoryStore()
        await scenario(store, AuditLog(store, WRITER, ManualClock(), anchors))
        await store.close()

    asyncio.run(run())


def _journal(store: MemoryStore) -> list[JournalEntry]:
    """The stored journal, as somebody with the file in his hands has it."""
    return store._journals[AUDIT]


def test_a_record_is_written_with_its_change_or_not_at_all():
    async def scenario(store: MemoryStore, audit: AuditLog) -> None:
        for revision in (0, 5):
            transaction = Transaction(store, writes={"/a": Put("/a", b"1")})
            transaction.preconditions["/a"] = Precondition("/a", revision)
            audit.add(transaction, _entry())
            if revision:
                with pytest.raises(CorralError):
                    await transaction.commit()
            else:
                await transaction.commit()
        records = await audit.list()
        assert [(record.sequence, record.action, record.target) for record in records] == [(1, "vm.create", "web")]
        assert records[0].previous_hash == FIRST_PREVIOUS_HASH
        assert records[0].writer == WRITER

    _run(scenario)


def test_the_chain_holds_over_concurrent_writers():
    async def scenario(store: MemoryStore, audit: AuditLog) -> None:
        async def write(number: int) -> None:
            for turn in range(20):
                transaction = Transaction(store, writes={f"/{number}": Put(f"/{number}", b"%d" % turn)})
                audit.add(transaction, _entry(f"vm-{number}"))
                audit.add(transaction, _entry(f"disk-{number}", action="volume.create", detail="lone \ud800 surrogate"))
                await transaction.commit()

        await asyncio.gather(*(write(number) for number in range(16)))
        found = await audit.verify()
        assert found.ok
        assert (found.records, found.first_sequence, found.last_sequence) == (640, 1, 640)
        records = await audit.list(after=600, limit=10)
        assert [record.sequence for record in records] == list(range(601, 611))
        for before, record in pairwise(records):
            assert record.previous_hash == before.hash

    _run(scenario)


def test_what_a_caller_sent_cannot_keep_it_from_being_told():
    async def scenario(_store: MemoryStore, audit: AuditLog) -> None:
        await audit.record(_entry("x" * 10**6, detail="\udfff\0", action="é"))
        record = (await audit.list())[0]
        assert len(record.target) == 1024
        assert (record.detail, record.action) == ("\\udfff\0", "é")
        assert (await audit.verify()).ok

    _run(scenario)


def test_a_spoilt_record_is_named():
    async def scenario(store: MemoryStore, audit: AuditLog) -> None:
        for _ in range(3):
            await audit.record(_entry())
        _journal(store)[1] = JournalEntry(2, b"{}")
        with pytest.raises(CorralError) as refused:
            await audit.list()
        assert refused.value.code == "invalid-document"
        assert [record.sequence for record in await audit.list(after=2)] == [3]

    _run(scenario)


def test_an_empty_log_holds():
    async def scenario(_store: MemoryStore, audit: AuditLog) -> None:
        assert (await audit.verify()).ok
        assert await audit.anchor() is None

    _run(scenario)


def _changed(entry: JournalEntry, **fields: object) -> JournalEntry:
    return JournalEntry(entry.sequence, json.dumps({**json.loads(entry.value), **fields}).encode())


MEDDLING: dict[str, tuple[Callable[[list[JournalEntry]], None], int]] = {
    "a word changed": (lambda entries: entries.__setitem__(4, _changed(entries[4], identity="local:nobody")), 5),
    "a hash changed": (lambda entries: entries.__setitem__(4, _changed(entries[4], hash="0" * 64)), 5),
    "a field added": (lambda entries: entries.__setitem__(4, _changed(entries[4], extra=1)), 5),
    "a record removed": (lambda entries: entries.pop(4), 6),
    "two records swapped": (
        lambda entries: entries.__setitem__(
            slice(4, 6), [JournalEntry(5, entries[5].value), JournalEntry(6, entries[4].value)]
        ),
        5,
    ),
    "rubbish": (lambda entries: entries.__setitem__(4, JournalEntry(5, b"\xff{")), 5),
    "no object": (lambda entries: entries.__setitem__(4, JournalEntry(5, b"[]")), 5),
}


@pytest.mark.parametrize("what", MEDDLING)
def test_meddling_is_found_where_it_was_done(what):
    meddle, sequence = MEDDLING[what]

    async def scenario(store: MemoryStore, audit: AuditLog) -> None:
        for number in range(10):
            await audit.record(_entry(f"vm-{number}"))
        assert (await audit.verify()).ok
        meddle(_journal(store))
        found = await audit.verify()
        assert not found.ok
        assert found.problem
        assert found.problem_sequence == sequence
        await audit.record(_entry("later"))  # a spoilt record stops nobody's work

    _run(scenario)


def test_a_record_forged_with_a_right_hash_breaks_the_link_after_it():
    async def scenario(store: MemoryStore, audit: AuditLog) -> None:
        forger = AuditLog(MemoryStore(), WRITER, ManualClock())
        for number in range(10):
            await audit.record(_entry(f"vm-{number}"))
            await forger.record(_entry(f"other-{number}"))
        forged = (await forger._store.journal(AUDIT))[4]
        _journal(store)[4] = forged
        found = await audit.verify()
        assert (found.ok, found.problem_sequence) == (False, 5)

    _run(scenario)


async def _rewritten(store: MemoryStore, upto: int) -> None:
    """Replace the whole chain by another one that holds in itself."""
    other = MemoryStore()
    forger = AuditLog(other, WRITER, ManualClock())
    for number in range(upto):
        await forger.record(_entry(f"forged-{number}"))
    _journal(store)[:] = await other.journal(AUDIT)
    last = await other.journal_last(AUDIT)
    assert last is not None
    store._journal_last[AUDIT] = last


@pytest.mark.parametrize("upto", [10, 15])
def test_anchors_show_a_chain_that_was_rewritten_as_a_whole(tmp_path, upto):
    async def scenario(store: MemoryStore, audit: AuditLog) -> None:
        for number in range(10):
            await audit.record(_entry(f"vm-{number}"))
        anchor = await audit.anchor()
        assert anchor is not None
        assert anchor.sequence == 10
        assert await audit.anchor() is None
        assert (await audit.verify()).ok
        await _rewritten(store, upto)
        found = await audit.verify()
        assert (found.ok, found.problem_sequence) == (False, 10)

    _run(scenario, tmp_path / "audit-anchors")


def test_anchors_show_a_chain_that_was_cut(tmp_path):
    async def scenario(store: MemoryStore, audit: AuditLog) -> None:
        for number in range(10):
            await audit.record(_entry(f"vm-{number}"))
        await audit.anchor()
        del _journal(store)[7:]
        found = await audit.verify()
        assert (found.ok, found.problem_sequence, found.last_sequence) == (False, 8, 7)

    _run(scenario, tmp_path / "audit-anchors")


def test_a_log_made_shorter_by_a_restored_backup_goes_on_and_says_so(tmp_path):
    async def scenario(store: MemoryStore, audit: AuditLog) -> None:
        for number in range(4):
            await audit.record(_entry(f"vm-{number}"))
        kept = list(_journal(store))
        await audit.anchor()
        for number in range(4):
            await audit.record(_entry(f"lost-{number}"))
        await audit.anchor()
        _journal(store)[:] = kept
        store._journal_last[AUDIT] = kept[-1]
        anchor = await audit.anchor()  # as the daemon does at start
        assert anchor is not None
        assert anchor.rewound
        for number in range(6):
            await audit.record(_entry(f"new-{number}"))
        await audit.anchor()
        found = await audit.verify()
        assert found.ok
        assert len(found.rewinds) == 1
        assert "went back to record 4 (from 8)" in found.rewinds[0]

    _run(scenario, tmp_path / "audit-anchors")


def test_a_log_lost_with_its_database_begins_anew_and_says_so(tmp_path):
    async def scenario(store: MemoryStore, audit: AuditLog) -> None:
        assert await audit.anchor() is None
        for number in range(4):
            await audit.record(_entry(f"lost-{number}"))
        await audit.anchor()
        _journal(store).clear()
        del store._journal_last[AUDIT]
        anchor = await audit.anchor()  # as the daemon does at start
        assert anchor is not None
        assert anchor.rewound
        assert await audit.anchor() is None
        assert (await audit.verify()).ok
        for number in range(6):
            await audit.record(_entry(f"new-{number}"))
        assert (await audit.verify()).ok
        await audit.anchor()
        found = await audit.verify()
        assert found.ok
        assert len(found.rewinds) == 1
        assert "went back to record 0 (from 4)" in found.rewinds[0]

    _run(scenario, tmp_path / "audit-anchors")


def test_a_line_cut_short_by_a_crash_spoils_no_other(tmp_path):
    path = tmp_path / "audit-anchors"

    async def scenario(_store: MemoryStore, audit: AuditLog) -> None:
        await audit.record(_entry())
        await audit.anchor()
        with path.open("ab") as stream:
            stream.write(b'{"time": "2026')
        await audit.record(_entry())
        await audit.anchor()
        assert [anchor.sequence for anchor in read_anchors(path)] == [1, 2]
        assert (await audit.verify()).ok

    _run(scenario, path)


def test_an_anchor_that_cannot_be_written_ends_nothing(tmp_path):
    directory = tmp_path / "not-there-yet"

    async def scenario(_store: MemoryStore, audit: AuditLog) -> None:
        await audit.record(_entry())
        keeping = asyncio.create_task(audit.keep_anchored(interval_s=0.01))
        await asyncio.sleep(0.03)
        directory.mkdir()
        async with asyncio.timeout(10):
            while not read_anchors(directory / "audit-anchors"):
                await asyncio.sleep(0.01)
        keeping.cancel()
        await asyncio.wait([keeping])
        assert [anchor.sequence for anchor in read_anchors(directory / "audit-anchors")] == [1]

    _run(scenario, directory / "audit-anchors")
