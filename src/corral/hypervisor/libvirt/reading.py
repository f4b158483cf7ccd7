"""Reading libvirt's documents: single facts of a domain, and what one made elsewhere consists of."""

from collections.abc import Iterator
from pathlib import PurePath
from typing import Literal

from lxml.etree import _Element

from corral.hypervisor.base import DirectKernel, DomainDescription, DomainDisk, DomainNic
from corral.hypervisor.libvirt import devices, disks, extras, knobs

Elements = Iterator[_Element]


def attribute(element: _Element, path: str, name: str) -> str:
    """An attribute of a child; empty where there is none."""
    found = element.find(path)
    return "" if found is None else found.get(name) or ""


def source(element: _Element) -> str:
    """A file's or a device's path; the name of a remote one."""
    return next((text for name in ("file", "dev", "name") if (text := attribute(element, "source", name))), "")


def target(disk: _Element) -> str:
    """`vda`."""
    return attribute(disk, "target", "dev")


def vcpus(domain: _Element) -> tuple[int, int]:
    """At most, and when it starts."""
    most = int(domain.findtext("vcpu") or 1)
    return most, int(attribute(domain, "vcpu", "current") or most)


def memory_mib(domain: _Element, tag: str) -> int:
    element = domain.find(tag)
    return 0 if element is None else knobs.mib(element.text, element.get("unit"))


def firmware(domain: _Element) -> Literal["bios", "uefi"]:
    loader = domain.find("os/loader[@type='pflash']")
    os_element = domain.find("os")
    by_name = os_element is not None and os_element.get("firmware") == "efi"
    return "uefi" if loader is not None or by_name else "bios"


def graphics(element: _Element) -> tuple[str, str]:
    """The kind of a graphical console and the address that it listens on; empty for a socket."""
    listen = element.find("listen")
    if listen is None:
        return element.get("type") or "", element.get("listen") or ""
    address = (listen.get("address") or "") if listen.get("type") == "address" else ""
    return element.get("type") or "", address


def disk_files(domain: _Element) -> tuple[tuple[str, str], ...]:
    """The file of each disk that bears a name of ours."""
    named = ((attribute(disk, "alias", "name"), disk) for disk in hard_disks(domain.find("devices")))
    ours = ((alias, source(disk)) for alias, disk in named if alias.startswith(disks.DISK_ALIAS))
    return tuple((alias.removeprefix(disks.DISK_ALIAS), path) for alias, path in ours)


def disk_chains(domain: _Element) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """The files below each disk of ours that runs, the nearest first."""
    named = ((attribute(disk, "alias", "name"), disk) for disk in hard_disks(domain.find("devices")))
    ours = ((alias, chain(disk)[1:]) for alias, disk in named if alias.startswith(disks.DISK_ALIAS))
    return tuple((alias.removeprefix(disks.DISK_ALIAS), files) for alias, files in ours)


def chain(disk: _Element) -> tuple[str, ...]:
    """The files of a disk, its head first; not those of a copy that it is mirrored to."""
    element: _Element | None = disk
    found: list[str] = []
    while element is not None and (path := source(element)):
        found.append(path)
        element = element.find("backingStore")
    return tuple(found)


def is_seed(disk: _Element) -> bool:
    return attribute(disk, "alias", "name") == disks.SEED_ALIAS


def seed_path(domain: _Element) -> str:
    return next((source(disk) for disk in domain.iterfind("devices/disk") if is_seed(disk)), "")


def hard_disks(found: _Element | None) -> Elements:
    """In the element `devices`: all but CD and floppy drives, the seed too."""
    all_disks = found.iterfind("disk") if found is not None else ()
    return (disk for disk in all_disks if disk.get("device", "disk") == "disk")


# ---- in our words --------------------------------------------------------------------------------------------------


