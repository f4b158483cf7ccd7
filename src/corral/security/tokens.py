"""API tokens: `corral_<uid>_<secret>`, of which only an argon2id hash of the secret is kept."""

import asyncio
import hashlib
import hmac
import re
import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from corral.clock import Clock
from corral.errors import CorralError
from corral.model.base import DEFAULT_PROJECT
from corral.model.identity import Identity, Token
from corral.names import new_uid

SECRET_BYTES: Final = 32
CACHE_MAX: Final = 256
# OWASP's password storage cheat sheet, argon2id: 19 MiB, 2 passes, 1 lane. The secret has 256 random bits of its own.
_HASHER: Final = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
_TEXT: Final = re.compile(r"corral_([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})_([A-Za-z0-9_-]{43})", re.ASCII)
# Hashes at a time: a flood of wrong tokens costs one core and 19 MiB, not all of them.
_VERIFICATIONS_AT_ONCE: Final = 1


@dataclass(frozen=True, repr=False)
class NewToken:
    """What `issue` made: `text` is shown once; `secret_hash` is kept."""

    uid: str
    text: str
    secret_hash: str


def issue() -> NewToken:
    """A new random token. Hashing takes some 20 ms: call it in a thread."""
    uid = new_uid()
    secret = secrets.token_urlsafe(SECRET_BYTES)
    return NewToken(uid, f"corral_{uid}_{secret}", _HASHER.hash(secret))


def identity_of(token: Token) -> Identity:
    """A token acts under its own name, in its own project, with its role and rights. The name says the project: tokens of two
    tenants that are called the same share neither idempotency keys nor a rate."""
    prefix = "token" if token.project == DEFAULT_PROJECT else f"token:{token.project}"
    project, spec = token.project, token.spec
    rights = {project: spec.rights} if spec.rights else {}
    return Identity(name=f"{prefix}:{token.name}", roles={project: spec.role}, rights=rights)


class TokenVerifier:
    """Tells whose token a text is. Remembers a few that were right, so that not every request pays for argon2."""

    def __init__(self, lookup: Callable[[str], Awaitable[Token | None]], clock: Clock) -> None:
        """`lookup` finds a token by uid; it is asked each time, so that a deleted token is refused at once."""
        self._lookup = lookup
        self._clock = clock
        # uid -> (the kept hash it was right for, a digest of the secret under a key of this process)
        self._right: OrderedDict[str, tuple[str, bytes]] = OrderedDict()
        self._key = secrets.token_bytes(32)
        self._slots = asyncio.Semaphore(_VERIFICATIONS_AT_ONCE)
        self._nobody: str | None = None

    async def verify(self, text: str) -> Identity:
        """The identity that `text` proves. Raises `unauthenticated`, with one and the same message for whatever is
        wrong, and after the same work whether or not there is such a token."""
        match = _TEXT.fullmatch(text)
        if match is None:
            raise _refused()
        uid, secret = match.groups()
        token = await self._lookup(uid)
        right = await self._matches(uid, secret, token)
        if token is None or not right or token.being_deleted:
            raise _refused()
        if token.spec.expires_at is not None and token.spec.expires_at <= self._clock.now():
            self._right.pop(uid, None)
            raise _refused()
        return identity_of(token)

    async def _matches(self, uid: str, secret: str, token: Token | None) -> bool:
        digest = hmac.digest(self._key, secret.encode(), hashlib.sha256)
        kept = self._right.get(uid)
        known = token is not None and kept is not None and kept[0] == token.spec.secret_hash
        if kept is not None and known and hmac.compare_digest(kept[1], digest):
            self._right.move_to_end(uid)
            return True
        async with self._slots:
            if self._nobody is None:
                self._nobody = await asyncio.to_thread(_HASHER.hash, secrets.token_urlsafe(SECRET_BYTES))
            expected = self._nobody if token is None else token.spec.secret_hash
            right = await asyncio.to_thread(_verified, expected, secret)
        if right and token is not None:
            self._right[uid] = (token.spec.secret_hash, digest)
            self._right.move_to_end(uid)
            while len(self._right) > CACHE_MAX:
                self._right.popitem(last=False)
        return right


def _verified(secret_hash: str, secret: str) -> bool:
    try:
        return _HASHER.verify(secret_hash, secret)
    except (VerificationError, InvalidHashError):
        return False


def _refused() -> CorralError:
    return CorralError(
        "unauthenticated",
        "use an API token",
        "it is not valid: mistyped, expired or deleted",
        "corral admin token create NAME --role ROLE makes a new one",
    )
