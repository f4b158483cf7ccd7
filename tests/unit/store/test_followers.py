"""Answers wait for those who follow the store, for a while."""

import asyncio
import gc

import pytest

from corral.errors import CorralError
from corral.store import followers as module
from corral.store.followers import Followers


def test_an_answer_waits_for_all_of_them() -> None:
    async def run() -> None:
        followers, heard = Followers(), list[tuple[str, int]]()
        await followers.until(1, "x")

        async def follow(name: str, revision: int) -> None:
            await asyncio.sleep(0)
            heard.append((name, revision))

        followers.add(lambda revision: follow("one", revision))
        followers.add(lambda revision: follow("two", revision))
        await followers.until(7, "x")
        assert sorted(heard) == [("one", 7), ("two", 7)]

    asyncio.run(run())


def test_what_is_late_or_fails_is_said_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        monkeypatch.setattr(module, "HOLDS_S", 0.01)
        followers, let, done = Followers(), asyncio.Event(), list[int]()

        async def late(revision: int) -> None:
            await let.wait()
            done.append(revision)

        followers.add(late)
        with pytest.raises(CorralError, match="not within") as refused:
            await followers.until(7, "x")
        assert refused.value.code == "not-in-force"
        let.set()
        await asyncio.sleep(0.01)
        assert done == [7], "it was not cut"

        async def fails(_revision: int) -> None:
            raise CorralError("firewall-unavailable", "load", "no keeper")

        followers.add(fails)
        with pytest.raises(CorralError, match="recorded, and not in force yet: no keeper"):
            await followers.until(8, "x")

    asyncio.run(run())


def test_whoever_asked_may_go_away_while_it_is_done() -> None:
    async def run() -> None:
        followers, let, told = Followers(), asyncio.Event(), list[object]()
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: told.append(context))

        async def fails(_revision: int) -> None:
            await let.wait()
            raise CorralError("firewall-unavailable", "load", "no keeper")

        followers.add(fails)
        asking = asyncio.ensure_future(followers.until(7, "x"))
        await asyncio.sleep(0)
        asking.cancel()
        await asyncio.wait([asking])
        del asking
        let.set()
        await asyncio.sleep(0.01)
        gc.collect()
        assert told == [], "nobody asks any more, and it is tried again"

    asyncio.run(run())
