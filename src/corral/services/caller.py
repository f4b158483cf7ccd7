"""Who asks: the first argument of every service."""

from dataclasses import dataclass

from corral.model.identity import Identity


@dataclass(frozen=True)
class Caller:
    """One authenticated request."""

    identity: Identity
    request_id: str
    client_key: str = ""
    """The caller's Idempotency-Key."""
