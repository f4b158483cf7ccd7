"""Who asks: a bearer token if there is one, else the process at the other end of the Unix socket. Rights are not decided here."""

from typing import Final, Protocol

from starlette.types import ASGIApp, Receive, Scope, Send

from corral.api.errors import problem_response
from corral.api.limits import RateLimiter
from corral.api.peer import LocalIdentities
from corral.errors import CorralError
from corral.model.identity import Identity

# What a probe may ask without a name: it learns that the daemon lives, nothing else.
OPEN_PATHS: Final = frozenset({"/healthz", "/readyz"})
# A refused token costs its sender this many requests: guessing runs dry soon.
REFUSAL_COST: Final = 20.0


class TokenVerifier(Protocol):
    async def authenticate(self, token: str) -> Identity:
        """Raises `unauthenticated`."""
        ...


class Authentication:
    """Puts `identity` into the request's state, or answers 401 (and 429 to who asks too often)."""

    def __init__(self, app: ASGIApp, local: LocalIdentities, tokens: TokenVerifier, limiter: RateLimiter) -> None:
        self._app = app
        self._local = local
        self._tokens = tokens
        self._limiter = limiter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] not in OPEN_PATHS:
            try:
                identity = await self._identify(scope)
                self._limiter.take(identity.name)
            except CorralError as error:
                await problem_response(error, scope["state"]["request_id"])(scope, receive, send)
                return
            scope["state"]["identity"] = identity
        await self._app(scope, receive, send)

    async def _identify(self, scope: Scope) -> Identity:
        authorization = next((value for name, value in scope["headers"] if name == b"authorization"), None)
        if authorization is not None:
            return await self._by_token(scope, authorization)
        peer = scope["state"].get("peer")
        if peer is None:
            raise CorralError(
                "unauthenticated",
                f"{scope.get('method', 'open')} {scope['path']}",
                "the request carries no token",
                "send `Authorization: Bearer TOKEN`; `corral admin token create` makes one",
            )
        return self._local.identify(peer)

    async def _by_token(self, scope: Scope, authorization: bytes) -> Identity:
        address = f"address {(scope.get('client') or ('local',))[0]}"
        scheme, _, token = authorization.decode("latin-1").partition(" ")
        try:
            if scheme.lower() != "bearer" or not token:
                raise CorralError("unauthenticated", "authenticate", "only `Authorization: Bearer TOKEN` is understood")
            self._limiter.take(address, cost=0.0)
            return await self._tokens.authenticate(token.strip())
        except CorralError as error:
            if error.code == "unauthenticated":
                self._limiter.take(address, REFUSAL_COST)
            raise
