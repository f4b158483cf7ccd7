"""Devices that a plain server has no need of: TPM, watchdog, shares of host folders, the host's own devices."""

from collections.abc import Iterator
from typing import Final

from lxml.etree import Element, SubElement, _Element

from corral.hypervisor.base import DomainDefinition
from corral.hypervisor.libvirt.host import Host
from corral.model.hardware import HardwareSpec, HostDevice, PciDevice, Share

TPM_ALIAS: Final = "ua-tpm"
TPM_SOCKET: Final = "tpm.sock"
WATCHDOG_ALIAS: Final = "ua-watchdog"
SHARE_ALIAS: Final = "ua-share-"
HOST_DEVICE_ALIAS: Final = "ua-hostdev-"
# Requests that the guest may have under way on one share; QEMU's own default is 128, virtiofsd's documentation says 1024.
SHARE_QUEUE: Final = 1024


def build_extras(definition: DomainDefinition, host: Host) -> Iterator[_Element]:
    hardware = definition.hardware
    if hardware.tpm:
        yield _build_tpm(definition, host)
    if hardware.watchdog is not None:
        watchdog = Element("watchdog", model="i6300esb", action=hardware.watchdog.value)
        SubElement(watchdog, "alias", name=WATCHDOG_ALIAS)
        yield watchdog
    for share in hardware.shares:
        yield _build_share(share, definition.run_dir)
    for device in hardware.host_devices:
        yield _build_host_device(device)


def _build_tpm(definition: DomainDefinition, host: Host) -> _Element:
    """libvirt's own swtpm runs as root and answers on a socket that only libvirt's QEMU user may open. Where each QEMU
    has a uid of its own, Corral starts swtpm under that uid (tpm.py)."""
    tpm = Element("tpm", model="tpm-crb")
    if host.privileged and definition.dac_uid is not None:
        backend = SubElement(tpm, "backend", type="external")
        SubElement(backend, "source", type="unix", mode="connect", path=f"{definition.run_dir}/{TPM_SOCKET}")
    else:
        SubElement(tpm, "backend", type="emulator", version="2.0")
    SubElement(tpm, "alias", name=TPM_ALIAS)
    return tpm


def share_place(run_dir: str, name: str) -> str:
    """Where a shared folder is mounted for virtiofsd. Beside the run directory, not in it: that is QEMU's own, who could
    put a link to anywhere in its place."""
    return f"{run_dir}.shares/{name}"


def _build_share(share: Share, run_dir: str) -> _Element:
    """`source` is a mount of the folder (shares.py): this libvirt's virtio-fs has no read-only of its own."""
    element = Element("filesystem", type="mount", accessmode="passthrough")
    SubElement(element, "driver", type="virtiofs", queue=str(SHARE_QUEUE))
    SubElement(element, "source", dir=share_place(run_dir, share.name))
    SubElement(element, "target", dir=share.name)
    SubElement(element, "alias", name=f"{SHARE_ALIAS}{share.name}")
    return element


def _build_host_device(device: HostDevice) -> _Element:
    """`managed`: libvirt takes a PCI device from its driver when the guest starts and gives it back when it ends."""
    element = Element("hostdev", mode="subsystem", type=device.kind, managed="yes")
    source = SubElement(element, "source")
    if isinstance(device, PciDevice):
        domain, bus, rest = device.address.split(":")
        slot, function = rest.split(".")
        SubElement(source, "address", domain=f"0x{domain}", bus=f"0x{bus}", slot=f"0x{slot}", function=f"0x{function}")
        name = device.address.replace(":", "-").replace(".", "-")
    else:
        SubElement(source, "vendor", id=f"0x{device.vendor}")
        SubElement(source, "product", id=f"0x{device.product}")
        name = f"{device.vendor}-{device.product}"
    SubElement(element, "alias", name=f"{HOST_DEVICE_ALIAS}{name}")
    return element


def needs_usb(hardware: HardwareSpec) -> bool:
    """Whether something sits on USB."""
    return hardware.usb or hardware.tablet == "usb" or any(device.kind == "usb" for device in hardware.host_devices)


def pcie_ports(hardware: HardwareSpec) -> int:
    """How many root ports these devices take; the watchdog sits on a PCI bridge, which takes one."""
    pci = sum(device.kind == "pci" for device in hardware.host_devices)
    bridged = hardware.watchdog is not None or hardware.sound == "ac97"
    return pci + len(hardware.shares) + int(needs_usb(hardware)) + int(bridged) + int(hardware.sound == "virtio")
