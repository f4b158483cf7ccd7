"""Screens, keyboards and agents of the fake hypervisor's guests: each remembers what was done to it."""

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Final

from corral.errors import CorralError
from corral.hypervisor.fake_domain import FakeDomain
from corral.hypervisor.png import to_png
from corral.hypervisor.reach import (
    Display,
    DisplayAddress,
    GuestDetails,
    GuestFile,
    GuestFileSystem,
    GuestReader,
    GuestUser,
    GuestWriter,
)

Calls = Callable[[str], AbstractAsyncContextManager[None]]
Find = Callable[[str, str], FakeDomain]
FindWithAgent = Callable[[str], FakeDomain]

RFB_GREETING: Final = b"RFB 003.008\n"
CHUNK_BYTES: Final = 64 * 1024
WIDTH: Final = 64
HEIGHT: Final = 48


@dataclass
class FakeDisplay(Display):
    """Greets as a VNC server does, and then echoes."""

    output: asyncio.Queue[bytes] = field(default_factory=asyncio.Queue)
    closed: bool = False

    async def read(self) -> bytes:
        return b"" if self.closed and self.output.empty() else await self.output.get()

    async def write(self, data: bytes) -> None:
        if not self.closed:
            self.output.put_nowait(data)

    async def close(self) -> None:
        self.end()

    def end(self) -> None:
        if not self.closed:
            self.closed = True
            self.output.put_nowait(b"")


class FakeScreens:
    """`Screens` of the contract. A screen shows a shade of grey that each chord of keys makes lighter."""

    def __init__(self, call: Calls, active: Find) -> None:
        self._call = call
        self._active = active
        self._displays: dict[str, list[FakeDisplay]] = {}
        self.pressed: dict[str, list[tuple[int, ...]]] = {}
        self.interrupts: dict[str, int] = {}

    async def screenshot(self, uid: str) -> bytes:
        async with self._call("screenshot"):
            domain = self._with_screen(uid, "take a screenshot of")
            shade = min(255, 64 + len(self.pressed.get(domain.uid, ())))
            return to_png(b"P6\n%d %d\n255\n" % (WIDTH, HEIGHT) + bytes([shade]) * (3 * WIDTH * HEIGHT))

    async def display(self, uid: str) -> DisplayAddress | None:
        async with self._call("display"):
            domain = self._active(uid, "look for the display of")
            return None if domain.graphics == "none" else DisplayAddress(domain.graphics, f"/run/fake/{uid[:8]}.sock")

    async def open_display(self, uid: str) -> Display:
        async with self._call("open_display"):
            domain = self._with_screen(uid, "open the display of")
            if domain.graphics != "vnc":
                raise CorralError("unsupported", f"open the display of {domain.name}", "it is spice, not VNC")
            display = FakeDisplay()
            display.output.put_nowait(RFB_GREETING)
            self._displays.setdefault(uid, []).append(display)
            return display

    async def press(self, uid: str, codes: Sequence[int], hold_ms: int) -> None:
        async with self._call("press"):
            self._active(uid, "press keys of")
            self.pressed.setdefault(uid, []).append(tuple(codes))

    async def inject_nmi(self, uid: str) -> None:
        async with self._call("inject_nmi"):
            self._active(uid, "inject an NMI into")
            self.interrupts[uid] = self.interrupts.get(uid, 0) + 1

    def end(self, uid: str) -> None:
        """The guest stopped."""
        for display in self._displays.pop(uid, ()):
            display.end()

    def _with_screen(self, uid: str, verb: str) -> FakeDomain:
        domain = self._active(uid, verb)
        if domain.graphics == "none":
            raise CorralError("unsupported", f"{verb} {domain.name}", "it has no screen")
        return domain


@dataclass
class FakeReader:
    file: GuestFile
    content: bytes
    at: int = 0

    async def read(self) -> bytes:
        part = self.content[self.at : self.at + CHUNK_BYTES]
        self.at += len(part)
        return part

    async def close(self) -> None:
        self.content = b""


@dataclass
class FakeWriter:
    files: dict[str, tuple[int, bytes]]
    path: str
    mode: int
    content: bytearray = field(default_factory=bytearray)

    async def write(self, data: bytes) -> None:
        self.content += data

    async def commit(self) -> GuestFile:
        self.files[self.path] = (self.mode, bytes(self.content))
        return GuestFile(self.path, len(self.content), self.mode)

    async def close(self) -> None:
        self.content.clear()


class FakeGuests:
    """`Guests` of the contract. `/tmp` is the one directory that each guest has; a directory's archive is kept as such."""

    def __init__(self, call: Calls, with_agent: FindWithAgent) -> None:
        self._call = call
        self._with_agent = with_agent
        self._clock_ahead_ns: dict[str, int] = {}
        self.passwords: dict[tuple[str, str], str] = {}
        self.files: dict[str, dict[str, tuple[int, bytes]]] = {}

    async def details(self, uid: str) -> GuestDetails:
        now = await self.time_ns(uid)
        return GuestDetails(
            os_id="fake",
            os_version="1",
            kernel="0.0.0-fake",
            machine="x86_64",
            time_ns=now,
            timezone="UTC",
            utc_offset_s=0,
            agent_version="0.0.0",
            users=(GuestUser("root", 0.0),),
            file_systems=(GuestFileSystem("/", "ext4", "/dev/vda", 2**30, 2**20),),
        )

    async def time_ns(self, uid: str) -> int:
        async with self._call("time_ns"):
            self._with_agent(uid)
            return time.time_ns() + self._clock_ahead_ns.get(uid, 0)

    async def set_time(self, uid: str, time_ns: int | None) -> None:
        async with self._call("set_time"):
            self._with_agent(uid)
            self._clock_ahead_ns[uid] = 0 if time_ns is None else time_ns - time.time_ns()

    async def set_password(self, uid: str, user: str, password_hash: str) -> None:
        async with self._call("set_password"):
            self._with_agent(uid)
            if user != "root":
                raise CorralError("guest-agent-error", "guest-set-user-password", f"there is no user {user}")
            self.passwords[uid, user] = password_hash

    async def open_read(self, uid: str, path: str, *, tree: bool) -> GuestReader:
        async with self._call("open_read"):
            self._with_agent(uid)
            found = self.files.get(uid, {}).get(path)
            if path == "/tmp" and not tree:  # noqa: S108 -- of a guest that is not there
                raise CorralError("guest-file-error", f"{path} in the guest", "it is a directory")
            if found is None:
                raise CorralError("guest-file-not-found", f"{path} in the guest", "there is no such file")
            return FakeReader(GuestFile(path, len(found[1]), found[0]), found[1])

    async def open_write(self, uid: str, path: str, name: str, mode: int, *, tree: bool) -> GuestWriter:
        async with self._call("open_write"):
            self._with_agent(uid)
            target = f"/tmp/{name}" if path.rstrip("/") == "/tmp" else path  # noqa: S108 -- as above
            if target.rpartition("/")[0] != "/tmp":  # noqa: S108 -- as above
                raise CorralError("guest-file-not-found", f"{path} in the guest", "there is no such directory")
            files = self.files.setdefault(uid, {})
            if tree and target in files:
                raise CorralError("guest-file-error", f"{target} in the guest", "there is something of that name")
            return FakeWriter(files, target, mode)
