"""The outermost layer of a request: its id, its line in the log, its time in the metrics, and the last resort."""

import asyncio
import re
import secrets
import time
from typing import Final

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from corral.api.errors import internal_error, problem_response
from corral.api.metrics import ApiMetrics
from corral.errors import CorralError
from corral.log import logger

# A caller's own id is taken over if it is harmless in a log line and a header.
_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_READS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
log: Final = logger("api")


class Tracing:
    """Gives each request an id (answered as `X-Request-Id`), and logs it: changes and failures at info, reads at
    debug. Neither queries nor headers nor bodies are logged: they may hold secrets."""

    def __init__(self, app: ASGIApp, metrics: ApiMetrics, stopping: asyncio.Event) -> None:
        self._app = app
        self._metrics = metrics
        self._stopping = stopping

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            return
        request_id = scope.setdefault("state", {})["request_id"] = _request_id(scope)
        started_at = time.perf_counter()
        status = 0

        async def traced_send(message: Message) -> None:
            nonlocal status
            if message["type"] in ("http.response.start", "websocket.http.response.start", "websocket.accept"):
                status = message.get("status", 101)
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id.encode())]
                self._metrics.observe(scope, status, time.perf_counter() - started_at)
            await send(message)

        error: Exception | None = None
        try:
            await self._app(scope, receive, traced_send)
        except asyncio.CancelledError:
            if not self._stopping.is_set():
                raise
            if not status:  # it waited for something; the client knows this code, and asks again
                await problem_response(_stopped(), request_id)(scope, receive, traced_send)
        except Exception as unforeseen:  # noqa: BLE001 -- top of a request
            error = unforeseen
            if not status:
                await problem_response(internal_error(), request_id)(scope, receive, traced_send)
        _log(scope, status, time.perf_counter() - started_at, error)


def _stopped() -> CorralError:
    return CorralError(
        "daemon-unreachable", "wait for the answer", "the daemon stops", "ask again when it is back; what runs goes on"
    )


def _request_id(scope: Scope) -> str:
    given: bytes | None = next((value for name, value in scope["headers"] if name == b"x-request-id"), None)
    return given.decode() if given and _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)


def _log(scope: Scope, status: int, elapsed_s: float, error: Exception | None) -> None:
    method = scope.get("method", "WEBSOCKET")
    quiet = error is None and status < 400 and method in _READS
    write = log.debug if quiet else log.info if error is None else log.error
    identity = scope["state"].get("identity")
    with structlog.contextvars.bound_contextvars(request_id=scope["state"]["request_id"]):
        write(
            "request",
            method=method,
            path=scope["path"],
            status=status,
            ms=round(elapsed_s * 1000, 1),
            identity=identity.name if identity else "",
            exc_info=error,
        )
