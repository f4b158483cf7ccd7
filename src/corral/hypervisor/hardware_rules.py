"""What of a VM's hardware does not go together, and what this host cannot give: said before anything is made. Pure."""

import ipaddress
import posixpath
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from corral.errors import CorralError
from corral.hypervisor.capabilities import Ability, refusal
from corral.hypervisor.host_rules import missing
from corral.hypervisor.support import HardwareSupport
from corral.model.hardware import CpuSpec
from corral.model.vm import Bus, DiskSpec, Firmware, VmSpec
from corral.names import format_numbers, parse_numbers

# A virtio-fs tag has 36 bytes in the device's configuration (virtio 1.2, 5.11.4).
SHARE_NAME_MAX: Final = 36
HUGE_PAGE_MIB: Final = {"2M": 2, "1G": 1024}
_DIRECT: Final = ("none", "directsync")


@dataclass(frozen=True)
class Contradiction:
    """`hint` names the nearest thing that works."""

    reason: str
    hint: str


def check_hardware(asked: str, spec: VmSpec, support: HardwareSupport) -> None:
    """Raises `invalid-hardware` where the wish contradicts itself, else `unsupported` (or `insufficient-memory`) where
    this host cannot fulfil it."""
    for found in contradictions(spec):
        raise CorralError("invalid-hardware", asked, found.reason, found.hint)
    for lack in missing(spec, support):
        raise CorralError(lack.code, asked, lack.reason, lack.hint)


def contradictions(spec: VmSpec) -> Iterator[Contradiction]:
    """All of them, whatever the host."""
    yield from _processors(spec)
    yield from _pins(spec)
    yield from _memory(spec)
    yield from _numa(spec)
    yield from _firmware(spec)
    yield from _screen(spec)
    for disk in spec.disks:
        yield from _disk(disk, spec)
    yield from _cards(spec)
    yield from _boot_order(spec)
    yield from _shares(spec)
    yield from _host_devices(spec)


def _twice(names: Iterable[str]) -> list[str]:
    return sorted(name for name, count in Counter(names).items() if count > 1)


# ---- processors and memory -----------------------------------------------------------------------------------------


def most_vcpus(spec: VmSpec) -> int:
    """The number that can be plugged in, at most."""
    return spec.hardware.cpu.vcpus_max or spec.vcpus


def _processors(spec: VmSpec) -> Iterator[Contradiction]:
    cpu, most = spec.hardware.cpu, most_vcpus(spec)
    if most < spec.vcpus:
        yield Contradiction(
            f"it is to start with {spec.vcpus} vCPUs and have {most} at most", f"vcpus_max={spec.vcpus} or more"
        )
    if cpu.topology is not None:
        shape = cpu.topology
        product = shape.sockets * shape.cores * shape.threads
        if product != most:
            yield Contradiction(
                f"{shape.sockets} sockets x {shape.cores} cores x {shape.threads} threads are {product} CPUs, "
                f"and it has {most} vCPUs{' at most' if cpu.vcpus_max else ''}",
                f"{_nearest_shape(most, shape.threads)}, or {'vcpus_max' if cpu.vcpus_max else 'vcpus'}={product}",
            )
    yield from _quota(cpu, spec.vcpus)
    names = [word[1:] for word in cpu.features]
    for name in _twice(names):
        yield Contradiction(f"CPU feature {name} is named twice", f"say +{name} or -{name}, once")
    hidden = sorted({"vmx", "svm"} & {word[1:] for word in cpu.features if word.startswith("-")})
    if cpu.nested and hidden:
        yield Contradiction(
            f"nested virtualization needs what -{hidden[0]} hides", f"leave out nested, or -{hidden[0]}"
        )


def _nearest_shape(vcpus: int, threads: int) -> str:
    """One socket; the threads that were wished, if that works out."""
    each = threads if vcpus % threads == 0 else 1
    return f"1 socket x {vcpus // each} cores x {each} threads"


