"""The first step: what this machine is, and whether it can do the job at all."""

import os
import platform
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

from installer.context import Context, systemd_runs
from installer.shell import Refused

# What `make up` needs when nothing is there yet: packages, the image's build and a VM with room to grow.
DISK_NEEDED_BYTES = 5 * 2**30
MEMORY_NEEDED_BYTES = 1536 * 2**20
TRIED = {("debian", "12"), ("debian", "13")}
SHOULD_WORK = {("ubuntu", "24.04")}


def os_release(text: str) -> dict[str, str]:
    """The fields of os-release(5)."""
    pairs = (line.partition("=") for line in text.splitlines() if "=" in line)
    return {key: value.strip().strip('"') for key, _, value in pairs}


def describe_os(release: dict[str, str]) -> str:
    """Its name, with a word on whether it was tried."""
    name = release.get("PRETTY_NAME", "an unknown system")
    key = (release.get("ID", ""), release.get("VERSION_ID", ""))
    if key in TRIED:
        return name
    return f"{name} (untested{', should work' if key in SHOULD_WORK else ''})"


def look(context: Context, say: Callable[[str], None]) -> str:
    """Refuse before anything is changed where the job cannot be done."""
    if platform.machine() != "x86_64":
        raise Refused("use this machine", f"its processor is {platform.machine()}", "Corral runs on x86_64")
    if not root_is_mounted(Path("/proc/self/mountinfo").read_text()):
        raise Refused(
            "use this chroot",
            "its root is no mount point, and libvirt cannot shut guests off from the rest there",
            "use a container with a root and devices of its own, such as systemd-nspawn's",
        )
    place = context.state_dir
    while not place.exists():
        place = place.parent
    cold = not (context.state_dir / "images").exists()
    free = shutil.disk_usage(place).free
    if cold and free < DISK_NEEDED_BYTES:
        raise Refused("make room", f"{free / 2**30:.1f} GiB are free in {place}, {DISK_NEEDED_BYTES / 2**30:.0f} are needed",
                      "free some, or choose a larger disk: CORRAL_STATE_DIR=/big/corral make up")  # fmt: skip
    if _available_bytes() < MEMORY_NEEDED_BYTES and cold:
        raise Refused(
            "find memory",
            f"{_available_bytes() / 2**20:.0f} MiB are available, {MEMORY_NEEDED_BYTES / 2**20:.0f} are needed",
        )
    release = os_release(Path("/etc/os-release").read_text()) if Path("/etc/os-release").exists() else {}
    start = "systemd" if systemd_runs() else "no systemd"
    kvm = "/dev/kvm is there" if Path("/dev/kvm").exists() else "no /dev/kvm: guests are emulated, slower"
    open_place = writable_by_all(context.root)
    warning = f"; WARNING: root runs this code, and everybody may write {open_place}: chmod o-w" if open_place else ""
    return f"{describe_os(release)}, {start}, {kvm}{warning}"


def root_is_mounted(mountinfo: str) -> bool:
    """Whether `/` is a mount point of its own (proc(5), field 5): in a plain chroot it is a mere directory."""
    return any(line.split()[4:5] == ["/"] for line in mountinfo.splitlines())


def become_root(context: Context) -> None:
    """Ask for the password once, where one is wanted, before anything is drawn over the question. `sudo -v` alone wants one
    of cloud images' users too, who have none: they need no password, but are also in a group that does."""
    if shutil.which("sudo") is None:
        raise Refused("become root", "there is no sudo", "run it as root")
    if context.shell.ask(["sudo", "-n", "true"]).ok:
        return
    if os.system("sudo -v") != 0:  # noqa: S605 -- it asks for a password on the terminal
        raise Refused(
            "become root", "sudo refused", "run it on a terminal, where it can ask for the password, or as root"
        )


def writable_by_all(root: Path) -> Path | None:
    """The first place on the way to the code, or in it, that every user of the machine may write: root runs that code.

    A directory with the sticky bit, such as /tmp, lets nobody touch what is another's.
    """
    inside = [root / name for name in ("src", "src/corral", "scripts", ".venv", ".venv/bin", "requirements")]
    for place in (root, *root.parents, *inside):
        if place.exists():
            mode = place.stat().st_mode
            if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
                return place
    return None


def _available_bytes() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return MEMORY_NEEDED_BYTES
