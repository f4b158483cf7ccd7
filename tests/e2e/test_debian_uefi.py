"""A Debian guest under UEFI firmware with a TPM 2.0, and what it sees of them."""

import asyncio
import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from corral import qemu_img
from corral.errors import CorralError
from corral.hypervisor.base import DomainDefinition, DomainDisk, DomainMetadata
from corral.hypervisor.libvirt import LibvirtDriver
from corral.images.library import DirLibrary
from corral.model.hardware import HardwareSpec
from corral.model.image import ImageFacts
from corral.names import GIB, new_uid

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1500)]

URI = "qemu:///system"
BOOT_S = 900.0
DAC_UID = 299_992


@pytest.fixture
def disk(library: DirLibrary, debian: ImageFacts) -> Iterator[Path]:
    """An overlay of the Debian image."""
    base = library.files(debian).disk
    assert base is not None
    with tempfile.TemporaryDirectory(prefix="cor-uefi-", dir="/var/tmp") as place:
        directory = Path(place)
        directory.chmod(0o711)
        overlay = directory / "root.qcow2"
        asyncio.run(qemu_img.create_overlay(overlay, base, debian.disk_format, 5 * GIB))
        yield overlay


def definition_of(disk: Path, base: Path) -> DomainDefinition:
    uid = new_uid()
    return DomainDefinition(
        uid=uid,
        name=f"cor-test-uefi-{uid[:4]}",
        description="a test's",
        vcpus=2,
        memory_mib=1024,
        cpu_shares=2048,
        accelerator="tcg",
        firmware="uefi",
        disks=(DomainDisk("root", str(disk), "qcow2", backing=((str(base), "qcow2"),)),),
        nics=(),
        seed_path=None,
        kernel=None,
        graphics="vnc",
        run_dir=str(disk.parent / "run" / uid[:8]),
        console_log=str(disk.parent / "console.log"),
        dac_uid=DAC_UID,
        metadata=DomainMetadata("7e57ab1e-0000-4000-8000-000000000001", uid, "default", "uefi", 1, 1, "{}"),
        hardware=HardwareSpec(tpm=True, vmgenid=True),
    )


def test_debian_boots_by_uefi_and_has_a_tpm(disk: Path, library: DirLibrary, debian: ImageFacts) -> None:
    base = library.files(debian).disk
    assert base is not None
    definition = definition_of(disk, base)

    async def run() -> None:
        driver = await LibvirtDriver.open(URI, timeout_s=60)
        try:
            await driver.define(definition)
            await driver.start(definition.uid)
            async with asyncio.timeout(BOOT_S):
                while True:
                    with contextlib.suppress(CorralError):
                        await driver.guest_facts(definition.uid)
                        break
                    await asyncio.sleep(2)

            async def seen(script: str) -> str:
                argv = ["sh", "-c", script]
                done = await driver.guest_exec(definition.uid, argv, stdin=b"", timeout_s=120, capture_max_bytes=2**20)
                return f"{done.exit_code} {done.stdout.decode()}{done.stderr.decode()}".strip()

            assert await seen("ls -d /sys/firmware/efi") == "0 /sys/firmware/efi"
            assert await seen("modprobe -q tpm_crb; ls /dev/tpm0") == "0 /dev/tpm0", await seen(
                "ls /dev; find /lib/modules -name 'tpm*'; dmesg | grep -i tpm"
            )
            assert await seen("cat /sys/class/tpm/tpm0/tpm_version_major") == "0 2"
        except BaseException:
            print((disk.parent / "console.log").read_text(errors="replace")[-6000:])
            raise
        finally:
            await driver.destroy(definition.uid)
            await driver.undefine(definition.uid)
            await driver.close()

    asyncio.run(run())
