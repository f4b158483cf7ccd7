"""The moment between a commit and its telling, which the SQLite store has and the contract must not show."""

import asyncio
import threading
from contextlib import aclosing

from corral.store.base import Change, Put, Record
from corral.store.sqlite import SqliteStore


def test_a_commit_that_was_read_before_it_was_told_is_not_told_to_who_read_it(tmp_path):
    async def scenario() -> None:
        store = await SqliteStore.open(tmp_path / "corral.db")
        committed, go_on = threading.Event(), threading.Event()
        commit = store._writer.commit

        def held() -> None:
            commit()
            committed.set()
            go_on.wait(10)

        store._writer.commit = held  # type: ignore[method-assign]
        writing = asyncio.create_task(store.transact([Put("/v/a", b"1")]))
        await asyncio.to_thread(committed.wait, 10)
        store._writer.commit = commit  # type: ignore[method-assign]
        assert store.revision == 0
        page = await store.range("/v/")
        assert (page.revision, page.records) == (1, (Record("/v/a", b"1", 1, 1),))

        async with aclosing(store.watch("/v/", page.revision)) as later, aclosing(store.watch("/v/", 0)) as earlier:
            waiting = [asyncio.ensure_future(anext(later)), asyncio.ensure_future(anext(earlier))]
            await asyncio.sleep(0.01)
            go_on.set()
            await writing
            assert store.revision == 1
            await store.transact([Put("/v/b", b"2")])
            assert await waiting[0] == Change("/v/b", 2, b"2", None)
            assert [await waiting[1], await anext(earlier)] == [
                Change("/v/a", 1, b"1", None),
                Change("/v/b", 2, b"2", None),
            ]
        await store.close()

    asyncio.run(scenario())
