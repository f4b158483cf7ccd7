"""What a running domain does not have yet of its persistent document: what only its next start brings.

The live document is read as for a migration (`VIR_DOMAIN_XML_MIGRATABLE`): libvirt then prints what it was started with,
in the words of the persistent one, without what it found out since.
"""

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from copy import deepcopy
from typing import Final

from lxml.etree import _Element, tostring

from corral.hypervisor.libvirt.reading import attribute, memory_mib

# Devices that have a name of ours (`ua-disk-root`), each compared with its namesake.
NAMED_DEVICES: Final = ("disk", "interface", "hostdev", "filesystem")

# What of the domain is compared as a whole, and what people call it.
_PARTS: Final = {
    "os": "firmware and boot",
    "features": "features",
    "clock": "the clock",
    "memoryBacking": "memory backing",
    "maxMemory": "the memory's ceiling",
    "numatune": "NUMA placement",
    "iothreads": "I/O threads",
}
_DEVICES: Final = {
    "tpm": "the TPM",
    "watchdog": "the watchdog",
    "rng": "the random number generator",
    "panic": "the panic device",
    "sound": "sound",
    "video": "video",
    "graphics": "graphics",
    "input[@type='tablet']": "the tablet",
    "controller[@type='usb']": "the USB controller",
    "controller[@type='scsi']": "the SCSI controller",
}
# What libvirt adds to a running device, or moves on its own: nobody's wish.
# A device's number in the boot order changes when another one goes; what counts is the order (`_boot_order`).
_RUNTIME_CHILDREN: Final = ("address", "backingStore", "alias", "label", "seclabel", "boot")
_RUNTIME_ATTRIBUTES: Final = {
    "source": ("index", "portid", "bridge", "startupPolicy"),
    "cell": ("memory", "unit"),  # as the whole memory, which is compared on its own
    "graphics": ("port", "tlsPort", "autoport", "socket"),
}
_STARTED_WITH: Final = "it keeps what it was started with"
_MISSING: Final = "it is not there yet"


def pending(live: _Element, wanted: _Element, reasons: Mapping[str, str]) -> tuple[str, ...]:
    """A sentence for each difference. `reasons` says, by name, why an attempt to change it live failed."""
    return tuple(f"{name}: {reasons.get(name, why)}" for name, why in _differences(live, wanted))


def settled(live: _Element, wanted: _Element, done: Container[str]) -> bool:
    """Whether what was `done`, by name, was all that differed: devices that were missing and are plugged in now."""
    return all(why == _MISSING and name in done for name, why in _differences(live, wanted))


def _differences(live: _Element, wanted: _Element) -> Iterator[tuple[str, str]]:
    yield from _processors(live, wanted)
    if memory_mib(live, "memory") < memory_mib(wanted, "memory"):
        yield "memory", f"it can have at most {memory_mib(live, 'memory')} MiB until then"
    if _cpu(live, wanted) != _cpu(wanted, wanted):
        yield "the CPU model", _STARTED_WITH
    # libvirt gives a guest that goes on from saved memory a new id: that is what the id is for.
    if (live.find("genid") is None) != (wanted.find("genid") is None):
        yield "the generation id", _STARTED_WITH
    for path, name in _PARTS.items():
        if not same(live.find(path), wanted.find(path)):
            yield name, _STARTED_WITH
    for path, name in _DEVICES.items():
        if not _all_same(live.findall(f"devices/{path}"), wanted.findall(f"devices/{path}")):
            yield name, _STARTED_WITH
    if len(live.findall("devices/serial")) != len(wanted.findall("devices/serial")):
        yield "serial ports", _STARTED_WITH
    if _boot_order(live, wanted) != _boot_order(wanted, live):
        yield "the boot order", _STARTED_WITH
    for tag in NAMED_DEVICES:
        yield from _devices(named(live, tag), named(wanted, tag))


def _cpu(domain: _Element, wanted: _Element) -> str:
    """Without the features that libvirt turned off at the start because the host or QEMU lacks them (`monitor` of an
    EPYC under emulation)."""
    asked = {feature.get("name") for feature in wanted.iterfind("cpu/feature")}

    def turned_off(child: _Element) -> bool:
        return child.tag == "feature" and child.get("policy") == "disable" and child.get("name") not in asked

    return plain(domain.find("cpu"), without=turned_off)


def _boot_order(domain: _Element, other: _Element) -> list[str]:
    """The devices that both documents boot from, by name, in the order of the first."""
    there = {
        alias for tag in NAMED_DEVICES for alias, device in named(other, tag).items() if device.find("boot") is not None
    }
    numbers = [
        (int(attribute(device, "boot", "order")), alias)
        for tag in NAMED_DEVICES
        for alias, device in named(domain, tag).items()
        if device.find("boot") is not None and alias in there
    ]
    return [alias for _, alias in sorted(numbers)]