def _quota(cpu: CpuSpec, vcpus: int) -> Iterator[Contradiction]:
    if cpu.quota_percent is not None and cpu.quota_percent < cpu.reserved_percent:
        yield Contradiction(
            f"{cpu.reserved_percent} % of a CPU are promised and {cpu.quota_percent} % are all it may use",
            f"a quota of {cpu.reserved_percent} or more",
        )
    if cpu.reserved_percent > 100 * vcpus:
        yield Contradiction(
            f"{vcpus} vCPUs cannot use the {cpu.reserved_percent} % of a CPU that are promised",
            f"reserve {100 * vcpus} at most",
        )


def _pins(spec: VmSpec) -> Iterator[Contradiction]:
    cpu, most = spec.hardware.cpu, most_vcpus(spec)
    for pin in cpu.pins:
        if pin.vcpu >= most:
            yield Contradiction(
                f"vCPU {pin.vcpu} is pinned, and there are {most} of them", f"vCPUs count from 0 to {most - 1}"
            )
        yield from _empty_set(pin.cpus)
    for number in _twice(str(pin.vcpu) for pin in cpu.pins):
        yield Contradiction(f"vCPU {number} is pinned twice", "one set of host CPUs for each, such as 0-3,8")
    if cpu.emulator_cpus is not None:
        yield from _empty_set(cpu.emulator_cpus)


def _empty_set(text: str) -> Iterator[Contradiction]:
    if not parse_numbers(text):
        yield Contradiction(f"{text!r} names no number: a range runs upwards", "such as 0-3,8")


def _memory(spec: VmSpec) -> Iterator[Contradiction]:
    memory = spec.hardware.memory
    if memory.max_mib is not None and memory.max_mib < spec.memory_mib:
        yield Contradiction(
            f"it is to start with {spec.memory_mib} MiB and have {memory.max_mib} MiB at most",
            f"a maximum of {spec.memory_mib} MiB or more",
        )
    if memory.reserved_mib > spec.memory_mib:
        yield Contradiction(
            f"{memory.reserved_mib} MiB are promised to a guest of {spec.memory_mib} MiB",
            f"reserve {spec.memory_mib} MiB at most",
        )
    if memory.huge_pages:
        page = HUGE_PAGE_MIB[memory.huge_pages]
        for size in (spec.memory_mib, *(cell.memory_mib for cell in memory.numa)):
            if size % page:
                yield Contradiction(
                    f"{size} MiB are no whole number of huge pages of {memory.huge_pages}",
                    f"{max(size // page, 1) * page} MiB" + (", or huge pages of 2M" if page > 2 else ""),
                )


def _numa(spec: VmSpec) -> Iterator[Contradiction]:
    cells, most = spec.hardware.memory.numa, most_vcpus(spec)
    if not cells:
        return
    total = sum(cell.memory_mib for cell in cells)
    if total != spec.memory_mib:
        yield Contradiction(
            f"the NUMA cells have {total} MiB, and it has {spec.memory_mib} MiB",
            f"memory={total}M, or cells of {spec.memory_mib // len(cells)} MiB each",
        )
    placed = Counter(number for cell in cells for number in parse_numbers(cell.vcpus))
    everyone = frozenset(range(most))
    for words, numbers in (
        ("in no NUMA cell", everyone - set(placed)),
        ("in more than one NUMA cell", frozenset(number for number, count in placed.items() if count > 1)),
        ("in a NUMA cell, and there is no such vCPU", frozenset(placed) - everyone),
    ):
        if numbers:
            shown = format_numbers(numbers)
            yield Contradiction(f"vCPU {shown} is {words}", f"each of 0-{most - 1} stands in one cell")
    for cell in cells:
        if cell.host_nodes is not None:
            yield from _empty_set(cell.host_nodes)


# ---- firmware and screen -------------------------------------------------------------------------------------------


def _firmware(spec: VmSpec) -> Iterator[Contradiction]:
    if spec.hardware.secure_boot and spec.firmware is Firmware.BIOS:
        yield Contradiction("secure boot is UEFI's, and this VM has a BIOS", "firmware=uefi")


