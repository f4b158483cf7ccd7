"""What a caller may send: how often, how much, how slowly."""

import asyncio
import json
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from corral.api.limits import BURST_S, CALLERS_MAX, DRAIN_MAX_BYTES, BodyLimit, RateLimiter
from corral.clock import ManualClock
from corral.errors import CorralError


def test_a_caller_may_save_up_and_then_has_its_rate() -> None:
    clock = ManualClock()
    limiter = RateLimiter(10.0, clock)
    for _ in range(int(10 * BURST_S)):
        limiter.take("ann")
    with pytest.raises(CorralError) as refused:
        limiter.take("ann")
    assert refused.value.code == "rate-limited"
    assert refused.value.context["retry_after_s"] == 1
    limiter.take("bob")  # another caller's bucket is its own
    clock.advance(0.2)
    limiter.take("ann")
    limiter.take("ann")
    with pytest.raises(CorralError):
        limiter.take("ann")


def test_what_was_done_already_is_counted_and_what_was_not_is_given_back() -> None:
    limiter = RateLimiter(1.0, ManualClock())
    limiter.take("ann", 20.0)  # dearer than all that may be saved up: all of it
    with pytest.raises(CorralError):
        limiter.take("ann")
    limiter.give_back("ann", 20.0)
    limiter.take("ann")
    limiter.charge("ann", 1000.0)
    with pytest.raises(CorralError) as refused:
        limiter.take("ann")
    assert refused.value.context["retry_after_s"] <= 2


def test_a_jumping_wall_clock_gives_nothing_away() -> None:
    clock = ManualClock()
    limiter = RateLimiter(0.1, clock)
    limiter.take("ann")
    clock.jump(10_000)
    with pytest.raises(CorralError):
        limiter.take("ann")


def test_callers_are_forgotten_in_bounded_memory() -> None:
    limiter = RateLimiter(1.0, ManualClock())
    for number in range(CALLERS_MAX + 100):
        limiter.take(f"caller {number}")
    assert len(limiter._buckets) == CALLERS_MAX


def _ask(chunks: list[bytes], headers: list[tuple[bytes, bytes]], max_bytes: int = 10, hang: bool = False) -> Any:
    """Send a body through the limit: what the application read, or the problem that was answered."""
    messages: list[Message] = [
        {"type": "http.request", "body": chunk, "more_body": number < len(chunks) - 1 or hang}
        for number, chunk in enumerate(chunks)
    ]
    sent: list[Message] = []
    read: list[bytes] = []

    async def receive() -> Message:
        if messages:
            return messages.pop(0)
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: Message) -> None:
        sent.append(message)

    async def application(_scope: Scope, receive: Receive, _send: Send) -> None:
        message = await receive()
        assert not message["more_body"]
        read.append(message["body"])

    scope = {"type": "http", "headers": headers, "state": {"request_id": "r"}}
    asyncio.run(BodyLimit(application, max_bytes, timeout_s=0.05)(scope, receive, send))
    return read[0] if read else json.loads(sent[1]["body"])


def test_a_body_in_pieces_arrives_whole() -> None:
    assert _ask([b"12", b"34", b"5"], [(b"transfer-encoding", b"chunked")]) == b"12345"


def test_a_declared_length_that_asks_first_is_refused_unread() -> None:
    assert _ask([], [(b"content-length", b"11"), (b"expect", b"100-continue")])["code"] == "body-too-large"
    assert _ask([], [(b"content-length", str(DRAIN_MAX_BYTES + 1).encode())])["code"] == "body-too-large"


def test_a_chunked_body_is_counted_while_it_is_read() -> None:
    assert _ask([b"x" * 6, b"x" * 6, b"thrown away"], [])["code"] == "body-too-large"


def test_a_body_that_never_ends_is_given_up() -> None:
    assert _ask([b"{"], [], hang=True)["code"] == "invalid-document"
