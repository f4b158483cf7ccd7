"""A domain's document from its definition."""

from dataclasses import dataclass
from typing import Final

from lxml.etree import Element, SubElement, _Element, indent, tostring

from corral.hypervisor.base import DirectKernel, DomainDefinition
from corral.hypervisor.libvirt import devices
from corral.hypervisor.libvirt.metadata import build_metadata, xml_text

# The virtual CPU under emulation: x86-64-v2, which every guest of today runs on, wholly emulated by every QEMU in use;
# measured as fast as `max` and `qemu64`. `max` changes with each QEMU, and a VM saved before an upgrade could not resume.
TCG_CPU_MODEL: Final = "Nehalem"
DOMAIN_TYPES: Final = {"kvm": "kvm", "tcg": "qemu"}


@dataclass(frozen=True)
class Host:
    """What belongs to the host, not to the VM."""

    privileged: bool = True
    """libvirt runs as root and drops privileges for each QEMU; not in session mode."""
    dac_gid: int = 0
    """The group of each QEMU that has a uid of its own."""
    ovmf_code: str = "/usr/share/OVMF/OVMF_CODE_4M.fd"
    ovmf_vars: str = "/usr/share/OVMF/OVMF_VARS_4M.fd"
    nvram_dir: str = "/var/lib/libvirt/qemu/nvram"

    def nvram(self, uid: str) -> str:
        """By uid, so that a rename leaves it alone."""
        return f"{self.nvram_dir}/{uid}_VARS.fd"


def build_document(definition: DomainDefinition, host: Host) -> str:
    """The XML."""
    domain = Element("domain", type=DOMAIN_TYPES[definition.accelerator])
    SubElement(domain, "name").text = definition.name
    SubElement(domain, "uuid").text = definition.uid
    if definition.description:
        SubElement(domain, "description").text = xml_text(definition.description)
    SubElement(domain, "metadata").append(build_metadata(definition.metadata))
    for tag in ("memory", "currentMemory"):
        SubElement(domain, tag, unit="MiB").text = str(definition.memory_mib)
    SubElement(domain, "vcpu", placement="static").text = str(definition.vcpus)
    SubElement(SubElement(domain, "cputune"), "shares").text = str(definition.cpu_shares)
    domain.append(_build_os(definition, host))
    features = SubElement(domain, "features")
    SubElement(features, "acpi")
    SubElement(features, "apic")
    domain.append(_build_cpu(definition))
    domain.append(_build_clock())
    # What happens next is the agent's decision (run_policy), never libvirt's; a guest's reboot stays inside QEMU.
    for event, action in (("poweroff", "destroy"), ("reboot", "restart"), ("crash", "destroy")):
        SubElement(domain, f"on_{event}").text = action
    domain.append(_build_power_management())
    own_uid = definition.dac_uid if host.privileged else None
    domain.append(_build_devices(definition, relabelled=host.privileged and own_uid is None))
    if own_uid is not None:
        domain.append(_build_confinement(own_uid, host.dac_gid))
    indent(domain)
    return tostring(domain, encoding="unicode")


def _build_os(definition: DomainDefinition, host: Host) -> _Element:
    element = Element("os")
    SubElement(element, "type", arch="x86_64", machine="q35").text = "hvm"
    if definition.firmware == "uefi":
        SubElement(element, "loader", readonly="yes", type="pflash").text = host.ovmf_code
        SubElement(element, "nvram", template=host.ovmf_vars).text = host.nvram(definition.uid)
    if definition.kernel is not None:
        _add_kernel(element, definition.kernel)
    return element


def _add_kernel(element: _Element, kernel: DirectKernel) -> None:
    SubElement(element, "kernel").text = kernel.kernel
    SubElement(element, "initrd").text = kernel.initrd
    SubElement(element, "cmdline").text = xml_text(kernel.cmdline)


def _build_cpu(definition: DomainDefinition) -> _Element:
    """The host's own model on hardware; a fixed one under emulation."""
    if definition.accelerator == "kvm":
        return Element("cpu", mode="host-model", check="partial")
    cpu = Element("cpu", mode="custom", match="exact", check="none")
    SubElement(cpu, "model", fallback="forbid").text = TCG_CPU_MODEL
    return cpu


def _build_clock() -> _Element:
    """UTC; lost ticks are made up for where the guest asks the RTC, and not where it counts the PIT."""
    clock = Element("clock", offset="utc")
    SubElement(clock, "timer", name="rtc", tickpolicy="catchup")
    SubElement(clock, "timer", name="pit", tickpolicy="delay")
    SubElement(clock, "timer", name="hpet", present="no")
    return clock


def _build_power_management() -> _Element:
    """A guest that puts itself to sleep cannot be woken through any verb of ours."""
    element = Element("pm")
    SubElement(element, "suspend-to-mem", enabled="no")
    SubElement(element, "suspend-to-disk", enabled="no")
    return element


def _build_devices(definition: DomainDefinition, *, relabelled: bool) -> _Element:
    element = Element("devices")
    buses = [disk.bus for disk in definition.disks]
    virtio_disks = buses.count("virtio") + int(definition.seed_path is not None)
    element.extend(devices.build_controllers(virtio_disks, "scsi" in buses, len(definition.nics)))
    targets = devices.disk_targets(definition.disks)
    for order, (disk, target) in enumerate(zip(definition.disks, targets, strict=True), start=1):
        element.append(devices.build_disk(disk, target, order, relabelled=relabelled))
    if definition.seed_path is not None:
        element.append(devices.build_seed(definition.seed_path))
    element.extend(devices.build_nic(nic) for nic in definition.nics)
    element.extend(devices.build_serial(definition.console_log))
    element.append(devices.build_agent_channel(definition.run_dir))
    element.extend(devices.build_display(definition.graphics, definition.run_dir))
    element.append(devices.build_rng())
    element.append(devices.build_balloon())
    element.append(devices.build_panic())
    return element


def _build_confinement(uid: int, gid: int) -> _Element:
    """Each QEMU under its own uid: an escape owns one VM's files. `+` says that the numbers have no passwd entry.

    Relabelling is off: libvirt would give away the kernel and initrd that VMs share, and refuse a second VM ("already in
    use"). The driver gives the VM's own files to its uid, once (confinement.py).
    """
    element = Element("seclabel", type="static", model="dac", relabel="no")
    SubElement(element, "label").text = f"+{uid}:+{gid}"
    return element
