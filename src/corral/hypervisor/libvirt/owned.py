"""The fields of a domain that Corral owns, from a definition and from libvirt's document, and their hash.

Owned, and therefore compared: name, description, vCPUs and memory (maximum and current), CPU shares, domain type
(accelerator), firmware, the disks and CD drives (path, format, bus, modes, limits), the seed, the NICs (MAC, network,
model, link, queues), the boot order, direct kernel boot, the graphical console, and each knob of the hardware that was
turned (knobs.py). Everything else (addresses, controllers, backing chains, knobs that nobody turned, other devices,
metadata) may be changed by hand without being called drift.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Final

from lxml.etree import _Element

from corral.hypervisor.base import DomainDefinition, DomainDisk, DomainNic
from corral.hypervisor.libvirt import disks, firmware, knobs, processor, reading
from corral.hypervisor.libvirt.document import DOMAIN_TYPES, Host, build_domain
from corral.hypervisor.libvirt.metadata import hardware_mark, xml_text
from corral.hypervisor.libvirt.reading import attribute

# The knobs' facts are the same under every host; this one only completes the document that they are read from.
_ANY_HOST: Final = Host()


@dataclass(frozen=True)
class OwnedDisk:
    """Told apart by its target, which stays when another disk goes (`DiskSpec.slot`)."""

    target: str
    device: str
    path: str
    format: str
    bus: str
    read_only: bool
    cache: str
    aio: str
    discard: str
    io_thread: int
    iops_max: int
    bytes_per_s_max: int
    shareable: bool


@dataclass(frozen=True)
class OwnedNic:
    mac: str
    network: str
    model: str
    link_up: bool
    queues: int


@dataclass(frozen=True)
class OwnedFields:
    """What is hashed."""

    name: str
    description: str
    vcpus: int
    vcpus_max: int
    memory_mib: int
    current_memory_mib: int
    cpu_shares: int
    domain_type: str
    firmware: str
    disks: tuple[OwnedDisk, ...]
    seed_path: str
    nics: tuple[OwnedNic, ...]
    boot: tuple[str, ...]
    """Disks by target, cards by MAC, first to last."""
    kernel: tuple[str, str, str]
    graphics: tuple[tuple[str, str], ...]
    """Each console's kind and address; no address: a socket."""
    knobs: tuple[tuple[str, knobs.Facts], ...]

    def digest(self) -> str:
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


def owned_by(definition: DomainDefinition) -> OwnedFields:
    """As the document built from `definition` will read once libvirt has it."""
    kernel = firmware.boot_kernel(definition)
    return OwnedFields(
        name=definition.name,
        description=xml_text(definition.description),
        vcpus=definition.vcpus,
        vcpus_max=processor.vcpus_max(definition),
        memory_mib=definition.memory_mib,
        current_memory_mib=definition.memory_mib,
        cpu_shares=definition.cpu_shares,
        domain_type=DOMAIN_TYPES[definition.accelerator],
        firmware=definition.firmware,
        disks=_sorted(map(_wanted_disk, definition.disks, disks.disk_targets(definition.disks))),
        seed_path=definition.seed_path or "",
        nics=tuple(_wanted_nic(nic) for nic in definition.nics),
        boot=_wanted_boot(definition),
        kernel=(kernel.kernel, kernel.initrd, xml_text(kernel.cmdline)) if kernel else ("", "", ""),
        graphics=() if definition.graphics == "none" else ((definition.graphics, definition.graphics_listen),),
        knobs=_wanted_knobs(definition),
    )


def _wanted_disk(disk: DomainDisk, target: str) -> OwnedDisk:
    return OwnedDisk(
        target=target,
        device=disk.device,
        path=disk.path,
        format=disk.format,
        bus=disk.bus,
        read_only=disk.read_only or disk.device == "cdrom",
        cache=disk.cache,
        aio=disk.aio,
        discard=disk.discard if disks.discards(disk) else "",
        io_thread=disk.io_thread,
        iops_max=disk.iops_max,
        bytes_per_s_max=disk.bytes_per_s_max,
        shareable=disk.shareable,
    )


def _wanted_nic(nic: DomainNic) -> OwnedNic:
    return OwnedNic(nic.mac, nic.network, nic.model, nic.link_up, nic.queues)


def _wanted_boot(definition: DomainDefinition) -> tuple[str, ...]:
    names = {("nic", nic.name): nic.mac for nic in definition.nics}
    targets = zip(definition.disks, disks.disk_targets(definition.disks), strict=True)
    names |= {("disk", disk.name): target for disk, target in targets}
    return tuple(names[device] for device in firmware.boot_numbers(definition))


