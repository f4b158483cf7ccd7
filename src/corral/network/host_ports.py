"""Whether something on the host itself listens at a port: forwarding it would cut that off."""

import errno
import socket


def in_use(protocol: str, port: int) -> bool:
    """Tried by taking it for an instant; what may not be tried counts as free."""
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    for family, everywhere in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
        try:
            with socket.socket(family, kind) as tried:
                if family == socket.AF_INET6:
                    tried.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                if kind == socket.SOCK_STREAM:  # as servers do: connections that have ended keep nobody from it
                    tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                tried.bind((everywhere, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return True
    return False
