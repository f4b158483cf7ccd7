"""An installation to its end: the medium's own system writes a bootable one to the disk and reboots; the disk boots then."""

import asyncio
import gzip
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from libvirt_fixtures import open_directory
from walk import PATIENCE, Walk

from corral.images import cpio
from corral.images.bootdisk import BootDisk, build_bootdisk
from corral.images.build_micro import CMDLINE
from corral.names import MIB

pytestmark = pytest.mark.timeout(900)

# The EFI partition takes 66 MiB of it.
DISK_MIB = 112
GRUB = """\
serial --unit=0 --speed=115200
terminal_output serial console
set timeout=0
menuentry 'Start' {
  linux /boot/linux CMDLINE
  initrd /boot/initrd
}
""".replace("CMDLINE", CMDLINE)
# In place of what the micro guest starts beside its shell. The guest resets itself: nobody outside has a part in it.
INSTALLER = """\
#!/bin/sh
echo 'installing' >/dev/console
zcat /system.gz | dd of=/dev/vda bs=1M
sync
echo 'installed, rebooting' >/dev/console
exec /bin/busybox reboot -f
"""


@pytest.fixture(scope="module")
def installer(walk: Walk) -> Iterator[Path]:
    """An installer's ISO, made of the micro guest: its kernel, and its initrd with the disk to be written inside."""
    digest = walk.json("image", "show", "micro")["status"]["facts"]["digest"]
    micro = walk.state_dir / "images" / digest
    with open_directory() as place:
        boot = place / "tree" / "boot"
        (boot / "grub").mkdir(parents=True)
        (boot / "grub" / "grub.cfg").write_text(GRUB)
        shutil.copyfile(micro / "kernel", boot / "linux")
        shutil.copyfile(micro / "initrd", boot / "initrd")
        work = place / "work"
        work.mkdir()
        asyncio.run(build_bootdisk(BootDisk(place / "system.raw", DISK_MIB * MIB), place / "tree", work))
        packed = gzip.compress((place / "system.raw").read_bytes(), compresslevel=1)
        entries = (cpio.regular("system.gz", packed), cpio.regular("etc/rc.once", INSTALLER.encode(), 0o755))
        with (boot / "initrd").open("ab") as initrd:
            initrd.write(b"\0" * (-initrd.tell() % 4 + 4) + cpio.build_archive(entries))
        medium = place / "installer.iso"
        argv = ["grub-mkrescue", "-o", str(medium), str(place / "tree")]
        subprocess.run(argv, check=True, capture_output=True, timeout=120)
        yield medium


@pytest.mark.parametrize("firmware", ["bios", pytest.param("uefi", marks=pytest.mark.soak)])
def test_what_was_installed_boots_without_anyone_editing_the_boot_order(
    walk: Walk, installer: Path, firmware: str
) -> None:
    name = walk.name(f"inst-{firmware}")
    walk(
        *("install", "--name", name, "--memory", "320", "--network", "none", "--noautoconsole"),
        *("--boot", f"firmware={firmware}", "--disk", f"size={DISK_MIB}M", "--cdrom", str(installer)),
    ).ok()
    try:
        # The installer starts no agent: the system on the disk does.
        walk("wait", name, "--for", "agent", "--timeout", PATIENCE).ok()
        said = walk("console", name, "--log").ok()
        assert said.index("installed, rebooting") < said.index("is up after", said.index("installed, rebooting"))
        assert said.count("installing") == 1
        assert "sda" not in walk("exec", name, "--", "ls", "/sys/class/block").ok().split()
        assert "installer.iso (cdrom" in walk("info", name).ok()  # the medium stays in its drive, and is passed over
        walk("shutdown", name, "--force-after", "60s").ok()
        walk("start", name).ok()
        walk("wait", name, "--for", "agent", "--timeout", PATIENCE).ok()
        assert walk("console", name, "--log").ok().count("installing") == 1
    finally:
        walk("delete", name).ok()
        walk("image", "delete", "installer.iso")
