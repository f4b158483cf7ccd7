"""Packets of one device, by tcpdump: as a user of its own that may do nothing but listen."""

import asyncio
import pwd
import socket
from collections.abc import AsyncGenerator, Awaitable
from contextlib import aclosing
from typing import Final

from corral import proc
from corral.errors import CorralError
from corral.model.capture import CaptureRequest
from corral.network.pcap import PacketCutter

USERS: Final = ("tcpdump", "nobody")
"""Debian's package brings the first."""
CHECK_TIMEOUT_S: Final = 5.0
_LIMITS: Final = proc.Limits(memory_bytes=512 * 2**20)
_BUFFER_KIB: Final = 4096
_WORDS_MAX: Final = 200


async def check_filter(text: str) -> None:
    """Raise `invalid-argument` with libpcap's own words for what it does not understand.

    Compiled where there is no network: a host's name in it would else be looked up on behalf of whoever asks."""
    if not text.strip():
        return
    asked = f"filter {text[:64]!r}"
    if not text.isascii() or not text.isprintable():
        raise CorralError("invalid-argument", asked, "a filter is one line of printable ASCII", "see man pcap-filter")
    argv = ("unshare", "--net", "--", *_confined(""), "-d", "-y", "EN10MB", "--", text)
    try:
        done = await proc.run(argv, timeout_s=CHECK_TIMEOUT_S, check=False, limits=_LIMITS)
    except CorralError as error:
        if error.code != "command-timeout":
            raise
        raise CorralError("invalid-argument", asked, "it takes too long to compile", "make it shorter") from error
    if done.returncode != 0:
        words = done.stderr.decode(errors="replace").strip().splitlines() or [""]
        reason = words[-1].removeprefix("tcpdump: ").strip()[:_WORDS_MAX] or "libpcap does not understand it"
        raise CorralError("invalid-argument", asked, reason, "see man pcap-filter; addresses are written as numbers")


async def capture(device: str, wish: CaptureRequest) -> AsyncGenerator[bytes, None]:
    """A capture file in pieces, each of whole packets. Ends at the first bound, or when the device goes.

    Whoever closes it early ends tcpdump. Raises `wrong-state` where there is no such device."""
    if device not in (name for _, name in socket.if_nameindex()):
        raise CorralError("wrong-state", f"capture at {device}", "there is no such device: its guest is off")
    argv = [*_confined("net_raw"), "-i", device, "-p", "-n", "-U", "--immediate-mode", "-B", str(_BUFFER_KIB)]
    argv += ["-s", str(wish.snap_bytes), "-c", str(wish.packets_max), "-w", "-", "--"]
    if wish.filter.strip():
        argv.append(wish.filter)
    cutter, loop = PacketCutter(wish.bytes_max), asyncio.get_running_loop()
    end_s = loop.time() + wish.duration_s
    try:
        async with aclosing(proc.stream(argv, limits=_LIMITS)) as pieces:
            # Each piece is waited for by itself: whoever reads may do so from another task each time.
            while not cutter.full and (piece := await _before(end_s - loop.time(), anext(pieces, None))) is not None:
                if whole := cutter.feed(piece):
                    yield whole
    except CorralError as error:
        # It ends badly when the device goes away under it; what came until then is whole.
        if error.code != "command-failed" or not cutter.bytes:
            raise


async def _before(left_s: float, piece: Awaitable[bytes | None]) -> bytes | None:
    """None: nothing came in time."""
    try:
        return await asyncio.wait_for(piece, left_s)
    except TimeoutError:
        return None


def _confined(capability: str) -> tuple[str, ...]:
    """tcpdump as a user without rights but `capability`, which nothing it starts could widen."""
    setpriv, tcpdump = proc.require("setpriv", "util-linux"), proc.require("tcpdump", "tcpdump")
    user = _user()
    kept = f"-all,+{capability}" if capability else "-all"
    return (
        setpriv,
        f"--reuid={user.pw_uid}",
        f"--regid={user.pw_gid}",
        "--clear-groups",
        f"--inh-caps={kept}",
        f"--ambient-caps={kept}",
        f"--bounding-set={kept}",
        "--no-new-privs",
        "--pdeathsig=KILL",
        "--",
        tcpdump,
    )


def _user() -> pwd.struct_passwd:
    for name in USERS:
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise CorralError("unsupported", "capture packets", "there is no user nobody", "add one: useradd --system nobody")
