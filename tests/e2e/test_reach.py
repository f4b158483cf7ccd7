"""Reach a running micro guest as its user does: see its screen, press keys, look by VNC, copy files, set its clock."""

import re
import socket
import struct
import subprocess
import zlib
from pathlib import Path

import pytest
from walk import PATIENCE_S, Walk, virsh

pytestmark = pytest.mark.timeout(900)

PIXELS_MIN = 200  # of a line of text
RAW = 0


def lit(picture: bytes) -> int:
    """How many bytes of the picture's lines are not black: a filter of PNG turns equal neighbours into zeros."""
    at, packed = 8, b""
    while at < len(picture):
        length, kind = struct.unpack_from(">I4s", picture, at)
        packed += picture[at + 8 : at + 8 + length] if kind == b"IDAT" else b""
        at += 12 + length
    lines = zlib.decompress(packed)
    return len(lines) - lines.count(0)


def test_a_screenshot_shows_the_text_console_and_what_is_typed(walk: Walk, vm: str, tmp_path: Path) -> None:
    target = tmp_path / "x.png"
    assert walk("screenshot", vm, "-o", str(target)).ok().strip() == str(target)
    before = target.read_bytes()
    assert before.startswith(b"\x89PNG")
    assert lit(before) > PIXELS_MIN
    assert walk("screenshot", vm, "-o", "-").stdout.startswith(b"\x89PNG")

    # Nobody reads the micro guest's screen terminal, and what nobody reads is not echoed either.
    walk.guest(vm, "setsid cat /dev/tty1 >/tmp/typed 2>/dev/null </dev/null &")
    walk("send-key", vm, "h", "shift-i", "enter").ok()
    walk("send-key", vm, "--text", "Who is there? ~{42}", "--enter").ok()
    walk("send-key", vm, "KEY_LEFTSHIFT", "KEY_A", "--holdtime", "50").ok()
    walk("send-key", vm, "enter").ok()
    walk.until("the keys arrive", lambda: walk.guest(vm, "cat /tmp/typed") == "hI\nWho is there? ~{42}\nA\n")
    walk("screenshot", vm, "-o", str(target)).ok()
    assert lit(target.read_bytes()) > lit(before) + PIXELS_MIN
    walk.guest(vm, "killall cat")
    walk("send-key", vm, "no-such-key").ends(2, "invalid-argument")


class Viewer:
    """As much of RFB (RFC 6143) as takes one picture."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), 60)

    def take(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            part = self.socket.recv(min(65536, count - len(data)))
            assert part, "the other side hung up"
            data += part
        return data

    def greet(self) -> tuple[int, int]:
        """Version, no authentication, shared; the screen's width and height."""
        assert re.fullmatch(rb"RFB 003\.00[78]\n", self.take(12))
        self.socket.sendall(b"RFB 003.008\n")
        assert 1 in self.take(self.take(1)[0])
        self.socket.sendall(b"\x01")
        assert self.take(4) == bytes(4)
        self.socket.sendall(b"\x01")
        width, height = struct.unpack(">HH", self.take(4))
        self.take(16)
        self.take(struct.unpack(">I", self.take(4))[0])
        return width, height

    def picture(self, width: int, height: int) -> bytes:
        """Raw pixels of four bytes."""
        self.socket.sendall(struct.pack(">BBHi", 2, 0, 1, RAW))
        pixel_format = struct.pack(">BBBBHHHBBBxxx", 32, 24, 0, 1, 255, 255, 255, 16, 8, 0)
        self.socket.sendall(b"\x00\x00\x00\x00" + pixel_format)
        self.socket.sendall(struct.pack(">BBHHHH", 3, 0, 0, 0, width, height))
        pixels, wanted = b"", width * height * 4
        while len(pixels) < wanted:
            kind, rectangles = struct.unpack(">BxH", self.take(4))
            assert kind == 0
            for _ in range(rectangles):
                _, _, w, h, encoding = struct.unpack(">HHHHi", self.take(12))
                assert encoding == RAW
                pixels += self.take(w * h * 4)
        return pixels


def test_vnc_through_the_daemon(walk: Walk, vm: str) -> None:
    command = walk.spawn("vnc", vm, "--no-viewer")
    try:
        assert command.stdout is not None
        address = re.fullmatch(r"vnc://127\.0\.0\.1:(\d+)\n", command.stdout.readline())
        assert address is not None
        viewer = Viewer(int(address[1]))
        pixels = viewer.picture(*viewer.greet())
        assert len(pixels) - pixels.count(0) > PIXELS_MIN
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", int(address[1])), 60)
        walk("destroy", vm).ok()
        assert command.wait(PATIENCE_S) == 0
        assert "The session ended" in command.stdout.read()
    finally:
        command.kill()
        command.wait(30)
    walk("vnc", vm, "--no-viewer").ends(4, "wrong-state")
    walk("screenshot", vm).ends(4, "wrong-state")


def test_the_displays_address_is_virshs(walk: Walk, vm: str) -> None:
    uri = walk("domdisplay", vm).ok().strip()
    path = uri.removeprefix("vnc+unix://")
    assert path != uri
    assert path in virsh("dumpxml", vm)


def test_what_the_guest_tells(walk: Walk, vm: str) -> None:
    told = walk.json("guest", vm)
    assert (told["os_id"], told["hostname"], told["timezone"]) == ("corral-micro", vm, "UTC")
    assert told["kernel"] == walk.guest(vm, "uname -r").strip()
    said = walk("guestinfo", vm).ok()
    assert "Corral micro guest" in said
    assert "kernel:" in said
    assert walk("domhostname", vm).ok().strip() == vm
    walk("domfsinfo", vm).ok()


