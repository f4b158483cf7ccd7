"""What a VM's hardware asks of this host that it does not have. Pure: the host is a value."""

import difflib
import posixpath
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Final, Literal

from corral.hypervisor import iommu
from corral.hypervisor.support import HardwareSupport
from corral.model.hardware import PciDevice, UsbDevice
from corral.model.vm import Firmware, VmSpec
from corral.names import format_numbers, parse_numbers

CPU_MODES: Final = ("host-model", "host-passthrough", "maximum")


@dataclass(frozen=True)
class Lack:
    """`hint` names the nearest thing that works here."""

    reason: str
    hint: str
    code: Literal["unsupported", "insufficient-memory"] = "unsupported"


def missing(spec: VmSpec, support: HardwareSupport) -> Iterator[Lack]:
    yield from _processors(spec, support)
    yield from _places(spec, support)
    yield from _memory(spec, support)
    yield from _firmware(spec, support)
    yield from _screen(spec, support)
    yield from _disks(spec, support)
    yield from _devices(spec, support)


def _nearest(word: str, known: Collection[str]) -> str:
    close = difflib.get_close_matches(word, sorted(known), n=3, cutoff=0.5)
    return ", ".join(close) or ", ".join(sorted(known)[:8]) or "none"


# ---- processors and memory -----------------------------------------------------------------------------------------


def _processors(spec: VmSpec, support: HardwareSupport) -> Iterator[Lack]:
    cpu = spec.hardware.cpu
    most = cpu.vcpus_max or spec.vcpus
    if most > support.max_vcpus:
        yield Lack(f"{most} vCPUs: a {support.machine} guest has {support.max_vcpus} at most", f"{support.max_vcpus}")
    if cpu.model in CPU_MODES:
        if cpu.model not in support.cpu_modes:
            others = sorted(support.cpu_modes & set(CPU_MODES))
            yield Lack(
                f"CPU model {cpu.model} needs hardware virtualization, which this host lacks",
                f"{', '.join(others) or 'a named model'}, or none: then Corral chooses",
            )
    elif cpu.model and cpu.model not in support.cpu_models:
        yield Lack(
            f"CPU model {cpu.model!r} is not among the {len(support.cpu_models)} that guests can have here",
            f"nearest: {_nearest(cpu.model, support.cpu_models)}",
        )
    for word in cpu.features:
        if support.cpu_features and word[1:] not in support.cpu_features:
            yield Lack(f"no CPU feature is called {word[1:]}", f"nearest: {_nearest(word[1:], support.cpu_features)}")
    if cpu.nested and not support.nested:
        yield Lack(
            "nested virtualization is off on this host",
            "modprobe -r kvm_intel && modprobe kvm_intel nested=1 (kvm_amd on AMD), with no guest running",
        )
    if cpu.quota_percent is not None and not support.cgroup_cpu:
        yield Lack("a CPU quota needs control groups, which libvirt has as root alone", "run the daemon as root")


def _places(spec: VmSpec, support: HardwareSupport) -> Iterator[Lack]:
    cpu = spec.hardware.cpu
    wished = [(f"vCPU {pin.vcpu}", pin.cpus) for pin in cpu.pins]
    wished += [("QEMU itself", cpu.emulator_cpus)] if cpu.emulator_cpus is not None else []
    for what, cpus in wished:
        if strange := parse_numbers(cpus) - support.host_cpus:
            yield Lack(
                f"{what} is pinned to CPU {format_numbers(strange)}, which this host does not have",
                f"it has {format_numbers(support.host_cpus)}",
            )
    for index, cell in enumerate(spec.hardware.memory.numa):
        if cell.host_nodes is not None and (strange := parse_numbers(cell.host_nodes) - support.host_nodes):
            yield Lack(
                f"NUMA cell {index} takes its memory from node {format_numbers(strange)}, which this host does not have",
                f"it has {format_numbers(support.host_nodes)}",
            )


