"""The store's contract: watches that resume exactly, and leases."""

import asyncio
from contextlib import aclosing

import pytest

from corral.errors import CorralError
from corral.store.base import Change, Delete, Put, Record, Store
from corral.store.feed import QUEUE_MAX_CHANGES


async def _take(store: Store, prefix: str, since: int, count: int) -> list[Change]:
    changes = []
    async with aclosing(store.watch(prefix, since)) as watch:
        while len(changes) < count:
            changes.append(await anext(watch))
    return changes


def test_history_and_live_changes_are_told_alike(subject):
    async def scenario(store: Store) -> None:
        live = asyncio.create_task(_take(store, "/v/", 0, 6))
        await asyncio.sleep(0.01)
        await store.transact([Put("/v/b", b"1"), Put("/other", b"1"), Put("/v/a", b"1")])
        await store.transact([Put("/v/a", b"2")])
        await store.transact([Delete("/v/a"), Delete("/v/absent")])
        await store.transact([Put("/v/a", b"3")])
        await store.transact([Delete("/v/b")])
        expected = [
            Change("/v/a", 1, b"1", None),
            Change("/v/b", 1, b"1", None),
            Change("/v/a", 2, b"2", b"1"),
            Change("/v/a", 3, None, b"2"),
            Change("/v/a", 4, b"3", None),
            Change("/v/b", 5, None, b"1"),
        ]
        assert await live == expected
        for since in range(5):
            rest = [change for change in expected if change.revision > since]
            assert await _take(store, "/v/", since, len(rest)) == rest

    subject.run(scenario)


def test_watchers_that_join_at_any_moment_miss_nothing_and_see_nothing_twice(subject):
    writers, rounds = 8, 30

    async def scenario(store: Store) -> None:
        async def write(name: int) -> None:
            for value in range(rounds):
                await store.transact(
                    [Put(f"/v/{name}", b"%d" % value), Put(f"/v/{name}/{value % 3}", b"x")], durable=value % 4 == 0
                )

        async def watch(since: int) -> list[Change]:
            changes: list[Change] = []
            async with aclosing(store.watch("/v/", since)) as stream:
                async for change in stream:
                    changes.append(change)
                    if len(changes) % 7 == 0:
                        await asyncio.sleep(0)
                    if change.revision == writers * rounds and len(changes) % 2 == 0:
                        return changes
            return changes

        async with asyncio.TaskGroup() as group:
            for name in range(writers):
                group.create_task(write(name))
            watchers = []
            for _ in range(20):
                since = store.revision // 2
                watchers.append((since, group.create_task(watch(since))))
                await asyncio.sleep(0.002)
        everything = await _take(store, "/v/", 0, writers * rounds * 2)
        for since, task in watchers:
            assert task.result() == [change for change in everything if change.revision > since]

    subject.run(scenario)


def test_a_list_and_a_watch_from_its_revision_make_one_history(subject):
    """The list may show a commit that watchers have not been told of yet; they are not told of it afterwards."""

    async def scenario(store: Store) -> None:
        stop = asyncio.Event()

        async def write(name: int) -> None:
            number = 0
            while not stop.is_set():
                number += 1
                await store.transact([Put(f"/v/{name}", b"%d" % number)])

        async def follow() -> None:
            page = await store.range("/v/")
            state = {record.key: record.value for record in page.records}
            revision = page.revision
            async with aclosing(store.watch("/v/", page.revision)) as changes:
                for _ in range(10):
                    change = await anext(changes)
                    assert change.revision == revision + 1  # each transaction writes one key here
                    assert change.previous == state.get(change.key)
                    assert change.value is not None
                    state[change.key], revision = change.value, change.revision

        async with asyncio.TaskGroup() as group:
            for name in range(4):
                group.create_task(write(name))
            for _ in range(60):
                await follow()
            stop.set()

    subject.run(scenario)


def test_a_watch_before_the_compaction_point_must_list_again(subject):
    async def scenario(store: Store) -> None:
        for number in range(6):
            await store.transact([Put("/v/a", b"%d" % number)] if number != 4 else [Delete("/v/a")])
        await store.compact(4)
        for since in (0, 3):
            with pytest.raises(CorralError) as refused:
                await _take(store, "/v/", since, 1)
            assert refused.value.code == "compacted"
        assert await _take(store, "/v/", 4, 2) == [Change("/v/a", 5, None, b"3"), Change("/v/a", 6, b"5", None)]

    subject.run(scenario)


