"""The documents in a fork's life: of the passing guest that is frozen, of the fork's first run, of all its later ones.

The first run maps the template's memory by QEMU options that libvirt has no words for. The id of the memory is part of
QEMU's stream, so guests that were forked keep it as long as their memory lives; their next start from disk is ordinary.
"""

from copy import deepcopy
from typing import Final

from lxml.etree import Element, QName, SubElement, _Element, tostring

from corral.errors import CorralError
from corral.hypervisor.base import DomainDefinition, DomainDisk
from corral.hypervisor.libvirt import devices, disks, processor, reading
from corral.hypervisor.libvirt.document import Host, build_domain
from corral.hypervisor.libvirt.metadata import parse_document, xml_text
from corral.hypervisor.libvirt.redefinition import redefine
from corral.names import new_uid

QEMU: Final = "http://libvirt.org/schemas/domain/qemu/1.0"
FORK_NAMESPACE: Final = "urn:corral:fork:1"
FORK_PREFIX: Final = "corral-fork"
MEMORY_ID: Final = "corral0"
"""Of the memory in QEMU's command line and stream. libvirt's own is `pc.ram`, and there can be no second one of that name."""
TRANSLATIONS_MIB: Final = 48
"""Emulated, a fork translates 80 MiB until its address answers, and half as much again by and by, most of it for once. With 32 it
translates the same things over and over; with 48 it takes a second of its processor more and keeps half."""
_COMMAND_LINE: Final = f"{{{QEMU}}}commandline"
_ARGUMENT: Final = f"{{{QEMU}}}arg"
# What a guest has of the host or of another kind of memory: it cannot be in two guests, or not be shared privately.
_FOREIGN: Final = {
    "devices/hostdev": "a device of the host's",
    "devices/filesystem": "a shared folder",
    "devices/tpm": "a TPM",
    "cpu/numa": "NUMA cells or pluggable memory",
    "memoryBacking/hugepages": "huge pages",
    "memoryBacking/locked": "locked memory",
}


def maker_document(saved: str, uid: str, own: tuple[DomainDisk, ...], run_dir: str, log: str, nvram: str) -> str:
    """The saved guest once more, under another UUID: it writes disks of its own, is in no network, and its memory is a
    file that can be read from outside. Raises `unsupported` for what cannot be frozen."""
    domain = parse_document(saved)
    _refuse_foreign(domain)
    _name(domain, maker_name(uid), uid)
    for tag in ("metadata", "description", "resource"):
        _remove(domain, tag)
    _set_memory(domain)
    _set_disks(domain, own, "")
    for card in domain.findall("devices/interface"):
        _cut_off(card)
    _move(domain, run_dir, log, nvram)
    return tostring(domain, encoding="unicode")


def maker_name(uid: str) -> str:
    return f"corral-template-{uid[:8]}"


def _refuse_foreign(domain: _Element) -> None:
    found = [words for path, words in _FOREIGN.items() if domain.find(path) is not None]
    if found:
        raise CorralError("unsupported", "freeze a guest with its memory", f"it has {', '.join(found)}")


def _set_memory(domain: _Element) -> None:
    """A guest that was forked itself has our own id in its stream, every other one libvirt's."""
    _remove(domain, "memoryBacking")
    if memory_id(domain) == MEMORY_ID:
        size = reading.memory_mib(domain, "memory") << 20
        _pass_through(domain, f"memory-backend-memfd,id={MEMORY_ID},share=on,size={size}")
        return
    backing = Element("memoryBacking")
    SubElement(backing, "source", type="memfd")
    SubElement(backing, "access", mode="shared")
    anchor = domain.find("currentMemory")
    assert anchor is not None  # libvirt always writes it
    anchor.addnext(backing)


def memory_id(domain: _Element) -> str:
    """What QEMU's stream calls this guest's memory."""
    words = [argument.get("value") or "" for argument in domain.iterfind(f"{_COMMAND_LINE}/{_ARGUMENT}")]
    return MEMORY_ID if f"memory-backend={MEMORY_ID}" in words else "pc.ram"


