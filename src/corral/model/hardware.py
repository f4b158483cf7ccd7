"""Virtual hardware beyond the number of CPUs, the memory's size, disks and cards. Every field's default is a plain server.

The same values go into the VM's spec and, unchanged, into the domain's definition: there is one place for each knob.
"""

from enum import StrEnum
from typing import Annotated, Final, Literal

from pydantic import Field, StringConstraints

from corral.model import limits
from corral.model.base import Model, Name

CpuSet = Annotated[str, StringConstraints(pattern=r"^\d{1,4}(-\d{1,4})?(,\d{1,4}(-\d{1,4})?)*$", max_length=256)]
"""Host CPUs as in libvirt and taskset: `0-3,8`."""
CpuFeature = Annotated[str, StringConstraints(pattern=r"^[+-][a-z0-9._-]{1,32}$")]
"""`+avx2`: the guest has it or does not start; `-svm`: it is hidden."""


class CpuTopology(Model):
    """How the guest sees its CPUs; the product is the number of vCPUs (their maximum, where some can be plugged in)."""

    sockets: Annotated[int, Field(ge=1, le=limits.VCPUS_MAX)] = 1
    cores: Annotated[int, Field(ge=1, le=limits.VCPUS_MAX)] = 1
    threads: Annotated[int, Field(ge=1, le=limits.VCPUS_MAX)] = 1


class CpuPin(Model):
    """One vCPU and the host CPUs that it may run on."""

    vcpu: Annotated[int, Field(ge=0, lt=limits.VCPUS_MAX)]
    cpus: CpuSet


class CpuSpec(Model):
    model: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{0,64}$")] = ""
    """Empty: Corral's choice (`host-model` on hardware). `host-model`, `host-passthrough`, `maximum`, or QEMU's name of
    one. Only a named model, or `host-model` between equal hosts, can migrate."""
    features: Annotated[tuple[CpuFeature, ...], Field(max_length=limits.CPU_FEATURES_MAX)] = ()
    topology: CpuTopology | None = None
    """None: one socket for each vCPU, as libvirt does."""
    vcpus_max: Annotated[int | None, Field(ge=1, le=limits.VCPUS_MAX)] = None
    """Up to how many vCPUs can be plugged in while it runs; None: as many as it has."""
    pins: Annotated[tuple[CpuPin, ...], Field(max_length=limits.VCPUS_MAX)] = ()
    emulator_cpus: CpuSet | None = None
    """Host CPUs for QEMU's own threads."""
    quota_percent: Annotated[int | None, Field(ge=1, le=100 * limits.VCPUS_MAX)] = None
    """At most this much of one host CPU for all vCPUs together: 150 is one and a half. None: no limit."""
    reserved_percent: Annotated[int, Field(ge=0, le=100 * limits.VCPUS_MAX)] = 0
    """This much of one host CPU is promised: the sum over all VMs never exceeds the host."""
    nested: bool = False
    """The guest may run a hypervisor of its own, where the host can."""


class NumaCell(Model):
    vcpus: CpuSet
    memory_mib: Annotated[int, Field(ge=1, le=limits.MEMORY_MAX_MIB)]
    host_nodes: CpuSet | None = None
    """The host's NUMA nodes that its memory comes from, strictly."""


class MemorySpec(Model):
    max_mib: Annotated[int | None, Field(ge=limits.MEMORY_MIN_MIB, le=limits.MEMORY_MAX_MIB)] = None
    """Up to how much can be plugged in while it runs; None: nothing beyond what it started with."""
    reserved_mib: Annotated[int, Field(ge=0, le=limits.MEMORY_MAX_MIB)] = 0
    """This much is promised: the sum over all VMs never exceeds the host's memory."""
    huge_pages: Literal["", "2M", "1G"] = ""
    locked: bool = False
    """Never swapped out."""
    numa: Annotated[tuple[NumaCell, ...], Field(max_length=limits.NUMA_CELLS_MAX)] = ()


class WatchdogAction(StrEnum):
    """What happens when the guest stops feeding it; libvirt's own words."""

    RESET = "reset"
    POWEROFF = "poweroff"
    PAUSE = "pause"
    NONE = "none"


class Share(Model):
    """A directory of the host's, seen in the guest by `mount -t virtiofs NAME /mnt`."""

    name: Name
    path: Annotated[str, StringConstraints(pattern=r"^/", max_length=4096)]
    """Below one of the roots that the administrator allowed."""
    read_only: bool = True


class PciDevice(Model):
    """A host's PCI device given to the guest alone, with all of its IOMMU group."""

    kind: Literal["pci"] = "pci"
    address: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{4}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7]$")]
    """`0000:01:00.0`, as lspci -D prints it."""


class UsbDevice(Model):
    """A host's USB device given to the guest."""

    kind: Literal["usb"] = "usb"
    vendor: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{4}$")]
    product: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{4}$")]
    """`046d` and `c52b` of lsusb's `046d:c52b`."""


HostDevice = Annotated[PciDevice | UsbDevice, Field(discriminator="kind")]


class KernelBoot(Model):
    """A kernel of the user's, booted directly. Absolute paths; administrators only."""

    kernel: Annotated[str, StringConstraints(pattern=r"^/", max_length=4096)]
    initrd: Annotated[str, StringConstraints(pattern=r"^(/|$)", max_length=4096)] = ""
    cmdline: Annotated[str, StringConstraints(max_length=limits.CMDLINE_MAX_CHARS)] = ""


class HardwareSpec(Model):
    """The knobs of the machine itself."""

    cpu: CpuSpec = CpuSpec()
    memory: MemorySpec = MemorySpec()
    secure_boot: bool = False
    """UEFI alone: only signed boot loaders start (with the keys that the firmware package enrolled)."""
    tpm: bool = False
    """A TPM 2.0, emulated by swtpm; its state is the VM's and goes with it."""
    watchdog: WatchdogAction | None = None
    vmgenid: bool = False
    """A generation id: the guest notices that it was copied or taken back in time."""
    rng: bool = True
    panic: bool = True
    """A guest's panic becomes an event instead of a silent stop."""
    hyperv: bool = False
    """Enlightenments that make Windows run well."""
    clock: Literal["utc", "localtime"] = "utc"
    video: Literal["vga", "virtio", "qxl", "bochs", "ramfb", "none"] = "vga"
    """`none` where there are no graphics."""
    sound: Literal["none", "ich9", "ac97", "virtio"] = "none"
    usb: bool = False
    """A USB 3 controller; implied by a USB tablet or a USB device of the host's."""
    tablet: Literal["virtio", "usb"] = "virtio"
    """The absolute pointer of the graphical console; `usb` for systems without virtio drivers."""
    serials: Annotated[int, Field(ge=1, le=limits.SERIALS_MAX)] = 1
    """Serial ports; the first is the console."""
    io_threads: Annotated[int, Field(ge=0, le=limits.IO_THREADS_MAX)] = 0
    shares: Annotated[tuple[Share, ...], Field(max_length=limits.SHARES_MAX)] = ()
    host_devices: Annotated[tuple[HostDevice, ...], Field(max_length=limits.HOST_DEVICES_MAX)] = ()
    boot_devices: Annotated[tuple[Name, ...], Field(max_length=limits.DISKS_MAX + limits.NICS_MAX)] = ()
    """Names of disks, media and cards, tried in this order; empty: disks, then media, then cards that boot by PXE."""
    boot_menu: bool = False
    kernel: KernelBoot | None = None
    """Instead of what the disk would boot."""


PLAIN: Final = HardwareSpec()
