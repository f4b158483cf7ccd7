"""A connection to libvirt that comes back: opened apart, given up when a call hangs.

Without libvirt's keep-alive: where that gives a silent libvirtd up while several threads wait for it, libvirt before 10.4 lets the
next of them use what lay on the stack of the first (CVE-2024-4418), and the process dies. Nor is it needed on a socket of this
machine: who dies closes it, and whoever hangs is told by our own bounds.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

import libvirt

from corral.errors import CorralError
from corral.hypervisor.libvirt.calls import Calls
from corral.hypervisor.libvirt.errors import from_libvirt
from corral.hypervisor.libvirt.event_loop import start_event_loop
from corral.log import logger

T = TypeVar("T")

RETRY_FIRST_S: Final = 0.25
RETRY_MAX_S: Final = 5.0
# Opening a connection to a stopped libvirtd hangs for good. Then another thread tries, a few times at most.
OPEN_BOUND_S: Final = 60.0
OPENS_MAX: Final = 4

Setup = Callable[[libvirt.virConnect], Sequence[int]]
"""Called in the opening thread with each new connection, before anyone may use it. Returns the events that it asked for: each
holds the connection open until it is taken back."""


@dataclass
class _Link:
    """One open connection and who uses it: closing it under a running call would free it in use."""

    handle: libvirt.virConnect
    events: Sequence[int]
    lock: threading.Lock = field(default_factory=threading.Lock)
    users: int = 0
    retired: bool = False

    def enter(self) -> None:
        with self.lock:
            self.users += 1

    def leave(self) -> None:
        with self.lock:
            self.users -= 1
            done = self.retired and self.users == 0
        if done:
            self._close_apart()

    def retire(self) -> None:
        with self.lock:
            done = not self.retired and self.users == 0
            self.retired = True
        if done:
            self._close_apart()

    def _close_apart(self) -> None:
        """Closing asks libvirtd, which may hang: in a thread of its own."""
        threading.Thread(target=self._close, name="libvirt-close", daemon=True).start()

    def _close(self) -> None:
        with contextlib.suppress(libvirt.libvirtError):
            self.handle.unregisterCloseCallback()
        for event in self.events:
            with contextlib.suppress(libvirt.libvirtError):
                self.handle.domainEventDeregisterAny(event)
        with contextlib.suppress(libvirt.libvirtError):
            self.handle.close()


class Connection:
    """Calls through one libvirt connection at a time, reopened with back-off whenever it breaks or a call hangs."""

    def __init__(self, uri: str, timeout_s: float, name: str, *, setup: Setup, changed: Callable[[bool], None]) -> None:
        self._uri = uri
        self._timeout_s = timeout_s
        self._setup = setup
        self._changed = changed
        self._calls = Calls(f"libvirt-{name}")
        self._link: _Link | None = None
        self._broken = asyncio.Event()
        self._connected = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        self._hanging_opens = 0
        self._reason = "the connection is being opened"
        self._log = logger(f"libvirt-{name}")

    @property
    def connected(self) -> bool:
        return self._link is not None

    def start(self) -> None:
        """Begin to connect, and keep at it until `close`."""
        start_event_loop()
        self._keeper = asyncio.create_task(self._keep(), name="libvirt-keeper")

    async def wait_connected(self, timeout_s: float) -> bool:
        """Whether it was connected in time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._connected.wait()
        return self.connected

    async def call(self, asked: str, function: Callable[[libvirt.virConnect], T], timeout_s: float | None = None) -> T:
        """`function(connection)` in a thread, its error translated. A hung call costs this connection, not the next."""
        link = self._link
        if link is None:
            hint = "is libvirtd running? see `corral doctor`"
            raise CorralError("hypervisor-unavailable", asked, f"{self._uri}: {self._reason}", hint)

        def guarded() -> T:
            link.enter()
            try:
                return function(link.handle)
            finally:
                link.leave()

        try:
            return await self._calls.run(asked, guarded, self._timeout_s if timeout_s is None else timeout_s)
        except libvirt.libvirtError as error:
            coded = from_libvirt(asked, error)
            if coded.code == "hypervisor-unavailable":
                self._drop(link, coded.reason)
            raise coded from error
        except CorralError as error:
            if error.code == "hypervisor-timeout":
                self._drop(link, error.reason)
            raise

    async def close(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        if self._link is not None:
            self._link.retire()
            self._link = None
        self._calls.close()

    def _drop(self, link: _Link, reason: str) -> None:
        if self._link is link:
            self._reason = reason
            self._broken.set()

    async def _keep(self) -> None:
        delay_s = RETRY_FIRST_S
        while True:
            try:
                link = await self._open()
            except CorralError as error:
                if error.reason != self._reason:
                    self._log.warning("libvirt is away", uri=self._uri, reason=error.reason)
                self._reason = error.reason
                await asyncio.sleep(delay_s)
                delay_s = min(delay_s * 2, RETRY_MAX_S)
                continue
            delay_s = RETRY_FIRST_S
            self._broken.clear()
            self._watch(link)
            self._link = link
            self._connected.set()
            self._changed(True)
            await self._broken.wait()
            self._link = None
            self._connected.clear()
            link.retire()
            self._log.warning("libvirt connection lost", uri=self._uri, reason=self._reason)
            self._changed(False)

    def _watch(self, link: _Link) -> None:
        """Be told by libvirt when the socket is closed."""
        loop = asyncio.get_running_loop()

        def closed(_handle: object, _why: int, _opaque: object) -> None:
            with contextlib.suppress(RuntimeError):  # our loop has ended
                loop.call_soon_threadsafe(self._drop, link, "libvirt closed the connection")

        with contextlib.suppress(libvirt.libvirtError):  # it broke just now: the next call finds out
            link.handle.registerCloseCallback(closed, None)

    async def _open(self) -> _Link:
        """Open in a disposable thread; raise `hypervisor-unavailable` with the reason."""
        asked = f"connect to {self._uri}"
        if self._hanging_opens >= OPENS_MAX:
            raise CorralError("hypervisor-unavailable", asked, "libvirtd accepts connections but does not answer")
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[_Link] = loop.create_future()
        self._hanging_opens += 1

        def deliver(link: _Link | None, error: libvirt.libvirtError | None) -> None:
            self._hanging_opens -= 1
            if answer.done():
                if link is not None:
                    link.retire()
            elif link is not None:
                answer.set_result(link)
            elif error is not None:
                answer.set_exception(error)

        def work() -> None:
            link, failure = None, None
            try:
                link = self._opened()
            except libvirt.libvirtError as error:
                failure = error
            with contextlib.suppress(RuntimeError):  # our loop has ended
                loop.call_soon_threadsafe(deliver, link, failure)

        threading.Thread(target=work, name="libvirt-open", daemon=True).start()
        try:
            async with asyncio.timeout(OPEN_BOUND_S):
                return await answer
        except TimeoutError as error:
            reason = f"libvirtd did not answer within {OPEN_BOUND_S:g} s"
            raise CorralError("hypervisor-unavailable", asked, reason) from error
        except libvirt.libvirtError as error:
            raise CorralError("hypervisor-unavailable", asked, error.get_error_message() or str(error)) from error

    def _opened(self) -> _Link:
        handle = libvirt.open(self._uri)
        return _Link(handle, self._setup(handle))