def _cut_off(card: _Element) -> None:
    """A tap that is on no bridge."""
    for tag in ("source", "target", "link", "filterref", "bandwidth", "virtualport", "backend", "vlan", "port"):
        _remove(card, tag)
    card.set("type", "ethernet")


def template_document(domain: _Element) -> str:
    """Of the passing guest as it was frozen: what forks are built from. Without what it had to let go of."""
    for tag in ("interface", "memballoon"):
        _remove(domain, f"devices/{tag}")
    return tostring(domain, encoding="unicode")


def fork_document(template: _Element, definition: DomainDefinition, host: Host, memory: str, size_bytes: int) -> str:
    """The fork's first run: the template's machine, device by device at the same place, with its own name and files."""
    domain = deepcopy(template)
    own = build_domain(definition, host)
    _name(domain, definition.name, definition.uid)
    for tag in ("metadata", "description", "resource", "memoryBacking", "cputune", "cpu", "seclabel[@model='dac']"):
        _remove(domain, tag)
    # The processor by its name, as for every start: under the same key (forks.py) libvirt makes the same one of it.
    for tag in ("metadata", "cpu", "seclabel[@model='dac']"):
        domain.extend(deepcopy(element) for element in own.findall(tag))
    mark = domain.find("metadata")
    assert mark is not None
    SubElement(mark, QName(FORK_NAMESPACE, "fork"), nsmap={FORK_PREFIX: FORK_NAMESPACE})
    if definition.description:
        SubElement(domain, "description").text = xml_text(definition.description)
    domain.append(processor.build_tuning(definition))
    _bound_translations(domain)
    genid = domain.find("genid")
    if genid is not None:
        genid.text = new_uid()
    _set_disks(domain, definition.disks, definition.seed_path or "")
    _move(domain, definition.run_dir, definition.console_log, host.nvram(definition.uid, secure=_is_secure(domain)))
    SubElement(_devices(domain), "memballoon", model="none")
    _pass_through(
        domain,
        f"memory-backend-file,id={MEMORY_ID},mem-path={memory},share=off,size={size_bytes}",
        "-incoming",
        "defer",
    )
    return tostring(domain, encoding="unicode")


def _bound_translations(domain: _Element) -> None:
    """Under emulation QEMU keeps all the code that it has translated, up to a gigabyte for each guest; a fork that does
    little runs little of it again."""
    features = domain.find("features")
    if domain.get("type") == "qemu" and features is not None:
        _remove(features, "tcg")
        SubElement(SubElement(features, "tcg"), "tb-cache", unit="MiB").text = str(TRANSLATIONS_MIB)


def build_cards(definition: DomainDefinition, places: _Element) -> tuple[_Element, ...]:
    """To be plugged into the fork, cables out: each where the template's guest had its card of this name, so that
    the guest calls it the same."""
    built = []
    for nic in definition.nics:
        card = devices.build_nic(nic, None)
        _unplug_cable(card)
        place = places.find(f"card[@name='{devices.NIC_ALIAS}{nic.name}']/address")
        if place is not None:
            card.append(deepcopy(place))
        built.append(card)
    return tuple(built)


def card_places(domain: _Element) -> _Element:
    """Where a guest's cards sit."""
    places = Element("cards")
    for card in domain.iterfind("devices/interface"):
        found = SubElement(places, "card", name=reading.attribute(card, "alias", "name"))
        found.extend(deepcopy(element) for element in card.findall("address"))
    return places


def _unplug_cable(card: _Element) -> None:
    _remove(card, "link")
    SubElement(card, "link", state="down")


def with_cables(domain: _Element, definition_links: frozenset[str]) -> tuple[str, ...]:
    """The running fork's cards whose cables belong in."""
    cards = []
    for card in domain.iterfind("devices/interface"):
        if reading.attribute(card, "alias", "name") in definition_links:
            plugged = deepcopy(card)
            _remove(plugged, "link")
            SubElement(plugged, "link", state="up")
            cards.append(tostring(plugged, encoding="unicode"))
    return tuple(cards)


