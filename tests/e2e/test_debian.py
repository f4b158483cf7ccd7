"""Debian guests by both firmwares: nothing shared between two of one image, each the same machine when it comes back."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from debian_guest import BOOT, PASSWORD, USER_DATA, check_first_boot
from walk import Walk

# test_walk_both.py has the guest that every run of the tests boots; these take minutes.
pytestmark = [pytest.mark.timeout(1500), pytest.mark.soak]


def create(walk: Walk, name: str, place: Path, *more: str) -> None:
    (place / "password").write_text(PASSWORD + "\n")
    (place / "user-data").write_text(USER_DATA)
    walk(
        *("create", "--name", name, "--image", "debian-12", "--memory", "1024", "--vcpus", "2", "--disk", "size=5"),
        *("--ssh-key", str(walk.home / ".ssh/id_ed25519.pub"), "--password-file", str(place / "password")),
        *("--user-data", str(place / "user-data"), "--wait", "ssh", "--timeout", BOOT, *more),
    ).ok()


@pytest.fixture
def name(walk: Walk, debian_image: str) -> Iterator[str]:
    """One Debian guest at a time."""
    made = walk.name("deb")
    yield made
    if walk("info", made).status == 0:
        walk("delete", made).ok()


def ids(walk: Walk, name: str) -> set[str]:
    """What no two machines share."""
    said = walk("ssh", name, "--", "cat /etc/machine-id; cut -d' ' -f2 /etc/ssh/ssh_host_*_key.pub").ok().split()
    assert len(said) >= 3
    return set(said)


def test_two_guests_of_one_image_share_nothing(walk: Walk, name: str, tmp_path: Path) -> None:
    """By BIOS, then by UEFI."""
    seen: set[str] = set()
    for firmware in ("bios", "uefi"):
        create(walk, name, tmp_path, "--firmware", firmware)
        efi = walk("ssh", name, "--", "test -d /sys/firmware/efi").status == 0
        assert efi == (firmware == "uefi")
        walk("wait", name, "--for", "cloud-init", "--timeout", BOOT).ok()
        check_first_boot(walk, name)
        mine = ids(walk, name)
        assert not mine & seen
        seen |= mine
        walk("delete", name).ok()


@pytest.mark.parametrize("firmware", ["bios", "uefi"])
def test_debian_comes_back_as_it_was(walk: Walk, name: str, tmp_path: Path, firmware: str) -> None:
    """Saved and resumed, shut down and started, rebooted: the same machine at the same address."""
    create(walk, name, tmp_path, "--firmware", firmware)
    address, before = walk("domifaddr", name).ok(), ids(walk, name)
    walk("save", name).ok()
    walk("start", name).ok()
    assert ids(walk, name) == before
    walk("shutdown", name, "--timeout", BOOT).ok()
    walk("start", name).ok()
    walk("wait", name, "--for", "ssh", "--timeout", BOOT).ok()
    assert (walk("domifaddr", name).ok(), ids(walk, name)) == (address, before)
    boot = walk("ssh", name, "--", "cat /proc/sys/kernel/random/boot_id").ok()
    walk("reboot", name, "--timeout", BOOT).ok()
    walk.until(
        "it is up anew",
        lambda: walk("ssh", name, "--", "cat /proc/sys/kernel/random/boot_id").out not in ("", boot),
        600,
    )
    assert walk("domifaddr", name).ok() == address