def describe(domain: _Element) -> DomainDescription:
    """A document, as far as there are words for it."""
    kernel = domain.findtext("os/kernel") or ""
    consoles = [graphics(element) for element in domain.iterfind("devices/graphics")]
    found = [disk for disk in hard_disks(domain.find("devices")) if not is_seed(disk)]
    return DomainDescription(
        uid=domain.findtext("uuid") or "",
        name=domain.findtext("name") or "",
        vcpus=vcpus(domain)[1],
        memory_mib=memory_mib(domain, "memory"),
        firmware=firmware(domain),
        disks=tuple(_described_disk(disk) for disk in found),
        nics=tuple(_described_nics(domain)),
        current_memory_mib=memory_mib(domain, "currentMemory"),
        description=domain.findtext("description") or "",
        cpu_shares=int(domain.findtext("cputune/shares") or 0),
        seed_path=seed_path(domain),
        kernel=DirectKernel(kernel, domain.findtext("os/initrd") or "", cmdline(domain)) if kernel else None,
        graphics=consoles[0][0] if consoles else "none",  # type: ignore[arg-type]
        graphics_listen=consoles[0][1] if consoles else "",
        vcpus_max=vcpus(domain)[0],
        boot=_boot(domain),
        foreign=(
            *(words for disk in found for words in _foreign(disk)),
            *(f"screen {kind}" for kind, _ in consoles[1:]),
        ),
    )


def cmdline(domain: _Element) -> str:
    return domain.findtext("os/cmdline") or ""


def _boot(domain: _Element) -> tuple[str, ...]:
    numbered = []
    for element in (*domain.iterfind("devices/disk"), *domain.iterfind("devices/interface")):
        if (number := attribute(element, "boot", "order")) and not is_seed(element):
            name = target(element) if element.tag == "disk" else attribute(element, "mac", "address").lower()
            numbered.append((int(number), name))
    return tuple(name for _, name in sorted(numbered))


def _foreign(element: _Element) -> Iterator[str]:
    """What `_described_disk` has no word for."""
    name, format_, bus = target(element), attribute(element, "driver", "type"), attribute(element, "target", "bus")
    if element.get("type") not in ("file", "block"):
        yield f"disk {name}: source of type {element.get('type')}"
    if format_ not in ("qcow2", "raw"):
        yield f"disk {name}: format {format_ or 'not told'}"
    if bus not in ("virtio", "scsi", "sata"):
        yield f"disk {name}: bus {bus}"


def _described_disk(element: _Element) -> DomainDisk:
    bus = attribute(element, "target", "bus")
    backing = []
    layer = element.find("backingStore")
    while layer is not None and (path := source(layer)):
        backing.append((path, attribute(layer, "format", "type") or "raw"))
        layer = layer.find("backingStore")
    return DomainDisk(
        name=target(element),
        path=source(element),
        format="qcow2" if attribute(element, "driver", "type") == "qcow2" else "raw",
        bus=bus if bus in ("virtio", "scsi", "sata") else "virtio",  # type: ignore[arg-type]
        read_only=element.find("readonly") is not None,
        backing=tuple(backing),
        cache=attribute(element, "driver", "cache") or "writeback",
        aio=attribute(element, "driver", "io"),
        discard=attribute(element, "driver", "discard") or "ignore",
        io_thread=int(attribute(element, "driver", "iothread") or 0),
        iops_max=int(element.findtext("iotune/total_iops_sec") or 0),
        bytes_per_s_max=int(element.findtext("iotune/total_bytes_sec") or 0),
        shareable=element.find("shareable") is not None,
    )


def _described_nics(domain: _Element) -> Iterator[DomainNic]:
    for index, element in enumerate(domain.iterfind("devices/interface")):
        alias = attribute(element, "alias", "name").removeprefix(devices.NIC_ALIAS)
        yield DomainNic(
            name=alias if alias and not alias.startswith("net") else f"net{index}",
            mac=attribute(element, "mac", "address"),
            network=attribute(element, "source", "network") or attribute(element, "source", "bridge"),
            model=attribute(element, "model", "type") or "rtl8139",
            link_up=attribute(element, "link", "state") != "down",
            queues=int(attribute(element, "driver", "queues") or 1),
        )


# ---- ours ----------------------------------------------------------------------------------------------------------


def run_dir_of(domain: _Element) -> str:
    """Where the agent's socket lies, if the document is ours."""
    for channel in domain.iterfind("devices/channel"):
        if attribute(channel, "target", "name") == devices.AGENT_CHANNEL:
            path = PurePath(attribute(channel, "source", "path"))
            return str(path.parent) if path.name == devices.AGENT_SOCKET else ""
    return ""


def tpm_socket_of(domain: _Element) -> str:
    """Where a TPM that Corral starts is to answer; empty where there is none, or libvirt starts it."""
    for tpm in domain.iterfind("devices/tpm"):
        path = attribute(tpm, "backend/source", "path")
        if attribute(tpm, "backend", "type") == "external" and PurePath(path).name == extras.TPM_SOCKET:
            return path
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
