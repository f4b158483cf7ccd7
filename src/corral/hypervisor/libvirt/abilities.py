"""What this host's libvirt, QEMU and kernel can give to guests, read into `HardwareSupport`."""

import platform
import re
import shutil
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Final

import libvirt
from lxml.etree import _Element, fromstring

from corral.hypervisor import iommu
from corral.hypervisor.base import Accelerator
from corral.hypervisor.libvirt.document import DOMAIN_TYPES
from corral.hypervisor.libvirt.host import Host
from corral.hypervisor.support import HardwareSupport
from corral.names import parse_numbers

MACHINE: Final = "q35"
CPU_FEATURES: Final = "usr/share/libvirt/cpu_map/x86_features.xml"
VIRTIOFSD: Final = ("usr/lib/qemu/virtiofsd", "usr/libexec/virtiofsd")
_PAGES: Final = {"2M": 2048, "1G": 1048576}
# libvirt tells nothing of sound cards; these two are as old as q35. `virtio` came with libvirt 10.4 and QEMU 8.2.
_SOUND: Final = frozenset({"ich9", "ac97"})
_VIRTIO_SOUND_SINCE: Final = (10_004_000, 8_002_000)
_CAP_SYS_RESOURCE: Final = 1 << 24  # capability.h
_IO_URING_SINCE: Final = (5, 1)


def capabilities(handle: libvirt.virConnect, accelerator: Accelerator) -> str:
    """libvirt's own document: some ten milliseconds, and the same until libvirtd or QEMU is another."""
    return str(handle.getDomainCapabilities(None, "x86_64", MACHINE, DOMAIN_TYPES[accelerator], 0))


def versions(handle: libvirt.virConnect) -> tuple[int, int]:
    """libvirt's and QEMU's, in libvirt's packing."""
    return handle.getLibVersion(), handle.getVersion()


def read_support(
    document: str, found: tuple[int, int], accelerator: Accelerator, host: Host, root: Path = Path("/")
) -> HardwareSupport:
    """From libvirt's document, and from files: those are looked at anew each time, since packages come and go."""
    known = _told(document)
    sound = _SOUND | {"virtio"} if all(map(int.__ge__, found, _VIRTIO_SOUND_SINCE)) else _SOUND
    return HardwareSupport(
        accelerator=accelerator,
        machine=MACHINE,
        max_vcpus=known.max_vcpus,
        cpu_modes=known.cpu_modes,
        cpu_models=known.cpu_models,
        cpu_features=_features(root / CPU_FEATURES),
        nested=accelerator == "tcg" or _nested(root),
        uefi=_is_file(root, host.ovmf_code) and _is_file(root, host.ovmf_vars),
        secure_boot=_is_file(root, host.ovmf_secure_code) and _is_file(root, host.ovmf_secure_vars),
        tpm=_tpm(known, host),
        vmgenid=known.vmgenid,
        graphics=known.graphics,
        video=known.video,
        sound=sound,
        disk_buses=known.disk_buses,
        io_uring=_io_uring(root),
        io_threads=known.io_threads,
        virtiofs=host.privileged and known.virtiofs and any((root / path).is_file() for path in VIRTIOFSD),
        host_devices=known.host_devices,
        cgroup_cpu=host.privileged,
        host_cpus=parse_numbers(_text(root / "sys/devices/system/cpu/online")),
        host_nodes=parse_numbers(_text(root / "sys/devices/system/node/has_memory")) or frozenset({0}),
        memory_mib=_memory_mib(root),
        locked_memory=_may_lock(root),
        huge_pages_mib=_huge_pages(root),
        iommu=iommu.has_iommu(root),
        pci_devices=partial(iommu.read_pci_devices, root),
        usb_devices=partial(iommu.read_usb_devices, root),
    )


@dataclass(frozen=True)
class _Told:
    """What libvirt's document says."""

    max_vcpus: int
    cpu_modes: frozenset[str]
    cpu_models: frozenset[str]
    tpm_models: frozenset[str]
    tpm_backends: frozenset[str]
    vmgenid: bool
    graphics: frozenset[str]
    video: frozenset[str]
    disk_buses: frozenset[str]
    io_threads: bool
    virtiofs: bool
    host_devices: frozenset[str]


