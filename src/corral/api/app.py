"""The API's application: routes in the middle, and around them, from the outside in: tracing, authentication, the body's bounds."""

import asyncio
from dataclasses import dataclass
from typing import Any, Final

from fastapi import FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from corral.api import (
    address,
    audit,
    balancer,
    capture,
    clone,
    daemon,
    device,
    domain,
    errors,
    event,
    firewall,
    forward,
    guest,
    host,
    host_network,
    image,
    network,
    network_usage,
    operation,
    os,
    pool,
    publication,
    router,
    security_group,
    session,
    snapshot,
    stack,
    template,
    token,
    vm,
    volume,
    warm,
)
from corral.api.authentication import Authentication, TokenVerifier
from corral.api.call import Face
from corral.api.errors import MEDIA_TYPE, ProblemDocument
from corral.api.limits import BodyLimit, RateLimiter
from corral.api.metrics import PREFIX, ApiMetrics
from corral.api.openapi import describe
from corral.api.peer import LocalIdentities
from corral.api.tracing import Tracing
from corral.services.bundle import Services
from corral.settings import Settings
from corral.version import __version__

DESCRIPTION: Final = """\
Corral's API. Over the Unix socket the caller is known by the kernel's word; over TCP by `Authorization: Bearer TOKEN`.

Changes answer 202 with an *operation*, which `GET /v1/operations/{uid}?wait_s=30` follows to its end. Errors are
problem documents (RFC 9457) with a `code` that a program can compare. Documents carry their revision as ETag; a change
with `If-Match` is refused when the object has changed since. The same `Idempotency-Key` again answers with the same
operation."""

# Tried in this order for each request: what is asked most comes first.
_ROUTERS: Final = (
    operation,
    vm,
    clone,
    device,
    session,
    capture,
    guest,
    stack,
    image,
    os,
    network,
    router,
    forward,
    address,
    balancer,
    network_usage,
    security_group,
    firewall,
    snapshot,
    template,
    publication,
    warm,
    volume,
    pool,
    host,
    host_network,
    domain,
    event,
    token,
    audit,
    daemon,
)


@dataclass(frozen=True)
class Api:
    """The application as servers run it, and what they tell it."""

    asgi: ASGIApp
    face: Face
    fastapi: FastAPI

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.asgi(scope, receive, send)

    async def warm_up(self) -> None:
        """Build what the framework builds at its first request, so that nobody waits for it."""

        async def receive() -> Message:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(_message: Message) -> None:
            pass

        scope: Scope = {"type": "http", "method": "GET", "path": "/healthz", "raw_path": b"/healthz"}
        scope.update(query_string=b"", headers=[], http_version="1.1", scheme="http", server=None, client=None)
        await self.asgi({**scope, "root_path": ""}, receive, send)

    def stop(self) -> None:
        """End the answers that would go on for ever."""
        self.face.stopping.set()


def create_app(
    services: Services,
    tokens: TokenVerifier,
    settings: Settings,
    *,
    local: LocalIdentities | None = None,
    limiter: RateLimiter | None = None,
) -> Api:
    """The API over `services`. `tokens` knows the secrets of callers that come over TCP."""
    face = Face(services, ApiMetrics(), asyncio.Event())
    fastapi = _routes()
    fastapi.state.face = face
    limiter = limiter or RateLimiter(settings.request_rate_per_s)
    asgi: ASGIApp = BodyLimit(fastapi)
    asgi = Authentication(asgi, local or LocalIdentities(settings.admin_group), tokens, limiter)
    return Api(Tracing(asgi, face.metrics, face.stopping), face, fastapi)


def _routes() -> FastAPI:
    fastapi = FastAPI(
        title="Corral",
        version=__version__,
        description=DESCRIPTION,
        openapi_url=f"{PREFIX}/openapi.json",
        docs_url=None,  # both pages load their scripts from other people's servers
        redoc_url=None,
        redirect_slashes=False,
        responses={
            "default": {
                "description": "A problem",
                "model": ProblemDocument,
                "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDocument"}}},
            }
        },
    )
    for module in _ROUTERS:
        fastapi.include_router(module.router, prefix=PREFIX)
    fastapi.include_router(daemon.probes)
    errors.install(fastapi)
    generate = fastapi.openapi
    described: list[dict[str, Any]] = []

    def openapi() -> dict[str, Any]:
        if not described:
            described.append(describe(generate()))
        return described[0]

    fastapi.openapi = openapi  # type: ignore[method-assign]  # FastAPI's own way to extend the document
    return fastapi


def openapi_document() -> dict[str, Any]:
    """The OpenAPI document, without a daemon: documentation and the client's types are made from it."""
    return _routes().openapi()