def _processors(live: _Element, wanted: _Element) -> Iterator[tuple[str, str]]:
    maximum = live.findtext("vcpu")
    if maximum != wanted.findtext("vcpu"):
        yield "vcpus", f"it can have at most {maximum} until then"
    elif vcpus(live) != vcpus(wanted):
        yield "vcpus", f"it has {vcpus(live)}"


def _devices(live: Mapping[str, _Element], wanted: Mapping[str, _Element]) -> Iterator[tuple[str, str]]:
    for alias in sorted(live.keys() | wanted.keys()):
        if alias not in wanted:
            yield people_call(alias), "it is still there"
        elif alias not in live:
            yield people_call(alias), _MISSING
        elif not same(live[alias], wanted[alias]):
            yield people_call(alias), _STARTED_WITH


def people_call(alias: str) -> str:
    """`ua-disk-data` as `disk data`."""
    return " ".join(alias.removeprefix("ua-").split("-", 1))


def vcpus(domain: _Element) -> int:
    """How many of its vCPUs are plugged in."""
    element = domain.find("vcpu")
    return 1 if element is None else int(element.get("current") or element.text or 1)


def named(domain: _Element, tag: str) -> dict[str, _Element]:
    """The devices of one kind that bear a name of ours."""
    found = ((attribute(element, "alias", "name"), element) for element in domain.iterfind(f"devices/{tag}"))
    return {alias: element for alias, element in found if alias.startswith("ua-")}


def _all_same(some: Sequence[_Element], others: Sequence[_Element]) -> bool:
    if len(some) != len(others):
        return False
    return all(map(same, some, others)) or sorted(map(plain, some)) == sorted(map(plain, others))


def same(one: _Element | None, other: _Element | None) -> bool:
    """Whether two documents agree upon an element; most are the same to the letter, which is told at once."""
    if one is None or other is None:
        return plain(one) == plain(other)
    return tostring(one, with_tail=False) == tostring(other, with_tail=False) or plain(one) == plain(other)


def plain(element: _Element | None, *, without: Callable[[_Element], bool] = lambda _: False) -> str:
    """An element as text that two documents agree upon; children that `without` names are left out."""
    if element is None:
        return ""
    copy = deepcopy(element)
    copy.tail = None
    for child in list(copy):
        if child.tag in _RUNTIME_CHILDREN or without(child) or _is_default(copy, child):
            copy.remove(child)
    for found in copy.iter():
        for name in _RUNTIME_ATTRIBUTES.get(str(found.tag), ()):
            if name in found.attrib:
                del found.attrib[name]
        found.text = (found.text or "").strip() or None
        found.tail = None
    return bytes(tostring(copy, method="c14n")).decode()


def _is_default(parent: _Element, child: _Element) -> bool:
    """What one of the two documents spells out and the other leaves unsaid."""
    if parent.tag == "interface":
        return child.tag == "target" or (child.tag == "link" and child.get("state") == "up")
    if parent.tag == "features":  # a fork's first run is bounded in what it translates
        return child.tag == "tcg"
    return parent.tag == "graphics" and child.tag == "listen" and child.get("type") == "socket"


class Left:
    """What each running domain waits for its next start with: found once, kept until something happens to it."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[str, ...]] = {}
        self._reasons: dict[str, Mapping[str, str]] = {}
        self._heard: dict[str, int] = {}
        """How much has happened to each: what was read before the newest of it is not kept."""

    def heard(self, uid: str, kind: str) -> None:
        """An event: a start brings everything, a new definition may bring something, a device that is gone is missed."""
        self._heard[uid] = self._heard.get(uid, 0) + 1
        if kind == "started":
            self._found[uid] = ()
            self._reasons.pop(uid, None)
        elif kind in ("stopped", "crashed", "undefined"):
            self._found.pop(uid, None)
            self._reasons.pop(uid, None)
        elif kind in ("defined", "unplugged"):
            self._found.pop(uid, None)
        if kind == "undefined":
            self._heard.pop(uid, None)

    def tried(self, uid: str, reasons: Mapping[str, str], *, settled: bool) -> None:
        """What was tried to change while it runs, and why that failed; `settled`: nothing is left."""
        self._reasons[uid] = reasons
        self._heard[uid] = self._heard.get(uid, 0) + 1
        if settled:
            self._found[uid] = ()
        else:
            self._found.pop(uid, None)

    def of(self, uid: str, live: Callable[[], _Element], wanted: Callable[[], _Element]) -> tuple[str, ...]:
        """Of a running domain; `live` reads its document, which takes a call to libvirt, `wanted` that of its next start."""
        found, heard = self._found.get(uid), self._heard.get(uid, 0)
        if found is None:
            found = pending(live(), wanted(), self._reasons.get(uid, {}))
            if self._heard.get(uid, 0) == heard:
                self._found[uid] = found
        return found
