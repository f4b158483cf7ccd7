"""Screenshot, vnc, keys, clock, password and cp on the command line, against a daemon with a simulated guest."""

import os
import socket
from pathlib import Path

import pytest

from corral.cli.vnc import owner_of

from .conftest import Corral


@pytest.fixture
def vm(corral: Corral) -> str:
    if corral("info", "reach").status:
        corral("create", "--name", "reach", "--image", "micro", "--memory", "64").ok()
        corral("wait", "reach", "--for", "agent").ok()
    return "reach"


def test_a_screenshot_has_the_vms_name_unless_told(corral: Corral, vm: str, tmp_path: Path) -> None:
    target = tmp_path / "x.png"
    assert corral("screenshot", vm, "-o", str(target)).ok().out == f"{target}\n"
    assert target.read_bytes().startswith(b"\x89PNG")
    assert corral("screenshot", vm, str(tmp_path / "y.png")).ok().out == f"{tmp_path / 'y.png'}\n"
    assert corral("screenshot", vm, "a.png", "-o", "b.png").status == 2
    assert corral("screenshot", vm, "-o", str(tmp_path / "none" / "x.png")).status == 2
    assert corral("screenshot", "nobody", "-o", str(target)).status == 3


def test_keys(corral: Corral, vm: str) -> None:
    corral("send-key", vm, "ctrl-alt-del").ok()
    corral("send-key", vm, "KEY_LEFTCTRL", "KEY_ALT", "KEY_DELETE", "--holdtime", "10", "--codeset", "linux").ok()
    corral("send-key", vm, "--text", "root", "--enter").ok()
    assert corral("send-key", vm).status == 2
    assert "[invalid-argument]" in corral("send-key", vm, "ctrl-nonsense").err
    corral("nmi", vm).ok()
    corral("inject-nmi", vm).ok()


def test_what_the_guest_tells(corral: Corral, vm: str) -> None:
    assert corral("domhostname", vm).ok().out == "reach\n"
    assert "/dev/vda" in corral("domfsinfo", vm).ok().out
    assert "root" in corral("guest", vm, "--users").ok().out
    assert "time:" in corral("guest", vm).ok().out
    assert corral("guest", vm, "-o", "json").json["os_id"] == "fake"


def test_the_clock(corral: Corral, vm: str) -> None:
    assert corral("domtime", vm, "--time", "1000000000", "-o", "json").json["offset_s"] < -1e8
    assert "offset:" in corral("clock", "show", vm).ok().out
    assert abs(corral("clock", "sync", vm, "-o", "json").json["offset_s"]) < 60
    corral("domtime", vm, "--sync").ok()
    corral("domtime", vm, "--now", "--pretty").ok()


def test_a_password_is_no_argument(corral: Corral, vm: str) -> None:
    assert "set" in corral("password", "set", vm, "root", "--password-file", "-", stdin="secret\n").ok().out
    corral("set-user-password", vm, "root", "--password-file", "-", stdin="secret\n").ok()
    assert corral("set-user-password", vm, "root", "secret").status == 2
    assert corral("password", "set", vm, "root", "--password-file", "-", stdin="\n").status == 2


def test_files(corral: Corral, vm: str, tmp_path: Path) -> None:
    (tmp_path / "motd").write_text("hello")
    assert corral("cp", str(tmp_path / "motd"), f"{vm}:/tmp").ok().out == f"{vm}:/tmp/motd\n"
    assert corral("cp", f"{vm}:/tmp/motd", str(tmp_path / "back")).ok().out == f"{tmp_path / 'back'}\n"
    assert (tmp_path / "back").read_text() == "hello"
    assert corral("cp", f"{vm}:/tmp/motd", "-").ok().out == "hello"
    directory = tmp_path / "site"
    directory.mkdir()
    (directory / "page").write_text("page")
    corral("cp", "-r", str(directory), f"{vm}:/tmp/site").ok()
    corral("cp", "-r", f"{vm}:/tmp/site", str(tmp_path / "again")).ok()
    assert (tmp_path / "again" / "page").read_text() == "page"
    assert corral("cp", "-r", f"{vm}:/tmp/site", str(tmp_path / "again")).ok().out.endswith("/again/site\n")
    for wrong in (
        ("cp", "a", "b"),
        ("cp", f"{vm}:/a", f"{vm}:/b"),
        ("cp", "a", f"{vm}:relative"),
        ("cp", str(directory), f"{vm}:/tmp"),
        ("cp", "-r", f"{vm}:/tmp/site", str(tmp_path / "again")),
        ("cp", "-r", "-", f"{vm}:/tmp"),
    ):
        assert corral(*wrong).status == 2, wrong
    assert corral("cp", f"{vm}:/tmp/none", "-").status == 3


def test_vnc_takes_one_connection(corral: Corral, vm: str) -> None:
    assert corral("vncdisplay", vm).ok().out.startswith("vnc+unix:///")
    command = corral.start("vnc", vm, "--no-viewer")
    try:
        assert command.stdout is not None
        port = int(command.stdout.readline().strip().rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), 30) as viewer:
            assert viewer.recv(12) == b"RFB 003.008\n"
            viewer.sendall(b"echoed")
            assert viewer.recv(6) == b"echoed"
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", port), 30)
        assert command.wait(30) == 0
        assert command.stderr is not None
        assert "The viewer was closed" in command.stderr.read()
    finally:
        command.kill()
        command.communicate(timeout=30)


def test_the_owner_of_a_local_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as mine:
            accepted, peer = listener.accept()
            with accepted:
                assert peer == mine.getsockname()
                assert owner_of(peer[1], port) == os.geteuid()
                assert owner_of(port, port) is None
