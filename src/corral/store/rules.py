"""What every store implementation checks and computes alike: limits, key order, and the errors of the contract."""

from collections.abc import Sequence
from typing import Final

from corral.errors import CorralError
from corral.store.base import (
    KEY_MAX_BYTES,
    OBJECT_MAX_BYTES,
    TRANSACTION_MAX_KEYS,
    Append,
    Precondition,
    Put,
    Write,
)

# Keys start with "/", so every key lies in ["/", "0"): "0" follows "/" in ASCII.
_FIRST: Final = "/"
_BEYOND: Final = "0"
_LAST_CODE_POINT: Final = 0x10FFFF
_SURROGATES: Final = range(0xD800, 0xE000)  # no UTF-8 text holds them


def check_transaction(
    writes: Sequence[Write], preconditions: Sequence[Precondition], appends: Sequence[Append]
) -> None:
    """Raise `transaction-too-large`, `object-too-large` or `invalid-argument` before anything is begun."""
    written = {write.key for write in writes}
    if len(written) != len(writes):
        raise CorralError("invalid-argument", "write to the store", "a transaction names a key twice")
    keys = written | {precondition.key for precondition in preconditions}
    if len(keys) > TRANSACTION_MAX_KEYS or len(appends) > TRANSACTION_MAX_KEYS:
        raise CorralError(
            "transaction-too-large",
            f"a transaction over {len(keys)} keys and {len(appends)} journal entries",
            f"at most {TRANSACTION_MAX_KEYS} of each go together",
            "change fewer things at once",
        )
    for key in keys:
        check_key(key)
    for write in writes:
        if isinstance(write, Put):
            check_size(write.key, write.value)
    for append in appends:
        check_size(f"journal {append.journal}", append.value)


def check_key(key: str) -> None:
    """Keys are UTF-8 text that starts with `/`, without NUL, of at most KEY_MAX_BYTES. Raises `invalid-argument`."""
    try:
        size = len(key.encode())
    except UnicodeEncodeError:
        size = 0
    if not key.startswith(_FIRST) or "\0" in key or not 0 < size <= KEY_MAX_BYTES:
        raise CorralError(
            "invalid-argument",
            f"store key {key[:80]!r}",
            f"a key is UTF-8 text that starts with '/', without NUL, of at most {KEY_MAX_BYTES} bytes",
        )


def check_size(what: str, value: bytes) -> None:
    """Raises `object-too-large`."""
    if len(value) > OBJECT_MAX_BYTES:
        raise CorralError(
            "object-too-large",
            f"keep {what}",
            f"{len(value)} bytes are more than the {OBJECT_MAX_BYTES} that one object may have",
            "make it smaller: fewer or shorter fields",
            {"bytes": len(value), "limit": OBJECT_MAX_BYTES},
        )


def bounds(prefix: str, after: str = "") -> tuple[str, str]:
    """The half-open interval of keys that start with `prefix` and are greater than `after`.

    No key holds NUL, so that `after` + NUL is the smallest text beyond `after`.
    """
    low = max(prefix, _FIRST)
    if after >= low:
        low = after + "\0"
    return low, _successor(prefix)


def _successor(prefix: str) -> str:
    """The smallest text greater than every text that starts with `prefix`."""
    stripped = prefix.rstrip(chr(_LAST_CODE_POINT))
    if not stripped:
        return _BEYOND
    following = ord(stripped[-1]) + 1
    if following in _SURROGATES:
        following = _SURROGATES.stop
    return stripped[:-1] + chr(following)


def precondition_failed(key: str, wanted: int, found: int) -> CorralError:
    """A lost race; `context["revision"]` is what was found, 0 if the key is not there."""
    return CorralError(
        "precondition-failed",
        f"write {key}" if wanted else f"create {key}",
        f"expected revision {wanted}, found {found}" if found else "it is not there any more",
        "read it again and retry",
        {"key": key, "revision": found},
    )


def compacted(asked: int, oldest: int, newest: int) -> CorralError:
    """History at `asked` is gone, or never was."""
    return CorralError(
        "compacted",
        f"read the store's history from revision {asked}",
        f"what is kept goes from revision {oldest} to {newest}",
        "list again and watch from the revision of that list",
        {"revision": asked, "oldest": oldest, "newest": newest},
    )


def lease_not_found(lease: int) -> CorralError:
    return CorralError(
        "lease-not-found", f"use lease {lease}", "it has expired or was revoked", "take a new one", {"lease": lease}
    )


def closed() -> CorralError:
    return CorralError("store-unavailable", "use the store", "it is closed: the daemon is stopping", "retry shortly")
