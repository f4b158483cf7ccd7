"""A domain's document changed to a new definition: the fields that Corral owns as they are to be, all else as it was.

A guest names its cards by PCI address, an operating system knows its machine by its machine type, and people tune by hand
what Corral was not asked about: none of it may move because somebody changed a description.
"""

from collections.abc import Iterator
from copy import deepcopy
from typing import Final

from lxml.etree import QName, SubElement, _Element, indent, tostring

from corral.hypervisor.libvirt import devices, knobs, owned, reading, screen
from corral.hypervisor.libvirt.metadata import NAMESPACE, hardware_mark

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
    _set_vcpus(_child(domain, "vcpu"), _child(new, "vcpu"))
    _child(_child(domain, "cputune"), "shares").text = new.findtext("cputune/shares")
    _redefine_boot(_child(domain, "os"), _child(new, "os"))
    _replace(domain, new, "seclabel[@model='dac']")
    _redefine_devices(_child(domain, "devices"), _child(new, "devices"))
    _turn_knobs(domain, new, old)
    _add_controllers(_child(domain, "devices"), _child(new, "devices"))
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


def _set_vcpus(current: _Element, new: _Element) -> None:
    """The numbers; which processors they may run on is another knob."""
    current.text = new.text
    if current.get("current") is not None:
        del current.attrib["current"]
    if new.get("current") is not None:
        current.set("current", new.get("current") or "")


# ---- knobs ---------------------------------------------------------------------------------------------------------


def _turn_knobs(domain: _Element, new: _Element, old: _Element) -> None:
    """Those that are turned now or were before, where the document says otherwise. The others are nobody's wish."""
    names = {*knobs.parse_mark(hardware_mark(old)).knobs, *knobs.parse_mark(hardware_mark(new)).knobs}
    for knob in knobs.KNOBS:
        if knob.name in names and knob.read(domain) != knob.read(new):
            _turn(domain, new, knob)


def _turn(domain: _Element, new: _Element, knob: knobs.Knob) -> None:
    """An element that says the same stays, with its place on the bus; so does the place of a changed namesake."""
    before = {_alias(element) or str(index): element for index, element in enumerate(knob.elements(domain))}
    above = domain
    for element in before.values():
        parent = element.getparent()
        if parent is not None:
            parent.remove(element)
    for tag in (tag for tag in _parents(knob) if tag):
        above = _child(above, tag)
    for index, element in enumerate(knob.elements(new)):
        placed = _at_address_of(before.get(_alias(element) or str(index)), element)
        uuid = domain.find("uuid")
        if placed.tag == "genid" and uuid is not None:
            uuid.addnext(placed)  # libvirt's schema wants the two side by side
        else:
            above.append(placed)
    if above is not domain and not len(above) and not above.attrib:
        domain.remove(above)


def _parents(knob: knobs.Knob) -> tuple[str, ...]:
    """`numatune/memnode` stands in `numatune`, whose presence is no fact of its own."""
    return (knob.parent, knob.path.rpartition("/")[0] if "[" not in knob.path else "")


def _alias(element: _Element) -> str:
    return reading.attribute(element, "alias", "name")


# ---- devices -------------------------------------------------------------------------------------------------------


def _redefine_devices(current: _Element, new: _Element) -> None:
    _redefine_disks(current, new)
    _redefine_seed(current, new)
    _redefine_cards(current, new)
    _redefine_boot_order(current, new)
    _redefine_channel(current, new)
    _redefine_screen(current, new)
    log, wanted_log = current.find("serial/log"), new.find("serial/log")
    if log is not None and wanted_log is not None:
        log.set("file", wanted_log.get("file") or "")


def _redefine_disks(current: _Element, new: _Element) -> None:
    """One that is as it should be stays with all that was tuned about it; a changed one keeps its place on the bus."""
    before = {_disk_place(element): element for element in owned.own_disks(current)}
    for element in before.values():
        current.remove(element)
    for element in owned.own_disks(new):
        known = before.get(_disk_place(element))
        same = known is not None and owned.owned_disk(known) == owned.owned_disk(element)
        if known is not None and same and _alias(known) == _alias(element):
            _replace(known, element, "backingStore")
            current.append(known)
        else:
            current.append(_at_address_of(known, element))


def _disk_place(element: _Element) -> str:
    """A disk that moves to another bus cannot keep its address there."""
    disk = owned.owned_disk(element)
    return f"{disk.target}/{disk.bus}"


