"""Who asks: a bearer token if there is one, else the process at the other end of the Unix socket. Rights are not decided here."""

import asyncio
import ipaddress
from collections import Counter
from dataclasses import dataclass
from typing import Final, Protocol

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from corral.api.errors import problem_response
from corral.api.limits import RateLimiter
from corral.api.peer import LocalIdentities
from corral.errors import CorralError
from corral.model.identity import Identity

# What a probe may ask without a name: it learns that the daemon lives, nothing else.
OPEN_PATHS: Final = frozenset({"/healthz", "/readyz"})
# A refused token costs its sender this many requests: guessing runs dry soon, before it costs us many hashes. So does
# a request that its sender has no right to: each is written into the audit log, which nothing shortens.
REFUSAL_COST: Final = 20.0
# Requests of one token under way, streams and consoles included: a tenant cannot take all connections there are.
UNDER_WAY_MAX: Final = 256
# Streams and consoles end this soon after their token was revoked or has expired.
RECHECK_S: Final = 10.0
# An IPv6 network's smallest part that is given to one customer (RFC 6177): its addresses count as one.
IPV6_SITE_BITS: Final = 64


class TokenVerifier(Protocol):
    async def authenticate(self, token: str) -> Identity:
        """Raises `unauthenticated`."""
        ...


@dataclass(frozen=True, slots=True)
class _Caller:
    identity: Identity
    token: str | None = None


class Authentication:
    """Puts `identity` into the request's state, or answers 401 (and 429 to who asks too often)."""

    def __init__(
        self,
        app: ASGIApp,
        local: LocalIdentities,
        tokens: TokenVerifier,
        limiter: RateLimiter,
        recheck_s: float = RECHECK_S,
    ) -> None:
        self._app = app
        self._local = local
        self._tokens = tokens
        self._limiter = limiter
        self._recheck_s = recheck_s
        self._under_way: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] in OPEN_PATHS:
            await self._app(scope, receive, send)
            return
        try:
            caller = await self._identify(scope)
            name = caller.identity.name
            self._limiter.take(name)
            if caller.token is not None and self._under_way[name] >= UNDER_WAY_MAX:
                raise CorralError(
                    "rate-limited", f"requests of {name}", f"{UNDER_WAY_MAX} are under way", "end some of them first"
                )
        except CorralError as error:
            await problem_response(error, scope["state"]["request_id"])(scope, receive, send)
            return
        scope["state"]["identity"] = caller.identity
        if caller.token is not None:
            receive = self._while_valid(caller.token, scope["type"], receive)
        self._under_way[name] += 1
        try:
            await self._app(scope, receive, self._counting_refusals(name, send))
        finally:
            self._under_way[name] -= 1
            if not self._under_way[name]:
                del self._under_way[name]

    def _counting_refusals(self, name: str, send: Send) -> Send:
        async def counted(message: Message) -> None:
            if message.get("status") == 403:
                self._limiter.charge(name, REFUSAL_COST)
            await send(message)

        return counted

    def _while_valid(self, token: str, kind: str, receive: Receive) -> Receive:
        """`receive` that says the caller has left when its token is not valid any more: what goes on ends then."""

        async def watched() -> Message:
            pending = asyncio.ensure_future(receive())
            try:
                while not (await asyncio.wait({pending}, timeout=self._recheck_s))[0]:
                    try:
                        await self._tokens.authenticate(token)
                    except CorralError as error:
                        if error.code == "unauthenticated":
                            return {"type": f"{kind}.disconnect", "code": 1008}  # RFC 6455, 7.4.1: policy
                return pending.result()
            finally:
                pending.cancel()

        return watched

    async def _identify(self, scope: Scope) -> _Caller:
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
        return _Caller(self._local.identify(peer))

    async def _by_token(self, scope: Scope, authorization: bytes) -> _Caller:
        """The price of a refusal is taken first and given back, so that a thousand guesses at once pay it too."""
        address = f"address {_origin(scope)}"
        scheme, _, token = authorization.decode("latin-1").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise CorralError("unauthenticated", "authenticate", "only `Authorization: Bearer TOKEN` is understood")
        token = token.strip()
        self._limiter.take(address, REFUSAL_COST)
        try:
            identity = await self._tokens.authenticate(token)
        except CorralError as error:
            if error.code != "unauthenticated":
                self._limiter.give_back(address, REFUSAL_COST)
            raise
        self._limiter.give_back(address, REFUSAL_COST)
        return _Caller(identity, token)


def _origin(scope: Scope) -> str:
    """Where a connection comes from, as far as its sender cannot choose it."""
    host = str((scope.get("client") or ("",))[0])
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return "local"
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is None:
        return str(ipaddress.IPv6Network((address, IPV6_SITE_BITS), strict=False))
    return str(address)
