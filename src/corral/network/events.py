"""Word from the kernel that something of the network's has changed: what it was, those who are woken find out themselves."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncGenerator
from typing import Final

SETTLE_S: Final = 0.1
"""What changes together is told once."""
_READ_BYTES: Final = 65536
# rtnetlink(7): groups are bits of the address that the socket is bound to.
_RTMGRP_LINK: Final = 1
_RTMGRP_IPV4_IFADDR: Final = 0x10
# NETLINK_NETFILTER's group NFNLGRP_NFTABLES is its seventh (linux/netfilter/nfnetlink.h).
_NETLINK_NETFILTER: Final = 12
_NFTABLES_GROUP: Final = 1 << (7 - 1)
_SOURCES: Final = (
    (socket.NETLINK_ROUTE, _RTMGRP_LINK | _RTMGRP_IPV4_IFADDR),
    (_NETLINK_NETFILTER, _NFTABLES_GROUP),
)


async def kernel_events() -> AsyncGenerator[None, None]:
    """One item after each burst of changes of interfaces, addresses and rules in this network namespace, for ever.

    What overflowed is told as well: that something was lost is news, too."""
    loop, news = asyncio.get_running_loop(), asyncio.Event()
    with contextlib.ExitStack() as stack:
        for protocol, groups in _SOURCES:
            opened = stack.enter_context(
                socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
            )
            opened.setblocking(False)
            opened.bind((0, groups))
            loop.add_reader(opened, _drain, opened, news)
            stack.callback(loop.remove_reader, opened)
        while True:
            await news.wait()
            await asyncio.sleep(SETTLE_S)
            news.clear()
            yield None


def _drain(opened: socket.socket, news: asyncio.Event) -> None:
    news.set()
    try:
        while opened.recv(_READ_BYTES):
            pass
    except OSError:  # it is empty, or more came than it could hold
        return
