"""What a host's hypervisor can give to guests, as one typed value: read from libvirt and the kernel, asked by the rules."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

_BUSES: Final = frozenset({"virtio", "scsi", "sata"})


@dataclass(frozen=True)
class PciFact:
    """A PCI device of the host's, and what stands with it in one IOMMU group (which goes to one guest, whole)."""

    address: str
    """`0000:01:00.0`."""
    vendor: str
    device: str
    pci_class: str
    """Six hexadecimal digits, as the kernel writes them: `030000` is a VGA controller."""
    driver: str = ""
    """What the host uses it with now; empty: nothing."""
    iommu_group: int | None = None
    group: tuple[str, ...] = ()
    """The addresses of all devices of its group, itself too."""
    bridge: bool = False
    boot_vga: bool = False
    """The host's own screen."""


@dataclass(frozen=True)
class UsbFact:
    """A USB device of the host's; ids of four hexadecimal digits."""

    vendor: str
    product: str
    name: str = ""


@dataclass(frozen=True)
class HardwareSupport:
    """Every default is what an ordinary server with today's QEMU has; the libvirt driver reads the real ones."""

    accelerator: Literal["kvm", "tcg"] = "kvm"
    machine: str = "q35"
    max_vcpus: int = 288
    cpu_modes: frozenset[str] = frozenset({"host-model", "host-passthrough", "maximum", "custom"})
    cpu_models: frozenset[str] = frozenset({"Nehalem", "Westmere", "Haswell", "Skylake-Server", "EPYC", "qemu64"})
    """The named models that guests can have here."""
    cpu_features: frozenset[str] = frozenset()
    """Every name of a CPU feature that libvirt knows; empty: not asked."""
    nested: bool = True
    uefi: bool = True
    secure_boot: bool = True
    tpm: bool = True
    vmgenid: bool = True
    graphics: frozenset[str] = frozenset({"vnc", "spice"})
    video: frozenset[str] = frozenset({"vga", "virtio", "qxl", "bochs", "ramfb", "none"})
    sound: frozenset[str] = frozenset({"ich9", "ac97"})
    disk_buses: frozenset[str] = _BUSES
    io_uring: bool = True
    io_threads: bool = True
    virtiofs: bool = True
    share_roots: tuple[str, ...] = ("/",)
    """Below these the administrator lets guests have folders."""
    host_devices: frozenset[str] = frozenset({"pci", "usb"})
    cgroup_cpu: bool = True
    """The CPU controller, without which there are no shares and no quota (unprivileged libvirt has none)."""
    host_cpus: frozenset[int] = frozenset(range(64))
    """The numbers of the CPUs that are online."""
    host_nodes: frozenset[int] = frozenset({0})
    """The numbers of the NUMA nodes with memory."""
    memory_mib: int = 1 << 20
    locked_memory: bool = True
    """QEMU may be allowed to keep its memory from being swapped out; some containers forbid it."""
    huge_pages_mib: tuple[tuple[str, int], ...] = (("2M", 1 << 19), ("1G", 1 << 19))
    """How much memory is set aside, in use or not, in huge pages of each size that the kernel has."""
    iommu: bool = True
    pci_devices: Callable[[], tuple[PciFact, ...]] = tuple
    """Read when somebody wishes for one: a server has hundreds, each in five files."""

    usb_devices: Callable[[], tuple[UsbFact, ...]] = tuple