def _memory(spec: VmSpec, support: HardwareSupport) -> Iterator[Lack]:
    memory = spec.hardware.memory
    if memory.huge_pages:
        sizes = dict(support.huge_pages_mib)
        if memory.huge_pages not in sizes:
            yield Lack(
                f"this host's kernel has no huge pages of {memory.huge_pages}",
                f"it has {', '.join(sizes) or 'none'}",
            )
        elif sizes[memory.huge_pages] < spec.memory_mib:
            there = sizes[memory.huge_pages]
            pages = -(-(spec.memory_mib - there) // (2 if memory.huge_pages == "2M" else 1024))
            kib = 2048 if memory.huge_pages == "2M" else 1048576
            yield Lack(
                f"{spec.memory_mib} MiB in huge pages of {memory.huge_pages}: the host has set aside {there} MiB",
                f"set {pages} more aside in /sys/kernel/mm/hugepages/hugepages-{kib}kB/nr_hugepages",
                "insufficient-memory",
            )
    if memory.locked and not support.locked_memory:
        yield Lack("this host may not lock memory (it lacks CAP_SYS_RESOURCE)", "without locking it")
    if memory.locked and spec.memory_mib > support.memory_mib:
        yield Lack(
            f"{spec.memory_mib} MiB that are never swapped out: the host has {support.memory_mib} MiB",
            "less memory, or without locking it",
            "insufficient-memory",
        )


# ---- firmware, screen, disks ---------------------------------------------------------------------------------------


def _firmware(spec: VmSpec, support: HardwareSupport) -> Iterator[Lack]:
    hardware = spec.hardware
    if spec.firmware is Firmware.UEFI and not support.uefi:
        yield Lack("there is no UEFI firmware on this host", "apt-get install ovmf, or firmware=bios")
    if hardware.secure_boot and not support.secure_boot:
        yield Lack(
            "there is no UEFI firmware with secure boot and enrolled keys on this host",
            "apt-get install ovmf, or without secure boot",
        )
    if hardware.tpm and not support.tpm:
        yield Lack("a TPM is emulated by swtpm, which is not installed", "apt-get install swtpm swtpm-tools")
    if hardware.vmgenid and not support.vmgenid:
        yield Lack("this QEMU has no generation id", "without vmgenid")


def _screen(spec: VmSpec, support: HardwareSupport) -> Iterator[Lack]:
    hardware = spec.hardware
    if spec.graphics != "none":
        if spec.graphics not in support.graphics:
            others = ", ".join(sorted(support.graphics)) or "none"
            yield Lack(f"this QEMU was built without {spec.graphics}", f"graphics: {others}")
        if hardware.video not in support.video:
            yield Lack(f"this QEMU has no video card {hardware.video}", f"it has {', '.join(sorted(support.video))}")
    if hardware.sound != "none" and hardware.sound not in support.sound:
        yield Lack(
            f"this libvirt and QEMU have no sound card {hardware.sound}",
            f"they have {', '.join(sorted(support.sound)) or 'none'}",
        )


def _disks(spec: VmSpec, support: HardwareSupport) -> Iterator[Lack]:
    for disk in spec.disks:
        if disk.bus.value not in support.disk_buses:
            buses = ", ".join(sorted(support.disk_buses))
            yield Lack(f"disk {disk.name}: this QEMU has no {disk.bus.value} disks", f"bus: {buses}")
        if disk.aio == "io_uring" and not support.io_uring:
            yield Lack(f"disk {disk.name}: the kernel offers no io_uring", "aio=threads, or native with cache=none")
    if spec.hardware.io_threads and not support.io_threads:
        yield Lack("this QEMU has no I/O threads", "io_threads=0")


# ---- the host's own ------------------------------------------------------------------------------------------------


def _devices(spec: VmSpec, support: HardwareSupport) -> Iterator[Lack]:
    hardware = spec.hardware
    for share in hardware.shares:
        if not any(posixpath.commonpath([root, share.path]) == root for root in support.share_roots):
            yield Lack(
                f"folder {share.path} is none that guests may have",
                f"one below {', '.join(support.share_roots) or 'none: the setting share_roots is empty'}",
            )
    if hardware.shares and not support.virtiofs:
        yield Lack(
            "sharing a folder needs virtiofsd and a libvirt that runs as root",
            "corral cp, or a disk made of the folder",
        )
    given = frozenset(device.address for device in hardware.host_devices if device.kind == "pci")
    for device in hardware.host_devices:
        if device.kind not in support.host_devices:
            yield Lack(f"this libvirt cannot give {device.kind.upper()} devices to guests", "without host devices")
        elif isinstance(device, PciDevice):
            yield from _pci(device, given, support)
        else:
            yield from _usb(device, support)


def _pci(device: PciDevice, given: frozenset[str], support: HardwareSupport) -> Iterator[Lack]:
    devices = support.pci_devices()
    known = {fact.address: fact for fact in devices}
    if device.address not in known:
        hint = f"nearest: {_nearest(device.address, known)}"
        yield Lack(f"this host has no PCI device {device.address}", f"{hint}; lspci -D lists them")
    elif not support.iommu:
        yield Lack(
            f"PCI device {device.address}: this host has no active IOMMU, which keeps a device inside its guest's memory",
            "switch VT-d or AMD-Vi on in the firmware, and boot the host with intel_iommu=on",
        )
    else:
        for reason in iommu.explain(known[device.address], devices, given):
            yield Lack(reason, "give the whole group to this VM, or take a device that is alone in its group")


def _usb(device: UsbDevice, support: HardwareSupport) -> Iterator[Lack]:
    known = {f"{fact.vendor}:{fact.product}" for fact in support.usb_devices()}
    wished = f"{device.vendor}:{device.product}"
    if wished not in known:
        yield Lack(f"no USB device {wished} is plugged into this host", f"there is {_nearest(wished, known)}")
