"""Answers that go on: heartbeats, ends, and failures."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable

import pytest
from starlette.types import Message

from corral.api.live import LiveResponse

Frames = AsyncGenerator[bytes, None]


def _run(frames: Frames, until: Callable[[list[bytes]], bool], stop: bool, heartbeat_s: float = 10.0) -> list[bytes]:
    """The bodies that were sent; when `until` holds, the daemon stops or the client leaves."""
    bodies: list[bytes] = []

    async def respond() -> None:
        stopping, gone = asyncio.Event(), asyncio.Event()

        async def receive() -> Message:
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            if message["type"] == "http.response.body":
                bodies.append(message["body"])
                if until(bodies):
                    (stopping if stop else gone).set()

        response = LiveResponse(
            frames, media_type="text/plain", heartbeat=b"beat", stopping=stopping, heartbeat_s=heartbeat_s
        )
        await asyncio.wait_for(response({"type": "http"}, receive, send), 10)

    asyncio.run(respond())
    return bodies


async def _endless(closed: list[bool], wait: Callable[[], Awaitable[object]]) -> Frames:
    try:
        yield b"first"
        while True:
            await wait()
            yield b"next"
    finally:
        closed.append(True)


@pytest.mark.parametrize("stop", [True, False])
def test_either_side_may_end_it_and_the_source_is_closed(stop: bool) -> None:
    closed: list[bool] = []
    bodies = _run(_endless(closed, asyncio.Event().wait), lambda sent: b"first" in sent, stop)
    assert bodies == [b"beat", b"first", b""]
    assert closed == [True]


def test_silence_is_filled_with_heartbeats() -> None:
    closed: list[bool] = []
    bodies = _run(_endless(closed, asyncio.Event().wait), lambda sent: sent.count(b"beat") == 4, True, heartbeat_s=0.01)
    assert bodies == [b"beat", b"first", b"beat", b"beat", b"beat", b""]


def test_a_source_that_ends_ends_the_answer() -> None:
    async def short() -> Frames:
        yield b"a"
        yield b"b"

    assert _run(short(), lambda _sent: False, True) == [b"beat", b"a", b"b", b""]


def test_a_source_that_fails_leaves_no_clean_end() -> None:
    async def broken() -> Frames:
        yield b"a"
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        _run(broken(), lambda _sent: False, True)


def test_a_client_that_takes_nothing_ends_the_source(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("corral.api.live.STALL_S", 0.05)
    closed: list[bool] = []

    async def respond() -> None:
        async def send(message: Message) -> None:
            if message.get("body") == b"first":
                await asyncio.Event().wait()

        async def receive() -> Message:
            await asyncio.Event().wait()
            return {"type": "http.disconnect"}

        response = LiveResponse(
            _endless(closed, asyncio.Event().wait), media_type="text/plain", heartbeat=b"", stopping=asyncio.Event()
        )
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(response({"type": "http"}, receive, send), 10)
        assert closed == [True]  # at once, not when the loop ends

    asyncio.run(respond())
