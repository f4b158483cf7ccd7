"""The devices of every domain: controllers, cards, serial ports, the guest agent's channel, balloon, RNG, panic."""

from collections.abc import Iterator
from typing import Final

from lxml.etree import Element, SubElement, _Element

from corral.hypervisor.base import DomainDefinition, DomainNic
from corral.hypervisor.libvirt import extras

AGENT_CHANNEL: Final = "org.qemu.guest_agent.0"
AGENT_SOCKET: Final = "agent.sock"
NIC_ALIAS: Final = "ua-nic-"
# Free PCIe slots for later hot-plug; each empty root port costs the firmware a few milliseconds.
SPARE_ROOT_PORTS: Final = 4
# The guest agent's and SPICE's, one that QEMU reserves, one to spare. Each has two queues with an event descriptor each, which QEMU
# makes whenever the guest begins to run: with libvirt's 31 ports 20 ms of 25.
SERIAL_PORTS: Final = 4
# Balloon statistics for `top`: how often QEMU asks the guest. Seconds.
BALLOON_STATS_PERIOD_S: Final = 10


def build_nic(nic: DomainNic, boot_order: int | None) -> _Element:
    element = Element("interface", type="network")
    SubElement(element, "mac", address=nic.mac)
    SubElement(element, "source", network=nic.network)
    if nic.filtered and nic.tap:
        SubElement(element, "target", dev=nic.tap)
    SubElement(element, "model", type=nic.model)
    if nic.filtered and nic.isolated:
        SubElement(element, "port", isolated="yes")
    if nic.queues != 1:
        SubElement(element, "driver", queues=str(nic.queues))
    if not nic.link_up:
        SubElement(element, "link", state="down")
    if nic.mtu:
        SubElement(element, "mtu", size=str(nic.mtu))
    if boot_order is not None:
        SubElement(element, "boot", order=str(boot_order))
    SubElement(element, "alias", name=f"{NIC_ALIAS}{nic.name}")
    return element


def build_controllers(definition: DomainDefinition) -> Iterator[_Element]:
    """PCIe root ports for what is there (libvirt gives each device its own) and some to spare; USB only where wished."""
    buses = [disk.bus for disk in definition.disks]
    scsi = "scsi" in buses
    virtio_disks = buses.count("virtio") + int(definition.seed_path is not None)
    # balloon, RNG, the agent's virtio-serial, a tablet; then each disk and NIC, and the SCSI controller.
    used = 4 + virtio_disks + len(definition.nics) + int(scsi) + extras.pcie_ports(definition.hardware)
    yield Element("controller", type="pci", model="pcie-root")
    for _ in range(used + SPARE_ROOT_PORTS):
        yield Element("controller", type="pci", model="pcie-root-port")
    if scsi:
        yield Element("controller", type="scsi", model="virtio-scsi")
    yield Element("controller", type="virtio-serial", ports=str(SERIAL_PORTS))
    yield Element("controller", type="usb", model="qemu-xhci" if extras.needs_usb(definition.hardware) else "none")


def build_serials(console_log: str, count: int) -> Iterator[_Element]:
    """Pseudo-terminals, so that `virsh console` works; the first is logged through virtlogd, which bounds the file and
    rotates it."""
    for port in range(count):
        serial = Element("serial", type="pty")
        if port == 0:
            SubElement(serial, "log", file=console_log, append="on")
        SubElement(serial, "target", type="isa-serial", port=str(port))
        yield serial
    console = Element("console", type="pty")
    SubElement(console, "target", type="serial", port="0")
    yield console


def build_agent_channel(run_dir: str) -> _Element:
    channel = Element("channel", type="unix")
    SubElement(channel, "source", mode="bind", path=f"{run_dir}/{AGENT_SOCKET}")
    SubElement(channel, "target", type="virtio", name=AGENT_CHANNEL)
    return channel


def build_balloon() -> _Element:
    balloon = Element("memballoon", model="virtio", autodeflate="on", freePageReporting="on")
    SubElement(balloon, "stats", period=str(BALLOON_STATS_PERIOD_S))
    return balloon


def build_rng() -> _Element:
    rng = Element("rng", model="virtio")
    SubElement(rng, "backend", model="random").text = "/dev/urandom"
    return rng


def build_panic() -> _Element:
    """A guest's panic becomes an event instead of a silent stop."""
    return Element("panic", model="isa")
