"""HTTP to the daemon, over its Unix socket or TLS: one kept connection for questions, one each for answers that go on."""

from __future__ import annotations

import json
import select
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode, urlsplit

from corral.client_wire import Answer, Connection
from corral.errors import CATALOGUE, CorralError

if TYPE_CHECKING:
    import ssl

HOST_NAME: Final = "corral"  # what HTTP's Host header says over a Unix socket
CONNECT_TIMEOUT_S: Final = 5.0
# Streams send a heartbeat every 15 s; four of them missing mean that nobody is there.
STREAM_TIMEOUT_S: Final = 60.0
HTTPS_PORT: Final = 8443
PROBLEM_MAX_BYTES: Final = 1024 * 1024

Query = Mapping[str, str | int | float]


class Stream:
    """The body of an answer that goes on."""

    def __init__(self, connection: Connection, response: Answer) -> None:
        self._connection = connection
        self._response = response

    def readline(self, max_bytes: int, deadline: float | None = None) -> bytes:
        """The next line, empty at the end. Raises TimeoutError at `deadline`, on the monotonic clock."""
        if deadline is not None and self._connection.sock is not None:
            self._connection.sock.settimeout(max(0.001, deadline - time.monotonic()))
        return self._response.readline(max_bytes)

    def read_some(self, max_bytes: int) -> bytes:
        """What has come, at least a byte; empty at the end."""
        return self._response.read_some(max_bytes)

    def read(self, max_bytes: int | None = None) -> bytes:
        return self._response.read(max_bytes)


class Transport:
    """Sends requests and turns refusals into the errors that they were. One thread at a time."""

    def __init__(self, socket_path: str, url: str, token: str, ca_file: str, timeout_s: float) -> None:
        self._socket_path = socket_path
        self._url = urlsplit(url) if url else None
        self._token = token
        self._ca_file = ca_file
        self._timeout_s = timeout_s
        self._kept: Connection | None = None
        if self._url is not None and (self._url.scheme != "https" or not self._url.hostname):
            raise CorralError("invalid-argument", f"connect to {url}", "not an https URL", "write https://HOST:PORT")

    @property
    def place(self) -> str:
        """Where the daemon is looked for, for people."""
        return self._url.geturl() if self._url else self._socket_path

    def close(self) -> None:
        if self._kept is not None:
            self._kept.close()
            self._kept = None

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        body: object = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
    ) -> bytes:
        """The answer's body. Raises the CorralError of a refusal, `daemon-unreachable` without an answer."""
        kept = self._kept
        if kept is not None and (kept.sock is None or _readable(kept.sock)):
            self.close()  # the daemon has hung up since
        if self._kept is None:
            self._kept = self._connection()
        try:
            with self._explained(method, path):
                response = self._send(self._kept, method, path, query, body, headers, timeout_s or self._timeout_s)
                content = response.read()
            if response.is_last:
                self.close()
        except BaseException:
            self.close()
            raise
        if response.status >= 400:
            raise error_of(content, response.status, f"{method} {path}")
        return content

    @contextmanager
    def stream(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        body: object = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = STREAM_TIMEOUT_S,
        accept_status: tuple[int, ...] = (),
    ) -> Iterator[Stream]:
        """An answer to be read piece by piece, on a connection of its own. Raises as `request` does, also in the block."""
        connection = self._connection()
        try:
            with self._explained(method, path):
                response = self._send(connection, method, path, query, body, headers, timeout_s)
                if response.status >= 400 and response.status not in accept_status:
                    raise error_of(response.read(PROBLEM_MAX_BYTES), response.status, f"{method} {path}")
                yield Stream(connection, response)
        finally:
            connection.close()

    def open_socket(self) -> tuple[socket.socket, str]:
        """A connected socket for another protocol, and the host's name in it."""
        connection = self._connection()
        with self._explained("connect to", self.place):
            return connection.connect(), connection.host

    def authorization(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._token}"} if self._token else {}

    def _connection(self) -> Connection:
        host = HOST_NAME if self._url is None else self._url.netloc.rpartition("@")[2]
        return Connection(host, self._timeout_s, self._open_unix if self._url is None else self._open_tls)

    def _open_unix(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(CONNECT_TIMEOUT_S)
            connection.connect(self._socket_path)
        except OSError:
            connection.close()
            raise
        return connection

    def _open_tls(self) -> socket.socket:
        assert self._url is not None
        host, context = self._url.hostname or "", self._tls()
        connection = socket.create_connection((host, self._url.port or HTTPS_PORT), self._timeout_s)
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return context.wrap_socket(connection, server_hostname=host)
        except OSError:
            connection.close()
            raise

    def _tls(self) -> ssl.SSLContext:
        import ssl  # noqa: PLC0415 -- not on the path of a Unix socket

        try:
            return ssl.create_default_context(cafile=self._ca_file or None)
        except OSError as error:
            raise CorralError("invalid-argument", f"read the CA file {self._ca_file}", str(error)) from error

    def _send(
        self,
        connection: Connection,
        method: str,
        path: str,
        query: Query | None,
        body: object,
        headers: Mapping[str, str] | None,
        timeout_s: float,
    ) -> Answer:
        target = f"{path}?{urlencode(query)}" if query else path
        all_headers = {**self.authorization(), **(headers or {})}
        content = None
        if body is not None:
            content = json.dumps(body).encode()
            all_headers["Content-Type"] = "application/json"
        connection.timeout_s = timeout_s
        return connection.request(method, target, content, all_headers)

    @contextmanager
    def _explained(self, method: str, path: str) -> Iterator[None]:
        """What the system says when there is no answer, in words that help."""
        asked = f"{method} {path}"
        try:
            yield
        except (FileNotFoundError, ConnectionRefusedError) as error:
            raise CorralError(
                "daemon-unreachable", asked, f"no daemon listens at {self.place}", "start it: corral daemon start"
            ) from error
        except PermissionError as error:
            raise CorralError(
                "forbidden",
                asked,
                f"this user may not open {self.place}",
                "run it with sudo, or join the group: sudo adduser $USER corral (then log in again)",
            ) from error
        except TimeoutError as error:
            raise CorralError(
                "daemon-unreachable", asked, f"no answer from {self.place} in time", "see `corral daemon status`"
            ) from error
        except OSError as error:
            reason = f"the connection to {self.place} broke: {str(error) or type(error).__name__}"
            raise CorralError("daemon-unreachable", asked, reason, "see `corral daemon status`") from error


def error_of(content: bytes, status: int, asked: str) -> CorralError:
    """The error that a problem document describes; a newer daemon's code that is not known here is kept in the words."""
    try:
        problem: Any = json.loads(content)
    except ValueError:
        problem = None
    if not isinstance(problem, dict) or "code" not in problem:
        return CorralError("internal", asked, f"HTTP status {status} without a problem document")
    code, reason = str(problem["code"]), str(problem.get("reason", ""))
    if code not in CATALOGUE:
        code, reason = "internal", f"{reason} [{code}]"
    context = problem.get("context") or {}
    request_id = {"request_id": str(problem["request_id"])} if problem.get("request_id") else {}
    return CorralError(
        code, str(problem.get("asked", asked)), reason, str(problem.get("hint", "")), {**context, **request_id}
    )


def _readable(connection: socket.socket) -> bool:
    """Between two requests a daemon has nothing to say but that it has hung up."""
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    return bool(poll.poll(0))
