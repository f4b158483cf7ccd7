"""Knobs of the hardware as running guests see them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from libvirt_fixtures import Make

from corral.errors import CorralError
from corral.hypervisor.base import DomainDefinition, DomainDisk
from corral.hypervisor.libvirt import LibvirtDriver, definition_hash
from corral.hypervisor.libvirt.metadata import parse_document
from corral.model.hardware import (
    CpuPin,
    CpuSpec,
    CpuTopology,
    HardwareSpec,
    MemorySpec,
    NumaCell,
    Share,
    WatchdogAction,
)
from corral.model.vm import VmState

URI = "qemu:///system"
AGENT_WAIT_S = 240.0
ANSWER_MAX_BYTES = 2**20


@contextlib.asynccontextmanager
async def running(definition: DomainDefinition) -> AsyncIterator[LibvirtDriver]:
    driver = await LibvirtDriver.open(URI, timeout_s=30)
    try:
        await driver.define(definition)
        await driver.start(definition.uid)
        yield driver
    finally:
        await driver.destroy(definition.uid)
        await driver.undefine(definition.uid)
        await driver.close()


async def agent(driver: LibvirtDriver, uid: str) -> None:
    async with asyncio.timeout(AGENT_WAIT_S):
        while True:
            with contextlib.suppress(CorralError):
                await driver.guest_facts(uid)
                return
            await asyncio.sleep(0.2)


async def shell(driver: LibvirtDriver, uid: str, script: str) -> str:
    done = await driver.guest_exec(
        uid, ["sh", "-c", script], stdin=b"", timeout_s=20, capture_max_bytes=ANSWER_MAX_BYTES
    )
    assert done.exit_code == 0, (script, done)
    return done.stdout.decode().strip()


def test_processors_disks_and_ports_as_the_guest_sees_them(micro_definition: Make, open_dir: Path) -> None:
    disks = (
        DomainDisk("root", str(open_dir / "root.raw"), "raw", cache="none", aio="native", io_thread=1),
        DomainDisk("slow", str(open_dir / "slow.raw"), "raw", iops_max=50, bytes_per_s_max=2**20),
        DomainDisk("cd0", "", "raw", bus="sata", device="cdrom"),
    )
    for disk in disks[:2]:
        Path(disk.path).write_bytes(b"\0" * 2**22)
    hardware = HardwareSpec(
        cpu=CpuSpec(
            topology=CpuTopology(sockets=1, cores=2, threads=2),
            vcpus_max=4,
            pins=(CpuPin(vcpu=0, cpus="0"), CpuPin(vcpu=1, cpus="0-1")),
            emulator_cpus="0-1",
            quota_percent=190,
        ),
        memory=MemorySpec(max_mib=1024),
        watchdog=WatchdogAction.RESET,
        vmgenid=True,
        serials=2,
        io_threads=2,
        rng=False,
        usb=True,
    )
    definition = replace(micro_definition("knobs", disks=disks, vcpus=2), hardware=hardware)

    async def run() -> None:
        async with running(definition) as driver:
            observed = await driver.observe(definition.uid)
            assert observed is not None
            assert (observed.state, observed.vcpus, observed.pending) == (VmState.RUNNING, 2, ())
            assert observed.definition_hash == definition_hash(definition)
            await agent(driver, definition.uid)

            async def seen(script: str) -> str:
                return await shell(driver, definition.uid, script)

            assert await seen("cat /sys/devices/system/cpu/online") == "0-1"
            assert await seen("cat /sys/devices/system/cpu/possible") == "0-3"
            assert await seen("cat /sys/devices/system/cpu/cpu0/topology/thread_siblings_list") == "0-1"
            assert int(await seen("dmesg | grep -c 'SRAT.*hotplug'")) >= 1  # room for memory that is plugged in
            ports = (await seen("grep -c 'uart:16550A' /proc/tty/driver/serial")).strip()
            assert ports == "2"
            pci = await seen("cat /sys/bus/pci/devices/*/vendor /sys/bus/pci/devices/*/device")
            assert "0x25ab" in pci  # i6300esb
            assert "0x1044" not in pci  # no virtio RNG: not wished
            assert "0x1b36" in pci  # the USB controller's vendor
            assert "QEMUVGID" in await seen(
                "cat /sys/bus/acpi/devices/*/hid 2>/dev/null; dmesg | grep -o QEMUVGID || true"
            )
            live = parse_document(await driver.document(definition.uid))
            assert live.findtext("devices/disk/iotune/total_bytes_sec") == str(2**20)
            assert live.findtext("cputune/global_quota") == "190000"

    asyncio.run(run())


def test_numa_cells_as_the_guest_sees_them(micro_definition: Make) -> None:
    cells = (
        NumaCell(vcpus="0", memory_mib=128, host_nodes="0"),
        NumaCell(vcpus="1", memory_mib=128),
    )
    hardware = HardwareSpec(memory=MemorySpec(numa=cells), cpu=CpuSpec(model="maximum"), hyperv=True)
    definition = replace(micro_definition("numa", vcpus=2), hardware=hardware, memory_mib=256)

    async def run() -> None:
        async with running(definition) as driver:
            await agent(driver, definition.uid)
            nodes = await shell(driver, definition.uid, "cat /sys/devices/system/node/node*/cpulist")
            assert nodes.split() == ["0", "1"]

    asyncio.run(run())


def test_a_shared_folder_is_read_only_unless_wished_otherwise(micro_definition: Make, open_dir: Path) -> None:
    for name in ("in", "out"):
        (open_dir / name).mkdir()
        (open_dir / name / "hello").write_text(name)
    shares = (
        Share(name="in", path=str(open_dir / "in")),
        Share(name="out", path=str(open_dir / "out"), read_only=False),
    )
    definition = replace(micro_definition("share"), hardware=HardwareSpec(shares=shares))
    place = Path(f"{definition.run_dir}.shares")

    async def run() -> None:
        async with running(definition) as driver:
            mounts = Path("/proc/self/mountinfo").read_text()
            (read_only,) = [line for line in mounts.splitlines() if f" {place}/in " in line]
            (writable,) = [line for line in mounts.splitlines() if f" {place}/out " in line]
            assert read_only.split()[5].startswith("ro")
            assert writable.split()[5].startswith("rw")
            observed = await driver.observe(definition.uid)
            assert observed is not None
            assert observed.definition_hash == definition_hash(definition)
            assert observed.pending == ()
            with pytest.raises(OSError, match="Read-only file system"):
                (place / "in" / "hello").write_text("changed")
            (place / "out" / "hello").write_text("changed")
            assert (open_dir / "out" / "hello").read_text() == "changed"
            await driver.destroy(definition.uid)
            (open_dir / "in").rename(open_dir / "real")
            (open_dir / "in").symlink_to("/etc")
            with pytest.raises(CorralError) as refused:
                await driver.start(definition.uid)
            assert refused.value.code == "storage-error"
        assert not place.exists()

    asyncio.run(run())


def test_secure_boot_and_a_tpm_start(micro_definition: Make) -> None:
    hardware = HardwareSpec(secure_boot=True, tpm=True)
    definition = replace(micro_definition("secure"), kernel=None, firmware="uefi", hardware=hardware, memory_mib=256)

    async def run() -> None:
        async with running(definition) as driver:
            observed = await driver.observe(definition.uid)
            assert observed is not None
            assert (observed.state, observed.pending) == (VmState.RUNNING, ())
            assert observed.definition_hash == definition_hash(definition)
            state = Path(f"/var/lib/libvirt/swtpm/{definition.uid}")
            assert state.stat().st_uid == definition.dac_uid
            before = (state / "tpm2-00.permall").read_bytes()
            await driver.destroy(definition.uid)
            await driver.start(definition.uid)
            observed = await driver.observe(definition.uid)
            assert observed is not None
            assert observed.state is VmState.RUNNING
            assert before
        assert not state.exists()
        assert not list(Path("/var/lib/libvirt/qemu/nvram").glob(f"{definition.uid}*"))

    asyncio.run(run())
