"""The host's PCI and USB devices and the IOMMU groups of the former, from sysfs; and why one can or cannot be given away.

The root of the file system is told, so that a test can bring a topology that its machine lacks.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from corral.hypervisor.support import PciFact, UsbFact

_PCI: Final = "sys/bus/pci/devices"
_USB: Final = "sys/bus/usb/devices"
# PCI class 06xx: host bridges, PCI bridges … belong to the group but are not given away.
_BRIDGE_CLASS: Final = "06"


def read_pci_devices(root: Path = Path("/")) -> tuple[PciFact, ...]:
    """All of them, by address."""
    found = _entries(root / _PCI)
    numbers = {entry.name: _group_number(entry) for entry in found}
    members: dict[int, list[str]] = {}
    for name, number in numbers.items():
        if number is not None:
            members.setdefault(number, []).append(name)
    return tuple(_pci_fact(entry, numbers[entry.name], members) for entry in found)


def _entries(directory: Path) -> list[Path]:
    try:
        return sorted(directory.iterdir())
    except OSError:
        return []


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _link_name(path: Path) -> str:
    try:
        return path.readlink().name
    except OSError:
        return ""


def _group_number(entry: Path) -> int | None:
    name = _link_name(entry / "iommu_group")
    return int(name) if name.isdigit() else None


def _pci_fact(entry: Path, number: int | None, members: dict[int, list[str]]) -> PciFact:
    pci_class = _text(entry / "class").removeprefix("0x")
    return PciFact(
        address=entry.name,
        vendor=_text(entry / "vendor").removeprefix("0x"),
        device=_text(entry / "device").removeprefix("0x"),
        pci_class=pci_class,
        driver=_link_name(entry / "driver"),
        iommu_group=number,
        group=tuple(members[number]) if number is not None else (),
        bridge=pci_class.startswith(_BRIDGE_CLASS),
        boot_vga=_text(entry / "boot_vga") == "1",
    )


def read_usb_devices(root: Path = Path("/")) -> tuple[UsbFact, ...]:
    """All but hubs."""
    hub_class = "09"
    return tuple(
        UsbFact(vendor, _text(entry / "idProduct"), _text(entry / "product"))
        for entry in _entries(root / _USB)
        if (vendor := _text(entry / "idVendor")) and _text(entry / "bDeviceClass") != hub_class
    )


def has_iommu(root: Path = Path("/")) -> bool:
    return bool(_entries(root / "sys/kernel/iommu_groups"))


def explain(device: PciFact, devices: tuple[PciFact, ...], given: frozenset[str] = frozenset()) -> Iterator[str]:
    """What stands in the way of giving `device` to a guest that gets `given` too; nothing: it can be given."""
    if device.bridge:
        yield f"{device.address} is a bridge: the devices behind it can be given, it cannot"
    if device.iommu_group is None:
        yield f"{device.address} is in no IOMMU group: the host could not keep its transfers inside the guest's memory"
    if device.boot_vga:
        yield f"{device.address} is the host's own screen"
    by_address = {one.address: one for one in devices}
    others = [
        by_address[address]
        for address in device.group
        if address != device.address and address not in given and not by_address[address].bridge
    ]
    used = [one for one in others if one.driver and one.driver != "vfio-pci"]
    if used:
        named = ", ".join(f"{one.address} ({one.driver})" for one in used)
        yield (
            f"{device.address} shares IOMMU group {device.iommu_group} with {named}: "
            "a group reaches one guest whole, since its devices can write to each other"
        )