@lru_cache(maxsize=8)  # a document for each accelerator; asked at each change of a VM
def _told(document: str) -> _Told:
    known = fromstring(document.encode())
    vcpus = known.find("vcpu")
    return _Told(
        max_vcpus=int(vcpus.get("max") or 1) if vcpus is not None else 1,
        cpu_modes=frozenset(mode.get("name") or "" for mode in known.iterfind("cpu/mode[@supported='yes']")),
        cpu_models=_models(known),
        tpm_models=_values(known, "devices/tpm/enum[@name='model']"),
        tpm_backends=_values(known, "devices/tpm/enum[@name='backendModel']"),
        vmgenid=_supported(known, "features/genid"),
        graphics=_values(known, "devices/graphics/enum[@name='type']") & {"vnc", "spice"},
        video=_values(known, "devices/video/enum[@name='modelType']"),
        disk_buses=_values(known, "devices/disk/enum[@name='bus']") & {"virtio", "scsi", "sata"},
        io_threads=_supported(known, "iothreads"),
        virtiofs="virtiofs" in _values(known, "devices/filesystem/enum[@name='driverType']"),
        host_devices=_values(known, "devices/hostdev/enum[@name='subsysType']") & {"pci", "usb"},
    )


def _values(known: _Element, path: str) -> frozenset[str]:
    return frozenset(value.text or "" for value in known.iterfind(f"{path}/value"))


def _supported(known: _Element, path: str) -> bool:
    found = known.find(path)
    return found is not None and found.get("supported") == "yes"


def _models(known: _Element) -> frozenset[str]:
    """Those that are not known to be unusable here."""
    models = known.iterfind("cpu/mode[@name='custom']/model")
    return frozenset(model.text or "" for model in models if model.get("usable") != "no")


def _features(path: Path) -> frozenset[str]:
    try:
        changed_ns = path.stat().st_mtime_ns
    except OSError:
        return frozenset()
    return _features_in(path, changed_ns)


@lru_cache(maxsize=8)
def _features_in(path: Path, changed_ns: int) -> frozenset[str]:
    return frozenset(re.findall(r"<feature name='([^']+)'", _text(path)))


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _is_file(root: Path, path: str) -> bool:
    return (root / path.lstrip("/")).is_file()


def _nested(root: Path) -> bool:
    names = ("kvm_intel", "kvm_amd")
    return any(_text(root / f"sys/module/{name}/parameters/nested") in ("Y", "1") for name in names)


def _tpm(known: _Told, host: Host) -> bool:
    needed = "external" if host.privileged else "emulator"
    installed = shutil.which("swtpm") is not None and shutil.which("swtpm_setup") is not None
    return installed and needed in known.tpm_backends and "tpm-crb" in known.tpm_models


def _io_uring(root: Path) -> bool:
    """Since Linux 6.6 it can be switched off for those who are not root, as QEMU is not."""
    release = tuple(int(part) for part in re.findall(r"\d+", platform.release())[:2])
    return release >= _IO_URING_SINCE and _text(root / "proc/sys/kernel/io_uring_disabled") in ("", "0")


def _memory_mib(root: Path) -> int:
    total = re.search(r"^MemTotal:\s+(\d+) kB", _text(root / "proc/meminfo"), re.MULTILINE)
    return int(total[1]) // 1024 if total else 0


def _may_lock(root: Path) -> bool:
    """libvirtd raises QEMU's limit of locked memory; it is let do what we are, being root beside us."""
    held = re.search(r"^CapEff:\s*([0-9a-f]+)", _text(root / "proc/self/status"), re.MULTILINE)
    return bool(held and int(held[1], 16) & _CAP_SYS_RESOURCE)


def _huge_pages(root: Path) -> tuple[tuple[str, int], ...]:
    found = []
    for name, kib in _PAGES.items():
        count = _text(root / f"sys/kernel/mm/hugepages/hugepages-{kib}kB/nr_hugepages")
        if count.isdigit():
            found.append((name, int(count) * kib // 1024))
    return tuple(found)
