"""Who asks and how often: the price of wrong tokens and of denials, bounds for one token, streams of a revoked one."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.types import Message, Receive, Scope, Send

from corral.api import authentication
from corral.api.authentication import UNDER_WAY_MAX, Authentication
from corral.api.limits import RateLimiter
from corral.api.peer import LocalIdentities, Peer
from corral.clock import ManualClock
from corral.errors import CorralError
from corral.model.identity import Identity, Role

GOOD = "good"


class Tokens:
    """Knows one token while it is valid, and counts how often it was asked."""

    def __init__(self) -> None:
        self.valid = True
        self.asked = 0

    async def authenticate(self, token: str) -> Identity:
        self.asked += 1
        await asyncio.sleep(0)
        if token != GOOD or not self.valid:
            raise CorralError("unauthenticated", "use an API token", "it is not valid")
        return Identity(name="token:ci", roles={"default": Role.VIEWER})


async def _answer(_scope: Scope, _receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200})


async def _forbid(_scope: Scope, _receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 403})


async def _for_ever() -> Message:
    await asyncio.Event().wait()
    raise AssertionError


class Door:
    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]], **arguments: Any) -> None:
        self.tokens, self.clock = Tokens(), ManualClock()
        limiter = RateLimiter(10.0, self.clock)  # a hundred at once
        self.asgi = Authentication(app, LocalIdentities("", own_uid=0), self.tokens, limiter, **arguments)

    async def ask(self, token: str = "", client: str = "192.0.2.1", uid: int | None = None) -> int:
        """The status of one request; of a local process if `uid` is given."""
        statuses: list[int] = []

        async def send(message: Message) -> None:
            statuses.extend([message["status"]] if "status" in message else [])

        headers = [(b"authorization", b"Bearer " + token.encode())] if token else []
        peer = None if uid is None else Peer(1, uid, uid, frozenset({uid}))
        state = {"request_id": "r", "peer": peer}
        scope: Scope = {"type": "http", "method": "GET", "path": "/v1/vms", "headers": headers, "state": state}
        await self.asgi({**scope, "client": (client, 1)}, _for_ever, send)
        return statuses[0] if statuses else 0


def test_wrong_tokens_are_soon_not_even_looked_at() -> None:
    async def scene() -> None:
        door = Door(_answer)
        statuses = await asyncio.gather(*(door.ask("wrong") for _ in range(50)))
        assert set(statuses) == {401, 429}
        assert door.tokens.asked == 5
        assert await door.ask(GOOD) == 429  # from the same place
        assert await door.ask(GOOD, client="192.0.2.2") == 200
        door.clock.advance(10)
        assert await door.ask(GOOD) == 200

    asyncio.run(scene())


def test_right_tokens_cost_their_place_nothing() -> None:
    async def scene() -> None:
        door = Door(_answer)
        assert [await door.ask(GOOD) for _ in range(100)] == [200] * 100
        door.clock.advance(1)
        assert await door.ask("wrong") == 401

    asyncio.run(scene())


def test_the_addresses_of_one_ipv6_site_are_one_place() -> None:
    async def scene() -> None:
        door = Door(_answer)
        for number in range(50):
            await door.ask("wrong", client=f"2001:db8::{number:x}")
        assert door.tokens.asked == 5

    asyncio.run(scene())


def test_denials_run_dry_since_each_is_written_down() -> None:
    async def scene() -> None:
        door = Door(_forbid)
        statuses = [await door.ask(uid=1000) for _ in range(20)]
        assert statuses.count(403) == 5
        assert statuses[-1] == 429

    asyncio.run(scene())


def test_one_token_does_not_take_all_there_is() -> None:
    async def scene() -> None:
        let_go = asyncio.Event()

        async def wait(_scope: Scope, _receive: Receive, send: Send) -> None:
            await let_go.wait()
            await send({"type": "http.response.start", "status": 200})

        door = Door(wait)
        waiting = []
        for _ in range(UNDER_WAY_MAX):
            waiting.append(asyncio.create_task(door.ask(GOOD)))
            await asyncio.sleep(0.001)
            door.clock.advance(1)
        assert await door.ask(GOOD) == 429
        let_go.set()
        assert set(await asyncio.gather(*waiting)) == {200}
        assert await door.ask(GOOD) == 200
        assert await door.ask(uid=0) == 200

    asyncio.run(scene())


def test_a_stream_ends_soon_after_its_token() -> None:
    async def scene() -> None:
        left: list[str] = []

        async def stream(_scope: Scope, receive: Receive, _send: Send) -> None:
            left.append((await receive())["type"])

        door = Door(stream, recheck_s=0.02)
        going_on = asyncio.create_task(door.ask(GOOD))
        await asyncio.sleep(0.1)
        assert not going_on.done()
        door.tokens.valid = False
        async with asyncio.timeout(5):
            await going_on
        assert left == ["http.disconnect"]

    asyncio.run(scene())


def test_streams_are_looked_after_slowly() -> None:
    assert authentication.RECHECK_S >= 5  # no background work runs more often
