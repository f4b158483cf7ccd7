"""A running guest through the API and the typed client: screen, keys, clock, password, files; refusals and the audit."""

import base64
from collections.abc import Iterator

import pytest

from corral.client import Client
from corral.client_guest import GuestFile
from corral.errors import CorralError
from corral.hypervisor.fake_reach import RFB_GREETING
from corral.model.limits import COPY_MAX_BYTES

from .conftest import WAIT_S, World

PNG = b"\x89PNG\r\n\x1a\n"
SECRET = "correct horse"


@pytest.fixture
def running(world: World, client: Client) -> str:
    client.create_vm({"name": "a", "memory_mib": 64})
    world.boot("a")
    return "a"


def _uid(client: Client) -> str:
    return client.get_vm("a")["uid"]


def refused(code: str, call: object) -> CorralError:
    with pytest.raises(CorralError) as error:
        call()  # type: ignore[operator]
    assert error.value.code == code
    return error.value


def test_screen_keys_and_nmi(world: World, client: Client, running: str) -> None:
    assert client.screenshot(running).startswith(PNG)
    assert client.display(running)["uri"].startswith("vnc+unix:///")
    client.send_keys(running, {"keys": ["ctrl-alt-del", "f2"], "text": "A\n", "hold_ms": 1})
    client.inject_nmi(running)
    screens, uid = world.hypervisor.screens, _uid(client)
    assert screens.pressed[uid] == [(29, 56, 111), (60,), (42, 30), (28,)]
    assert screens.interrupts[uid] == 1
    refused("invalid-argument", lambda: client.send_keys(running, {"keys": ["nonsense"]}))
    refused("invalid-argument", lambda: client.send_keys(running, {}))


def test_vnc_ends_with_the_vm(world: World, client: Client, running: str) -> None:
    first, second = client.vnc(running), client.vnc(running)
    for screen in (first, second):
        assert screen.recv(WAIT_S) == RFB_GREETING
    first.send(RFB_GREETING)
    assert first.recv(WAIT_S) == RFB_GREETING
    first.close()
    world.run(world.hypervisor.destroy(_uid(client)))
    assert second.recv(WAIT_S) == b""
    assert "the VM is off" in second.close_reason
    second.close()


def test_a_spice_console_is_shown_by_its_own_viewer(world: World, client: Client, running: str) -> None:
    world.hypervisor.domains[_uid(client)].graphics = "spice"
    error = refused("unsupported", lambda: client.vnc(running))
    assert "remote-viewer spice+unix:///" in error.hint
    world.hypervisor.domains[_uid(client)].graphics = "none"
    assert client.display(running) == {"kind": "none", "uri": ""}
    refused("unsupported", lambda: client.screenshot(running))
    refused("unsupported", lambda: client.vnc(running))


def test_what_the_guest_tells_and_its_clock(client: Client, running: str) -> None:
    told = client.guest(running)
    assert told["hostname"] == "a"
    assert [user["name"] for user in told["users"]] == ["root"]
    assert [each["mountpoint"] for each in told["file_systems"]] == ["/"]
    assert told["timezone"] == "UTC"
    assert told["time"]

    answer = client.set_clock(running, {"source": "time", "time": "2020-01-01T00:00:00Z"})
    assert answer["offset_s"] < -1e8
    assert client.clock(running)["guest_time"].startswith("2020-01-01")
    assert abs(client.set_clock(running, {})["offset_s"]) < 60
    refused("invalid-argument", lambda: client.set_clock(running, {"source": "time"}))


def test_a_password_is_hashed_and_written_down_nowhere(world: World, client: Client, running: str) -> None:
    client.set_password(running, "root", SECRET)
    [hashed] = world.hypervisor.guests.passwords.values()
    assert hashed.startswith("$6$")
    records = str(client.list_audit())
    assert "user root" in records
    assert SECRET not in records
    assert hashed not in records
    for user, secret in (("a:b", SECRET), ("root\n", SECRET), ("-x", SECRET), ("root", ""), ("root", "a\nb")):
        error = refused_or_invalid(client, running, user, secret)
        assert SECRET not in str(error)
    error = refused("guest-agent-error", lambda: client.set_password(running, "nobody", SECRET))
    assert "blocked" in error.hint


def refused_or_invalid(client: Client, name: str, user: str, secret: str) -> CorralError:
    with pytest.raises(CorralError) as error:
        client.set_password(name, user, secret)
    assert error.value.code in ("invalid-argument", "invalid-document")
    return error.value


