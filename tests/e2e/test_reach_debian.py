"""A Debian guest reached from outside: what busybox has none of, or answers otherwise: passwords, users, mounts, GNU tar."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from walk import Walk

# The micro guest walks the rest in every run (test_reach.py).
pytestmark = [pytest.mark.timeout(1500), pytest.mark.soak]

BOOT = "900s"
SECRET = "three small words"


@pytest.fixture
def name(walk: Walk, debian_image: str) -> Iterator[str]:
    made = walk.name("reach")
    key = str(walk.home / ".ssh/id_ed25519.pub")
    walk(
        *("create", "--name", made, "--image", debian_image, "--memory", "1024", "--vcpus", "2", "--disk", "size=5"),
        *("--ssh-key", key, "--wait", "ssh", "--timeout", BOOT),
    ).ok()
    walk("wait", made, "--for", "cloud-init", "--timeout", BOOT).ok()
    yield made
    walk("delete", made).ok()


def test_debian_is_reached(walk: Walk, name: str, tmp_path: Path) -> None:
    """One guest for all: it takes a minute to boot."""
    walk("password", "set", name, "root", "--password-file", "-", stdin=f"{SECRET}\n").ok()
    hashed = walk.guest(name, "getent shadow root").split(":")[1]
    _, method, salt, _ = hashed.split("$")
    assert method == "6"
    again = subprocess.run(
        ["openssl", "passwd", "-6", "-salt", salt, "-stdin"], input=SECRET, capture_output=True, text=True, check=True
    )
    assert again.stdout.strip() == hashed
    walk("password", "set", name, "nobody-here", "--password-file", "-", stdin="x\n").ends(1, "guest-agent-error")
    assert SECRET not in walk("audit", "list").ok() + (walk.state_dir / "log" / "daemon.log").read_text()

    session = walk.terminal("ssh", name)
    try:
        session.expect(r"\$ ", 120)
        told = walk.json("guest", name)
    finally:
        session.close()
    assert [user["name"] for user in told["users"]] == ["debian"]
    assert (told["os_id"], told["os_version"]) == ("debian", "12")
    [root] = [each for each in told["file_systems"] if each["mountpoint"] == "/"]
    assert root["kind"] == "ext4"
    assert 2**31 < root["total_bytes"] < 6 * 2**30
    assert 0 < root["used_bytes"] < root["total_bytes"]
    assert "/" in walk("domfsinfo", name).ok()

    walk.guest(name, "date -s 2001-02-03")
    assert abs(walk.json("clock", "sync", name)["offset_s"]) < 10

    walk.guest(name, "install -o debian -m 600 /dev/null /home/debian/x")
    (tmp_path / "x").write_bytes(bytes(range(256)) * 4000)
    (tmp_path / "x").chmod(0o640)
    walk("cp", str(tmp_path / "x"), f"{name}:/home/debian/x").ok()
    assert walk.guest(name, "stat -c '%U %a %s' /home/debian/x").split() == ["debian", "640", str(256 * 4000)]
    walk("cp", "-r", f"{name}:/etc/apt", str(tmp_path / "apt")).ok()
    walk("cp", "-r", str(tmp_path / "apt"), f"{name}:/srv").ok()
    assert walk.guest(name, "diff -r /etc/apt /srv/apt && stat -c %U /srv/apt") == "root\n"
    assert walk("screenshot", name, "-o", "-").stdout.startswith(b"\x89PNG")
