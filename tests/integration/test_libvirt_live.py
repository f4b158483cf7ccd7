"""A running guest's domain is brought to its persistent document, the guest sees it, and what is left is said."""

import asyncio
import os
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from libvirt_fixtures import Make

from corral.hypervisor.base import DomainDefinition, DomainDisk, DomainNic, ObservedDomain
from corral.hypervisor.libvirt import LibvirtDriver
from corral.model.hardware import CpuSpec, HardwareSpec, MemorySpec

URI = "qemu:///system"
PATIENCE_S = 90.0
Body = Callable[["Guest"], Awaitable[None]]


@pytest.fixture
def network() -> Iterator[str]:
    """A bridge of the test's own, gone with it."""
    name = f"cor-live-{os.getpid()}"
    document = f"<network><name>{name}</name><bridge stp='off'/></network>"
    subprocess.run(["virsh", "-q", "-c", URI, "net-create", "/dev/stdin"], input=document, text=True, check=True)
    yield name
    subprocess.run(["virsh", "-q", "-c", URI, "net-destroy", name], check=True)


class Guest:
    """A running micro guest whose definition changes."""

    def __init__(self, driver: LibvirtDriver, definition: DomainDefinition) -> None:
        self.driver = driver
        self.definition = definition

    async def change(self, definition: DomainDefinition) -> tuple[str, ...]:
        """Define it, bring the running domain to it; what is left."""
        await self.driver.define(definition)
        await self.driver.apply_live(definition.uid, definition.metadata)
        return (await self.seen()).pending

    async def seen(self) -> ObservedDomain:
        observed = await self.driver.observe(self.definition.uid)
        assert observed is not None
        return observed

    async def says(self, script: str) -> str:
        result = await self.driver.guest_exec(
            self.definition.uid, ["sh", "-c", script], stdin=b"", timeout_s=PATIENCE_S, capture_max_bytes=65536
        )
        return result.stdout.decode().strip()

    async def comes_to_say(self, script: str, wanted: str) -> None:
        end = time.monotonic() + PATIENCE_S
        while (said := await self.says(script)) != wanted and time.monotonic() < end:
            await asyncio.sleep(0.2)
        assert said == wanted


def run(definition: DomainDefinition, body: Body) -> None:
    async def life() -> None:
        driver = await LibvirtDriver.open(URI, timeout_s=30)
        guest = Guest(driver, definition)
        try:
            await driver.define(definition)
            await driver.start(definition.uid)
            async with asyncio.timeout(PATIENCE_S):
                while not (await guest.seen()).agent_connected:
                    await asyncio.sleep(0.2)
            await body(guest)
        finally:
            await driver.destroy(definition.uid)
            await driver.undefine(definition.uid)
            await driver.close()

    asyncio.run(life())


def blank(directory: Path, name: str, **knobs: object) -> DomainDisk:
    """An empty disk of 8 MiB that any QEMU may write."""
    path = directory / f"{name}.qcow2"
    if not path.exists():
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(path), "8M"], check=True)
    return DomainDisk(name, str(path), "qcow2", **knobs)  # type: ignore[arg-type]


def test_disks_and_cards_come_and_go(micro_definition: Make, open_dir: Path, network: str) -> None:
    root = blank(open_dir, "root", slot=0)
    data = blank(open_dir, "data", slot=1)
    logs = blank(open_dir, "logs", slot=2)
    card = DomainNic("net0", "52:54:00:00:bb:01", network)
    first = replace(micro_definition("live", disks=(root, data)), nics=(card,))

    async def body(guest: Guest) -> None:
        disks, cards = "ls /sys/block | grep -c '^vd'", "ls /sys/class/net | grep -vc '^lo'"
        assert await guest.says(disks) == "2"
        assert await guest.change(replace(first, disks=(root, data, logs))) == ()
        await guest.comes_to_say(disks, "3")
        assert await guest.change(replace(first, disks=(root, logs))) == ()
        await guest.comes_to_say("cat /sys/block/vd?/serial", "rootlogs")
        slow = replace(logs, iops_max=100, bytes_per_s_max=2**20)
        assert await guest.change(replace(first, disks=(root, slow))) == ()
        left = await guest.change(replace(first, disks=(root, replace(slow, cache="none"))))
        assert [sentence.split(":")[0] for sentence in left] == ["disk logs"]

        assert await guest.change(first) == ()
        unplugged = replace(card, link_up=False)
        assert await guest.change(replace(first, nics=(unplugged,))) == ()
        await guest.comes_to_say("ip link set eth0 up; cat /sys/class/net/eth0/carrier", "0")
        assert await guest.change(first) == ()
        await guest.comes_to_say("cat /sys/class/net/eth0/carrier", "1")
        second = DomainNic("net1", "52:54:00:00:bb:02", network)
        assert await guest.change(replace(first, nics=(card, second))) == ()
        await guest.comes_to_say(cards, "2")
        assert await guest.change(replace(first, nics=(second,))) == ()
        await guest.comes_to_say("cat /sys/class/net/eth*/address", second.mac)

    run(first, body)


def test_memory_and_processors_within_what_it_was_started_with(micro_definition: Make) -> None:
    first = micro_definition("live", vcpus=1)
    hardware = HardwareSpec(cpu=CpuSpec(vcpus_max=2), memory=MemorySpec(max_mib=1024))
    first = replace(first, memory_mib=256, hardware=hardware)

    async def body(guest: Guest) -> None:
        assert await guest.change(replace(first, vcpus=2, cpu_shares=512)) == ()
        await guest.comes_to_say("ls -d /sys/devices/system/cpu/cpu[0-9] | wc -l", "2")
        two = replace(first, vcpus=2)
        assert await guest.change(replace(two, memory_mib=192)) == ()
        blocks = "ls -d /sys/devices/system/memory/memory* | wc -l"
        before = int(await guest.says(blocks))
        assert await guest.change(replace(two, memory_mib=512)) == ()
        await guest.comes_to_say(blocks, str(before + 2))  # blocks of 128 MiB

    run(first, body)


@pytest.mark.parametrize("restarted", [False, True])
def test_what_needs_a_restart_is_said_until_it_was(micro_definition: Make, restarted: bool) -> None:
    first = micro_definition("live")

    async def body(guest: Guest) -> None:
        left = await guest.change(replace(first, vcpus=3, memory_mib=512, hardware=HardwareSpec(clock="localtime")))
        assert [sentence.split(":")[0] for sentence in left] == ["vcpus", "memory", "the clock"]
        if restarted:
            await guest.driver.destroy(first.uid)
            assert (await guest.seen()).pending == ()
            await guest.driver.start(first.uid)
            assert (await guest.seen()).pending == ()
        else:
            again = await LibvirtDriver.open(URI, timeout_s=30)  # another process finds the same
            observed = await again.observe(first.uid)
            await again.close()
            assert observed is not None
            assert observed.pending == left
            assert await guest.change(first) == ()

    run(first, body)
