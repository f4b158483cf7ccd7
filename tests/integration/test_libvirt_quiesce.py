"""A guest whose file systems are frozen for a point in time: it runs meanwhile, and is thawed whoever dies."""

import subprocess
import time
from dataclasses import replace
from pathlib import Path

import libvirt
import pytest
from guest_in_time import URI, agent, on_head, said, with_driver
from libvirt_fixtures import TEST_DAC_UID, Make

from corral.hypervisor.base import DomainDefinition, DomainDisk
from corral.hypervisor.libvirt import LibvirtDriver, thaw_deadline
from corral.hypervisor.points import PointWanted
from corral.model.hardware import HardwareSpec
from corral.model.vm import VmState


@pytest.fixture
def definition(micro_definition: Make, open_dir: Path) -> DomainDefinition:
    base = open_dir / "base.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(base), "64M"], check=True)
    return replace(
        micro_definition("quiet", disks=(DomainDisk("root", str(base), "qcow2"),)), hardware=HardwareSpec(tpm=True)
    )


def test_one_with_a_tpm_is_not_stopped_for_it(definition: DomainDefinition, open_dir: Path) -> None:
    """One that stands still could not freeze anything."""
    kept = open_dir / "kept"
    kept.mkdir()

    async def scene(driver: LibvirtDriver) -> None:
        uid = definition.uid
        await driver.start(uid)
        await agent(driver, uid)
        disks = on_head(definition, open_dir / "head.qcow2")
        taken = await driver.points.take(uid, PointWanted(disks, kept, quiesce=True, dac_uid=TEST_DAC_UID))
        assert (taken.state, taken.quiesced, taken.kept) == (VmState.RUNNING, True, ("tpm",))

    with_driver(definition, scene)


IS_ARMED = "[ -d /proc/$(cat /run/corral-thaw 2>/dev/null || echo none) ]"


def test_a_guest_that_nobody_thaws_does_it_by_itself(
    definition: DomainDefinition, open_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever dies on the host after it was told to; and not once it was thawed."""
    monkeypatch.setattr(thaw_deadline, "THAW_AFTER_S", 600)

    async def scene(driver: LibvirtDriver) -> None:
        uid = definition.uid
        await driver.start(uid)
        await agent(driver, uid)
        disks = on_head(definition, open_dir / "head.qcow2")
        (open_dir / "kept").mkdir()
        await driver.points.take(uid, PointWanted(disks, open_dir / "kept", quiesce=True, dac_uid=TEST_DAC_UID))
        assert "no" in await said(driver, uid, f"sleep 1; {IS_ARMED} || echo no")
        handle = libvirt.open(URI)
        try:
            domain = handle.lookupByUUIDString(uid)
            thaw_deadline.arm(domain)
            assert "yes" in await said(driver, uid, f"until {IS_ARMED}; do sleep 1; done; echo yes")
            monkeypatch.setattr(thaw_deadline, "THAW_AFTER_S", 5)
            thaw_deadline.arm(domain)  # in the place of the first
        finally:
            handle.close()
        waited = f"sleep 1; {IS_ARMED} && echo armed; while {IS_ARMED}; do sleep 1; done; echo done"
        assert (await said(driver, uid, waited)).split() == ["armed", "done"]

    with_driver(definition, scene)


def test_every_file_system_is_thawed_and_one_with_a_space_in_its_name(tmp_path: Path) -> None:
    """What the guest's shell does, by this host's: nothing here is frozen."""
    told, mounts, process = tmp_path / "told", tmp_path / "mounts", tmp_path / "process"
    pretended = tmp_path / "bin" / "fsfreeze"
    pretended.parent.mkdir()
    pretended.write_text(f'#!/bin/sh\necho "$@" >>{told}\n')
    pretended.chmod(0o755)
    mounts.write_text("/dev/vda1 / ext4 rw 0 0\n/dev/vdb /srv/my\\040data xfs rw 0 0\n")
    script = thaw_deadline.SCRIPT.replace(thaw_deadline.PROCESS, str(process)).replace("/proc/mounts", str(mounts))
    environ = {"PATH": f"{pretended.parent}:/usr/bin:/bin"}

    def run(seconds: str) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(["/bin/sh", "-c", script, "corral", seconds], env=environ)

    first = run("600")
    while not process.exists():
        time.sleep(0.01)
    with run("0") as ending:
        assert ending.wait(20) == 0
    assert first.wait(20) != 0
    assert not told.exists()
    with run("1") as second:
        assert second.wait(20) in (0, 1)
    assert told.read_text().splitlines() == ["-u /", "-u /srv/my data"]
