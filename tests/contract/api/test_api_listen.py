"""Where the API listens and whom it lets in: socket modes, strangers, stale sockets, TLS with tokens, bounds."""

import contextlib
import fcntl
import grp
import json
import os
import socket
import ssl
import stat
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from corral.api import server
from corral.api.handshakes import Handshakes
from corral.api.server import bind_unix
from corral.client import Client
from corral.errors import CorralError
from corral.settings import Settings

from .conftest import World

Start = Callable[[Settings], World]
NOBODY = 65534


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _as_stranger(path: Path, request: bytes) -> bytes:
    """What a process of another user is answered. A fork: the interpreter may not be readable to others."""
    assert os.geteuid() == 0, "becoming somebody else takes root: run the tests as root"
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(10)
                connection.connect(str(path))
                connection.sendall(request)
                answer = b""
                while chunk := connection.recv(65536):
                    answer += chunk
            os.write(writing, answer)
        except OSError as error:
            os.write(writing, type(error).__name__.encode())
        finally:
            os._exit(0)
    os.close(writing)
    answer = b""
    while chunk := os.read(reading, 65536):
        answer += chunk
    os.close(reading)
    os.waitpid(child, 0)
    return answer


def test_the_socket_is_the_owners_without_a_group(world: World) -> None:
    mode = world.settings.socket.stat().st_mode
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o600


def test_the_socket_is_the_groups_where_there_is_one(settings: Settings, start: Start) -> None:
    group = grp.getgrgid(os.getegid()).gr_name
    world = start(replace(settings, admin_group=group))
    found = world.settings.socket.stat()
    assert (stat.S_IMODE(found.st_mode), found.st_gid) == (0o660, os.getegid())