def _redefine_seed(current: _Element, new: _Element) -> None:
    wanted = next(filter(reading.is_seed, new.iterfind("disk")), None)
    known = next(filter(reading.is_seed, current.iterfind("disk")), None)
    if known is not None:
        current.remove(known)
    if wanted is not None:
        same = known is not None and reading.source(known) == reading.source(wanted)
        current.append(known if known is not None and same else _at_address_of(known, wanted))


def _redefine_cards(current: _Element, new: _Element) -> None:
    before = {owned.owned_nic(element).mac: element for element in current.iterfind("interface")}
    for element in before.values():
        current.remove(element)
    for element in new.iterfind("interface"):
        known = before.get(owned.owned_nic(element).mac)
        same = known is not None and owned.owned_nic(known) == owned.owned_nic(element)
        if known is not None and same and _alias(known) == _alias(element) and _has_port_of(known, element):
            current.append(known)
        else:
            current.append(_at_address_of(known, element))


def _has_port_of(known: _Element, wanted: _Element) -> bool:
    """A card of an older version's has no port that the firewall knows; that is no drift, and is made good by the way."""
    names = (("target", "dev"), ("port", "isolated"))
    return all(reading.attribute(known, *name) == wish for name in names if (wish := reading.attribute(wanted, *name)))


def _redefine_boot_order(current: _Element, new: _Element) -> None:
    """As `new` numbers them; a device of somebody else's that has one of these numbers loses it."""
    wanted = {_boot_key(element): element.find("boot") for element in _bootable(new)}
    numbers = {boot.get("order") for boot in wanted.values() if boot is not None}
    mine = set(_bootable(current))  # held: an element that nobody holds is another object the next time
    for element in current:
        boot = element.find("boot")
        if boot is not None and (element in mine or boot.get("order") in numbers):
            element.remove(boot)
    for element in _bootable(current):
        boot = wanted.get(_boot_key(element))
        if boot is not None:
            element.append(deepcopy(boot))


def _bootable(found: _Element) -> Iterator[_Element]:
    yield from owned.own_disks(found)
    yield from found.iterfind("interface")


def _boot_key(element: _Element) -> str:
    return owned.owned_nic(element).mac if element.tag == "interface" else reading.target(element)


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
    """Where only the socket's place changed, the video card and the pointer stay as they are."""
    if _screens(current) == _screens(new):
        _replace(current, new, "graphics")
        return
    for tag in _SCREEN:
        _replace(current, new, tag)
    path = f"channel/target[@name='{screen.SPICE_CHANNEL}']/.."
    for element in current.findall(path):
        current.remove(element)
    current.extend(deepcopy(element) for element in new.findall(path))


def _screens(found: _Element) -> list[tuple[str, str]]:
    return sorted(reading.graphics(element) for element in found.iterfind("graphics"))


def _add_controllers(current: _Element, new: _Element) -> None:
    """Those that are there stay, with their numbers: addresses count on them."""
    if new.find("controller[@type='scsi']") is not None and current.find("controller[@type='scsi']") is None:
        current.append(deepcopy(_child(new, "controller[@type='scsi']")))
    port = "controller[@model='pcie-root-port']"
    missing = new.findall(port)[len(current.findall(port)) :]
    current.extend(deepcopy(element) for element in missing)


def with_boot_device(document: _Element, name: str) -> str:
    """The document of one start that tries the disk, drive or card `name` first, then all others as before."""
    domain = deepcopy(document)
    os_element = _child(domain, "os")
    for tag in ("kernel", "initrd", "cmdline"):
        for element in os_element.findall(tag):
            os_element.remove(element)
    found = [device for tag in ("disk", "interface") for device in domain.iterfind(f"devices/{tag}")]
    before = sorted(
        (device for device in found if device.find("boot") is not None),
        key=lambda device: int(reading.attribute(device, "boot", "order")),
    )
    chosen = [
        device
        for device in found
        if reading.attribute(device, "alias", "name") in (f"ua-disk-{name}", f"ua-nic-{name}")
    ]
    for number, element in enumerate([*chosen, *(device for device in before if device not in chosen)], start=1):
        for old in element.findall("boot"):
            element.remove(old)
        SubElement(element, "boot", order=str(number))
    return tostring(domain, encoding="unicode")
