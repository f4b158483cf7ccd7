"""Every knob of the hardware, defined in the real libvirt: what it reads back is what was meant, and stays so."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from hardware_cases import CASES

from corral.hypervisor.base import DomainDefinition
from corral.hypervisor.libvirt import LibvirtDriver, definition_hash
from corral.model.hardware import PLAIN
from corral.names import new_uid

URI = "qemu:///system"


def placed(definition: DomainDefinition, directory: Path) -> DomainDefinition:
    """The same under a uid, a name and paths of this test's own: nothing is shared with another domain."""
    uid = new_uid()
    disks = tuple(replace(disk, path=made(disk.path, directory), backing=()) for disk in definition.disks)
    hardware = definition.hardware
    if hardware.kernel is not None:
        kernel = hardware.kernel.model_copy(
            update={name: made(getattr(hardware.kernel, name), directory) for name in ("kernel", "initrd")}
        )
        hardware = hardware.model_copy(update={"kernel": kernel})
    return replace(
        definition,
        uid=uid,
        name=f"cor-test-hw-{uid[:8]}",
        disks=disks,
        hardware=hardware,
        nics=tuple(replace(nic, network="default") for nic in definition.nics),
        run_dir=str(directory / "run" / uid[:8]),
        console_log=str(directory / "console.log"),
        dac_uid=299_991,
        metadata=replace(definition.metadata, vm_uid=uid),
    )


def made(path: str, directory: Path) -> str:
    if not path:
        return ""
    there = directory / Path(path).name
    there.write_bytes(b"\0" * 4096)
    there.chmod(0o644)
    return str(there)


@pytest.mark.parametrize("name", CASES)
def test_libvirt_reads_back_what_was_meant(name: str, open_dir: Path) -> None:
    turned = placed(CASES[name], open_dir)
    plain = replace(turned, hardware=PLAIN, disks=turned.disks[1:2], graphics_listen="")

    async def run() -> None:
        driver = await LibvirtDriver.open(URI, timeout_s=30)
        try:
            for definition in (turned, turned, plain, turned):
                await driver.define(definition)
                observed = await driver.observe(definition.uid)
                assert observed is not None
                assert observed.definition_hash == definition_hash(definition)
            await driver.set_metadata(turned.uid, replace(turned.metadata, generation=2))
            observed = await driver.observe(turned.uid)
            assert observed is not None
            assert observed.definition_hash == definition_hash(turned)
        finally:
            await driver.undefine(turned.uid)
            await driver.close()

    asyncio.run(run())
