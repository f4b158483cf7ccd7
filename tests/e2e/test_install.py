"""Installers on real firmware: the medium boots while the disk is empty, the disk afterwards, and nobody edits a boot order."""

import asyncio
import shutil
import subprocess
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from libvirt_fixtures import open_directory
from walk import PATIENCE_S, Walk, virsh

from corral.images.bootdisk import BootDisk, build_bootdisk
from corral.names import MIB

pytestmark = pytest.mark.timeout(900)

RESCUE_ISO = Path("/usr/lib/grub-rescue/grub-rescue-cdrom.iso")
NETBOOT = Path("/usr/lib/debian-installer/images/12/amd64/text")
GRUB = """\
serial --unit=0 --speed=115200
terminal_output serial console
echo '{says}'
while true; do sleep 60; done
"""


@pytest.fixture(scope="module")
def desk() -> Iterator[Path]:
    """A directory that guests' uids can pass through, with a medium and a disk that only say who they are."""
    with open_directory() as place:
        tree = place / "tree"
        (tree / "boot" / "grub").mkdir(parents=True)
        (tree / "boot" / "grub" / "grub.cfg").write_text(GRUB.format(says="the medium speaks"))
        subprocess.run(
            ["grub-mkrescue", "-o", str(place / "speaks.iso"), str(tree)], check=True, capture_output=True, timeout=120
        )
        (tree / "boot" / "grub" / "grub.cfg").write_text(GRUB.format(says="the disk speaks"))
        work = place / "work"
        work.mkdir()
        asyncio.run(build_bootdisk(BootDisk(place / "installed.raw", 256 * MIB), tree, work))
        yield place


def console(walk: Walk, name: str) -> str:
    return walk("console", name, "--log").out


@pytest.mark.parametrize("firmware", ["bios", "uefi"])
def test_the_medium_boots_until_the_disk_does(walk: Walk, desk: Path, firmware: str) -> None:
    name, disk = walk.name(firmware), desk / f"{firmware}.raw"
    walk(
        *("install", "--name", name, "--memory", "256", "--network", "none", "--noautoconsole", "--boot", f"firmware={firmware}"),
        *("--disk", f"path={disk},size=256M,format=raw", "--cdrom", str(desk / "speaks.iso")),
    ).ok()  # fmt: skip
    try:
        walk.until("the medium boots", lambda: "the medium speaks" in console(walk, name))
        walk("destroy", name).ok()
        # What an installer would have done: the same file, now with a system on it.
        with disk.open("r+b") as target, (desk / "installed.raw").open("rb") as source:
            shutil.copyfileobj(source, target)
        walk("start", name).ok()
        walk.until("the disk boots", lambda: "the disk speaks" in console(walk, name))
        assert "cdrom" in walk("info", name).ok()
    finally:
        walk("delete", name).ok()
    assert disk.exists()


def test_on_a_terminal_the_serial_console_opens_by_itself(walk: Walk, desk: Path) -> None:
    name = walk.name("seen")
    terminal = walk.terminal(
        *("install", "--name", name, "--memory", "256", "--network", "none", "--disk", "size=1"),
        *("--cdrom", str(desk / "speaks.iso")),
    )  # fmt: skip
    try:
        terminal.expect("Ctrl-] leaves", PATIENCE_S)
        terminal.expect("the medium speaks", PATIENCE_S)
        terminal.send("\x1d")
        assert terminal.end() == 0
    finally:
        terminal.close()
        walk("delete", name).ok()


def test_a_rescue_medium_shows_its_first_screen(walk: Walk, desk: Path) -> None:
    name, picture = walk.name("rescue"), desk / "screen.png"
    walk(
        *("install", "--name", name, "--memory", "256", "--disk", "size=1", "--network", "none"),
        *("--cdrom", str(RESCUE_ISO), "--noautoconsole"),
    ).ok()
    try:
        walk.until("the menu is drawn", lambda: _drawn_part(walk, name, picture) > 0.02)
        # GRUB's menu is a frame of 80 x 25 characters: nothing that a firmware leaves behind covers as much.
        assert picture.stat().st_size > 1000
    finally:
        walk("delete", name).ok()


def _drawn_part(walk: Walk, name: str, picture: Path) -> float:
    """How much of the screen is not black."""
    walk("screenshot", name, "-o", str(picture)).ok()
    lines = list(_lines(picture.read_bytes()))
    return sum(len(line) - line.count(0) for line in lines) / sum(len(line) for line in lines)


