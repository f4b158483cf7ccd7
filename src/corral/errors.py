"""Errors as data: a code, what was asked, what is in the way, what to do next.

One catalogue (`CATALOGUE`) gives each code its kind; a kind is mapped once to an HTTP status and once to an exit code.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Final


class ErrorKind(StrEnum):
    """What sort of failure it is; decides the HTTP status and the exit code."""

    INVALID = "invalid"
    NOT_FOUND = "not-found"
    METHOD = "method"
    CONFLICT = "conflict"
    STALE = "stale"
    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN = "forbidden"
    TOO_LARGE = "too-large"
    RATE_LIMITED = "rate-limited"
    UNSUPPORTED = "unsupported"
    INSUFFICIENT = "insufficient"
    TIMEOUT = "timeout"
    UNAVAILABLE = "unavailable"
    UNREACHABLE = "unreachable"
    INTERNAL = "internal"


HTTP_STATUS: Final[Mapping[ErrorKind, int]] = MappingProxyType(
    {
        ErrorKind.INVALID: 422,
        ErrorKind.NOT_FOUND: 404,
        ErrorKind.METHOD: 405,
        ErrorKind.CONFLICT: 409,
        ErrorKind.STALE: 412,
        ErrorKind.UNAUTHENTICATED: 401,
        ErrorKind.FORBIDDEN: 403,
        ErrorKind.TOO_LARGE: 413,
        ErrorKind.RATE_LIMITED: 429,
        ErrorKind.UNSUPPORTED: 422,
        ErrorKind.INSUFFICIENT: 409,
        ErrorKind.TIMEOUT: 504,
        ErrorKind.UNAVAILABLE: 503,
        ErrorKind.UNREACHABLE: 503,
        ErrorKind.INTERNAL: 500,
    }
)

EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_NOT_FOUND: Final = 3
EXIT_CONFLICT: Final = 4
EXIT_NOT_PERMITTED: Final = 5
EXIT_UNREACHABLE: Final = 6

EXIT_STATUS: Final[Mapping[ErrorKind, int]] = MappingProxyType(
    {
        ErrorKind.INVALID: EXIT_USAGE,
        ErrorKind.TOO_LARGE: EXIT_USAGE,
        ErrorKind.UNSUPPORTED: EXIT_USAGE,
        ErrorKind.METHOD: EXIT_USAGE,
        ErrorKind.NOT_FOUND: EXIT_NOT_FOUND,
        ErrorKind.CONFLICT: EXIT_CONFLICT,
        ErrorKind.STALE: EXIT_CONFLICT,
        ErrorKind.INSUFFICIENT: EXIT_CONFLICT,
        ErrorKind.UNAUTHENTICATED: EXIT_NOT_PERMITTED,
        ErrorKind.FORBIDDEN: EXIT_NOT_PERMITTED,
        ErrorKind.UNREACHABLE: EXIT_UNREACHABLE,
        ErrorKind.RATE_LIMITED: EXIT_FAILED,
        ErrorKind.TIMEOUT: EXIT_FAILED,
        ErrorKind.UNAVAILABLE: EXIT_FAILED,
        ErrorKind.INTERNAL: EXIT_FAILED,
    }
)


# Every code the platform can answer with, and its kind. Raising one that is missing here fails (a unit test greps for
# codes that nothing raises), and the reference page of errors is generated from this table.
CATALOGUE: Final[Mapping[str, ErrorKind]] = MappingProxyType(
    {
        # input
        "invalid-argument": ErrorKind.INVALID,
        "invalid-name": ErrorKind.INVALID,
        "invalid-size": ErrorKind.INVALID,
        "invalid-document": ErrorKind.INVALID,
        "invalid-cloud-init": ErrorKind.INVALID,
        "invalid-selector": ErrorKind.INVALID,
        "invalid-ssh-key": ErrorKind.INVALID,
        "invalid-hardware": ErrorKind.INVALID,
        "invalid-rule": ErrorKind.INVALID,
        "body-too-large": ErrorKind.TOO_LARGE,
        "rate-limited": ErrorKind.RATE_LIMITED,
        # things that are not there
        "vm-not-found": ErrorKind.NOT_FOUND,
        "image-not-found": ErrorKind.NOT_FOUND,
        "volume-not-found": ErrorKind.NOT_FOUND,
        "snapshot-not-found": ErrorKind.NOT_FOUND,
        "template-not-found": ErrorKind.NOT_FOUND,
        "pool-not-found": ErrorKind.NOT_FOUND,
        "router-not-found": ErrorKind.NOT_FOUND,
        "forward-not-found": ErrorKind.NOT_FOUND,
        "address-not-found": ErrorKind.NOT_FOUND,
        "balancer-not-found": ErrorKind.NOT_FOUND,
        "network-not-found": ErrorKind.NOT_FOUND,
        "security-group-not-found": ErrorKind.NOT_FOUND,
        "network-policy-not-found": ErrorKind.NOT_FOUND,
        "operation-not-found": ErrorKind.NOT_FOUND,
        "project-not-found": ErrorKind.NOT_FOUND,
        "host-not-found": ErrorKind.NOT_FOUND,
        "token-not-found": ErrorKind.NOT_FOUND,
        "device-not-found": ErrorKind.NOT_FOUND,
        "domain-not-found": ErrorKind.NOT_FOUND,
        "route-not-found": ErrorKind.NOT_FOUND,
        "method-not-allowed": ErrorKind.METHOD,
        # conflicts
        "name-taken": ErrorKind.CONFLICT,
        "domain-name-taken": ErrorKind.CONFLICT,
        "address-taken": ErrorKind.CONFLICT,
        "stale-revision": ErrorKind.STALE,
        "precondition-failed": ErrorKind.CONFLICT,
        "wrong-state": ErrorKind.CONFLICT,
        "vm-protected": ErrorKind.CONFLICT,
        "vm-being-deleted": ErrorKind.CONFLICT,
        "image-in-use": ErrorKind.CONFLICT,
        "image-not-ready": ErrorKind.CONFLICT,
        "volume-in-use": ErrorKind.CONFLICT,
        "pool-in-use": ErrorKind.CONFLICT,
        "network-in-use": ErrorKind.CONFLICT,
        "router-in-use": ErrorKind.CONFLICT,
        "balancer-in-use": ErrorKind.CONFLICT,
        "security-group-in-use": ErrorKind.CONFLICT,
        "chain-broken": ErrorKind.CONFLICT,
        "chain-too-long": ErrorKind.CONFLICT,
        "template-damaged": ErrorKind.CONFLICT,
        "template-stale": ErrorKind.CONFLICT,
        "template-not-published": ErrorKind.FORBIDDEN,
        "template-in-use": ErrorKind.CONFLICT,
        "template-not-ready": ErrorKind.CONFLICT,
        "operation-finished": ErrorKind.CONFLICT,
        "idempotency-key-reused": ErrorKind.CONFLICT,
        "domain-not-ours": ErrorKind.CONFLICT,
        "console-in-use": ErrorKind.CONFLICT,
        # not enough of something
        "insufficient-memory": ErrorKind.INSUFFICIENT,
        "insufficient-cpu": ErrorKind.INSUFFICIENT,
        "insufficient-disk": ErrorKind.INSUFFICIENT,
        "insufficient-bandwidth": ErrorKind.INSUFFICIENT,
        "no-free-subnet": ErrorKind.INSUFFICIENT,
        "no-free-address": ErrorKind.INSUFFICIENT,
        # rights
        "unauthenticated": ErrorKind.UNAUTHENTICATED,
        "forbidden": ErrorKind.FORBIDDEN,
        # what this host, or this build, cannot do
        "unsupported": ErrorKind.UNSUPPORTED,
        # the world below
        "hypervisor-unavailable": ErrorKind.UNAVAILABLE,
        "firewall-unavailable": ErrorKind.UNAVAILABLE,
        "hypervisor-timeout": ErrorKind.TIMEOUT,
        "hypervisor-error": ErrorKind.INTERNAL,
        "guest-agent-unavailable": ErrorKind.UNAVAILABLE,
        "guest-agent-timeout": ErrorKind.TIMEOUT,
        "guest-agent-error": ErrorKind.INTERNAL,
        "guest-file-not-found": ErrorKind.NOT_FOUND,
        "guest-file-error": ErrorKind.CONFLICT,
        "command-failed": ErrorKind.INTERNAL,
        "command-timeout": ErrorKind.TIMEOUT,
        "command-missing": ErrorKind.UNAVAILABLE,
        "download-failed": ErrorKind.UNAVAILABLE,
        "checksum-mismatch": ErrorKind.INTERNAL,
        "image-build-failed": ErrorKind.INTERNAL,
        "image-invalid": ErrorKind.INVALID,
        "disk-full": ErrorKind.INSUFFICIENT,
        "storage-error": ErrorKind.INTERNAL,
        "pool-unavailable": ErrorKind.UNAVAILABLE,
        "store-unavailable": ErrorKind.UNAVAILABLE,
        "store-corrupt": ErrorKind.INTERNAL,
        "store-too-new": ErrorKind.INTERNAL,
        "compacted": ErrorKind.CONFLICT,
        "lease-not-found": ErrorKind.NOT_FOUND,
        "object-too-large": ErrorKind.TOO_LARGE,
        "transaction-too-large": ErrorKind.TOO_LARGE,
        # time
        "wait-timeout": ErrorKind.TIMEOUT,
        "not-in-force": ErrorKind.TIMEOUT,  # recorded: who asked again after a while would find a name taken
        "shutdown-timeout": ErrorKind.TIMEOUT,
        # operations that ended otherwise
        "operation-failed": ErrorKind.INTERNAL,
        "operation-cancelled": ErrorKind.CONFLICT,
        "operation-superseded": ErrorKind.CONFLICT,
        "operation-interrupted": ErrorKind.INTERNAL,
        # the client's side
        "daemon-unreachable": ErrorKind.UNREACHABLE,
        "daemon-already-running": ErrorKind.CONFLICT,
        "internal": ErrorKind.INTERNAL,
    }
)


@dataclass(eq=False)  # not frozen: contextlib and asyncio set __traceback__ and __notes__ on exceptions
class CorralError(Exception):
    """A failure that somebody can act upon.

    code: a key of `CATALOGUE`; asked: what was requested; reason: what is in the way; hint: what to do next;
    context: names and figures a program may want (never secrets).
    """

    code: str
    asked: str
    reason: str
    hint: str = ""
    context: Mapping[str, str | int | float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.code not in CATALOGUE:
            raise LookupError(f"error code {self.code!r} is not in the catalogue")
        Exception.__init__(self, self.code, self.asked, self.reason)

    @property
    def kind(self) -> ErrorKind:
        return CATALOGUE[self.code]

    @property
    def http_status(self) -> int:
        return HTTP_STATUS[self.kind]

    @property
    def exit_status(self) -> int:
        return EXIT_STATUS[self.kind]

    def __str__(self) -> str:
        text = f"{self.asked}: {self.reason}" if self.asked else self.reason
        return f"{text} [{self.code}]" + (f"\n  {self.hint}" if self.hint else "")
