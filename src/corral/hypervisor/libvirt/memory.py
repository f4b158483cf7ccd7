"""A domain's memory: how much, how much more can be plugged in, and what it is made of on the host."""

from collections.abc import Iterator
from typing import Final

from lxml.etree import Element, SubElement, _Element

from corral.hypervisor.base import DomainDefinition

# How many modules can be plugged in; QEMU takes up to 256, and each costs the firmware's tables a little.
MEMORY_SLOTS: Final = 16
PAGE_KIB: Final = {"2M": 2 * 1024, "1G": 1024 * 1024}


def build_memory(definition: DomainDefinition) -> Iterator[_Element]:
    """Size, maximum, backing and the host's nodes."""
    memory = definition.hardware.memory
    if memory.max_mib is not None:
        most = Element("maxMemory", slots=str(MEMORY_SLOTS), unit="MiB")
        most.text = str(memory.max_mib)
        yield most
    for tag in ("memory", "currentMemory"):
        size = Element(tag, unit="MiB")
        size.text = str(definition.memory_mib)
        yield size
    if (backing := _build_backing(definition)) is not None:
        yield backing
    cells = [(index, cell.host_nodes) for index, cell in enumerate(memory.numa) if cell.host_nodes is not None]
    if cells:
        tuning = Element("numatune")
        for index, nodes in cells:
            SubElement(tuning, "memnode", cellid=str(index), mode="strict", nodeset=nodes)
        yield tuning


def _build_backing(definition: DomainDefinition) -> _Element | None:
    """A virtio-fs server reads and writes the guest's memory itself: it must be a file that both can map."""
    hardware = definition.hardware
    backing = Element("memoryBacking")
    if hardware.memory.huge_pages:
        pages = SubElement(backing, "hugepages")
        SubElement(pages, "page", size=str(PAGE_KIB[hardware.memory.huge_pages]), unit="KiB")
    if hardware.memory.locked:
        SubElement(backing, "locked")
    if hardware.shares:
        SubElement(backing, "source", type="memfd")
        SubElement(backing, "access", mode="shared")
    return backing if len(backing) else None
