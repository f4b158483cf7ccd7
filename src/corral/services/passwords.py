"""A guest user's password: hashed at once by openssl, and quoted nowhere."""

from collections.abc import Awaitable, Callable
from typing import Final

from corral import proc
from corral.errors import CorralError

PasswordHasher = Callable[[str], Awaitable[str]]

PASSWORD_MAX_CHARS: Final = 256
HASH_TIMEOUT_S: Final = 10.0


def check_password(password: str) -> None:
    """Nothing if it can be hashed and typed; `invalid-argument` (which never quotes it) otherwise."""
    if not 1 <= len(password) <= PASSWORD_MAX_CHARS or any(ord(character) < 32 for character in password):
        raise CorralError(
            "invalid-argument",
            "password",
            f"a password has 1 to {PASSWORD_MAX_CHARS} characters and no control characters",
        )


async def hash_password(password: str) -> str:
    """crypt(5) SHA-512 text of `password`; it goes to openssl through a pipe, never through argv.

    Python has no crypt(3) of its own from 3.13 on."""
    done = await proc.run(
        [proc.require("openssl", "openssl"), "passwd", "-6", "-stdin"],
        stdin=password.encode() + b"\n",
        timeout_s=HASH_TIMEOUT_S,
    )
    return done.stdout.decode().strip()
