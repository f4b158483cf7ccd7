"""A guest whose file systems are frozen for a point in time: it runs meanwhile, and is thawed whoever dies."""

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from guest_in_time import agent, on_head, with_driver
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
