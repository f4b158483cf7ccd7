"""One small builder per device of the domain document."""

from collections.abc import Sequence
from typing import Final

from lxml.etree import Element, SubElement, _Element

from corral.hypervisor import targets
from corral.hypervisor.base import DomainDisk, DomainNic

AGENT_CHANNEL: Final = "org.qemu.guest_agent.0"
AGENT_SOCKET: Final = "agent.sock"
VNC_SOCKET: Final = "vnc.sock"
# Free PCIe slots for later hot-plug; each empty root port costs the firmware a few milliseconds.
SPARE_ROOT_PORTS: Final = 4
# Balloon statistics for `top`: how often QEMU asks the guest. Seconds.
BALLOON_STATS_PERIOD_S: Final = 10
# virtio-blk hands 20 bytes of serial to the guest (`/dev/disk/by-id/virtio-SERIAL`).
_SERIAL_MAX_CHARS: Final = 20
# The seed comes after every disk (DISKS_MAX is 16), so that adding or removing it renames none.
SEED_TARGET: Final = "vdz"
SEED_ALIAS: Final = "ua-seed"


def disk_targets(disks: Sequence[DomainDisk]) -> tuple[str, ...]:
    """The target name of each disk."""
    return targets.disk_targets((disk.bus, disk.slot) for disk in disks)


def build_disk(disk: DomainDisk, target: str, boot_order: int, *, relabelled: bool) -> _Element:
    """`cache=writeback`: works on every file system (tmpfs and overlayfs refuse O_DIRECT), keeps an image that many
    VMs share in memory once, and a guest's flush still reaches the disk. `discard=unmap` gives freed blocks back. Where libvirt hands files to its
    QEMU user (`relabelled`), it keeps its hands off images that VMs share."""
    element = Element("disk", type="file", device="disk")
    driver = SubElement(element, "driver", name="qemu", type=disk.format, cache="writeback")
    if not disk.read_only:
        driver.set("discard", "unmap")
    source = SubElement(element, "source", file=disk.path)
    if disk.shared_image and relabelled:
        _keep_owner(source)
    _backing_chain(element, disk.backing, relabelled)
    SubElement(element, "target", dev=target, bus=disk.bus)
    if disk.read_only:
        SubElement(element, "readonly")
    SubElement(element, "serial").text = disk.name[:_SERIAL_MAX_CHARS]
    SubElement(element, "boot", order=str(boot_order))
    SubElement(element, "alias", name=f"ua-disk-{disk.name}")
    return element


def _backing_chain(parent: _Element, backing: Sequence[tuple[str, str]], relabelled: bool) -> None:
    """The whole chain with its formats, closed by an empty element: libvirt and QEMU then probe nothing."""
    for path, format_ in backing:
        layer = SubElement(parent, "backingStore", type="file")
        SubElement(layer, "format", type=format_)
        source = SubElement(layer, "source", file=path)
        if relabelled:
            _keep_owner(source)
        parent = layer
    SubElement(parent, "backingStore")


def _keep_owner(source: _Element) -> None:
    SubElement(source, "seclabel", model="dac", relabel="no")


def build_seed(path: str) -> _Element:
    """The NoCloud seed: a read-only virtio disk, found by its label. Debian's cloud kernel has no SATA, and a CD on
    SCSI would cost a controller."""
    element = Element("disk", type="file", device="disk")
    SubElement(element, "driver", name="qemu", type="raw")
    SubElement(element, "source", file=path)
    SubElement(element, "backingStore")
    SubElement(element, "target", dev=SEED_TARGET, bus="virtio")
    SubElement(element, "readonly")
    SubElement(element, "alias", name=SEED_ALIAS)
    return element


def build_nic(nic: DomainNic) -> _Element:
    element = Element("interface", type="network")
    SubElement(element, "mac", address=nic.mac)
    SubElement(element, "source", network=nic.network)
    SubElement(element, "model", type=nic.model)
    SubElement(element, "alias", name=f"ua-nic-{nic.name}")
    return element


def build_controllers(virtio_disks: int, scsi: bool, nics: int) -> tuple[_Element, ...]:
    """PCIe root ports for what is there (libvirt gives each device its own) and some to spare; no USB."""
    # balloon, RNG, the agent's virtio-serial, a tablet; then each disk and NIC, and the SCSI controller.
    used = 4 + virtio_disks + nics + int(scsi)
    controllers = [Element("controller", type="pci", model="pcie-root")]
    controllers += [Element("controller", type="pci", model="pcie-root-port") for _ in range(used + SPARE_ROOT_PORTS)]
    if scsi:
        controllers.append(Element("controller", type="scsi", model="virtio-scsi"))
    controllers.append(Element("controller", type="usb", model="none"))
    return tuple(controllers)


def build_serial(console_log: str) -> tuple[_Element, _Element]:
    """A pty, so that `virsh console` works, logged through virtlogd, which bounds the file and rotates it."""
    serial = Element("serial", type="pty")
    SubElement(serial, "log", file=console_log, append="on")
    SubElement(serial, "target", type="isa-serial", port="0")
    console = Element("console", type="pty")
    SubElement(console, "target", type="serial", port="0")
    return serial, console


def build_agent_channel(run_dir: str) -> _Element:
    channel = Element("channel", type="unix")
    SubElement(channel, "source", mode="bind", path=f"{run_dir}/{AGENT_SOCKET}")
    SubElement(channel, "target", type="virtio", name=AGENT_CHANNEL)
    return channel


def build_display(graphics: str, run_dir: str) -> tuple[_Element, ...]:
    """VNC on a Unix socket, standard VGA (which every firmware and kernel can draw on), an absolute pointer."""
    video = Element("video")
    if graphics == "none":
        SubElement(video, "model", type="none")
        return (video,)
    SubElement(video, "model", type="vga")
    vnc = Element("graphics", type="vnc")
    SubElement(vnc, "listen", type="socket", socket=f"{run_dir}/{VNC_SOCKET}")
    return Element("input", type="tablet", bus="virtio"), vnc, video


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
