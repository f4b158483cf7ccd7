"""The Debian image, built once and booted with BIOS and with UEFI: one can log in, and nothing is shared between VMs.

The image is kept in CORRAL_TEST_CACHE (default /var/cache/corral-test) for a day, since making it takes minutes.
"""

import asyncio
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from corral import qemu_img
from corral.images.cloud_init import build_seed_files
from corral.images.library import DirLibrary
from corral.model.image import ImageFacts
from corral.model.vm import CloudInitSpec, CloudInitUser
from corral.names import GIB
from corral.storage.seed import build_seed

BOOT_TIMEOUT_S = 400.0
OVMF = Path("/usr/share/OVMF")

# test_debian.py boots it by both firmwares through Corral; this is the image alone, under plain QEMU.
pytestmark = [pytest.mark.timeout(1200), pytest.mark.soak]


@pytest.fixture(scope="session")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("key") / "id"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    return path


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


class Guest:
    """A Debian guest under plain QEMU, reached by SSH through a forwarded port."""

    def __init__(self, disk: Path, key: Path, place: Path, firmware: str) -> None:
        self._key, self._port = key, free_port()
        self.log = place / "serial.log"
        overlay, seed = place / "root.qcow2", place / "seed.iso"
        asyncio.run(qemu_img.create_overlay(overlay, disk, "qcow2", 10 * GIB))
        user = CloudInitUser(name="alice", ssh_keys=(key.with_suffix(".pub").read_text().strip(),))
        script = "#cloud-config\nwrite_files:\n- {path: /etc/marker, content: written}\n"
        spec = CloudInitSpec(hostname="deb", instance_id="i-1", users=(user,), user_data=script)
        seed.write_bytes(build_seed(build_seed_files(spec)))
        self._process = subprocess.Popen(
            [
                *("qemu-system-x86_64", "-M", "q35,accel=tcg", "-m", "1024", "-nodefaults", "-display", "none"),
                *("-serial", f"file:{self.log}", "-device", "virtio-rng-pci", "-device", "virtio-net-pci,netdev=n"),
                *("-netdev", f"user,id=n,hostfwd=tcp:127.0.0.1:{self._port}-:22"),
                *("-drive", f"file={overlay},format=qcow2,if=none,id=d", "-device", "virtio-blk-pci,drive=d"),
                *("-drive", f"file={seed},format=raw,if=none,id=s,readonly=on", "-device", "virtio-blk-pci,drive=s"),
                *(self._uefi(place) if firmware == "uefi" else ()),
            ]
        )

    @staticmethod
    def _uefi(place: Path) -> tuple[str, ...]:
        variables = place / "vars.fd"
        shutil.copyfile(OVMF / "OVMF_VARS_4M.fd", variables)
        code = f"if=pflash,format=raw,readonly=on,file={OVMF / 'OVMF_CODE_4M.fd'}"
        return ("-drive", code, "-drive", f"if=pflash,format=raw,file={variables}")

    def ssh(self, command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        options = ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "ConnectTimeout=30", "LogLevel=ERROR")
        argv = ["ssh", "-i", str(self._key), "-p", str(self._port), *(f"-o{option}" for option in options)]
        return subprocess.run(
            [*argv, "alice@127.0.0.1", command], check=check, capture_output=True, text=True, timeout=300
        )

    def wait_for_login(self) -> None:
        deadline = time.monotonic() + BOOT_TIMEOUT_S
        while self.ssh("true", check=False).returncode != 0:
            assert self._process.poll() is None, f"QEMU ended:\n{self.text()}"
            assert time.monotonic() < deadline, f"nobody can log in:\n{self.text()}"
            time.sleep(1)

    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_for_end(self) -> int:
        return self._process.wait(180)

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()


@pytest.fixture(params=["bios", "uefi"])
def guest(
    request: pytest.FixtureRequest, library: DirLibrary, debian: ImageFacts, key: Path, tmp_path: Path
) -> Iterator[Guest]:
    disk = library.files(debian).disk
    assert disk is not None
    running = Guest(disk, key, tmp_path, request.param)
    yield running
    running.stop()


def test_boots_and_lets_one_log_in(guest: Guest, debian: ImageFacts) -> None:
    guest.wait_for_login()
    assert guest.ssh("cloud-init status --wait").stdout.strip().endswith("status: done")
    assert guest.ssh("cat /etc/marker").stdout == "written"
    assert guest.ssh("hostname").stdout == "deb\n"
    assert guest.ssh("sudo id -u").stdout == "0\n"
    # The root file system took the whole of the larger disk.
    assert int(guest.ssh("df --output=size -B1 / | tail -1").stdout) > 9 * GIB
    # Made on this VM, not in the image.
    assert len(guest.ssh("cat /etc/machine-id").stdout.strip()) == 32
    assert "ssh_host_ed25519_key" in guest.ssh("ls /etc/ssh").stdout
    assert guest.ssh("systemctl --failed --no-legend --plain").stdout == ""
    assert "login:" in guest.text()
    guest.ssh("sudo systemctl poweroff", check=False)
    assert guest.wait_for_end() == 0
