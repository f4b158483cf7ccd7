"""The store's contract: reads, transactions, preconditions, limits, journals."""

import asyncio

import pytest

from corral.errors import CorralError
from corral.store.base import (
    OBJECT_MAX_BYTES,
    Append,
    Committed,
    Delete,
    JournalEntry,
    Precondition,
    Put,
    Record,
    Store,
)


def test_a_new_store_is_empty_at_revision_0(subject):
    async def scenario(store: Store) -> None:
        assert store.revision == 0
        assert await store.get("/vms/a") is None
        page = await store.range("/")
        assert (page.records, page.revision, page.more) == ((), 0, False)
        assert await store.count("/") == 0
        assert await store.journal("events") == ()
        assert await store.journal_last("events") is None

    subject.run(scenario)


def test_every_write_gets_the_next_revision_and_keeps_the_creation(subject):
    async def scenario(store: Store) -> None:
        assert await store.transact([Put("/a", b"1"), Put("/b", b"1")]) == Committed(1)
        assert await store.transact([Put("/a", b"2")], durable=False) == Committed(2)
        assert await store.get("/a") == Record("/a", b"2", 2, 1)
        assert await store.get("/b") == Record("/b", b"1", 1, 1)
        await store.transact([Delete("/a")])
        await store.transact([Put("/a", b"3")])
        assert await store.get("/a") == Record("/a", b"3", 4, 4)
        assert store.revision == 4

    subject.run(scenario)


def test_a_transaction_that_changes_no_key_takes_no_revision(subject):
    async def scenario(store: Store) -> None:
        await store.transact([Put("/a", b"1")])
        assert await store.transact([Delete("/absent")]) == Committed(1)
        assert await store.transact([], preconditions=[Precondition("/a", 1)]) == Committed(1)
        assert await store.transact([], appends=[Append("events", b"e")]) == Committed(1, (1,))

    subject.run(scenario)


def test_a_failed_precondition_says_what_it_found_and_writes_nothing(subject):
    async def scenario(store: Store) -> None:
        await store.transact([Put("/a", b"1")])
        for precondition, found in ((Precondition("/a", 0), 1), (Precondition("/a", 7), 1), (Precondition("/b", 3), 0)):
            with pytest.raises(CorralError) as failed:
                await store.transact(
                    [Put("/a", b"2"), Put("/c", b"2")],
                    preconditions=[Precondition("/c", 0), precondition],
                    appends=[Append("events", b"never")],
                )
            assert failed.value.code == "precondition-failed"
            assert failed.value.context == {"key": precondition.key, "revision": found}
        assert await store.get("/a") == Record("/a", b"1", 1, 1)
        assert await store.get("/c") is None
        assert await store.journal("events") == ()
        assert store.revision == 1

    subject.run(scenario)


def test_of_a_thousand_creations_of_one_key_exactly_one_wins(subject):
    async def scenario(store: Store) -> None:
        async def create(number: int) -> bool:
            try:
                await store.transact(
                    [Put("/claim", b"%d" % number), Put(f"/vms/{number}", b"x")],
                    preconditions=[Precondition("/claim", 0)],
                )
            except CorralError as error:
                if error.code != "precondition-failed":
                    raise
                return False
            return True

        won = await asyncio.gather(*(create(number) for number in range(1000)))
        assert won.count(True) == 1
        claim = await store.get("/claim")
        assert claim is not None
        assert claim.value == b"%d" % won.index(True)
        assert await store.count("/vms/") == 1

    subject.run(scenario)


def test_a_counter_raised_by_compare_and_swap_loses_nothing(subject):
    async def scenario(store: Store) -> None:
        await store.transact([Put("/n", b"0")])

        async def add(times: int) -> None:
            while times:
                record = await store.get("/n")
                assert record is not None
                try:
                    await store.transact(
                        [Put("/n", b"%d" % (int(record.value) + 1))],
                        preconditions=[Precondition("/n", record.revision)],
                    )
                    times -= 1
                except CorralError as error:
                    if error.code != "precondition-failed":
                        raise

        await asyncio.gather(*(add(10) for _ in range(10)))
        record = await store.get("/n")
        assert record is not None
        assert (record.value, record.revision) == (b"100", 101)

    subject.run(scenario)


def test_an_acknowledged_write_is_read_by_everybody(subject):
    async def scenario(store: Store) -> None:
        async def write_and_read(name: str) -> None:
            for value in range(20):
                committed = await store.transact([Put(f"/w/{name}", b"%d" % value)], durable=value % 2 == 0)
                record = await store.get(f"/w/{name}")
                page = await store.range(f"/w/{name}")
                assert record is not None
                assert record.value == page.records[0].value == b"%d" % value
                assert page.revision >= committed.revision
                assert store.revision >= committed.revision

        await asyncio.gather(*(write_and_read(f"{n}") for n in range(8)))

    subject.run(scenario)


