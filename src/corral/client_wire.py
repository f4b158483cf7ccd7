"""HTTP/1.1 as this API speaks it, over a connected socket: one request at a time, its answer read as it comes.

The standard library's client reads headers with the e-mail package and always loads TLS, which takes longer than a whole
`corral list`. Here is the part of RFC 9112 that one kind of server needs: no proxies, no redirects, no pipelining.
"""

from __future__ import annotations

import io
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

LINE_MAX_BYTES: Final = 32 * 1024
HEADERS_MAX: Final = 100
CONTINUE: Final = 100
NO_BODY: Final = frozenset({204, 304})


class BrokenAnswerError(ConnectionError):
    """The connection ended in the middle of an answer, or what came is not HTTP."""


class Connection:
    """A connection that is opened when it is first needed, by `open_socket`."""

    def __init__(self, host: str, timeout_s: float, open_socket: Callable[[], socket.socket]) -> None:
        self.host = host
        self.timeout_s = timeout_s
        self.sock: socket.socket | None = None
        self._open_socket = open_socket
        self._reader: io.BufferedReader | None = None

    def connect(self) -> socket.socket:
        if self.sock is None:
            self.sock = self._open_socket()
            self.sock.settimeout(self.timeout_s)
        return self.sock

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None
        if self.sock is not None:
            self.sock.close()
            self.sock = None

    def request(self, method: str, target: str, content: bytes | None, headers: Mapping[str, str]) -> Answer:
        """Send a request; its answer's head has come when this returns. Raises OSError, BrokenAnswerError being one."""
        lines = [f"{method} {target} HTTP/1.1", f"Host: {self.host}", "Accept-Encoding: identity"]
        if content is not None or method != "GET":
            lines.append(f"Content-Length: {len(content or b'')}")
        lines += [f"{name}: {value}" for name, value in headers.items()]
        if any("\r" in line or "\n" in line for line in lines):
            raise ValueError("a line break in a header")
        head = "\r\n".join((*lines, "\r\n")).encode("latin-1")
        connection = self.connect()
        connection.settimeout(self.timeout_s)
        # Who refuses a large body answers before it has read it all.
        with suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(head + (content or b""))
        if self._reader is None:
            self._reader = connection.makefile("rb")
        answer = Answer(self._reader)
        while answer.status == CONTINUE:
            answer = Answer(self._reader)
        return answer


class Answer:
    """Status and headers (names in small letters), then the body."""

    def __init__(self, reader: io.BufferedReader) -> None:
        version, _, rest = _line(reader).partition(" ")
        code = rest[:3]
        if not version.startswith("HTTP/1.") or not (code.isascii() and code.isdigit()):
            raise BrokenAnswerError("the answer is not HTTP")
        self.status = int(code)
        self.headers: dict[str, str] = {}
        while line := _line(reader):
            name, _, value = line.partition(":")
            self.headers[name.lower()] = value.strip()
            if len(self.headers) > HEADERS_MAX:
                raise BrokenAnswerError("the answer has too many headers")
        self._body = _Body(reader, self._length())
        self._buffered = io.BufferedReader(self._body, LINE_MAX_BYTES)

    @property
    def is_last(self) -> bool:
        """The connection ends with this answer."""
        return self._body.until_end or self.headers.get("connection", "").lower() == "close"

    def read(self, max_bytes: int | None = None) -> bytes:
        """All that is left, or up to `max_bytes`. Raises BrokenAnswerError if it ends too early."""
        content = self._buffered.read(-1 if max_bytes is None else max_bytes)
        if self._body.broken and (max_bytes is None or len(content) < max_bytes):
            raise BrokenAnswerError("the connection ended in the middle of the answer")
        return content

    def read_some(self, max_bytes: int) -> bytes:
        """What has come, at least a byte; empty at the end. Raises BrokenAnswerError if it ends too early."""
        content = self._buffered.read1(max_bytes)
        if self._body.broken and not content:
            raise BrokenAnswerError("the connection ended in the middle of the answer")
        return content

    def readline(self, max_bytes: int) -> bytes:
        """The next line; empty at the end, and where a stream broke off: whoever follows one sees what is missing."""
        return self._buffered.readline(max_bytes)

    def _length(self) -> int | None:
        """Bytes in the body; None: in chunks; -1: until the connection ends."""
        if self.headers.get("transfer-encoding", "").lower() == "chunked":
            return None
        if self.status in NO_BODY:
            return 0
        text = self.headers.get("content-length", "-1")
        if text != "-1" and not (text.isascii() and text.isdigit()):
            raise BrokenAnswerError("the answer has no valid length")
        return int(text)


class _Body(io.RawIOBase):
    """The body's bytes without what frames them (RFC 9112, sections 6 and 7.1)."""

    def __init__(self, reader: io.BufferedReader, length: int | None) -> None:
        self._reader = reader
        self._chunked = length is None
        self._left = length or 0
        self.until_end = length == -1
        self._first = True
        self.broken = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        if self.broken or (self._left == 0 and not (self._chunked and self._next_chunk())):
            return 0
        view = memoryview(buffer).cast("B")
        count = self._reader.readinto1(view if self.until_end else view[: self._left])
        if not self.until_end:
            self._left -= count
            self.broken = count == 0
        return count

    def _next_chunk(self) -> bool:
        """Go on to the next chunk; False at the end of the last one, or where the connection ended."""
        try:
            if not self._first and _line(self._reader):
                raise BrokenAnswerError("a chunk is longer than it said")
            self._first = False
            size = int(_line(self._reader).partition(";")[0].strip(), 16)
            if size == 0:
                self._chunked = False
                while _line(self._reader):
                    pass
        except (BrokenAnswerError, ValueError):
            self.broken = True
            return False
        self._left = size
        return size > 0


def _line(reader: io.BufferedReader) -> str:
    """One line of a head, without its end."""
    line = reader.readline(LINE_MAX_BYTES)
    if not line.endswith(b"\n"):
        raise BrokenAnswerError("the connection ended in the middle of the answer" if line else "the daemon hung up")
    return line.rstrip(b"\r\n").decode("latin-1")
