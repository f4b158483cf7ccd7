"""Connections over TCP that have not finished their TLS handshake: few, few of one address, and for a short time.

Nobody is known yet, and no request is counted yet: asyncio tells a protocol of a connection only after the handshake.
"""

import asyncio
import ipaddress
import socket
from dataclasses import dataclass
from typing import Any, Final

HANDSHAKES_MAX: Final = 256
HANDSHAKES_OF_ONE_ADDRESS_MAX: Final = 32
HANDSHAKE_TIMEOUT_S: Final = 10.0
# One customer of a provider has a whole network of this size (RFC 6177).
_IPV6_PREFIX_BITS: Final = 64


@dataclass(frozen=True, slots=True)
class _Open:
    connection: socket.socket
    address: str
    timer: asyncio.TimerHandle


class Handshakes:
    """Counts what was accepted until it is `done`: secured, or closed by anyone."""

    def __init__(
        self,
        most: int = HANDSHAKES_MAX,
        most_of_one_address: int = HANDSHAKES_OF_ONE_ADDRESS_MAX,
        timeout_s: float = HANDSHAKE_TIMEOUT_S,
    ) -> None:
        self._most = most
        self._most_of_one_address = most_of_one_address
        self._timeout_s = timeout_s
        self._open: dict[int, _Open] = {}  # by descriptor, the oldest first

    def __len__(self) -> int:
        return len(self._open)

    def admit(self, connection: socket.socket, host: str) -> bool:
        """False: its address has too many. Where all together are too many, the oldest goes: an honest one is done
        within its round trips."""
        address = _counted_as(host)
        if sum(known.address == address for known in self._open.values()) >= self._most_of_one_address:
            return False
        if len(self._open) >= self._most:
            self._drop(next(iter(self._open)))
        fd = connection.fileno()
        timer = asyncio.get_running_loop().call_later(self._timeout_s, self._drop, fd)
        self._open[fd] = _Open(connection, address, timer)
        return True

    def done(self, fd: int) -> None:
        known = self._open.pop(fd, None)
        if known is not None:
            known.timer.cancel()

    def _drop(self, fd: int) -> None:
        """The loop sees its end, and closes it."""
        known = self._open[fd]
        self.done(fd)
        try:
            known.connection.shutdown(socket.SHUT_RDWR)
        except OSError:  # the other side was first
            return


def _counted_as(host: str) -> str:
    address = ipaddress.ip_address(host.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is None:
            return str(ipaddress.IPv6Network((address, _IPV6_PREFIX_BITS), strict=False))
        return str(address.ipv4_mapped)
    return str(address)


class GatedListener(socket.socket):
    """A listening socket in the place of `listener`, whose accepted connections `handshakes` counts."""

    def __init__(self, listener: socket.socket, handshakes: Handshakes) -> None:
        super().__init__(fileno=listener.detach())
        self.handshakes = handshakes

    def accept(self) -> tuple[socket.socket, Any]:
        """Raises ConnectionAbortedError for one that is not admitted: asyncio goes on with the next."""
        accepted, address = super().accept()
        connection = _Counted(accepted, self.handshakes)
        if not self.handshakes.admit(connection, address[0]):
            connection.close()
            raise ConnectionAbortedError
        return connection, address


class _Counted(socket.socket):
    """A connection that tells of its end."""

    def __init__(self, accepted: socket.socket, handshakes: Handshakes) -> None:
        super().__init__(fileno=accepted.detach())
        self._handshakes = handshakes

    def close(self) -> None:
        self._handshakes.done(self.fileno())
        super().close()
