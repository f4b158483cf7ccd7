"""Disks, CD drives and the seed, one builder each."""

from collections.abc import Sequence
from typing import Final

from lxml.etree import Element, SubElement, _Element

from corral.hypervisor import targets
from corral.hypervisor.base import DomainDisk

# virtio-blk hands 20 bytes of serial to the guest (`/dev/disk/by-id/virtio-SERIAL`).
_SERIAL_MAX_CHARS: Final = 20
# The seed comes after every disk (DISKS_MAX is 16), so that adding or removing it renames none.
SEED_TARGET: Final = "vdz"
SEED_ALIAS: Final = "ua-seed"
DISK_ALIAS: Final = "ua-disk-"


def disk_targets(disks: Sequence[DomainDisk]) -> tuple[str, ...]:
    """The target name of each disk."""
    return targets.disk_targets((disk.bus, disk.slot) for disk in disks)


def build_disk(disk: DomainDisk, target: str, boot_order: int | None, *, relabelled: bool) -> _Element:
    """`cache=writeback`, the default: works on every file system (tmpfs and overlayfs refuse O_DIRECT), keeps an image
    that many VMs share in memory once, and a guest's flush still reaches the disk. `discard=unmap` gives freed blocks
    back. Where libvirt hands files to its QEMU user (`relabelled`), it keeps its hands off images that VMs share."""
    element = Element("disk", type="file", device=disk.device)
    element.append(_build_driver(disk))
    if disk.path:  # else an empty drive
        source = SubElement(element, "source", file=disk.path)
        if disk.shared_image and relabelled:
            _keep_owner(source)
        add_backing_chain(element, disk.backing, relabelled)
    SubElement(element, "target", dev=target, bus=disk.bus)
    if disk.read_only or disk.device == "cdrom":
        SubElement(element, "readonly")
    if disk.shareable:  # QEMU lets others open it for writing too
        SubElement(element, "shareable")
    if disk.iops_max or disk.bytes_per_s_max:
        element.append(_build_limits(disk))
    SubElement(element, "serial").text = disk.name[:_SERIAL_MAX_CHARS]
    if boot_order is not None:
        SubElement(element, "boot", order=str(boot_order))
    SubElement(element, "alias", name=f"{DISK_ALIAS}{disk.name}")
    return element


def _build_driver(disk: DomainDisk) -> _Element:
    driver = Element("driver", name="qemu", type=disk.format, cache=disk.cache)
    if disk.aio:
        driver.set("io", disk.aio)
    if discards(disk):
        driver.set("discard", disk.discard)
    if disk.io_thread:
        driver.set("iothread", str(disk.io_thread))
    return driver


def discards(disk: DomainDisk) -> bool:
    """Whether it can: what is only read gives nothing back."""
    return not disk.read_only and disk.device == "disk"


def _build_limits(disk: DomainDisk) -> _Element:
    limits = Element("iotune")
    if disk.bytes_per_s_max:
        SubElement(limits, "total_bytes_sec").text = str(disk.bytes_per_s_max)
    if disk.iops_max:
        SubElement(limits, "total_iops_sec").text = str(disk.iops_max)
    return limits


def add_backing_chain(parent: _Element, backing: Sequence[tuple[str, str]], relabelled: bool) -> None:
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
