"""What libvirt does for points in time: UEFI variables and a TPM's state go with them, a quiesced guest is thawed, and only
the domain's own files change hands."""

import os
import subprocess
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest
from guest_in_time import agent, on_head, overlay, said, with_driver
from libvirt_fixtures import TEST_DAC_UID, Make

from corral.hypervisor.base import DomainDefinition, DomainDisk
from corral.hypervisor.libvirt import LibvirtDriver
from corral.hypervisor.points import PointWanted
from corral.model.hardware import HardwareSpec
from corral.model.vm import VmState


@pytest.fixture
def definition(micro_definition: Make, open_dir: Path) -> DomainDefinition:
    base = open_dir / "base.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(base), "64M"], check=True)
    return micro_definition("point", disks=(DomainDisk("root", str(base), "qcow2"),))


def test_a_quiesced_guest_is_thawed_and_its_files_change_hands(definition: DomainDefinition, open_dir: Path) -> None:
    async def scene(driver: LibvirtDriver) -> None:
        uid = definition.uid
        await driver.start(uid)
        await agent(driver, uid)
        disks = on_head(definition, open_dir / "head.qcow2")
        wanted = PointWanted(disks, open_dir, quiesce=True, dac_uid=TEST_DAC_UID)
        taken = await driver.points.take(uid, wanted)
        await driver.points.place(uid, disks, TEST_DAC_UID)
        assert (taken.state, taken.quiesced) == (VmState.RUNNING, True)
        assert taken.pause_ms is not None
        # It writes: so it is not frozen.
        written = await driver.guest_exec(
            uid, ["sh", "-c", "echo x > /tmp/x && cat /tmp/x"], stdin=b"", timeout_s=60, capture_max_bytes=100
        )
        assert written.stdout == b"x\n"
        seen = await driver.observe(uid)
        assert seen is not None
        assert seen.files == (("root", disks[0].path),)
        frozen, head = Path(definition.disks[0].path).stat(), Path(disks[0].path).stat()
        assert (frozen.st_uid, oct(frozen.st_mode)[-3:]) == (0, "440")
        assert (head.st_uid, oct(head.st_mode)[-3:]) == (TEST_DAC_UID, "600")
        again = await driver.points.take(uid, wanted)
        assert again.state is VmState.RUNNING
        await driver.points.pull(uid, "root", "", lambda _share: None)
        assert "backing" not in subprocess.run(
            ["qemu-img", "info", "-U", "-f", "qcow2", disks[0].path], capture_output=True, text=True, check=True
        ).stdout.replace("backing chain", "")

    with_driver(definition, scene)


def test_firmware_variables_and_a_tpm_go_with_it(definition: DomainDefinition, open_dir: Path) -> None:
    uefi = replace(definition, firmware="uefi", kernel=None, hardware=HardwareSpec(tpm=True))
    kept = open_dir / "kept"
    kept.mkdir()

    async def scene(driver: LibvirtDriver) -> None:
        uid = uefi.uid
        await driver.start(uid)
        disks = on_head(uefi, open_dir / "head.qcow2")
        taken = await driver.points.take(uid, PointWanted(disks, kept, dac_uid=TEST_DAC_UID))
        await driver.points.place(uid, disks, TEST_DAC_UID)
        assert set(taken.kept) == {"nvram", "tpm"}
        seen = await driver.observe(uid)
        assert seen is not None
        assert seen.state is VmState.RUNNING
        await driver.destroy(uid)
        nvram = Path(ET.fromstring(await driver.document(uid)).findtext("os/nvram") or "")
        was = (kept / "nvram.fd").read_bytes()
        nvram.write_bytes(b"another")
        await driver.points.put_back(uid, kept, taken.kept, TEST_DAC_UID)
        assert nvram.read_bytes() == was
        assert nvram.stat().st_uid == TEST_DAC_UID
        assert any(os.scandir(kept / "tpm"))
        await driver.start(uid)

    with_driver(uefi, scene)


def test_with_its_memory_a_guest_goes_on_and_comes_back(definition: DomainDefinition, open_dir: Path) -> None:
    async def scene(driver: LibvirtDriver) -> None:
        uid = definition.uid
        await driver.start(uid)
        await agent(driver, uid)
        await said(driver, uid, "echo remembered > /tmp/thought")
        disks = on_head(definition, open_dir / "head.qcow2")
        taken = await driver.points.take(uid, PointWanted(disks, open_dir, with_memory=True, dac_uid=TEST_DAC_UID))
        assert taken.state is VmState.RUNNING
        assert taken.pause_ms is not None
        assert taken.pause_ms > 0
        assert await said(driver, uid, "rm /tmp/thought; echo on") == "on"
        await driver.destroy(uid)
        back = (replace(disks[0], path=str(open_dir / "back.qcow2")),)
        overlay(open_dir / "back.qcow2", Path(definition.disks[0].path))
        await driver.points.place(uid, back, TEST_DAC_UID)
        await driver.points.restore(uid, open_dir, back, paused=False)
        assert await said(driver, uid, "cat /tmp/thought") == "remembered"
        seen = await driver.observe(uid)
        assert seen is not None
        assert seen.files == (("root", back[0].path),)

    with_driver(definition, scene)
