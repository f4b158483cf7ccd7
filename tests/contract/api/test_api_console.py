"""The console over a WebSocket: bytes both ways, one holder, an end with a reason."""

import select
from collections.abc import Callable

import pytest

from corral.api import protocols
from corral.client import Client
from corral.errors import CorralError
from corral.settings import Settings

from .conftest import WAIT_S, World

BANNER = b"corral fake guest\r\n# "


@pytest.fixture
def running(world: World, client: Client) -> str:
    client.create_vm({"name": "a", "memory_mib": 64})
    world.boot("a")
    return "a"


def _read(console: object, count: int) -> bytes:
    data = b""
    while len(data) < count:
        part = console.recv(WAIT_S)  # type: ignore[attr-defined]
        assert part, "the console ended or is silent"
        data += part
    return data


def test_bytes_go_both_ways(client: Client, running: str) -> None:
    console = client.console(running)
    assert _read(console, len(BANNER)) == BANNER
    every_byte = bytes(range(256))
    console.send(every_byte)
    assert _read(console, 256) == every_byte
    assert console.recv(0) is None
    assert select.select([console], [], [], 0)[0] == []
    console.close()


def test_much_more_than_any_buffer_comes_back(client: Client, running: str) -> None:
    console = client.console(running)
    _read(console, len(BANNER))
    block = bytes(range(256)) * 256
    for _ in range(64):
        console.send(block)
    assert _read(console, 64 * len(block)) == block * 64
    console.close()


def test_one_holder_unless_forced(client: Client, running: str) -> None:
    first = client.console(running)
    _read(first, len(BANNER))
    with pytest.raises(CorralError) as refused:
        client.console(running)
    assert refused.value.code == "console-in-use"
    second = client.console(running, force=True)
    assert _read(second, len(BANNER)) == BANNER
    assert first.recv(WAIT_S) == b""
    assert "somebody else took it" in first.close_reason
    second.close()
    first.close()


def test_a_console_that_was_left_can_be_taken_again(client: Client, running: str) -> None:
    for _ in range(3):
        console = client.console(running, force=True)
        _read(console, len(BANNER))
        console.close()


def test_refusals_have_their_code(client: Client) -> None:
    client.create_vm({"name": "off", "memory_mib": 64})
    for name, codes in (("nope", {"vm-not-found"}), ("off", {"wrong-state"})):
        with pytest.raises(CorralError) as refused:
            client.console(name)
        assert refused.value.code in codes


def test_the_daemons_stop_is_told(world: World, client: Client, running: str) -> None:
    console = client.console(running)
    _read(console, len(BANNER))
    world.loop.call_soon_threadsafe(world.stop.set)
    assert console.recv(WAIT_S) == b""
    assert "the VM goes on" in console.close_reason


def test_console_and_exec_are_audited(client: Client, running: str) -> None:
    client.console(running).close()
    list(client.exec(running, ["true"]))
    assert {"vm.console", "vm.exec"} <= {record["action"] for record in client.list_audit()}


def test_a_console_outlives_the_time_that_a_requests_head_may_take(
    start: Callable[[Settings], World], settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocols, "HEAD_TIMEOUT_S", 0.5)
    world = start(settings)
    with world.client() as client:
        client.create_vm({"name": "a", "memory_mib": 64})
        world.boot("a")
        console = client.console("a")
        assert _read(console, len(BANNER)) == BANNER
        assert console.recv(1.5) is None
        console.send(b"still here")
        assert _read(console, 10) == b"still here"
        console.close()
