"""A domain that is defined anew: what Corral owns changes, what the guest or a person depends on stays."""

import asyncio
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from libvirt_fixtures import Make
from lxml.etree import _Element

from corral.hypervisor.base import DomainDisk, DomainNic
from corral.hypervisor.libvirt import LibvirtDriver, definition_hash
from corral.hypervisor.libvirt.metadata import parse_document

URI = "qemu:///system"
NETWORK = "default"


def virsh(*argv: str, stdin: str | None = None) -> str:
    done = subprocess.run(["virsh", "-q", "-c", URI, *argv], input=stdin, text=True, capture_output=True, check=True)
    return done.stdout


def addresses(document: _Element, kind: str) -> dict[str, str]:
    """Of each device of a kind: what tells it apart, and where it sits."""
    found = {}
    for element in document.iterfind(f"devices/{kind}"):
        apart = element.find("mac") if kind == "interface" else element.find("target")
        at = element.find("address")
        assert apart is not None
        assert at is not None
        found[apart.get("address") or apart.get("dev") or ""] = " ".join(f"{k}={v}" for k, v in sorted(at.items()))
    return found


def test_devices_keep_their_places_and_hand_made_changes_stay(micro_definition: Make, open_dir: Path) -> None:
    disks = tuple(DomainDisk(name, str(open_dir / f"{name}.raw"), "raw") for name in ("root", "data"))
    for disk in disks:
        Path(disk.path).write_bytes(b"\0" * 2**20)
    nics = tuple(DomainNic(f"net{n}", f"52:54:00:00:aa:0{n}", NETWORK) for n in range(3))
    first = micro_definition("again", disks=disks, nics=nics)

    async def run() -> None:
        driver = await LibvirtDriver.open(URI, timeout_s=30)
        try:
            await driver.define(first)
            by_hand = virsh("dumpxml", "--inactive", first.uid).replace(
                "</devices>", "<watchdog model='i6300esb' action='none'/></devices>"
            )
            by_hand = by_hand.replace("<cputune>", "<cputune><vcpupin vcpu='0' cpuset='0'/>")
            Path(open_dir / "hand.xml").write_text(by_hand)
            virsh("define", str(open_dir / "hand.xml"))
            before = parse_document(virsh("dumpxml", "--inactive", first.uid))

            changed = replace(
                first, description="another", memory_mib=192, vcpus=2, cpu_shares=2048, disks=disks[1:], nics=nics[1:]
            )
            changed = replace(changed, disks=(replace(disks[0], path=str(open_dir / "data.raw")),))
            await driver.define(changed)
            after = parse_document(virsh("dumpxml", "--inactive", first.uid))
            observed = await driver.observe(first.uid)
            assert observed is not None
            assert observed.definition_hash == definition_hash(changed)
            assert observed.metadata == changed.metadata
            assert (observed.vcpus, observed.memory_mib) == (2, 192)

            kept = addresses(after, "interface")
            assert kept == {mac: at for mac, at in addresses(before, "interface").items() if mac != nics[0].mac}
            assert addresses(after, "disk") == {"vda": addresses(before, "disk")["vda"]}
            machine = "os/type"
            assert after.find(machine).get("machine") == before.find(machine).get("machine")  # type: ignore[union-attr]
            assert after.find("devices/watchdog[@model='i6300esb']") is not None
            assert after.find("cputune/vcpupin") is not None
            assert len(after.findall("devices/controller")) == len(before.findall("devices/controller"))

            await driver.define(first)
            again = parse_document(virsh("dumpxml", "--inactive", first.uid))
            assert addresses(again, "interface")[nics[1].mac] == kept[nics[1].mac]
            assert (await driver.observe(first.uid)).definition_hash == definition_hash(first)  # type: ignore[union-attr]
        finally:
            await driver.undefine(first.uid)
            await driver.close()

    asyncio.run(run())


@pytest.mark.parametrize("graphics", ["vnc", "none"])
def test_a_screen_comes_and_goes(micro_definition: Make, graphics: str) -> None:
    first = replace(micro_definition("screen"), graphics=graphics)
    other = replace(first, graphics="none" if graphics == "vnc" else "vnc")

    async def run() -> None:
        driver = await LibvirtDriver.open(URI, timeout_s=30)
        try:
            for definition in (first, other, other):
                await driver.define(definition)
                observed = await driver.observe(first.uid)
                assert observed is not None
                assert observed.definition_hash == definition_hash(definition)
        finally:
            await driver.undefine(first.uid)
            await driver.close()

    asyncio.run(run())