def lasting_document(live: _Element, definition: DomainDefinition, host: Host, cards: tuple[_Element, ...] = ()) -> str:
    """Of the fork's later starts: the same machine from its own disks, with memory like everybody's and a balloon, and
    with the cards that it gets in a moment where it gets them."""
    domain = deepcopy(live)
    _devices(domain).extend(deepcopy(card) for card in cards)
    _remove(domain, _COMMAND_LINE)
    _remove(domain, f"metadata/{{{FORK_NAMESPACE}}}fork")
    _remove(domain, "devices/memballoon")
    _remove(domain, "features/tcg")
    _devices(domain).append(devices.build_balloon())
    _remove(domain, "cpu")
    own = build_domain(definition, host)
    domain.extend(deepcopy(element) for element in own.findall("cpu"))
    return redefine(own, domain)


def is_introduced(live: _Element) -> bool:
    """False: it was forked, and does not know yet who it is."""
    return live.find(f"metadata/{{{FORK_NAMESPACE}}}fork") is None


def restorable(document: str) -> str:
    """For a guest whose memory was saved: what its first run mapped is in the file now. Others' documents stay."""
    domain = parse_document(document)
    if memory_id(domain) != MEMORY_ID:
        return document
    size = reading.memory_mib(domain, "memory") << 20
    _pass_through(domain, f"memory-backend-ram,id={MEMORY_ID},size={size}")
    return tostring(domain, encoding="unicode")


# ---- parts ---------------------------------------------------------------------------------------------------------


def _pass_through(domain: _Element, memory: str, *more: str) -> None:
    _remove(domain, _COMMAND_LINE)
    line = SubElement(domain, _COMMAND_LINE, nsmap={"qemu": QEMU})
    for word in ("-object", memory, "-machine", f"memory-backend={MEMORY_ID}", *more):
        SubElement(line, _ARGUMENT, value=word)


def _name(domain: _Element, name: str, uid: str) -> None:
    for tag, text in (("name", name), ("uuid", uid)):
        element = domain.find(tag)
        assert element is not None
        element.text = text
    _forget(domain, "id")


def _set_disks(domain: _Element, own: tuple[DomainDisk, ...], seed: str) -> None:
    """Each disk of a name in `own` is that one's file; the others (media) stay. Their places on the bus stay too."""
    wanted = {f"{disks.DISK_ALIAS}{disk.name}": disk for disk in own}
    for element in domain.iterfind("devices/disk"):
        source = element.find("source")
        if source is None:
            continue
        _forget(source, "index")
        if reading.is_seed(element) and seed:
            source.set("file", seed)
        disk = wanted.get(reading.attribute(element, "alias", "name"))
        if disk is None:
            continue
        built = disks.build_disk(disk, reading.target(element), None, relabelled=False)
        for tag in ("source", "driver", "backingStore"):
            _remove(element, tag)
            element.extend(deepcopy(found) for found in built.findall(tag))


def _move(domain: _Element, run_dir: str, log: str, nvram: str) -> None:
    """Sockets, the console's log and the UEFI variables; pseudo-terminals are the host's to choose."""
    old = reading.run_dir_of(domain)
    for element in _devices(domain).iter():
        for key, value in element.attrib.items():
            if old and str(value).startswith(f"{old}/"):
                element.set(key, f"{run_dir}{str(value)[len(old) :]}")
    for element in domain.iterfind("devices/*/log"):
        element.set("file", log)
    for tag in ("serial", "console"):
        for element in domain.iterfind(f"devices/{tag}[@type='pty']"):
            _remove(element, "source")
            _forget(element, "tty")
    variables = domain.find("os/nvram")
    if variables is not None:
        variables.text = nvram


def _is_secure(domain: _Element) -> bool:
    return reading.attribute(domain, "os/loader", "secure") == "yes"


def _devices(domain: _Element) -> _Element:
    found = domain.find("devices")
    assert found is not None
    return found


def _forget(element: _Element, name: str) -> None:
    if name in element.attrib:
        del element.attrib[name]


def _remove(parent: _Element, path: str) -> None:
    for element in parent.findall(path):
        above = element.getparent()
        if above is not None:
            above.remove(element)
