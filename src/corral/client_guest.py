"""The typed client's calls to a running guest: consoles, screen, keys, clock, password, files."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, cast
from urllib.parse import quote, urlencode

from corral.client_http import HOST_NAME, Query, Transport, error_of
from corral.errors import CorralError

if TYPE_CHECKING:
    from corral import client_types as t
    from corral.client_console import Console

# An answer to a piece of a file: the guest writes it to its disk; the whole is put in place within the daemon's own bound.
PIECE_TIMEOUT_S: Final = 120.0
COMMIT_TIMEOUT_S: Final = 700.0
# How many pieces of a file are under way: the guest works at one while the next is on its way.
PIECES_AHEAD: Final = 2


class GuestFile(NamedTuple):
    """A file in a guest, and its permission bits."""

    path: str
    size_bytes: int
    mode: int


class GuestCalls:
    """What `Client` can do with a running guest."""

    project: str
    _transport: Transport

    # ---- consoles, screen, keys ------------------------------------------------------------------------------------

    def console(self, name: str, *, force: bool = False) -> Console:
        """The serial console; `force` takes it from who holds it (else `console-in-use`)."""
        return self._socket(f"/vms/{path_name(name)}/console", {"force": str(force).lower()})

    def vnc(self, name: str) -> Console:
        """The VM's VNC server: RFB's bytes."""
        return self._socket(f"/vms/{path_name(name)}/vnc", {})

    def memory(self, name: str) -> t.VmMemory:
        """What the running VM takes of the host's memory."""
        return cast("t.VmMemory", self._guest("GET", name, "memory"))

    def display(self, name: str) -> t.DisplayAnswer:
        """Where the graphical console listens on the VM's host."""
        return cast("t.DisplayAnswer", self._guest("GET", name, "display"))

    def screenshot(self, name: str) -> bytes:
        """PNG."""
        query: Query = {"project": self.project}
        return self._transport.request("GET", f"/v1/vms/{path_name(name)}/screenshot", query=query)

    def send_keys(self, name: str, body: t.SendKeysRequest) -> None:
        """Returns when they were pressed, each after the other."""
        self._guest("POST", name, "keys", body, PIECE_TIMEOUT_S)

    def inject_nmi(self, name: str) -> None:
        self._guest("POST", name, "nmi")

    # ---- the guest agent -------------------------------------------------------------------------------------------

    def guest(self, name: str) -> t.GuestAnswer:
        return cast("t.GuestAnswer", self._guest("GET", name, "guest"))

    def clock(self, name: str) -> t.ClockAnswer:
        return cast("t.ClockAnswer", self._guest("GET", name, "clock"))

    def set_clock(self, name: str, body: t.SetClockRequest) -> t.ClockAnswer:
        return cast("t.ClockAnswer", self._guest("POST", name, "clock", body))

    def set_password(self, name: str, user: str, password: str) -> None:
        self._guest("POST", name, "password", {"user": user, "password": password})

    @contextmanager
    def read_file(self, name: str, path: str, *, tree: bool = False) -> Iterator[tuple[GuestFile, Iterator[bytes]]]:
        """A guest's file: what it is, and its content in pieces; the last of them has come when they end without an
        error. With `tree` a directory, as a tar archive."""
        target = f"/vms/{path_name(name)}/files/read"
        socket = self._socket(target, {"path": path, "tree": str(tree).lower()})
        try:
            yield GuestFile(**message(socket, path, PIECE_TIMEOUT_S)["file"]), pieces_of(socket, path)
        finally:
            socket.close()

    def write_file(
        self,
        name: str,
        path: str,
        pieces: Iterable[bytes],
        *,
        file_name: str,
        mode: int = 0o644,
        tree: bool = False,
        on_written: Callable[[int], None] | None = None,
    ) -> GuestFile:
        """A file to `path` in the guest, or into that directory as `file_name`. It is there when this returns, or not
        at all. With `tree` the pieces are those of a tar archive, and a new directory is made of it."""
        query: dict[str, str | int | float] = {"path": path, "file_name": file_name, "mode": mode}
        socket = self._socket(f"/vms/{path_name(name)}/files/write", {**query, "tree": str(tree).lower()})
        return send_pieces(socket, path, pieces, on_written)

    def upload(self, pieces: Iterable[bytes], on_written: Callable[[int], None] | None = None) -> str:
        """A file for an image, to the daemon's host; returns the token for a `BuildImageRequest`'s `upload`."""
        return send_pieces(self._socket("/images/upload", {}), "the file", pieces, on_written).path

    # ---- how -------------------------------------------------------------------------------------------------------

    def _guest(
        self,
        method: Literal["GET", "POST"],
        name: str,
        what: str,
        body: object = None,
        timeout_s: float | None = None,
    ) -> Any:
        path, query = f"/v1/vms/{path_name(name)}/{what}", {"project": self.project}
        content = self._transport.request(method, path, query=query, body=body, timeout_s=timeout_s)
        return json.loads(content) if content else None

    def _socket(self, path: str, query: Query) -> Console:
        from corral.client_console import Console  # noqa: PLC0415 -- a WebSocket library, for these alone

        connection, host = self._transport.open_socket()
        target = f"/v1{path}?{urlencode({**query, 'project': self.project})}"
        return Console(connection, host or HOST_NAME, target, self._transport.authorization())


def send_pieces(
    socket: Console, path: str, pieces: Iterable[bytes], on_written: Callable[[int], None] | None
) -> GuestFile:
    """All of a file, a few pieces ahead of what was answered; what became of it. Closes the socket."""
    ahead = 0

    def answered() -> None:
        written = message(socket, path, PIECE_TIMEOUT_S)["written"]
        if on_written is not None:
            on_written(written)

    try:
        for piece in pieces:
            socket.send(piece)
            ahead += 1
            if ahead > PIECES_AHEAD:
                answered()
                ahead -= 1
        for _ in range(ahead):
            answered()
        socket.send_text('{"end":true}')
        return GuestFile(**message(socket, path, COMMIT_TIMEOUT_S)["done"])
    finally:
        socket.close()


def pieces_of(socket: Console, path: str) -> Iterator[bytes]:
    while True:
        part = socket.receive(PIECE_TIMEOUT_S)
        if isinstance(part, bytes) and part:
            yield part
            continue
        _document(socket, path, part)
        return


def message(socket: Console, path: str, timeout_s: float) -> Any:
    return _document(socket, path, socket.receive(timeout_s))


def _document(socket: Console, path: str, said: bytes | str | None) -> Any:
    """What a text message says. Raises the error that it tells, and `daemon-unreachable` where none came."""
    asked = f"copy {path}"
    if not isinstance(said, str):
        reason = "the daemon is silent" if said is None else f"it broke off: {socket.close_reason}"
        raise CorralError("daemon-unreachable", asked, reason, "copy it again")
    document = json.loads(said)
    if "error" in document:
        raise error_of(json.dumps(document["error"]).encode(), 200, asked)
    return document


def path_name(name: str) -> str:
    """A name as a part of a path. What could never be one is refused here: `a/b` would be another route."""
    if "/" in name or name in ("", ".", ".."):
        raise CorralError(
            "invalid-name", f"name {name!r}", "a name is made of a-z, 0-9 and '-'", "`corral list` shows the names"
        )
    return quote(name, safe="")
