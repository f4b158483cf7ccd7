"""A Debian guest as its user meets it: made by `corral create`, entered by SSH, console and agent, stopped and started."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from walk import Walk, virsh

from corral.names import GIB

pytestmark = pytest.mark.timeout(1500)

# A quiet machine needs half a minute under emulation; one that does other things needs many times that.
BOOT = "600s"
PASSWORD = "correct horse"
USER_DATA = "#cloud-config\nwrite_files:\n- {path: /etc/marker, content: written}\n"


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


def check_first_boot(walk: Walk, name: str) -> None:
    walk("wait", name, "--for", "cloud-init", "--timeout", BOOT).ok()
    assert walk.info(name)["status"]["cloud_init"] == "done"
    assert "cloud-init:  done" in walk("info", name).ok()
    assert walk("ssh", name, "--", "id -un; hostname; cat /etc/marker").ok().split() == ["debian", name, "written"]
    assert walk("ssh", name, "--", "exit", "7").status == 7
    assert int(walk("ssh", name, "--", "df --output=size -B1 / | tail -1").ok()) > 4.5 * GIB
    assert walk("ssh", name, "--", "systemctl --failed --no-legend --plain").ok() == ""
    # Made on this machine, not in the image.
    fresh = "test $(stat -c %Y {}) -ge $(awk '/^btime/ {{print $2}}' /proc/stat)"
    for path in ("/etc/ssh/ssh_host_ed25519_key", "/etc/machine-id"):
        assert walk("ssh", name, "--", fresh.format(path)).status == 0, path
    hashed = walk("ssh", name, "--", "sudo getent shadow debian").ok().split(":")[1]
    assert hashed.startswith(("$6$", "$y$"))
    assert hashed not in str(walk.info(name))


@pytest.fixture(scope="module")
def seen() -> set[str]:
    """The ids of the guest before."""
    return set()


def test_debian_from_create_to_delete(walk: Walk, name: str, tmp_path: Path, seen: set[str]) -> None:
    create(walk, name, tmp_path)
    assert virsh("domstate", name) == "running"
    check_first_boot(walk, name)

    # Through the agent: no network, no key.
    walk("wait", name, "--for", "agent", "--timeout", BOOT).ok()
    ran = walk("exec", name, "--", "sh", "-c", "echo out; echo err >&2; exit 5")
    assert (ran.status, ran.stdout, ran.stderr) == (5, b"out\n", b"err\n")
    ran = walk("exec", name, "--", "head", "-c", "30000000", "/dev/zero")
    assert (ran.status, len(ran.stdout), "the rest was cut" in ran.err) == (0, 2**20, True)
    facts = walk.json("guest", name)
    assert (facts["hostname"], "Debian" in facts["os"]) == (name, True)

    # By the console, with the password.
    terminal = walk.terminal("console", name)
    try:
        terminal.send("\r")
        terminal.expect("login: ", 120)
        terminal.send("debian\r")
        terminal.expect("assword: ", 120)
        terminal.send(PASSWORD + "\r")
        terminal.expect(r"\$ ", 120)
        terminal.send("echo $((40 + 2)) by $(id -un)\r")
        terminal.expect("42 by debian", 120)
        terminal.send("exit\r\x1d")
        assert terminal.end() == 0
    finally:
        terminal.close()

    seen.update(ids(walk, name))
    disk = Path(walk.json("volume", "list")[-1]["status"]["path"])
    walk("shutdown", name, "--timeout", BOOT).ok()
    assert virsh("domstate", name, "--reason") == "shut off (shutdown)"
    walk("delete", name).ok()
    assert name not in virsh("list", "--all", "--name").split()
    assert not disk.exists()
    walk("info", name).ends(3, "vm-not-found")


@pytest.mark.soak
def test_debian_by_uefi_shares_nothing_with_the_one_before(
    walk: Walk, name: str, tmp_path: Path, seen: set[str]
) -> None:
    create(walk, name, tmp_path, "--firmware", "uefi")
    assert walk("ssh", name, "--", "test -d /sys/firmware/efi && echo efi").ok() == "efi\n"
    check_first_boot(walk, name)
    assert not ids(walk, name) & seen


@pytest.mark.soak
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
