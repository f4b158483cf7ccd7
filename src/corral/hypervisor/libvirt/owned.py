"""The fields of a domain that Corral owns, from a definition and from libvirt's document, and their hash.

Owned, and therefore compared: name, description, vCPUs, memory (maximum and current), CPU shares, domain type
(accelerator), firmware, the disks (target, path, format, bus, read-only), the seed, the NICs (MAC, network, model),
direct kernel boot (kernel, initrd, command line), and whether there is VNC. Everything else (addresses, controllers,
backing chains, caches, CPU model, features, other devices, metadata) may be changed by hand without being called drift.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import PurePath
from typing import Final, Literal

from lxml.etree import _Element

from corral.hypervisor.base import DirectKernel, DomainDefinition, DomainDescription, DomainDisk, DomainNic
from corral.hypervisor.libvirt import devices
from corral.hypervisor.libvirt.document import DOMAIN_TYPES
from corral.hypervisor.libvirt.metadata import xml_text

Elements = Iterator[_Element]

# Units that libvirt may print in a document of its own, as bytes.
_MEMORY_UNITS: Final = {
    "b": 1, "bytes": 1, "KB": 1000, "KiB": 2**10, "MB": 10**6, "MiB": 2**20, "GB": 10**9, "GiB": 2**30, "TiB": 2**40,
}  # fmt: skip


@dataclass(frozen=True)
class OwnedDisk:
    target: str
    path: str
    format: str
    bus: str
    read_only: bool


@dataclass(frozen=True)
class OwnedFields:
    """What is hashed."""

    name: str
    description: str
    vcpus: int
    memory_mib: int
    current_memory_mib: int
    cpu_shares: int
    domain_type: str
    firmware: str
    disks: tuple[OwnedDisk, ...]
    seed_path: str
    nics: tuple[tuple[str, str, str], ...]
    kernel: tuple[str, str, str]
    graphics: bool

    def digest(self) -> str:
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


def owned_by(definition: DomainDefinition) -> OwnedFields:
    """As the document built from `definition` will read once libvirt has it."""
    targets = devices.disk_targets(definition.disks)
    kernel = definition.kernel
    return OwnedFields(
        name=definition.name,
        description=xml_text(definition.description),
        vcpus=definition.vcpus,
        memory_mib=definition.memory_mib,
        current_memory_mib=definition.memory_mib,
        cpu_shares=definition.cpu_shares,
        domain_type=DOMAIN_TYPES[definition.accelerator],
        firmware=definition.firmware,
        disks=_sorted(
            OwnedDisk(target, disk.path, disk.format, disk.bus, disk.read_only)
            for disk, target in zip(definition.disks, targets, strict=True)
        ),
        seed_path=definition.seed_path or "",
        nics=tuple((nic.mac, nic.network, nic.model) for nic in definition.nics),
        kernel=(kernel.kernel, kernel.initrd, xml_text(kernel.cmdline)) if kernel else ("", "", ""),
        graphics=definition.graphics == "vnc",
    )


def owned_in(domain: _Element) -> OwnedFields:
    """As the persistent document reads."""
    return OwnedFields(
        name=domain.findtext("name") or "",
        description=domain.findtext("description") or "",
        vcpus=int(domain.findtext("vcpu") or 1),
        memory_mib=memory_mib(domain, "memory"),
        current_memory_mib=memory_mib(domain, "currentMemory"),
        cpu_shares=int(domain.findtext("cputune/shares") or 0),
        domain_type=domain.get("type") or "",
        firmware=firmware(domain),
        disks=_sorted(owned_disk(element) for element in _own_disks(domain)),
        seed_path=_seed_path(domain),
        nics=tuple((nic.mac, nic.network, nic.model) for nic in _nics(domain)),
        kernel=(domain.findtext("os/kernel") or "", domain.findtext("os/initrd") or "", _cmdline(domain)),
        graphics=domain.find("devices/graphics[@type='vnc']") is not None,
    )


def definition_hash(definition: DomainDefinition) -> str:
    """Of the owned fields; equals `ObservedDomain.definition_hash` while nobody changed the domain by hand."""
    return owned_by(definition).digest()


def describe(domain: _Element) -> DomainDescription:
    """A document, as far as there are words for it."""
    kernel = domain.findtext("os/kernel") or ""
    return DomainDescription(
        uid=domain.findtext("uuid") or "",
        name=domain.findtext("name") or "",
        vcpus=int(domain.findtext("vcpu") or 1),
        memory_mib=memory_mib(domain, "memory"),
        firmware=firmware(domain),
        disks=tuple(_described_disk(element) for element in _own_disks(domain)),
        nics=tuple(_nics(domain)),
        current_memory_mib=memory_mib(domain, "currentMemory"),
        description=domain.findtext("description") or "",
        cpu_shares=int(domain.findtext("cputune/shares") or 0),
        seed_path=_seed_path(domain),
        kernel=DirectKernel(kernel, domain.findtext("os/initrd") or "", _cmdline(domain)) if kernel else None,
        graphics=_graphics(domain),
        foreign=tuple(words for element in _own_disks(domain) for words in _foreign(element)),
    )


def _graphics(domain: _Element) -> Literal["vnc", "spice", "none"]:
    kinds = {element.get("type") for element in domain.iterfind("devices/graphics")}
    return "vnc" if "vnc" in kinds else "spice" if "spice" in kinds else "none"


def memory_mib(domain: _Element, tag: str) -> int:
    element = domain.find(tag)
    if element is None:
        return 0
    return int(element.text or 0) * _MEMORY_UNITS[element.get("unit") or "KiB"] // 2**20


def firmware(domain: _Element) -> Literal["bios", "uefi"]:
    loader = domain.find("os/loader[@type='pflash']")
    os_element = domain.find("os")
    by_name = os_element is not None and os_element.get("firmware") == "efi"
    return "uefi" if loader is not None or by_name else "bios"


def _sorted(disks: Iterator[OwnedDisk]) -> tuple[OwnedDisk, ...]:
    return tuple(sorted(disks, key=lambda disk: disk.target))  # libvirt sorts them by bus and target


def _own_disks(domain: _Element) -> Iterator[_Element]:
    return (disk for disk in hard_disks(domain.find("devices")) if not _is_seed(disk))


def hard_disks(found: _Element | None) -> Iterator[_Element]:
    """In the element `devices`: all but CD and floppy drives, the seed too."""
    disks = found.iterfind("disk") if found is not None else ()
    return (disk for disk in disks if disk.get("device", "disk") == "disk")


def attribute(element: _Element, path: str, name: str) -> str:
    """An attribute of a child; empty where there is none."""
    found = element.find(path)
    return "" if found is None else found.get(name) or ""


def _source(element: _Element) -> str:
    """A file's or a device's path; the name of a remote one."""
    return next((text for name in ("file", "dev", "name") if (text := attribute(element, "source", name))), "")


def owned_disk(element: _Element) -> OwnedDisk:
    """The owned fields of one disk."""
    return OwnedDisk(
        target=attribute(element, "target", "dev"),
        path=_source(element),
        format=attribute(element, "driver", "type"),
        bus=attribute(element, "target", "bus"),
        read_only=element.find("readonly") is not None,
    )


def _foreign(element: _Element) -> Iterator[str]:
    """What `_described_disk` has no word for."""
    disk = owned_disk(element)
    if element.get("type") not in ("file", "block"):
        yield f"disk {disk.target}: source of type {element.get('type')}"
    if disk.format not in ("qcow2", "raw"):
        yield f"disk {disk.target}: format {disk.format or 'not told'}"
    if disk.bus not in ("virtio", "scsi", "sata"):
        yield f"disk {disk.target}: bus {disk.bus}"


def _described_disk(element: _Element) -> DomainDisk:
    bus = attribute(element, "target", "bus")
    backing = []
    layer = element.find("backingStore")
    while layer is not None and (path := _source(layer)):
        backing.append((path, attribute(layer, "format", "type") or "raw"))
        layer = layer.find("backingStore")
    return DomainDisk(
        name=attribute(element, "target", "dev"),
        path=_source(element),
        format="qcow2" if attribute(element, "driver", "type") == "qcow2" else "raw",
        bus=bus if bus in ("virtio", "scsi", "sata") else "virtio",  # type: ignore[arg-type]
        read_only=element.find("readonly") is not None,
        backing=tuple(backing),
    )


def _is_seed(disk: _Element) -> bool:
    return attribute(disk, "alias", "name") == devices.SEED_ALIAS


def _seed_path(domain: _Element) -> str:
    return next((_source(disk) for disk in domain.iterfind("devices/disk") if _is_seed(disk)), "")


def _nics(domain: _Element) -> Iterator[DomainNic]:
    for index, element in enumerate(domain.iterfind("devices/interface")):
        alias = attribute(element, "alias", "name").removeprefix("ua-nic-")
        yield DomainNic(
            name=alias if alias and not alias.startswith("net") else f"net{index}",
            mac=attribute(element, "mac", "address"),
            network=attribute(element, "source", "network") or attribute(element, "source", "bridge"),
            model=attribute(element, "model", "type") or "rtl8139",
        )


def _cmdline(domain: _Element) -> str:
    return domain.findtext("os/cmdline") or ""


def run_dir_of(domain: _Element) -> str:
    """Where the agent's socket lies, if the document is ours."""
    for channel in domain.iterfind("devices/channel"):
        if attribute(channel, "target", "name") == devices.AGENT_CHANNEL:
            path = PurePath(attribute(channel, "source", "path"))
            return str(path.parent) if path.name == devices.AGENT_SOCKET else ""
    return ""


def dac_owner_of(domain: _Element) -> tuple[int, int] | None:
    """The uid and gid that its QEMU runs under, if it has its own."""
    label = domain.findtext("seclabel[@model='dac'][@type='static']/label") or ""
    uid, _, gid = label.partition(":")
    if uid.startswith("+") and gid.startswith("+"):
        return int(uid), int(gid)
    return None


def agent_connected(domain: _Element) -> bool:
    """From the live document."""
    for channel in domain.iterfind("devices/channel"):
        if attribute(channel, "target", "name") == devices.AGENT_CHANNEL:
            return attribute(channel, "target", "state") == "connected"
    return False
