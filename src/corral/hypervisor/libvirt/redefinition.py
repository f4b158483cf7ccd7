"""A domain's document changed to a new definition: the fields that Corral owns as they are to be, all else as it was.

A guest names its cards by PCI address, an operating system knows its machine by its machine type, and people pin
processors or pass devices by hand: none of it may move because somebody changed a description.
"""

from collections.abc import Callable
from copy import deepcopy
from typing import Final

from lxml.etree import QName, SubElement, _Element, indent, tostring

from corral.hypervisor.libvirt import devices, owned
from corral.hypervisor.libvirt.metadata import NAMESPACE

_REPLACED: Final = ("description", "memory", "currentMemory", "on_poweroff", "on_reboot", "on_crash")
_BOOT: Final = ("loader", "nvram", "kernel", "initrd", "cmdline")
_SCREEN: Final = ("graphics", "video", "input")


def redefine(new: _Element, old: _Element) -> str:
    """The document to define: `old` (persistent, as libvirt has it) with what Corral owns of `new`."""
    domain = deepcopy(old)
    _child(domain, "name").text = new.findtext("name")  # in place: libvirt's schema wants it beside the UUID
    for tag in _REPLACED:
        _replace(domain, new, tag)
    if domain.get("type") != new.get("type"):
        _replace(domain, new, "cpu")
    domain.set("type", new.get("type") or "")
    _replace_mark(domain, new)
    _set_vcpus(domain, new)
    _set_shares(domain, new)
    _redefine_boot(_child(domain, "os"), _child(new, "os"))
    _replace(domain, new, "seclabel[@model='dac']")
    _redefine_devices(_child(domain, "devices"), _child(new, "devices"))
    indent(domain)
    return tostring(domain, encoding="unicode")


def _child(parent: _Element, tag: str) -> _Element:
    found = parent.find(tag)
    return SubElement(parent, tag) if found is None else found


def _replace(target: _Element, source: _Element, path: str) -> None:
    for element in target.findall(path):
        target.remove(element)
    target.extend(deepcopy(element) for element in source.findall(path))


def _replace_mark(domain: _Element, new: _Element) -> None:
    """Our element alone: other programs keep theirs in the same place."""
    _replace(_child(domain, "metadata"), _child(new, "metadata"), QName(NAMESPACE, "vm").text)


def _redefine_boot(current: _Element, new: _Element) -> None:
    """Firmware and kernel stand right behind the type (with its machine), in libvirt's order; the rest follows.
    `boot` is libvirt's own addition where no device says its order; it refuses both in one document."""
    for tag in (*_BOOT, "boot"):
        for element in current.findall(tag):
            current.remove(element)
    current[1:1] = [deepcopy(element) for tag in _BOOT for element in new.findall(tag)]


def _set_vcpus(domain: _Element, new: _Element) -> None:
    """The number; which processors they may run on is not ours."""
    element = _child(domain, "vcpu")
    element.text = new.findtext("vcpu")
    if element.get("current") is not None:
        del element.attrib["current"]


def _set_shares(domain: _Element, new: _Element) -> None:
    tuning = _child(domain, "cputune")
    _child(tuning, "shares").text = new.findtext("cputune/shares")


# ---- devices -------------------------------------------------------------------------------------------------------


def _redefine_devices(current: _Element, new: _Element) -> None:
    _redefine_each(current, owned.hard_disks(current), owned.hard_disks(new), _disk_place, _same_disk)
    _redefine_each(current, current.iterfind("interface"), new.iterfind("interface"), _mac, _same_nic)
    _redefine_channel(current, new)
    _redefine_screen(current, new)
    log, wanted_log = current.find("serial/log"), new.find("serial/log")
    if log is not None and wanted_log is not None:
        log.set("file", wanted_log.get("file") or "")
    _add_controllers(current, new)


def _redefine_each(
    current: _Element,
    found: owned.Elements,
    wanted: owned.Elements,
    place: Callable[[_Element], str],
    same: Callable[[_Element, _Element], bool],
) -> None:
    """One that is as it should be stays with all that was tuned about it; a changed one keeps its place on the bus."""
    before = {place(element): element for element in found}
    for element in before.values():
        current.remove(element)
    for element in wanted:
        known = before.get(place(element))
        if known is not None and same(known, element):
            _replace(known, element, "backingStore")
            current.append(known)
        else:
            current.append(_at_address_of(known, element))


def _disk_place(element: _Element) -> str:
    """A disk that moves to another bus cannot keep its address there."""
    disk = owned.owned_disk(element)
    return f"{disk.target}/{disk.bus}"


def _same_disk(one: _Element, other: _Element) -> bool:
    return owned.owned_disk(one) == owned.owned_disk(other)


def _mac(element: _Element) -> str:
    return owned.attribute(element, "mac", "address").lower()


def _same_nic(one: _Element, other: _Element) -> bool:
    return _nic_fields(one) == _nic_fields(other)


def _nic_fields(element: _Element) -> tuple[str, str, str]:
    alias = owned.attribute(element, "alias", "name")
    return owned.attribute(element, "source", "network"), owned.attribute(element, "model", "type"), alias


def _at_address_of(known: _Element | None, element: _Element) -> _Element:
    placed = deepcopy(element)
    address = known.find("address") if known is not None else None
    if address is not None and placed.find("address") is None:
        placed.append(deepcopy(address))
    return placed


def _redefine_channel(current: _Element, new: _Element) -> None:
    """The guest agent's: its socket lies in the run directory, which may have changed."""
    path = f"channel/target[@name='{devices.AGENT_CHANNEL}']/.."
    known = current.find(path)
    for element in new.findall(path):
        current.append(_at_address_of(known, element))
    if known is not None:
        current.remove(known)


def _redefine_screen(current: _Element, new: _Element) -> None:
    vnc = "graphics[@type='vnc']"
    if (current.find(vnc) is None) == (new.find(vnc) is None):
        _replace(current, new, vnc)
        return
    for tag in _SCREEN:
        _replace(current, new, tag)


def _add_controllers(current: _Element, new: _Element) -> None:
    """Those that are there stay, with their numbers: addresses count on them."""
    if new.find("controller[@type='scsi']") is not None and current.find("controller[@type='scsi']") is None:
        current.append(deepcopy(_child(new, "controller[@type='scsi']")))
    port = "controller[@model='pcie-root-port']"
    missing = new.findall(port)[len(current.findall(port)) :]
    current.extend(deepcopy(element) for element in missing)