def _parts(content: bytes, size: int) -> Iterator[bytes]:
    return (content[start : start + size] for start in range(0, len(content), size))


def test_files_go_both_ways(world: World, client: Client, running: str) -> None:
    content = bytes(range(256)) * 8000
    progress: list[int] = []
    written = client.write_file(
        running, "/tmp", _parts(content, 100_000), file_name="x", mode=0o750, on_written=progress.append
    )
    assert written == GuestFile("/tmp/x", len(content), 0o750)
    assert progress == sorted(progress)
    assert progress[-1] == len(content)
    with client.read_file(running, "/tmp/x") as (file, pieces):
        assert file == written
        assert b"".join(pieces) == content
    client.write_file(running, "/tmp/empty", iter(()), file_name="x")
    with client.read_file(running, "/tmp/empty") as (_, pieces):
        assert list(pieces) == []


def test_a_copy_that_is_left_is_not_there(world: World, client: Client, running: str) -> None:
    def broken() -> Iterator[bytes]:
        yield b"half"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        client.write_file(running, "/tmp/x", broken(), file_name="x")
    refused("guest-file-not-found", lambda: client.read_file(running, "/tmp/x").__enter__())


def test_files_that_cannot_be_copied(world: World, client: Client, running: str) -> None:
    read = client.read_file
    refused("guest-file-not-found", lambda: read(running, "/tmp/none").__enter__())
    refused("guest-file-error", lambda: read(running, "/tmp").__enter__())
    refused("invalid-argument", lambda: read(running, "relative").__enter__())
    refused("invalid-argument", lambda: read(running, "/tmp/\x1b").__enter__())
    refused("guest-file-not-found", lambda: client.write_file(running, "/no/x", iter((b"x",)), file_name="x"))
    refused("invalid-argument", lambda: client.write_file(running, "/tmp", iter((b"x",)), file_name="a/b"))

    class Endless(bytes):
        def __len__(self) -> int:
            return COPY_MAX_BYTES + 1

    world.hypervisor.guests.files[_uid(client)] = {"/tmp/huge": (0o644, Endless())}
    refused("body-too-large", lambda: read(running, "/tmp/huge").__enter__())


def test_a_copy_that_the_daemons_stop_cuts_is_an_error(world: World, client: Client, running: str) -> None:
    world.hypervisor.guests.files[_uid(client)] = {"/tmp/x": (0o644, bytes(10_000_000))}
    with client.read_file(running, "/tmp/x") as (_, pieces):
        next(pieces)
        world.loop.call_soon_threadsafe(world.stop.set)
        with pytest.raises(CorralError) as error:
            for _ in pieces:
                pass
    assert error.value.code == "daemon-unreachable"


def test_who_is_off_or_paused_cannot_be_reached(world: World, client: Client, running: str) -> None:
    client.create_vm({"name": "off", "memory_mib": 64})
    for name, code in (("none", "vm-not-found"), ("off", "wrong-state")):
        for call in (
            lambda name=name: client.screenshot(name),
            lambda name=name: client.vnc(name),
            lambda name=name: client.send_keys(name, {"keys": ["f1"]}),
            lambda name=name: client.inject_nmi(name),
            lambda name=name: client.clock(name),
            lambda name=name: client.set_clock(name, {}),
            lambda name=name: client.set_password(name, "root", SECRET),
            lambda name=name: client.write_file(name, "/tmp/x", iter((b"x",)), file_name="x"),
            lambda name=name: client.read_file(name, "/tmp/x").__enter__(),
        ):
            refused(code, call)


def test_all_of_it_is_audited(client: Client, running: str) -> None:
    client.screenshot(running)
    client.vnc(running).close()
    client.send_keys(running, {"text": SECRET, "hold_ms": 1})
    client.inject_nmi(running)
    client.set_clock(running, {})
    client.write_file(running, "/tmp/x", iter((b"x",)), file_name="x")
    records = client.list_audit()
    actions = {record["action"] for record in records}
    assert {"vm.screenshot", "vm.vnc", "vm.send-key", "vm.nmi", "vm.clock", "vm.copy"} <= actions
    assert SECRET not in str(records)
    assert base64.b64encode(SECRET.encode()).decode() not in str(records)


def test_an_answer_that_ends_with_the_handshake_is_whole(client: Client, running: str) -> None:
    """A short file's bytes and its end may come in one packet with the acceptance."""
    client.write_file(running, "/tmp/x", iter((b"short",)), file_name="x")
    for _ in range(20):
        with client.read_file(running, "/tmp/x") as (_file, pieces):
            assert list(pieces) == [b"short"]
