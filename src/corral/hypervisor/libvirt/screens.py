"""Screen and keyboard of libvirt's domains: screenshots, the VNC server's bytes, key presses, NMI."""

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Literal, Protocol, TypeVar

import libvirt

from corral.errors import CorralError
from corral.hypervisor.libvirt.metadata import parse_document
from corral.hypervisor.png import PICTURE_MAX_BYTES, to_png
from corral.hypervisor.reach import Display, DisplayAddress

T = TypeVar("T")

CHUNK_BYTES: Final = 64 * 1024
RECEIVE_BYTES: Final = 256 * 1024  # of libvirt's stream: what one of its packets holds
# Pictures are held whole, in libvirt and here; a person looks at one at a time.
AT_ONCE: Final = 2
KEYBOARDS_HINT: Final = "`corral console VM` opens the serial console"
CODE_SET: Final = libvirt.VIR_KEYCODE_SET_LINUX


class OnDomain(Protocol):
    """Runs a function on a domain, in a thread, its errors translated."""

    def __call__(self, uid: str, verb: str, act: Callable[[libvirt.virDomain], T]) -> Awaitable[T]: ...


class LibvirtScreens:
    """`Screens` of the contract."""

    def __init__(self, on_domain: OnDomain) -> None:
        self._on_domain = on_domain
        self._slots = asyncio.Semaphore(AT_ONCE)

    async def screenshot(self, uid: str) -> bytes:
        async with self._slots:
            picture = await self._on_domain(uid, "take a screenshot of", _picture)
            return await asyncio.to_thread(to_png, picture)

    async def display(self, uid: str) -> DisplayAddress | None:
        return await self._on_domain(uid, "look for the display of", _address)

    async def open_display(self, uid: str) -> Display:
        descriptor = await self._on_domain(uid, "open the display of", _open)
        connection = socket.socket(fileno=descriptor)
        try:
            reader, writer = await asyncio.open_connection(sock=connection)
        except BaseException:
            connection.close()
            raise
        return SocketDisplay(reader, writer)

    async def press(self, uid: str, codes: Sequence[int], hold_ms: int) -> None:
        await self._on_domain(
            uid, "press keys of", lambda domain: domain.sendKey(CODE_SET, hold_ms, list(codes), len(codes), 0)
        )

    async def inject_nmi(self, uid: str) -> None:
        await self._on_domain(uid, "inject an NMI into", lambda domain: domain.injectNMI(0))


class SocketDisplay:
    """`Display` over a socket that QEMU serves."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def read(self) -> bytes:
        try:
            return await self._reader.read(CHUNK_BYTES)
        except ConnectionError:  # QEMU has gone
            return b""

    async def write(self, data: bytes) -> None:
        with contextlib.suppress(ConnectionError):  # `read` tells the end
            self._writer.write(data)
            await self._writer.drain()

    async def close(self) -> None:
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()


def _picture(domain: libvirt.virDomain) -> bytes:
    """Blocking. QEMU draws into a file of libvirt's, which comes over a stream."""
    _require_screen(domain, "take a screenshot of")
    stream = domain.connect().newStream(0)
    domain.screenshot(stream, 0, 0)
    picture = bytearray()
    while len(picture) <= PICTURE_MAX_BYTES:  # a larger one is refused by `to_png`
        data = stream.recv(RECEIVE_BYTES)
        if not data:
            stream.finish()
            return bytes(picture)
        picture += data
    stream.abort()
    return bytes(picture)


def _require_screen(domain: libvirt.virDomain, verb: str) -> None:
    """`unsupported` for a domain that has no video card: asked before libvirt is, whose answer names no reason."""
    models = parse_document(domain.XMLDesc(0)).findall("devices/video/model")
    if all(model.get("type") == "none" for model in models):
        raise CorralError("unsupported", f"{verb} {domain.name()}", "it has no screen", KEYBOARDS_HINT)


def _address(domain: libvirt.virDomain) -> DisplayAddress | None:
    return display_of(parse_document(domain.XMLDesc(0)))


def display_of(document: Any) -> DisplayAddress | None:
    """The first graphical console of a live document: VNC before SPICE, since the daemon carries that."""
    found = [each for kind in ("vnc", "spice") for each in document.findall(f"devices/graphics[@type='{kind}']")]
    if not found:
        return None
    graphics = found[0]
    listen = graphics.find("listen")
    kind: Literal["vnc", "spice"] = "vnc" if graphics.get("type") == "vnc" else "spice"
    if listen is not None and listen.get("type") == "socket":
        return DisplayAddress(kind, socket=listen.get("socket") or "")
    host = (listen.get("address") if listen is not None else None) or graphics.get("listen") or ""
    return DisplayAddress(kind, "", host, _port(graphics.get("port")), _port(graphics.get("tlsPort")))


def _port(text: str | None) -> int:
    return int(text) if text and text.isdigit() else 0


def _open(domain: libvirt.virDomain) -> int:
    """Blocking. A connected socket's descriptor, made by libvirt: no path and no port of the domain's is needed, and the
    VNC password that somebody may have set is passed over (whoever is here was authorized)."""
    asked = f"open the display of {domain.name()}"
    graphics = parse_document(domain.XMLDesc(0)).findall("devices/graphics")
    kinds = [each.get("type") for each in graphics]
    if "vnc" not in kinds:
        what = f"its graphical console is {kinds[0]}" if kinds else "it has no graphical console"
        raise CorralError("unsupported", asked, f"{what}, not VNC", KEYBOARDS_HINT)
    return int(domain.openGraphicsFD(kinds.index("vnc"), libvirt.VIR_DOMAIN_OPEN_GRAPHICS_SKIPAUTH))