def test_a_clock_that_is_off_is_set_right(walk: Walk, vm: str) -> None:
    walk.guest(vm, "date -s 2001-02-03")
    assert walk.guest(vm, "date +%Y").strip() == "2001"
    shown = walk.json("clock", "show", vm)
    assert shown["offset_s"] < -1e8
    set_right = walk.json("clock", "sync", vm)
    assert abs(set_right["offset_s"]) < 10
    assert int(walk.guest(vm, "date +%Y")) > 2001
    walk.guest(vm, "date -s 2001-02-03")
    walk("domtime", vm, "--sync").ok()
    assert int(walk.guest(vm, "date +%Y")) > 2001


def test_files_are_copied_whole_with_their_bits(walk: Walk, vm: str, tmp_path: Path) -> None:
    source, back = tmp_path / "a file", tmp_path / "back"
    source.write_bytes(bytes(range(256)) * 2000 + b"end")
    source.chmod(0o751)
    assert walk("cp", str(source), f"{vm}:/root/deep name").ok().strip() == f"{vm}:/root/deep name"
    assert walk.guest(vm, "stat -c '%s %a' '/root/deep name'").split() == [str(source.stat().st_size), "751"]
    walk("cp", f"{vm}:/root/deep name", str(back)).ok()
    assert back.read_bytes() == source.read_bytes()
    assert back.stat().st_mode & 0o777 == 0o751

    assert walk("cp", str(source), f"{vm}:/tmp").ok().strip() == f"{vm}:/tmp/a file"
    assert walk("cp", f"{vm}:/etc/hostname", "-").ok() == f"{vm}\n"
    walk("cp", "-", f"{vm}:/tmp/typed", stdin="typed").ok()
    assert walk.guest(vm, "cat /tmp/typed; ls -A /tmp") == "typed" + walk.guest(vm, "ls -A /tmp")
    assert ".corral" not in walk.guest(vm, "ls -A /root /tmp")

    walk("cp", str(source), f"{vm}:/none/x").ends(3, "guest-file-not-found")
    walk("cp", f"{vm}:/none", str(back)).ends(3, "guest-file-not-found")
    walk("cp", f"{vm}:/etc", str(back)).ends(4, "guest-file-error")
    walk("cp", f"{vm}:/dev/null", str(back)).ends(4, "guest-file-error")
    walk("cp", str(source), f"{vm}:/dev/null").ends(4, "guest-file-error")
    walk("cp", str(tmp_path / "none"), f"{vm}:/tmp").ends(2)
    walk("cp", "a", "b").ends(2)
    assert back.read_bytes() == source.read_bytes()


def test_a_file_that_the_guest_has_no_room_for_leaves_nothing(walk: Walk, vm: str, tmp_path: Path) -> None:
    walk.guest(vm, "mkdir -p /mnt/small && mount -t tmpfs -o size=256k none /mnt/small && echo old >/mnt/small/x")
    try:
        (tmp_path / "x").write_bytes(bytes(600_000))
        walk("cp", str(tmp_path / "x"), f"{vm}:/mnt/small/x").ends(1, "guest-agent-error")
        assert walk.guest(vm, "cd /mnt/small; cat x; ls -A") == "old\nx\n"
    finally:
        walk.guest(vm, "umount /mnt/small")


def test_directories_are_copied_whole(walk: Walk, vm: str, tmp_path: Path) -> None:
    site = tmp_path / "site"
    (site / "sub").mkdir(parents=True)
    (site / "sub" / "page").write_text("page")
    (site / "run").write_text("#!/bin/sh\n")
    (site / "run").chmod(0o755)
    (site / "link").symlink_to("sub/page")
    walk("cp", "-r", str(site), f"{vm}:/root").ok()
    assert walk.guest(vm, "cd /root/site; cat link; stat -c %a run") == "page755\n"
    walk("cp", "-r", str(site), f"{vm}:/root").ends(4, "guest-file-error")
    walk("cp", "-r", f"{vm}:/root/site", str(tmp_path / "back")).ok()
    ran = subprocess.run(["diff", "-r", "--no-dereference", str(site), str(tmp_path / "back")], check=False)
    assert ran.returncode == 0
    walk("cp", str(site), f"{vm}:/root").ends(2)
    walk("cp", "-r", f"{vm}:/etc/hostname", str(tmp_path)).ends(4, "guest-file-error")
    assert walk.guest(vm, "rm -r /root/site; ls -A /root /tmp /var/tmp 2>/dev/null | grep .corral; :") == ""


def test_a_guest_without_an_agent_says_so(walk: Walk, vm: str, tmp_path: Path) -> None:
    """Paused: its agent cannot answer."""
    walk("pause", vm).ok()
    (tmp_path / "x").write_text("x")
    for argv in (("guest", vm), ("clock", "sync", vm), ("cp", str(tmp_path / "x"), f"{vm}:/tmp")):
        walk(*argv).ends(4, "wrong-state")
    assert walk("screenshot", vm, "-o", "-").stdout.startswith(b"\x89PNG")
    walk("resume", vm).ok()


def test_an_nmi_reaches_the_guest(walk: Walk, vm: str) -> None:
    def seen() -> str:
        return walk.guest(vm, "grep NMI: /proc/interrupts")

    before = seen()
    walk("nmi", vm).ok()
    walk.until("the guest counts it", lambda: seen() != before)
    walk("inject-nmi", vm).ok()