def test_a_watch_from_a_revision_that_never_was_must_list_again(subject):
    async def scenario(store: Store) -> None:
        await store.transact([Put("/v/a", b"1")])
        with pytest.raises(CorralError) as refused:
            await _take(store, "/v/", 2, 1)
        assert refused.value.code == "compacted"

    subject.run(scenario)


def test_a_slow_watcher_holds_nobody_up_and_goes_on_from_history(subject):
    transactions = QUEUE_MAX_CHANGES // 128 + 3

    async def scenario(store: Store) -> None:
        async with aclosing(store.watch("/v/", 0)) as slow:
            await store.transact([Put("/v/first", b"1")])
            assert (await anext(slow)).revision == 1
            for number in range(transactions):
                await store.transact([Put(f"/v/{n:03}", b"%d" % number) for n in range(128)], durable=False)
            await store.transact([Put("/v/last", b"1")])
            seen = []
            async for change in slow:
                seen.append((change.revision, change.key))
                if change.key == "/v/last":
                    break
        wanted = [(r + 2, f"/v/{n:03}") for r in range(transactions) for n in range(128)]
        assert seen == [*wanted, (transactions + 2, "/v/last")]

    subject.run(scenario)


def test_a_slow_watcher_is_ended_when_its_history_is_gone(subject):
    async def scenario(store: Store) -> None:
        async with aclosing(store.watch("/v/", 0)) as slow:
            await store.transact([Put("/v/first", b"1")])
            await anext(slow)
            for _ in range(QUEUE_MAX_CHANGES // 128 + 1):
                await store.transact([Put(f"/v/{n:03}", b"x") for n in range(128)], durable=False)
            await store.compact(store.revision)
            with pytest.raises(CorralError) as ended:
                async for _ in slow:
                    pass
            assert ended.value.code == "compacted"

    subject.run(scenario)


def test_compaction_leaves_live_watchers_alone(subject):
    async def scenario(store: Store) -> None:
        async with aclosing(store.watch("/v/", 0)) as watch:
            for number in range(1, 50):
                await store.transact([Put("/v/a", b"%d" % number)], durable=False)
                assert (await anext(watch)).revision == number
                await store.compact(number)

    subject.run(scenario)


# ---- leases ---------------------------------------------------------------------------------------------------------


def test_a_lease_takes_its_keys_with_it_in_one_revision(subject):
    async def scenario(store: Store) -> None:
        lease = await store.lease_grant(60)
        other = await store.lease_grant(60)
        assert lease != other
        await store.transact([Put("/l/a", b"1", lease), Put("/l/b", b"1", lease), Put("/l/c", b"1", other)])
        await store.transact([Put("/l/b", b"2")])  # a write without the lease takes the key off it
        watch = asyncio.create_task(_take(store, "/l/", 2, 1))
        await store.lease_revoke(lease)
        assert await watch == [Change("/l/a", 3, None, b"1")]
        assert await store.get("/l/b") == Record("/l/b", b"2", 2, 1)
        for call in (store.lease_revoke(lease), store.lease_keep_alive(lease), store.lease_revoke(99)):
            with pytest.raises(CorralError) as refused:
                await call
            assert refused.value.code == "lease-not-found"
        with pytest.raises(CorralError) as refused:
            await store.transact([Put("/l/d", b"1"), Put("/l/e", b"1", lease)])
        assert refused.value.code == "lease-not-found"
        assert await store.count("/l/") == 2

    subject.run(scenario)


def test_a_lease_ends_by_monotonic_time_and_not_by_the_wall_clock(subject):
    clock = subject.clock

    async def scenario() -> None:
        store = await subject.open(clock)
        lease = await store.lease_grant(10)
        await store.transact([Put("/l/a", b"1", lease)])
        clock.jump(3600)
        await store.expire_leases()
        assert await store.count("/l/") == 1
        clock.advance(9)
        await store.lease_keep_alive(lease)
        clock.advance(9)
        await store.expire_leases()
        assert await store.count("/l/") == 1
        clock.advance(1)
        with pytest.raises(CorralError):  # late: it is over, even if nobody has swept it up yet
            await store.lease_keep_alive(lease)
        await store.expire_leases()
        assert await store.count("/l/") == 0
        await store.close()

    asyncio.run(scenario())


def test_a_lease_ends_by_itself(subject):
    async def scenario(store: Store) -> None:
        lease = await store.lease_grant(0.02)
        await store.transact([Put("/l/a", b"1", lease)])
        async with asyncio.timeout(10):
            assert await _take(store, "/l/", 1, 1) == [Change("/l/a", 2, None, b"1")]

    subject.run(scenario)
