"""Where the API listens: a Unix socket of our own making, TLS over TCP if it is switched on; and how that ends."""

import asyncio
import contextlib
import fcntl
import os
import socket
import ssl
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import uvicorn

from corral.api.app import Api
from corral.api.handshakes import GatedListener, Handshakes
from corral.api.peer import group_id
from corral.api.protocols import ListenerConfig, PeerHttpProtocol, PeerWebSocketProtocol
from corral.errors import CorralError
from corral.log import logger
from corral.settings import Settings

BACKLOG: Final = 512
LOCK_TRIES: Final = 100
LOCK_PAUSE_S: Final = 0.05
# A peer over TCP that takes none of what was sent for so long is cut off by the kernel (tcp(7), TCP_USER_TIMEOUT).
UNREAD_TIMEOUT_MS: Final = 60_000
KEEP_ALIVE_S: Final = 75
# Requests take milliseconds and streams end by themselves; what is left then waits for something, and asks again.
GRACE_S: Final = 1
HEADERS_MAX_BYTES: Final = 32 * 1024
CONSOLE_MESSAGE_MAX_BYTES: Final = 1024 * 1024
log: Final = logger("server")


class _Server(uvicorn.Server):
    """uvicorn without its ten ticks a second and without signal handlers: it runs until `leave` is called."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._leaving = asyncio.Event()

    def leave(self) -> None:
        self.should_exit = True
        self._leaving.set()

    async def main_loop(self) -> None:
        await self._leaving.wait()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(api: Api, settings: Settings, *, stop: asyncio.Event, ready: Callable[[], None]) -> None:
    """Listen until `stop` is set. `ready` is called when requests are taken.

    Raises `daemon-already-running` when another process listens on the socket, `invalid-argument` for an address or
    certificate that cannot be used.
    """
    local = bind_unix(settings.socket, settings.admin_group)
    inode = settings.socket.stat().st_ino
    try:
        servers: list[tuple[_Server, socket.socket]] = [(_server(api), local)]
        if settings.listen:
            listener = GatedListener(_bind_tcp(settings.listen), Handshakes())
            servers.append((_server(api, _tls_context(settings), listener.handshakes), listener))
        async with asyncio.TaskGroup() as tasks:
            observer = tasks.create_task(api.face.metrics.follow(api.face.services))
            running = [tasks.create_task(server.serve(sockets=[listener])) for server, listener in servers]
            try:
                await api.warm_up()
                await _started(running, [server for server, _ in servers])
                ready()
                await stop.wait()
            finally:
                observer.cancel()
                api.stop()
                for server, _ in servers:
                    server.leave()
    finally:
        local.close()
        _remove_socket(settings.socket, inode)


async def _started(running: list[asyncio.Task[None]], servers: list[_Server]) -> None:
    while not all(server.started for server in servers):
        if any(task.done() for task in running):
            return  # the task group raises what ended it
        await asyncio.sleep(0.005)


def _server(api: Api, tls: ssl.SSLContext | None = None, handshakes: Handshakes | None = None) -> _Server:
    config = ListenerConfig(
        api,
        loop="none",
        http=PeerHttpProtocol,
        ws=PeerWebSocketProtocol,
        ws_max_size=CONSOLE_MESSAGE_MAX_BYTES,
        ws_per_message_deflate=False,
        interface="asgi3",
        lifespan="off",
        log_config=None,
        log_level="critical",  # what a request raised is logged by tracing, with its id
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=GRACE_S,
        h11_max_incomplete_event_size=HEADERS_MAX_BYTES,
        ssl_context_factory=None if tls is None else lambda _config, _default: tls,
    )
    config.handshakes = handshakes
    return _Server(config)


# ---- the Unix socket -----------------------------------------------------------------------------------------------


def bind_unix(path: Path, group: str) -> socket.socket:
    """A listening Unix socket: for `group` if the machine has it and we may give it away, else for ourselves alone.

    What a dead daemon left is removed; one that listens is left alone: `daemon-already-running`.
    """
    path.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _only_binder(path.parent):
            _remove_stale(path)
            mask = os.umask(0o177)
            try:
                listener.bind(str(path))
            finally:
                os.umask(mask)
            _open_to_group(path, group)
            listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        reason = error.strerror or str(error)
        raise CorralError("invalid-argument", f"listen on {path}", reason, "choose another --socket") from error
    except CorralError:
        listener.close()
        raise
    listener.setblocking(False)
    return listener


@contextlib.contextmanager
def _only_binder(directory: Path) -> Iterator[None]:
    """Between looking for a listener and being one, no other daemon may do the same."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for _ in range(LOCK_TRIES):
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(LOCK_PAUSE_S)  # nobody is served yet
            else:
                break
        else:  # anyone who may read the directory can hold it: nobody waits for ever
            raise CorralError("daemon-already-running", f"listen in {directory}", "another process holds the directory")
        yield
    finally:
        os.close(fd)


def _remove_stale(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise CorralError("invalid-argument", f"listen on {path}", "it is there and not a socket", "choose another one")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except TimeoutError:
            pass  # a full backlog is somebody's
    raise CorralError(
        "daemon-already-running",
        f"listen on {path}",
        "another daemon listens there",
        "stop it first (corral daemon stop) or choose another --socket",
    )


def _open_to_group(path: Path, group: str) -> None:
    gid = group_id(group)
    if gid is None:
        return
    # Through a descriptor that follows no link: the directory may be one that others write.
    fd = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if not stat.S_ISSOCK(os.fstat(fd).st_mode):
            raise CorralError("invalid-argument", f"listen on {path}", "somebody put something else in its place")
        os.chown(f"/proc/self/fd/{fd}", -1, gid)
        os.chmod(f"/proc/self/fd/{fd}", 0o660)  # noqa: PTH101 -- of a descriptor
    except PermissionError:
        return  # an ordinary user outside the group: the socket stays the user's own
    finally:
        os.close(fd)


def _remove_socket(path: Path, inode: int) -> None:
    """Remove our own socket, never one that somebody bound there meanwhile."""
    with contextlib.suppress(FileNotFoundError):
        if path.lstat().st_ino == inode:
            path.unlink()


# ---- TLS over TCP ----------------------------------------------------------------------------------------------------


def _tls_context(settings: Settings) -> ssl.SSLContext:
    from corral.api.tls import ensure_certificate, parse_listen  # noqa: PLC0415 -- a whole library, for TCP alone

    host, _ = parse_listen(settings.listen)
    cert, key = settings.tls_cert, settings.tls_key
    if cert is None or key is None:
        cert, key = ensure_certificate(settings.state_dir / "tls", host)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(cert, key)
    except (OSError, ssl.SSLError) as error:
        raise CorralError("invalid-argument", f"use certificate {cert} with key {key}", str(error)) from error
    return context


def _bind_tcp(listen: str) -> socket.socket:
    from corral.api.tls import parse_listen  # noqa: PLC0415 -- as above

    host, port = parse_listen(listen)
    try:
        listener = socket.create_server(
            (host, port),
            family=socket.AF_INET6 if ":" in host else socket.AF_INET,
            backlog=BACKLOG,
            dualstack_ipv6=host == "::" and socket.has_dualstack_ipv6(),  # every address: those of IPv4, too
        )
    except OSError as error:
        reason = error.strerror or str(error)
        raise CorralError("invalid-argument", f"listen on {listen}", reason, "choose another --listen") from error
    # Accepted connections inherit both.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNREAD_TIMEOUT_MS)
    listener.setblocking(False)
    log.info("listening", address=listen)
    return listener
