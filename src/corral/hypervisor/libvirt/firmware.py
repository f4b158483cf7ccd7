"""What a domain starts from (firmware, kernel, boot order) and the platform it finds: ACPI, SMM, Hyper-V, clock."""

from collections.abc import Mapping
from typing import Final

from lxml.etree import Element, SubElement, _Element

from corral.hypervisor.base import DirectKernel, DomainDefinition
from corral.hypervisor.libvirt.host import Host
from corral.hypervisor.libvirt.metadata import xml_text

BOOT_MENU_MS: Final = 5000
# What Microsoft's documentation and QEMU's docs/system/i386/hyperv.rst recommend for Windows guests; each one needs
# those before it (`stimer` needs `synic`, which needs `vpindex`).
HYPERV_SWITCHES: Final = ("relaxed", "vapic", "vpindex", "runtime", "synic", "stimer", "reset", "frequencies")
HYPERV_SPINLOCK_RETRIES: Final = 8191


def build_os(definition: DomainDefinition, host: Host) -> _Element:
    element = Element("os")
    SubElement(element, "type", arch="x86_64", machine="q35").text = "hvm"
    if definition.firmware == "uefi":
        _add_firmware(element, definition, host)
    kernel = boot_kernel(definition)
    if kernel is not None:
        SubElement(element, "kernel").text = kernel.kernel
        if kernel.initrd:
            SubElement(element, "initrd").text = kernel.initrd
        if kernel.cmdline or definition.hardware.kernel is None:
            SubElement(element, "cmdline").text = xml_text(kernel.cmdline)
    if definition.hardware.boot_menu:
        SubElement(element, "bootmenu", enable="yes", timeout=str(BOOT_MENU_MS))
    return element


def _add_firmware(element: _Element, definition: DomainDefinition, host: Host) -> None:
    secure = definition.hardware.secure_boot
    loader = SubElement(element, "loader", readonly="yes", type="pflash")
    loader.text = host.ovmf_secure_code if secure else host.ovmf_code
    if secure:
        loader.set("secure", "yes")
    nvram = SubElement(element, "nvram", template=host.nvram_template(secure=secure))
    nvram.text = host.nvram(definition.uid, secure=secure)


def boot_kernel(definition: DomainDefinition) -> DirectKernel | None:
    """The user's own comes before the image's."""
    wished = definition.hardware.kernel
    if wished is not None:
        return DirectKernel(wished.kernel, wished.initrd, wished.cmdline)
    return definition.kernel


def boot_numbers(definition: DomainDefinition) -> Mapping[tuple[str, str], int]:
    """The place of each device that the firmware may boot from, by ("disk" or "nic", name), from 1."""
    disks = [("disk", disk.name) for disk in definition.disks if disk.device == "disk"]
    media = [("disk", disk.name) for disk in definition.disks if disk.device == "cdrom"]
    cards = [("nic", nic.name) for nic in definition.nics]
    order = [*disks, *media, *(("nic", nic.name) for nic in definition.nics if nic.pxe)]
    if definition.hardware.boot_devices:
        known = {name: (kind, name) for kind, name in (*cards, *media, *disks)}
        order = [known[name] for name in definition.hardware.boot_devices if name in known]
    return {device: number for number, device in enumerate(order, start=1)}


def build_features(definition: DomainDefinition) -> _Element:
    features = Element("features")
    SubElement(features, "acpi")
    SubElement(features, "apic")
    if enlightened(definition):
        features.append(_build_hyperv())
    if definition.hardware.secure_boot:
        SubElement(features, "smm", state="on")  # or the guest could write the variables that hold the keys
    return features


def enlightened(definition: DomainDefinition) -> bool:
    """KVM does it in the kernel; emulation cannot ("kernel doesn't allow setting HyperV VP_INDEX"), and Windows runs
    without."""
    return definition.hardware.hyperv and definition.accelerator == "kvm"


def _build_hyperv() -> _Element:
    hyperv = Element("hyperv", mode="custom")
    for name in HYPERV_SWITCHES:
        SubElement(hyperv, name, state="on")
    SubElement(hyperv, "spinlocks", state="on", retries=str(HYPERV_SPINLOCK_RETRIES))
    return hyperv


def build_clock(definition: DomainDefinition) -> _Element:
    """Lost ticks are made up for where the guest asks the RTC, and not where it counts the PIT."""
    clock = Element("clock", offset=definition.hardware.clock)
    SubElement(clock, "timer", name="rtc", tickpolicy="catchup")
    SubElement(clock, "timer", name="pit", tickpolicy="delay")
    SubElement(clock, "timer", name="hpet", present="no")
    if enlightened(definition):
        SubElement(clock, "timer", name="hypervclock", present="yes")
    return clock


def build_power_management() -> _Element:
    """A guest that puts itself to sleep cannot be woken through any verb of ours."""
    element = Element("pm")
    SubElement(element, "suspend-to-mem", enabled="no")
    SubElement(element, "suspend-to-disk", enabled="no")
    return element