def _screen(spec: VmSpec) -> Iterator[Contradiction]:
    video = spec.hardware.video
    if spec.graphics == "none":
        if video not in ("vga", "none"):
            yield Contradiction(f"video {video} without a graphical console shows nobody anything", "graphics=vnc")
        if spec.graphics_listen:
            yield Contradiction("it is to listen for viewers, and has no graphical console", "graphics=vnc")
    elif video == "none":
        yield Contradiction(f"a {spec.graphics} console needs a video card", "video=vga, or graphics=none")
    if spec.graphics_listen:
        try:
            ipaddress.ip_address(spec.graphics_listen)
        except ValueError:
            yield Contradiction(
                f"{spec.graphics_listen!r} is no IP address",
                "127.0.0.1, an address of this host, or nothing: then consoles stay on a Unix socket",
            )


# ---- disks, cards, boot order --------------------------------------------------------------------------------------


def _disk(disk: DiskSpec, spec: VmSpec) -> Iterator[Contradiction]:
    asked = f"disk {disk.name}"
    if disk.aio == "native" and disk.cache not in _DIRECT:
        yield Contradiction(
            f"{asked}: aio=native needs a cache of none or directsync, and it has {disk.cache}",
            "cache=none, or aio=threads",
        )
    threads = spec.hardware.io_threads
    if disk.io_thread > threads:
        yield Contradiction(
            f"{asked}: I/O thread {disk.io_thread} of {threads}",
            f"io_threads={disk.io_thread}" + (f", or a thread from 1 to {threads}" if threads else ""),
        )
    if disk.io_thread and disk.bus is not Bus.VIRTIO:
        yield Contradiction(f"{asked}: only virtio disks have I/O threads, and it is on {disk.bus.value}", "bus=virtio")
    if disk.device == "cdrom":
        if disk.bus is Bus.VIRTIO:
            yield Contradiction(f"{asked}: virtio has no CD drives", "bus=sata")
        if disk.format != "raw":
            yield Contradiction(f"{asked}: a CD's image is raw", "format=raw")
    elif disk.read_only and disk.bus is Bus.SATA:
        yield Contradiction(f"{asked}: {refusal(Ability.READ_ONLY_DISK, Ability.SATA_DISK)}", "bus=virtio or bus=scsi")


def _cards(spec: VmSpec) -> Iterator[Contradiction]:
    for nic in spec.nics:
        if nic.queues > 1 and nic.model != "virtio":
            yield Contradiction(
                f"card {nic.name}: only virtio has several queues, and it is {nic.model}", "model=virtio, or queues=1"
            )


def _boot_order(spec: VmSpec) -> Iterator[Contradiction]:
    disks, cards = [disk.name for disk in spec.disks], [nic.name for nic in spec.nics]
    for what, names in (("disks", disks), ("cards", cards)):
        for name in _twice(names):
            yield Contradiction(f"two {what} are called {name}", "a name of its own for each")
    wished = spec.hardware.boot_devices
    known = ", ".join((*disks, *cards)) or "nothing"
    for name in wished:
        if name not in disks and name not in cards:
            yield Contradiction(f"boot order: there is no disk or card {name!r}", f"there is {known}")
        elif name in disks and name in cards:
            yield Contradiction(f"boot order: a disk and a card are both called {name}", "a name of its own for each")
    for name in _twice(wished):
        yield Contradiction(f"boot order: {name} stands there twice", "each device once")


# ---- what is the host's --------------------------------------------------------------------------------------------


def _shares(spec: VmSpec) -> Iterator[Contradiction]:
    shares = spec.hardware.shares
    for name in _twice(share.name for share in shares):
        yield Contradiction(f"two shares are called {name}", "a name of its own for each: the guest mounts it by that")
    for share in shares:
        if len(share.name) > SHARE_NAME_MAX:
            yield Contradiction(
                f"share {share.name}: the guest sees at most {SHARE_NAME_MAX} characters of its name",
                share.name[:SHARE_NAME_MAX],
            )
        if posixpath.normpath(share.path) != share.path:
            yield Contradiction(
                f"share {share.name}: {share.path!r} is not the path itself", posixpath.normpath(share.path)
            )


def _host_devices(spec: VmSpec) -> Iterator[Contradiction]:
    names = [
        device.address if device.kind == "pci" else f"{device.vendor}:{device.product}"
        for device in spec.hardware.host_devices
    ]
    for name in _twice(names):
        yield Contradiction(f"the host's device {name} is named twice", "name it once")
