"""A serial console over a libvirt stream: driven by libvirt's event loop, with bounded buffering both ways."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

import libvirt

from corral.errors import CorralError
from corral.hypervisor.libvirt.errors import from_libvirt

CHUNK_BYTES: Final = 64 * 1024
# What a slow reader may leave unread before libvirt is asked to stop sending.
UNREAD_MAX_BYTES: Final = 256 * 1024
_WRITE_RETRY_S: Final = 0.02
_WRITE_TIMEOUT_S: Final = 10.0
_WOULD_BLOCK: Final = -2
_READ_EVENTS: Final = libvirt.VIR_STREAM_EVENT_READABLE
_END_EVENTS: Final = libvirt.VIR_STREAM_EVENT_ERROR | libvirt.VIR_STREAM_EVENT_HANGUP

RunBlocking = Callable[[str, Callable[[], object]], Awaitable[object]]


def open_stream(handle: libvirt.virConnect, uid: str, *, force: bool) -> libvirt.virStream:
    """Blocking. `console-in-use` unless `force`, which ends the other's session."""
    stream = handle.newStream(libvirt.VIR_STREAM_NONBLOCK)
    domain = handle.lookupByUUIDString(uid)
    try:
        domain.openConsole(None, stream, libvirt.VIR_DOMAIN_CONSOLE_FORCE if force else libvirt.VIR_DOMAIN_CONSOLE_SAFE)
    except libvirt.libvirtError as error:
        # The one thing that opening the console of a running domain fails of, so says libvirt's own comment on SAFE.
        if error.get_error_code() == libvirt.VIR_ERR_OPERATION_FAILED:
            asked, hint = f"open the console of {domain.name()}", "use --force to take it over"
            raise CorralError("console-in-use", asked, "somebody else has it open", hint) from error
        raise from_libvirt(f"open the console of {domain.name()}", error) from error
    return stream


class StreamConsole:
    """`Console` of the contract. Reads come from libvirt's thread; a slow reader makes libvirt stop listening."""

    def __init__(self, stream: libvirt.virStream, run_blocking: RunBlocking) -> None:
        self._stream = stream
        self._run_blocking = run_blocking
        self._loop = asyncio.get_running_loop()
        self._chunks: deque[bytes] = deque()
        self._unread_bytes = 0
        self._listening = True
        self._ended = False
        self._closed = False
        self._wakeup = asyncio.Event()
        self._writing = asyncio.Lock()
        stream.eventAddCallback(_READ_EVENTS | _END_EVENTS, self._on_event, None)

    async def read(self) -> bytes:
        while not self._chunks and not self._ended:
            self._wakeup.clear()
            await self._wakeup.wait()
        if not self._chunks:
            return b""
        content = b"".join(self._chunks)
        self._chunks.clear()
        self._unread_bytes = 0
        if not self._listening and not self._ended:
            self._listening = True
            await self._run_blocking("read the console", lambda: self._listen_for(_READ_EVENTS | _END_EVENTS))
        return content

    async def write(self, data: bytes) -> None:
        """Raises `hypervisor-timeout` if the guest takes nothing for 10 s; what was written to an ended one is lost."""
        async with self._writing:
            deadline = self._loop.time() + _WRITE_TIMEOUT_S
            while data and not self._ended:
                part = data
                count = await self._run_blocking("write to the console", lambda part=part: self._send(part))  # type: ignore[misc]
                if isinstance(count, int) and count > 0:
                    data = data[count:]
                    deadline = self._loop.time() + _WRITE_TIMEOUT_S
                elif self._loop.time() > deadline:
                    raise CorralError("hypervisor-timeout", "write to the console", "the guest does not read it")
                else:
                    await asyncio.sleep(_WRITE_RETRY_S)

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._end()
            await self._run_blocking("close the console", self._abort)

    def _send(self, data: bytes) -> int:
        """Bytes taken; nothing while the pipe is full."""
        try:
            return max(0, int(self._stream.send(data)))
        except libvirt.libvirtError:
            self._loop.call_soon_threadsafe(self._end)
            return 0

    def _abort(self) -> None:
        for act in (self._stream.eventRemoveCallback, self._stream.abort):
            with contextlib.suppress(libvirt.libvirtError):  # it may have ended by itself
                act()

    def _listen_for(self, events: int) -> None:
        with contextlib.suppress(libvirt.libvirtError):  # it may have ended by itself
            self._stream.eventUpdateCallback(events)

    def _on_event(self, _stream: object, events: int, _opaque: object) -> None:
        """In libvirt's thread: take what is there, and stop listening at the end, else libvirt calls without rest."""
        content, ended = b"", False
        try:
            received = self._stream.recv(CHUNK_BYTES)
            if isinstance(received, bytes):
                content, ended = received, not received
            elif received != _WOULD_BLOCK or events & _END_EVENTS:
                ended = True
        except libvirt.libvirtError:
            ended = True
        if ended:
            with contextlib.suppress(libvirt.libvirtError):
                self._stream.eventRemoveCallback()
        elif self._unread_bytes + len(content) > UNREAD_MAX_BYTES:
            self._listening = False
            self._listen_for(_END_EVENTS)
        with contextlib.suppress(RuntimeError):  # our loop has ended
            self._loop.call_soon_threadsafe(self._take, content, ended)

    def _take(self, content: bytes, ended: bool) -> None:
        if content:
            self._chunks.append(content)
            self._unread_bytes += len(content)
            self._wakeup.set()
        if ended:
            self._end()

    def _end(self) -> None:
        self._ended = True
        self._wakeup.set()
