"""A console as a client holds it: a WebSocket on a plain socket that can be waited for beside a terminal or a viewer."""

from __future__ import annotations

import select
import socket
import ssl
import time
from collections import deque
from collections.abc import Mapping
from typing import Final

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidStatus
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.uri import parse_uri

from corral.client_http import error_of
from corral.errors import CorralError

CHUNK_BYTES: Final = 65536
HANDSHAKE_TIMEOUT_S: Final = 30.0
CLOSE_TIMEOUT_S: Final = 1.0
POLL_MS: Final = 100
# What is taken from the socket before somebody asks for it; a file comes faster than a disk may write.
UNREAD_MAX_BYTES: Final = 1024 * 1024


class Console:
    """Bytes both ways. Wait for `fileno()` to be readable, then `recv(0)`; or call `recv()` alone."""

    def __init__(self, connection: socket.socket, host: str, target: str, headers: Mapping[str, str]) -> None:
        self._socket = connection
        self._protocol = ClientProtocol(parse_uri(f"ws://{host}{target}"))
        self._arrived: deque[bytes | str] = deque()
        self._unread_bytes = 0
        self._opcode = Opcode.BINARY
        self._leaving = bytearray()
        self._flushing = False
        self._ended = False
        self._poll = select.poll()
        self._poll.register(connection, select.POLLIN)
        self._writable = select.poll()
        self._writable.register(connection, select.POLLIN | select.POLLOUT)
        try:
            self._shake_hands(target, headers)
        except BaseException:
            connection.close()
            raise
        connection.setblocking(False)

    def fileno(self) -> int:
        return self._socket.fileno()

    def recv(self, timeout_s: float | None = None) -> bytes | None:
        """What the guest wrote; None: nothing came within `timeout_s`; empty: the end (see `close_reason`)."""
        if not self._wait(timeout_s):
            return None
        data = b"".join(part if isinstance(part, bytes) else part.encode() for part in self._arrived)
        self._arrived.clear()
        self._unread_bytes = 0
        return data

    def receive(self, timeout_s: float | None = None) -> bytes | str | None:
        """One message, for what speaks in messages: bytes, or text. Else as `recv`."""
        if not self._wait(timeout_s):
            return None
        part = self._arrived.popleft() if self._arrived else b""
        self._unread_bytes -= len(part)
        return part

    def _wait(self, timeout_s: float | None) -> bool:
        """Whether there is something to hand out, or the end."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        self._read_what_is_there()
        while not self._arrived and not self._ended:
            left_s = None if deadline is None else deadline - time.monotonic()
            if left_s is not None and left_s <= 0:
                return False
            self._poll.poll(None if left_s is None else max(1, int(left_s * 1000)))
            self._read_what_is_there()
        return True

    def send_text(self, text: str) -> None:
        if self._protocol.state is State.OPEN:
            self._protocol.send_text(text.encode())
            self._flush(None)

    def send(self, data: bytes) -> None:
        """Type it. Waits while the guest takes nothing; what it writes meanwhile is kept for `recv`."""
        if self._protocol.state is State.OPEN:
            self._protocol.send_binary(data)
            self._flush(None)

    def close(self) -> None:
        """Leave; the guest does not notice."""
        try:
            if self._protocol.state is State.OPEN:
                self._protocol.send_close(1000)
                self._flush(CLOSE_TIMEOUT_S)
        finally:
            self._ended = True
            self._socket.close()

    @property
    def close_reason(self) -> str:
        """Why the daemon ended it, for people; empty while it goes on."""
        received = self._protocol.close_rcvd
        return received.reason if received is not None else "the connection broke" if self._ended else ""

    def _shake_hands(self, target: str, headers: Mapping[str, str]) -> None:
        self._socket.settimeout(HANDSHAKE_TIMEOUT_S)
        request = self._protocol.connect()
        for name, value in headers.items():
            request.headers[name] = value
        self._protocol.send_request(request)
        self._socket.sendall(b"".join(self._protocol.data_to_send()))
        while self._is_shaking_hands and not self._ended:
            self._take(self._socket.recv(CHUNK_BYTES))
        refused = self._protocol.handshake_exc
        if isinstance(refused, InvalidStatus):
            response = refused.response
            raise error_of(bytes(response.body or b""), response.status_code, f"open {target}")
        if refused is not None or self._is_shaking_hands:
            raise CorralError("daemon-unreachable", f"open {target}", str(refused or "the daemon hung up"))

    @property
    def _is_shaking_hands(self) -> bool:
        """What comes with the answer, even the end of a short file, is no part of it."""
        return self._protocol.state is State.CONNECTING and self._protocol.handshake_exc is None

    def _read_what_is_there(self) -> None:
        # While something leaves, the other side may wait for us to read: then there is no bound.
        while not self._ended and (self._flushing or self._unread_bytes < UNREAD_MAX_BYTES):
            try:
                data = self._socket.recv(CHUNK_BYTES)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return
            except OSError:
                data = b""
            self._take(data)

    def _take(self, data: bytes) -> None:
        """Hand what came to the protocol; keep what the guest wrote; answer pings and the close."""
        if data:
            self._protocol.receive_data(data)
        else:
            self._protocol.receive_eof()
            self._ended = True
        for event in self._protocol.events_received():
            if isinstance(event, Frame) and event.opcode in (Opcode.BINARY, Opcode.TEXT, Opcode.CONT):
                self._opcode = self._opcode if event.opcode is Opcode.CONT else event.opcode
                said = bytes(event.data)
                part = said.decode(errors="replace") if self._opcode is Opcode.TEXT else said
                self._arrived.append(part)
                self._unread_bytes += len(part)
            elif isinstance(event, Frame) and event.opcode is Opcode.CLOSE:
                self._ended = True
        if self._protocol.parser_exc is not None:
            self._ended = True
        if self._protocol.state is not State.CONNECTING:
            self._flush(CLOSE_TIMEOUT_S)

    def _flush(self, timeout_s: float | None) -> None:
        """Send what the protocol has to say. Reads in between, since the other side may wait for us to; what that
        gives to say queues up behind, so that no frame lands in the middle of another."""
        self._leaving += b"".join(self._protocol.data_to_send())
        if self._flushing:
            return
        self._flushing = True
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        try:
            while self._leaving and not self._ended:
                if self._send_some():
                    continue
                if deadline is not None and time.monotonic() > deadline:
                    return
                self._writable.poll(POLL_MS)
                self._read_what_is_there()
        finally:
            self._flushing = False

    def _send_some(self) -> bool:
        """Whether the socket took anything."""
        try:
            del self._leaving[: self._socket.send(self._leaving)]
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return False
        except OSError:
            self._ended = True
        return True
