"""libvirt's errors as ours: decided by libvirt's code and domain, never by its text."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Final

import libvirt

from corral.errors import CorralError

_CODES: Final[Mapping[int, str]] = MappingProxyType(
    {
        libvirt.VIR_ERR_NO_CONNECT: "hypervisor-unavailable",
        libvirt.VIR_ERR_INVALID_CONN: "hypervisor-unavailable",
        libvirt.VIR_ERR_RPC: "hypervisor-unavailable",
        libvirt.VIR_ERR_AUTH_FAILED: "hypervisor-unavailable",
        libvirt.VIR_ERR_AUTH_UNAVAILABLE: "hypervisor-unavailable",
        libvirt.VIR_ERR_NO_DOMAIN: "domain-not-found",
        libvirt.VIR_ERR_DOM_EXIST: "domain-name-taken",
        libvirt.VIR_ERR_NO_NETWORK: "network-not-found",
        libvirt.VIR_ERR_OPERATION_TIMEOUT: "hypervisor-timeout",
        libvirt.VIR_ERR_OPERATION_INVALID: "wrong-state",
        libvirt.VIR_ERR_OPERATION_UNSUPPORTED: "unsupported",
        libvirt.VIR_ERR_CONFIG_UNSUPPORTED: "unsupported",
        libvirt.VIR_ERR_NO_SUPPORT: "unsupported",
        libvirt.VIR_ERR_AGENT_UNRESPONSIVE: "guest-agent-unavailable",
        libvirt.VIR_ERR_AGENT_UNSYNCED: "guest-agent-unavailable",
    }
)

_HINTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "hypervisor-unavailable": "is libvirtd running? see `corral doctor`",
        "hypervisor-timeout": "the host may be overloaded or its storage stuck; see `corral doctor`",
        "guest-agent-unavailable": "is qemu-guest-agent installed and running in the guest?",
    }
)

# What a broken socket is reported as: VIR_ERR_SYSTEM_ERROR or VIR_ERR_INTERNAL_ERROR out of the RPC layer.
_RPC_DOMAINS: Final = frozenset({libvirt.VIR_FROM_RPC, libvirt.VIR_FROM_REMOTE})
_RPC_CODES: Final = frozenset({libvirt.VIR_ERR_INTERNAL_ERROR, libvirt.VIR_ERR_SYSTEM_ERROR})


def from_libvirt(asked: str, error: libvirt.libvirtError) -> CorralError:
    """The coded error for what libvirt said when it was `asked`."""
    number = error.get_error_code()
    code = _CODES.get(number, "hypervisor-error")
    if number in _RPC_CODES and error.get_error_domain() in _RPC_DOMAINS:
        code = "hypervisor-unavailable"
    context: dict[str, str | int | float] = {"libvirt_code": -1 if number is None else number}
    return CorralError(code, asked, error.get_error_message() or str(error), _HINTS.get(code, ""), context)


@contextmanager
def translated(asked: str) -> Iterator[None]:
    """Raise CorralError where libvirt raises its own."""
    try:
        yield
    except libvirt.libvirtError as error:
        raise from_libvirt(asked, error) from error
