"""Bounds on what a caller may send: the size of a body, and how often."""

import asyncio
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from corral.api.errors import problem_response
from corral.clock import Clock, SystemClock
from corral.errors import CorralError
from corral.model.limits import REQUEST_BODY_MAX_BYTES

# A caller may save up this many seconds of its rate: a program that starts a hundred VMs at once is not an attack.
BURST_S: Final = 10.0
# Callers remembered; beyond that the one that was quiet for longest is forgotten (its bucket was full again anyway).
CALLERS_MAX: Final = 4096
BODY_TIMEOUT_S: Final = 30.0
# Of a body that is refused, so much is read and thrown away, so that the refusal can be read.
DRAIN_MAX_BYTES: Final = 64 * 2**20
DRAIN_TIMEOUT_S: Final = 2.0


@dataclass(slots=True)
class _Bucket:
    tokens: float
    filled_at_s: float


class RateLimiter:
    """A token bucket for each caller: `rate_per_s` in the long run, `BURST_S` seconds of it at once."""

    def __init__(self, rate_per_s: float, clock: Clock | None = None) -> None:
        self._rate_per_s = rate_per_s
        self._capacity = max(1.0, rate_per_s * BURST_S)
        self._clock = clock or SystemClock()
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def take(self, caller: str, cost: float = 1.0) -> None:
        """Count a request of `caller`. Raises `rate-limited` with the seconds to wait in its context."""
        bucket, cost = self._filled(caller), min(cost, self._capacity)
        self._check(caller, bucket, cost)
        bucket.tokens -= cost

    def charge(self, caller: str, cost: float) -> None:
        """Count what was done already; it is not refused, and no more is taken than `caller` has."""
        bucket = self._filled(caller)
        bucket.tokens = max(0.0, bucket.tokens - cost)

    def give_back(self, caller: str, cost: float) -> None:
        """Undo a `take` of the same cost."""
        bucket = self._filled(caller)
        bucket.tokens = min(self._capacity, bucket.tokens + min(cost, self._capacity))

    def _filled(self, caller: str) -> _Bucket:
        now = self._clock.monotonic_s()
        bucket = self._buckets.get(caller)
        if bucket is None:
            bucket = self._buckets[caller] = _Bucket(self._capacity, now)
            if len(self._buckets) > CALLERS_MAX:
                self._buckets.popitem(last=False)
        else:
            self._buckets.move_to_end(caller)
            bucket.tokens = min(self._capacity, bucket.tokens + (now - bucket.filled_at_s) * self._rate_per_s)
            bucket.filled_at_s = now
        return bucket

    def _check(self, caller: str, bucket: _Bucket, cost: float) -> None:
        if bucket.tokens < cost:
            wait_s = max(1, round((cost - bucket.tokens) / self._rate_per_s + 0.5))
            raise CorralError(
                "rate-limited",
                f"requests of {caller}",
                f"more than {self._rate_per_s:g} a second",
                f"try again after {wait_s} s",
                {"retry_after_s": wait_s},
            )


@dataclass(eq=False)
class _Unread(Exception):  # noqa: N818 -- says what is left, not what is wrong
    """A body that is not handed on. `at_end`: all of it was taken from the connection, which can go on being used."""

    error: CorralError
    at_end: bool


class BodyLimit:
    """Reads the body before the route runs, in bounded size and time, whatever its framing; then hands it on whole."""

    def __init__(
        self, app: ASGIApp, max_bytes: int = REQUEST_BODY_MAX_BYTES, timeout_s: float = BODY_TIMEOUT_S
    ) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            first = await self._read(scope, receive)
        except _Unread as unread:
            headers = {} if unread.at_end else {"Connection": "close"}
            await problem_response(unread.error, scope["state"]["request_id"], headers)(scope, receive, send)
            return
        if first is None:  # the caller went away in the middle
            return
        pending: list[Message] = [first]

        async def replay() -> Message:
            return pending.pop() if pending else await receive()

        await self._app(scope, replay, send)

    async def _read(self, scope: Scope, receive: Receive) -> Message | None:
        """The whole body as one message; None if the caller went away.

        What is too large is read on for a while and thrown away: many clients send all of it before they look for an
        answer, and would only see that we hung up. One that waits to be told to go on (`Expect`) is told no at once.
        """
        headers = dict(scope["headers"])
        if b"content-length" in headers and b"transfer-encoding" in headers:
            # RFC 9112, 6.3: perhaps somebody smuggles a second request past a proxy that counts otherwise.
            error = CorralError("invalid-argument", "read the request", "its body has two lengths", "send one of them")
            raise _Unread(error, at_end=False)
        declared = int(headers.get(b"content-length", b"0"))
        if declared > DRAIN_MAX_BYTES or (declared > self._max_bytes and b"expect" in headers):
            raise _Unread(self._too_large(), at_end=False)
        body = bytearray()
        size = 0
        try:
            async with asyncio.timeout(self._timeout_s) as bound:
                while size <= DRAIN_MAX_BYTES:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return None
                    chunk = message.get("body", b"")
                    size += len(chunk)
                    if size <= self._max_bytes:
                        body += chunk
                    elif size - len(chunk) <= self._max_bytes:
                        bound.reschedule(asyncio.get_running_loop().time() + DRAIN_TIMEOUT_S)
                    if not message.get("more_body", False):
                        break
                else:
                    raise _Unread(self._too_large(), at_end=False)
        except TimeoutError as error:
            late = CorralError(
                "invalid-document", "read the request", f"the body was not complete after {self._timeout_s:g} s"
            )
            raise _Unread(self._too_large() if size > self._max_bytes else late, at_end=False) from error
        if size > self._max_bytes:
            raise _Unread(self._too_large(), at_end=True)
        return {"type": "http.request", "body": bytes(body), "more_body": False}

    def _too_large(self) -> CorralError:
        return CorralError(
            "body-too-large",
            "send a document",
            f"it is larger than {self._max_bytes} bytes",
            "disk images go through `corral image build --path`, large files into the guest over SSH",
            {"max_bytes": self._max_bytes},
        )