def _lines(png: bytes) -> Iterator[bytes]:
    """A picture's lines, of 8-bit RGB: the chunks unpacked, the filters undone (PNG specification, section 9)."""
    at, packed = 8, b""
    while at < len(png):
        length = int.from_bytes(png[at : at + 4], "big")
        if png[at + 4 : at + 8] == b"IDAT":
            packed += png[at + 8 : at + 8 + length]
        at += 12 + length
    width = int.from_bytes(png[16:20], "big") * 3
    raw, above = zlib.decompress(packed), bytearray(width)
    for start in range(0, len(raw), width + 1):
        line = bytearray(raw[start + 1 : start + 1 + width])
        for index in range(width):
            left, corner = (line[index - 3], above[index - 3]) if index >= 3 else (0, 0)
            line[index] = (line[index] + _predicted(raw[start], left, above[index], corner)) & 0xFF
        yield bytes(line)
        above = line


def _predicted(kind: int, left: int, up: int, corner: int) -> int:
    if kind == 4:
        guess = left + up - corner
        return min((left, up, corner), key=lambda value: abs(guess - value))
    return (0, left, up, (left + up) // 2)[kind]


def test_debians_installer_boots_out_of_its_netboot_tree(walk: Walk, desk: Path) -> None:
    """Its own kernel and initrd, as a medium of Corral's making; its answers inside are read, its screen is drawn."""
    name, picture = walk.name("deb"), desk / "installer.png"
    command = "d-i preseed/early_command string (echo the answers are read; cat /proc/cmdline) >/dev/ttyS0"
    answers = f"d-i debian-installer/locale string en_US\n{command}\n"
    (desk / "preseed.cfg").write_text(answers)
    walk(
        *("install", "--name", name, "--memory", "768", "--disk", "size=2", "--network", "none", "--noautoconsole"),
        *("--location", str(NETBOOT), "--unattended", str(desk / "preseed.cfg"), "--os-variant", "debian12"),
        *("--extra-args", "no_timer_check cryptomgr.notests=1 panic=60"),
    ).ok()
    try:
        walk.until("its answers are read", lambda: "the answers are read" in console(walk, name), 2 * PATIENCE_S)
        walk.until("its arguments are ours", lambda: "panic=60 auto=true priority=critical" in console(walk, name))
        # A blue screen with a grey box; the kernel's own words cover a tenth of it.
        walk.until("its first screen is drawn", lambda: _drawn_part(walk, name, picture) > 0.25, 2 * PATIENCE_S)
    finally:
        walk("delete", name).ok()
        walk("image", "delete", f"{name}-installer.iso").ok()


def test_the_classic_line_on_real_libvirt(walk: Walk, desk: Path) -> None:
    name, iso = walk.name("classic"), desk / "ubuntu-22.04.iso"
    iso.write_bytes((desk / "speaks.iso").read_bytes())
    installed = walk(
        *("install", "--name", name, "--memory", "256", "--vcpus", "1", "--disk", f"path={desk}/{name}.qcow2,size=20"),
        *("--network", "network=default,model=virtio", "--graphics", "vnc,listen=127.0.0.1"),
        *("--os-variant", "ubuntu22.04", "--cdrom", str(iso), "--noautoconsole"),
    )
    installed.ok()
    try:
        document = virsh("dumpxml", name)
        assert "medium.iso" in document
        assert "listen='127.0.0.1'" in document
        assert str(desk / f"{name}.qcow2") in document
        assert "running" in walk("list", "--all").ok()
        walk("destroy", name).ok()
        assert "shut off" in walk("dominfo", name).ok()
        planned = walk(
            "install", "--name", f"{name}2", "--import", "--disk", "size=1", "--print-xml", "--image", "micro"
        )
        assert "<domain" in planned.ok()
    finally:
        walk("delete", name).ok()


def test_an_unreachable_tree_is_said(walk: Walk) -> None:
    refused = walk(
        *(
            "install",
            "--name",
            walk.name("far"),
            "--disk",
            "size=1",
            "--location",
            "https://127.0.0.1:9/debian",
            "--noautoconsole",
        )
    )
    assert refused.status == 1
    assert "Connection refused" in refused.err
    assert "[download-failed]" in refused.err
    assert walk.name("far") not in walk("image", "list").ok()  # nothing is left of it