def _wanted_knobs(definition: DomainDefinition) -> tuple[tuple[str, knobs.Facts], ...]:
    turned = tuple(knobs.turned(definition.hardware))
    if not turned:
        return ()
    domain = build_domain(definition, _ANY_HOST)
    return tuple(sorted((knob.name, knob.read(domain)) for knob in turned))


def owned_in(domain: _Element) -> OwnedFields:
    """As the persistent document reads."""
    most, current = reading.vcpus(domain)
    return OwnedFields(
        name=domain.findtext("name") or "",
        description=domain.findtext("description") or "",
        vcpus=current,
        vcpus_max=most,
        memory_mib=reading.memory_mib(domain, "memory"),
        current_memory_mib=reading.memory_mib(domain, "currentMemory"),
        cpu_shares=int(domain.findtext("cputune/shares") or 0),
        domain_type=domain.get("type") or "",
        firmware=reading.firmware(domain),
        disks=_sorted(owned_disk(element) for element in own_disks(domain.find("devices"))),
        seed_path=reading.seed_path(domain),
        nics=tuple(owned_nic(element) for element in domain.iterfind("devices/interface")),
        boot=_boot(domain),
        kernel=(
            domain.findtext("os/kernel") or "",
            domain.findtext("os/initrd") or "",
            domain.findtext("os/cmdline") or "",
        ),
        graphics=tuple(sorted(reading.graphics(element) for element in domain.iterfind("devices/graphics"))),
        knobs=_knobs_in(domain),
    )


def _knobs_in(domain: _Element) -> tuple[tuple[str, knobs.Facts], ...]:
    """Those that the mark names; one that a newer Corral knows has no facts here."""
    names = knobs.parse_mark(hardware_mark(domain)).knobs
    known = ((name, knobs.BY_NAME.get(name)) for name in names)
    return tuple(sorted((name, knob.read(domain) if knob is not None else ()) for name, knob in known))


def definition_hash(definition: DomainDefinition) -> str:
    """Of the owned fields; equals `ObservedDomain.definition_hash` while nobody changed the domain by hand."""
    return owned_by(definition).digest()


def _sorted(found: Iterator[OwnedDisk]) -> tuple[OwnedDisk, ...]:
    return tuple(sorted(found, key=lambda disk: disk.target))  # libvirt sorts them by bus and target


def own_disks(found: _Element | None) -> Iterator[_Element]:
    """In the element `devices`: hard disks, and the CD drives that Corral made. Not the seed."""
    for disk in found.iterfind("disk") if found is not None else ():
        ours = attribute(disk, "alias", "name").startswith(disks.DISK_ALIAS)
        kind = disk.get("device", "disk")
        if not reading.is_seed(disk) and (kind == "disk" or (ours and kind == "cdrom")):
            yield disk


def owned_disk(element: _Element) -> OwnedDisk:
    """The owned fields of one disk."""
    read_only = element.find("readonly") is not None
    device = element.get("device", "disk")
    discard = attribute(element, "driver", "discard")
    return OwnedDisk(
        target=reading.target(element),
        device=device,
        path=reading.source(element),
        format=attribute(element, "driver", "type"),
        bus=attribute(element, "target", "bus"),
        read_only=read_only,
        cache=attribute(element, "driver", "cache") or "writeback",
        aio=attribute(element, "driver", "io"),
        # What is not told is QEMU's own choice, which has a name.
        discard="" if read_only or device == "cdrom" else discard or "ignore",
        io_thread=int(attribute(element, "driver", "iothread") or 0),
        iops_max=int(element.findtext("iotune/total_iops_sec") or 0),
        bytes_per_s_max=int(element.findtext("iotune/total_bytes_sec") or 0),
        shareable=element.find("shareable") is not None,
    )


def owned_nic(element: _Element) -> OwnedNic:
    return OwnedNic(
        mac=attribute(element, "mac", "address").lower(),
        network=attribute(element, "source", "network") or attribute(element, "source", "bridge"),
        model=attribute(element, "model", "type") or "rtl8139",
        link_up=attribute(element, "link", "state") != "down",
        queues=int(attribute(element, "driver", "queues") or 1),
    )


def _boot(domain: _Element) -> tuple[str, ...]:
    """Of disks and cards; what a person put between them is not ours."""
    numbered = [
        (int(attribute(element, "boot", "order")), reading.target(element))
        for element in own_disks(domain.find("devices"))
        if element.find("boot") is not None
    ]
    numbered += [
        (int(attribute(element, "boot", "order")), attribute(element, "mac", "address").lower())
        for element in domain.iterfind("devices/interface")
        if element.find("boot") is not None
    ]
    return tuple(name for _, name in sorted(numbered))