@pytest.mark.parametrize(
    ("writes", "code"),
    [
        ([Put("/big", b"x" * (OBJECT_MAX_BYTES + 1))], "object-too-large"),
        ([Put(f"/k/{n}", b"x") for n in range(129)], "transaction-too-large"),
        ([Put("/a", b"1"), Delete("/a")], "invalid-argument"),
        ([Put("no-slash", b"1")], "invalid-argument"),
        ([Put("", b"1")], "invalid-argument"),
        ([Put("/nul\0", b"1")], "invalid-argument"),
        ([Put("/lone-\ud800", b"1")], "invalid-argument"),
        ([Put("/" + "k" * 1024, b"1")], "invalid-argument"),
    ],
)
def test_what_is_beyond_the_limits_is_refused_whole(subject, writes, code):
    async def scenario(store: Store) -> None:
        with pytest.raises(CorralError) as refused:
            await store.transact([Put("/first", b"1"), *writes])
        assert refused.value.code == code
        assert store.revision == 0
        assert await store.count("/") == 0

    subject.run(scenario)


def test_what_is_just_within_the_limits_is_kept(subject):
    async def scenario(store: Store) -> None:
        await store.transact([Put("/big", b"x" * OBJECT_MAX_BYTES)])
        await store.transact([Put(f"/k/{n:03}", b"") for n in range(128)])
        big = await store.get("/big")
        assert big is not None
        assert len(big.value) == OBJECT_MAX_BYTES
        assert await store.count("/k/") == 128

    subject.run(scenario)


def test_ranges_go_in_byte_order_page_by_page(subject):
    keys = ["/v/", "/v/a", "/v/a/b", "/v/aa", "/v/b", "/v/é", "/v/ｚ", "/v/\U0001f40e", "/v/\U0010ffff", "/w"]

    async def scenario(store: Store) -> None:
        for key in reversed(keys):
            await store.transact([Put(key, key.encode())], durable=False)
        page = await store.range("/v/")
        assert [record.key for record in page.records] == sorted(keys[:-1], key=str.encode)
        assert await store.count("/v/") == 9
        assert await store.count("/v/\U0010ffff") == 1
        assert await store.count("") == 10
        seen, after, more = [], "", True
        while more:
            page = await store.range("/v/", after=after, limit=2)
            seen += [record.key for record in page.records]
            after, more = page.records[-1].key, page.more
        assert seen == sorted(keys[:-1], key=str.encode)
        assert (await store.range("/v/", after="/v/b", limit=1)).records[0].key == "/v/é"
        assert (await store.range("/v/", after="/z")).records == ()

    subject.run(scenario)


def test_pages_at_a_revision_show_one_state_while_others_write(subject):
    async def scenario(store: Store) -> None:
        for number in range(30):
            await store.transact([Put(f"/v/{number:02}", b"old")], durable=False)
        first = await store.range("/v/", limit=10)
        for number in range(30):
            await store.transact(
                [Put(f"/v/{number:02}", b"new")] if number % 3 else [Delete(f"/v/{number:02}")], durable=False
            )
        await store.transact([Put("/v/15a", b"new")])
        records = list(first.records)
        more = first.more
        while more:
            page = await store.range("/v/", after=records[-1].key, limit=10, revision=first.revision)
            assert page.revision == first.revision
            records += page.records
            more = page.more
        assert [record.key for record in records] == [f"/v/{number:02}" for number in range(30)]
        assert {record.value for record in records} == {b"old"}
        assert [record.revision for record in records] == list(range(1, 31))

    subject.run(scenario)


def test_reading_what_is_compacted_or_yet_to_come_says_so(subject):
    async def scenario(store: Store) -> None:
        for number in range(5):
            await store.transact([Put("/a", b"%d" % number)], durable=False)
        await store.compact(3)
        await store.compact(1)  # what is gone does not come back
        assert (await store.range("/a", revision=3)).records[0].value == b"2"
        assert (await store.range("/a", revision=5)).records[0].value == b"4"
        for revision in (2, 6):
            with pytest.raises(CorralError) as refused:
                await store.range("/a", revision=revision)
            assert refused.value.code == "compacted"
        await store.compact(1000)
        assert (await store.range("/a", revision=5)).records[0].value == b"4"
        assert (await store.transact([Put("/a", b"5")])).revision == 6

    subject.run(scenario)