def test_a_stranger_is_known_by_name_and_may_nothing(world: World, client: Client) -> None:
    request = b"GET /v1/vms HTTP/1.1\r\nHost: c\r\nConnection: close\r\n\r\n"
    assert _as_stranger(world.settings.socket, request) == b"PermissionError"
    world.settings.socket.chmod(0o666)
    world.settings.socket.parent.chmod(0o755)
    answer = _as_stranger(world.settings.socket, request)
    problem = json.loads(answer.partition(b"\r\n\r\n")[2])
    assert (problem["status"], problem["code"]) == (403, "forbidden")
    upgrade = (
        b"GET /v1/vms/a/console HTTP/1.1\r\nHost: c\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    answer = _as_stranger(world.settings.socket, upgrade)
    assert b" 403 " in answer.split(b"\r\n")[0]
    assert b'"code": "forbidden"' in answer
    denied = [record for record in client.list_audit() if record["outcome"] == "denied"]
    assert {record["identity"] for record in denied} == {"local:nobody"}


def test_a_socket_that_nobody_listens_on_is_replaced(settings: Settings) -> None:
    bind_unix(settings.socket, "").close()
    assert settings.socket.exists()
    bind_unix(settings.socket, "").close()


def test_a_socket_in_use_is_left_alone(world: World, client: Client) -> None:
    with pytest.raises(CorralError) as refused:
        bind_unix(world.settings.socket, "")
    assert refused.value.code == "daemon-already-running"
    assert client.ready()["ready"]


def test_a_directory_that_somebody_holds_is_not_waited_for_for_ever(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "LOCK_TRIES", 3)
    fd = os.open(settings.socket.parent, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        with pytest.raises(CorralError) as refused:
            bind_unix(settings.socket, "")
    finally:
        os.close(fd)
    assert refused.value.code == "daemon-already-running"
    bind_unix(settings.socket, "").close()


def test_a_link_in_the_sockets_place_is_not_given_to_the_group(settings: Settings) -> None:
    precious = settings.socket.with_name("precious")
    precious.write_text("precious")
    precious.chmod(0o600)
    settings.socket.symlink_to(precious)
    group = grp.getgrgid(os.getegid()).gr_name
    with pytest.raises((CorralError, OSError)):
        server._open_to_group(settings.socket, group)
    assert stat.S_IMODE(precious.stat().st_mode) == 0o600
    with pytest.raises(CorralError):
        bind_unix(settings.socket, group)
    assert settings.socket.is_symlink()


def test_a_file_in_the_way_is_never_removed(settings: Settings) -> None:
    settings.socket.write_text("precious")
    with pytest.raises(CorralError) as refused:
        bind_unix(settings.socket, "")
    assert refused.value.code == "invalid-argument"
    assert settings.socket.read_text() == "precious"


def test_the_socket_goes_with_the_daemon(settings: Settings, start: Start) -> None:
    world = start(settings)
    world.loop.call_soon_threadsafe(world.stop.set)
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join(20)
    assert not settings.socket.exists()
    with pytest.raises(CorralError) as refused:
        Client(settings.socket).list_vms()
    assert refused.value.code == "daemon-unreachable"
    assert refused.value.exit_status == 6
    assert "corral daemon start" in refused.value.hint


def test_tls_and_tokens(settings: Settings, start: Start) -> None:
    port = _free_port()
    world = start(replace(settings, listen=f"127.0.0.1:{port}"))
    url, ca_file = f"https://127.0.0.1:{port}", str(settings.state_dir / "tls" / "cert.pem")
    with world.client() as local:
        secret = local.create_token({"name": "ci", "role": "viewer"})["secret"]
        local.create_vm({"name": "a", "memory_mib": 64})
        with Client(url=url, ca_file=ca_file, token=secret) as remote:
            assert [vm["name"] for vm in remote.list_vms()] == ["a"]
            with pytest.raises(CorralError) as refused:
                remote.delete_vm("a")
            assert refused.value.code == "forbidden"
            world.boot("a")
            with pytest.raises(CorralError) as refused:
                remote.console("a")
            assert refused.value.code == "forbidden"
            local.delete_token("ci")
            with pytest.raises(CorralError) as refused:
                remote.list_vms()
            assert refused.value.code == "unauthenticated"
    for token in ("", "nonsense"):
        with pytest.raises(CorralError) as refused, Client(url=url, ca_file=ca_file, token=token) as nobody:
            nobody.list_vms()
        assert refused.value.code == "unauthenticated"
    with pytest.raises(CorralError) as refused, Client(url=url, token=secret) as distrusting:
        distrusting.list_vms()
    assert refused.value.code == "daemon-unreachable"
    assert stat.S_IMODE((settings.state_dir / "tls" / "key.pem").stat().st_mode) == 0o600


def test_a_console_over_tls(settings: Settings, start: Start) -> None:
    port = _free_port()
    world = start(replace(settings, listen=f"127.0.0.1:{port}"))
    with world.client() as local:
        secret = local.create_token({"name": "ci", "role": "operator"})["secret"]
        local.create_vm({"name": "a", "memory_mib": 64})
    world.boot("a")
    ca_file = str(settings.state_dir / "tls" / "cert.pem")
    with Client(url=f"https://127.0.0.1:{port}", ca_file=ca_file, token=secret) as remote:
        console = remote.console("a")
        assert console.recv(10) == b"corral fake guest\r\n# "
        console.send(b"x" * 300_000)
        count = 0
        while count < 300_000:
            count += len(console.recv(10) or b"")
        console.close()


def test_nothing_is_spoken_in_the_clear_over_tcp(settings: Settings, start: Start) -> None:
    port = _free_port()
    start(replace(settings, listen=f"127.0.0.1:{port}"))
    with socket.create_connection(("127.0.0.1", port)) as plain:
        plain.settimeout(10)
        plain.sendall(b"GET /healthz HTTP/1.1\r\nHost: c\r\n\r\n")
        with contextlib.suppress(ConnectionResetError):
            assert b"HTTP" not in plain.recv(1000)
    context = ssl.create_default_context(cafile=str(settings.state_dir / "tls" / "cert.pem"))
    with (
        socket.create_connection(("127.0.0.1", port)) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as tls,
    ):
        tls.sendall(b"GET /healthz HTTP/1.1\r\nHost: c\r\nConnection: close\r\n\r\n")
        assert b"200 OK" in tls.recv(1000)


@pytest.fixture
def handshakes(settings: Settings, start: Start, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Handshakes, int]]:
    """A TLS listener that lets 4 of one address wait for 0.5 s, and where it listens."""
    made = Handshakes(most=6, most_of_one_address=4, timeout_s=0.5)
    monkeypatch.setattr(server, "Handshakes", lambda: made)
    port = _free_port()
    start(replace(settings, listen=f":{port}"))
    yield made, port
    _until(lambda: len(made) == 0)


def _is_shut(connection: socket.socket) -> bool:
    connection.settimeout(10)
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _shakes_hands(settings: Settings, port: int, source: str = "127.0.0.1") -> bool:
    context = ssl.create_default_context(cafile=str(settings.state_dir / "tls" / "cert.pem"))
    try:
        with (
            socket.create_connection(("127.0.0.1", port), timeout=10, source_address=(source, 0)) as plain,
            context.wrap_socket(plain, server_hostname="127.0.0.1") as tls,
        ):
            tls.sendall(b"GET /healthz HTTP/1.1\r\nHost: c\r\nConnection: close\r\n\r\n")
            return b"200 OK" in tls.recv(1000)
    except OSError:
        return False


def test_who_never_shakes_hands_is_cut_off(handshakes: tuple[Handshakes, int]) -> None:
    made, port = handshakes
    with socket.create_connection(("127.0.0.1", port)) as silent:
        _until(lambda: len(made) == 1)
        assert _is_shut(silent)


def test_who_is_secured_waits_no_longer(handshakes: tuple[Handshakes, int], settings: Settings) -> None:
    made, port = handshakes
    context = ssl.create_default_context(cafile=str(settings.state_dir / "tls" / "cert.pem"))
    with (
        socket.create_connection(("127.0.0.1", port), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as tls,
    ):
        _until(lambda: len(made) == 0)
        tls.sendall(b"GET /healthz HTTP/1.1\r\nHost: c\r\n\r\n")
        assert b"200 OK" in tls.recv(1000)


def test_one_address_has_few_that_wait_and_keeps_nobody_else_out(
    handshakes: tuple[Handshakes, int], settings: Settings
) -> None:
    made, port = handshakes
    with contextlib.ExitStack() as stack:
        silent = [stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(4)]
        _until(lambda: len(made) == 4)
        assert _is_shut(stack.enter_context(socket.create_connection(("127.0.0.1", port))))
        assert not _shakes_hands(settings, port)
        assert _shakes_hands(settings, port, "127.0.0.2"), "another address was kept out"
        silent.pop().close()
        _until(lambda: len(made) == 3)
        assert _shakes_hands(settings, port)
        _until(lambda: len(made) <= 3)


def test_where_all_are_too_many_the_oldest_goes(handshakes: tuple[Handshakes, int], settings: Settings) -> None:
    made, port = handshakes
    with contextlib.ExitStack() as stack:

        def connect(number: int) -> socket.socket:
            source = (f"127.0.1.{number}", 0)
            return stack.enter_context(socket.create_connection(("127.0.0.1", port), source_address=source))

        oldest = connect(1)
        _until(lambda: len(made) == 1)
        others = [connect(number) for number in range(2, 7)]
        _until(lambda: len(made) == 6)
        assert _shakes_hands(settings, port)
        assert _is_shut(oldest)
        assert others


def test_who_asks_too_often_is_told_when_to_come_back(settings: Settings, start: Start) -> None:
    world = start(replace(settings, request_rate_per_s=0.5))
    with world.client() as client:
        for _ in range(5):  # ten seconds of its rate, at once
            client.daemon()
        with pytest.raises(CorralError) as refused:
            client.daemon()
    assert refused.value.code == "rate-limited"
    assert int(refused.value.context["retry_after_s"]) >= 1
