"""Each Debian that is built here, by both firmwares, with a user-data and without: cloud-init ends well, nothing failed."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from debian_guest import BOOT, USER_DATA
from walk import Walk

# The first one of each builds its image where there is none of today's.
pytestmark = [pytest.mark.timeout(1500), pytest.mark.soak]


@pytest.fixture(params=["12", "13"])
def release(request: pytest.FixtureRequest) -> str:
    request.getfixturevalue("debian_image" if request.param == "12" else "debian_13_image")
    return str(request.param)


@pytest.fixture
def name(walk: Walk) -> Iterator[str]:
    """One guest at a time."""
    made = walk.name("rel")
    yield made
    if walk("info", made).status == 0:
        walk("delete", made).ok()


@pytest.mark.parametrize(("firmware", "given"), [("bios", True), ("uefi", False)])
def test_it_boots_and_is_made_ours(
    walk: Walk, name: str, release: str, firmware: str, given: bool, tmp_path: Path
) -> None:
    """Without a user-data Corral asks cloud-init to make the users before the network is up; both ways lead there."""
    (tmp_path / "user-data").write_text(USER_DATA)
    walk(
        *("create", "--name", name, "--image", f"debian-{release}", "--memory", "1024", "--vcpus", "2"),
        *("--firmware", firmware, "--ssh-key", str(walk.home / ".ssh/id_ed25519.pub")),
        *(("--user-data", str(tmp_path / "user-data")) if given else ()),
        *("--wait", "ssh", "--timeout", BOOT),
    ).ok()
    walk("wait", name, "--for", "cloud-init", "--timeout", BOOT).ok()
    assert walk.info(name)["status"]["cloud_init"] == "done"
    said = walk("ssh", name, "--", ". /etc/os-release; echo $VERSION_ID; id -un; hostname").ok().split()
    assert said == [release, "debian", name]
    assert (walk("ssh", name, "--", "test -d /sys/firmware/efi").status == 0) == (firmware == "uefi")
    assert (walk("ssh", name, "--", "test -e /etc/marker").status == 0) == given
    assert walk("ssh", name, "--", "systemctl --failed --no-legend --plain").ok() == ""
    assert "no_timer_check panic=10" in walk("ssh", name, "--", "cat /proc/cmdline").ok()
    # What tells the host of a panic before the kernel would reboot over it.
    assert walk("ssh", name, "--", "lsmod | grep -w pvpanic").status == 0