def test_journal_sequences_count_on_and_never_repeat(subject):
    async def scenario(store: Store) -> None:
        committed = await store.transact(
            [Put("/a", b"1")], appends=[Append("events", b"e1"), Append("audit", b"a1"), Append("events", b"e2")]
        )
        assert committed.sequences == (1, 1, 2)
        assert await store.journal("events", after=1) == (JournalEntry(2, b"e2"),)
        assert await store.journal_last("audit") == JournalEntry(1, b"a1")
        await store.journal_trim("events", through=1)
        assert await store.journal("events") == (JournalEntry(2, b"e2"),)
        await store.journal_trim("events", through=99)
        await store.journal_trim("nothing", through=1)
        assert await store.journal("events") == ()
        assert (await store.transact([], appends=[Append("events", b"e3")])).sequences == (3,)
        assert await store.journal("events", limit=1) == (JournalEntry(3, b"e3"),)
        assert await store.journal("events", after=2**80) == ()

    subject.run(scenario)


def test_a_seal_is_told_its_place_and_what_lies_before(subject):
    def seal(sequence: int, before: JournalEntry | None) -> bytes:
        return b"%d after %s" % (sequence, before.value[:1] if before else b"nothing")

    async def scenario(store: Store) -> None:
        appends = [Append("audit", seal=seal), Append("audit", seal=seal)]
        await asyncio.gather(*(store.transact([], appends=appends) for _ in range(10)))
        values = [entry.value for entry in await store.journal("audit")]
        assert values == [b"1 after nothing", *(b"%d after %d" % (n, int(str(n - 1)[0])) for n in range(2, 21))]

    subject.run(scenario)


def test_a_seal_that_fails_undoes_its_transaction_alone(subject):
    def seal(_sequence: int, _before: JournalEntry | None) -> bytes:
        raise ZeroDivisionError("a fault in the seal")

    async def scenario(store: Store) -> None:
        good, bad, good_too = await asyncio.gather(
            store.transact([Put("/a", b"1")], appends=[Append("audit", b"one")]),
            store.transact(
                [Put("/a", b"2"), Put("/b", b"2")], appends=[Append("audit", b"x"), Append("audit", seal=seal)]
            ),
            store.transact([Put("/c", b"3")], appends=[Append("audit", b"two")]),
            return_exceptions=True,
        )
        assert isinstance(bad, ZeroDivisionError)
        assert (good, good_too) == (Committed(1, (1,)), Committed(2, (2,)))
        assert await store.get("/a") == Record("/a", b"1", 1, 1)
        assert await store.get("/b") is None
        assert [entry.value for entry in await store.journal("audit")] == [b"one", b"two"]

    subject.run(scenario)


def test_followers_of_a_journal_see_what_is_there_and_what_comes(subject):
    async def scenario(store: Store) -> None:
        for number in range(3):
            await store.transact([], appends=[Append("events", b"%d" % number)])
        followed: list[list[int]] = [[], []]

        async def follow(into: list[int], after: int) -> None:
            async for entry in store.follow("events", after=after):
                into.append(entry.sequence)
                if entry.sequence == 10:
                    return

        tasks = [asyncio.create_task(follow(followed[0], 0)), asyncio.create_task(follow(followed[1], 2))]
        for number in range(3, 10):
            await store.transact([], appends=[Append("events", b"%d" % number)], durable=False)
        await asyncio.gather(*tasks)
        assert followed == [list(range(1, 11)), list(range(3, 11))]

    subject.run(scenario)


def test_a_cancelled_caller_leaves_a_whole_transaction_or_none(subject):
    async def scenario(store: Store) -> None:
        tasks = [asyncio.create_task(store.transact([Put(f"/x/{n}", b"1"), Put(f"/y/{n}", b"1")])) for n in range(200)]
        for turn in range(10):
            await asyncio.sleep(0.0005)
            for task in tasks[turn::10]:
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await store.transact([Put("/after", b"1")])
        left = [record.key[3:] for record in (await store.range("/x/")).records]
        right = [record.key[3:] for record in (await store.range("/y/")).records]
        assert left == right
        done = {f"{n}" for n, task in enumerate(tasks) if not task.cancelled()}
        assert done <= set(left)

    subject.run(scenario)


def test_a_closed_store_refuses_everything(subject):
    async def scenario() -> None:
        store = await subject.open()
        await store.transact([Put("/a", b"1")])
        watch = store.watch("/", 1)
        waiting = asyncio.ensure_future(anext(watch))
        following = asyncio.ensure_future(anext(store.follow("events", after=0)))
        await asyncio.sleep(0.01)
        await store.close()
        for call in (store.get("/a"), store.range("/"), store.transact([Put("/b", b"1")]), waiting, following):
            with pytest.raises(CorralError) as refused:
                await asyncio.wait_for(call, 5)
            assert refused.value.code == "store-unavailable"

    asyncio.run(scenario())


def test_closing_finishes_what_was_asked_before(subject):
    async def scenario() -> None:
        store = await subject.open()
        tasks = [asyncio.create_task(store.transact([Put(f"/v/{n}", b"1")])) for n in range(300)]
        await asyncio.sleep(0)
        await store.close()
        assert max((await asyncio.gather(*tasks)), key=lambda done: done.revision) == Committed(300)

    asyncio.run(scenario())
