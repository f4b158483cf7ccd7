"""Many forks at once take turns: all run before the first is told who it is, and those that run are held back until then."""

import asyncio

import pytest

from corral.agent import fork
from corral.agent.fork import STARTED_AT_ONCE, TOLD_AT_ONCE, Turns

FORKS = 10


def test_all_run_before_one_is_told():
    async def scene() -> None:
        turns, happened, held = Turns(), list[str](), list[bool]()
        now = {"starting": 0, "told": 0}

        async def busy(what: str, at_most: int) -> None:
            now[what] += 1
            assert now[what] <= at_most
            await asyncio.sleep(0.001)
            now[what] -= 1
            happened.append(what)

        async def one() -> None:
            async with turns.to_run():
                held.append(turns.others_are_to_run)
                await busy("starting", STARTED_AT_ONCE)
            async with turns.to_be_told():
                await busy("told", TOLD_AT_ONCE)

        async with asyncio.TaskGroup() as group:
            for _ in range(FORKS):
                group.create_task(one())
        assert happened == ["starting"] * FORKS + ["told"] * FORKS
        assert held[0] is False  # nobody else was there yet
        assert all(held[1:-STARTED_AT_ONCE])

    asyncio.run(scene())


def test_one_alone_is_not_held():
    async def scene() -> None:
        turns = Turns()
        async with turns.to_run():
            assert not turns.others_are_to_run
        async with turns.to_be_told():
            pass

    asyncio.run(scene())


def test_one_that_fails_to_start_lets_the_others_be_told():
    async def scene() -> None:
        turns = Turns()
        with pytest.raises(ZeroDivisionError):
            async with turns.to_run():
                raise ZeroDivisionError
        async with asyncio.timeout(5), turns.to_be_told():
            pass

    asyncio.run(scene())


def test_one_that_hangs_holds_nobody_up_for_long(monkeypatch):
    monkeypatch.setattr(fork, "STARTS_FIRST_S", 0.05)

    async def scene() -> None:
        turns = Turns()
        async with turns.to_run(), asyncio.timeout(5), turns.to_be_told():
            pass

    asyncio.run(scene())
