"""A domain's document from its definition: every part in its place."""

from typing import Final

from lxml.etree import Element, SubElement, _Element, indent, tostring

from corral.hypervisor.base import DomainDefinition
from corral.hypervisor.libvirt import devices, disks, extras, firmware, knobs, memory, processor, screen
from corral.hypervisor.libvirt.host import Host
from corral.hypervisor.libvirt.metadata import build_metadata, xml_text

__all__ = ["DOMAIN_TYPES", "Host", "build_document", "build_domain"]

DOMAIN_TYPES: Final = {"kvm": "kvm", "tcg": "qemu"}


def build_document(definition: DomainDefinition, host: Host) -> str:
    """The XML."""
    domain = build_domain(definition, host)
    indent(domain)
    return tostring(domain, encoding="unicode")


def build_domain(definition: DomainDefinition, host: Host) -> _Element:
    domain = Element("domain", type=DOMAIN_TYPES[definition.accelerator])
    SubElement(domain, "name").text = definition.name
    SubElement(domain, "uuid").text = definition.uid
    if definition.hardware.vmgenid:
        SubElement(domain, "genid")  # libvirt chooses one, and a new one whenever it takes the guest back in time
    if definition.description:
        SubElement(domain, "description").text = xml_text(definition.description)
    SubElement(domain, "metadata").append(build_metadata(definition.metadata, knobs.build_mark(definition)))
    domain.extend(memory.build_memory(definition))
    domain.append(processor.build_vcpu(definition))
    if definition.hardware.io_threads:
        SubElement(domain, "iothreads").text = str(definition.hardware.io_threads)
    domain.append(processor.build_tuning(definition))
    domain.append(firmware.build_os(definition, host))
    domain.append(firmware.build_features(definition))
    domain.append(processor.build_cpu(definition, host.nested_feature))
    domain.append(firmware.build_clock(definition))
    # What happens next is the agent's decision (run_policy), never libvirt's; a guest's reboot stays inside QEMU.
    for event, action in (("poweroff", "destroy"), ("reboot", "restart"), ("crash", "destroy")):
        SubElement(domain, f"on_{event}").text = action
    domain.append(firmware.build_power_management())
    own_uid = definition.dac_uid if host.privileged else None
    domain.append(_build_devices(definition, host, relabelled=host.privileged and own_uid is None))
    if own_uid is not None:
        domain.append(_build_confinement(own_uid, host.dac_gid))
    return domain


def _build_devices(definition: DomainDefinition, host: Host, *, relabelled: bool) -> _Element:
    element = Element("devices")
    numbers = firmware.boot_numbers(definition)
    element.extend(devices.build_controllers(definition))
    for disk, target in zip(definition.disks, disks.disk_targets(definition.disks), strict=True):
        element.append(disks.build_disk(disk, target, numbers.get(("disk", disk.name)), relabelled=relabelled))
    if definition.seed_path is not None:
        element.append(disks.build_seed(definition.seed_path))
    element.extend(devices.build_nic(nic, numbers.get(("nic", nic.name))) for nic in definition.nics)
    element.extend(devices.build_serials(definition.console_log, definition.hardware.serials))
    element.append(devices.build_agent_channel(definition.run_dir))
    element.extend(screen.build_screen(definition))
    element.extend(extras.build_extras(definition, host))
    if definition.hardware.rng:
        element.append(devices.build_rng())
    element.append(devices.build_balloon())
    if definition.hardware.panic:
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
