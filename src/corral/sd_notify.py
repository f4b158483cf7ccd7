"""Tell systemd how the daemon is: sd_notify(3), a datagram to the socket that the service was given."""

import contextlib
import socket


def notify(state: str, address: str) -> None:
    """Send `state` (`READY=1`, `STOPPING=1`) to `address`; nothing happens where there is no supervisor to tell."""
    if not address:
        return
    target = "\0" + address[1:] if address.startswith("@") else address
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
        sender.sendto(state.encode(), target)
