"""Whether an address is this host's own: asked of the kernel, by taking a port of it for an instant."""

import ipaddress
import socket


def is_local(address: str) -> bool:
    """Of an interface that is there now, in this network namespace."""
    family = socket.AF_INET if ipaddress.ip_address(address).version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as asked:
        try:
            asked.bind((address, 0))
        except OSError:
            return False
    return True
