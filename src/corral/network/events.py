"""Word from the kernel that something of the network's has changed: what it was, those who are woken find out themselves."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncGenerator, Callable
from typing import Final

from corral.network.router_host_routes import PROTOCOL

SETTLE_S: Final = 0.1
"""What changes together is told once."""
_READ_BYTES: Final = 65536
# rtnetlink(7): groups are bits of the address that the socket is bound to.
_RTMGRP_LINK: Final = 1
_RTMGRP_IPV4_IFADDR: Final = 0x10
_RTMGRP_ROUTES: Final = 0x40 | 0x400  # IPv4's and IPv6's
# linux/rtnetlink.h, linux/netlink.h: a message's head, and who made a route that it is about.
_HEAD: Final = struct.Struct("=IHHII5xB")
_NEW_ROUTE, _DELETED_ROUTE = 24, 25
_REPLACES: Final = 0x100
_BY_HAND: Final = (3, 4)  # "boot", as ip(8) says where nothing else is said, and "static"
# NETLINK_NETFILTER's group NFNLGRP_NFTABLES is its seventh (linux/netfilter/nfnetlink.h).
_NETLINK_NETFILTER: Final = 12
_NFTABLES_GROUP: Final = 1 << (7 - 1)


def is_lost_route(message: bytes) -> bool:
    """One of ours is taken away, or somebody's hand has put another in a place. Others' come and go by the thousand."""
    if len(message) < _HEAD.size:
        return False
    _, kind, flags, _, _, made_by = _HEAD.unpack_from(message)
    if kind == _DELETED_ROUTE:
        return bool(made_by == int(PROTOCOL))
    return bool(kind == _NEW_ROUTE and flags & _REPLACES and made_by in _BY_HAND)


def _is_news(_message: bytes) -> bool:
    return True


_SOURCES: Final[tuple[tuple[int, int, Callable[[bytes], bool]], ...]] = (
    (socket.NETLINK_ROUTE, _RTMGRP_LINK | _RTMGRP_IPV4_IFADDR, _is_news),
    (socket.NETLINK_ROUTE, _RTMGRP_ROUTES, is_lost_route),
    (_NETLINK_NETFILTER, _NFTABLES_GROUP, _is_news),
)


async def kernel_events() -> AsyncGenerator[None, None]:
    """One item after each burst of changes of interfaces, addresses, rules and routes of ours in this network namespace, for ever.

    What overflowed is told as well: that something was lost is news, too."""
    loop, news = asyncio.get_running_loop(), asyncio.Event()
    with contextlib.ExitStack() as stack:
        for protocol, groups, is_news in _SOURCES:
            opened = stack.enter_context(
                socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
            )
            opened.setblocking(False)
            opened.bind((0, groups))
            loop.add_reader(opened, _drain, opened, is_news, news)
            stack.callback(loop.remove_reader, opened)
        while True:
            await news.wait()
            await asyncio.sleep(SETTLE_S)
            news.clear()
            yield None


def _drain(opened: socket.socket, is_news: Callable[[bytes], bool], news: asyncio.Event) -> None:
    try:
        while message := opened.recv(_READ_BYTES):  # the kernel tells of each thing by itself
            if is_news(message):
                news.set()
    except BlockingIOError:
        return
    except OSError:  # more came than it could hold
        news.set()
