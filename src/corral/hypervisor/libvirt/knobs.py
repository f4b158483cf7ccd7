"""The knobs of the hardware in a domain's document: where each one stands, and what of it counts.

A knob is *turned* where the wish differs from a plain VM's. The names of the turned ones are kept in Corral's mark in the
domain's metadata, so that the document alone tells what is ours: what is turned is compared and put right, what a person
tuned by hand and nobody wished otherwise is left alone.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Final

from lxml.etree import _Element

from corral.hypervisor.base import DomainDefinition
from corral.model.hardware import PLAIN, HardwareSpec, Share
from corral.names import format_numbers, parse_numbers

# Units that libvirt may print in a document of its own, as bytes.
_MEMORY_UNITS: Final = {
    "b": 1, "bytes": 1, "KB": 1000, "KiB": 2**10, "MB": 10**6, "MiB": 2**20, "GB": 10**9, "GiB": 2**30, "TiB": 2**40,
}  # fmt: skip
_CPU_SETS: Final = frozenset({"cpus", "cpuset", "nodeset"})
_NESTED: Final = frozenset({"vmx", "svm"})

Facts = tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Knob:
    """`fields` of HardwareSpec turn it; `path` from `parent` finds its elements. `facts` are what counts of each: `@a`
    an attribute, `b` a child's text, `b@a` a child's attribute, `.` the element's own text; empty: that it is there."""

    name: str
    fields: tuple[str, ...]
    parent: str
    path: str
    facts: tuple[str, ...] = ()
    special: Callable[[_Element], tuple[str, ...]] | None = None

    def elements(self, domain: _Element) -> list[_Element]:
        above = domain if not self.parent else domain.find(self.parent)
        found = above.xpath(self.path) if above is not None else []
        return [element for element in found if isinstance(element, _Element)] if isinstance(found, list) else []

    def read(self, domain: _Element) -> Facts:
        return tuple(sorted(self._of(element) for element in self.elements(domain)))

    def _of(self, element: _Element) -> tuple[str, ...]:
        special = self.special(element) if self.special is not None else ()
        return (element.tag, *(_fact(element, fact) for fact in self.facts), *special)


def _fact(element: _Element, fact: str) -> str:
    child, _, attribute = fact.partition("@")
    found = element if child in ("", ".") else element.find(child)
    if found is None:
        return ""
    if not attribute:
        return found.text or ""
    text = found.get(attribute) or ""
    return format_numbers(parse_numbers(text)) if attribute in _CPU_SETS and text else text


# ---- what a list of attributes cannot say --------------------------------------------------------------------------


def mib(text: str | None, unit: str | None) -> int:
    """A size as libvirt writes it."""
    return int(text or 0) * _MEMORY_UNITS[unit or "KiB"] // 2**20


def _cpu(element: _Element) -> tuple[str, ...]:
    features = {
        "nested" if feature.get("name") in _NESTED and policy == "require" else f"{policy} {feature.get('name')}"
        for feature in element.iterfind("feature")
        if (policy := feature.get("policy"))
    }
    cells = (
        f"cell {_fact(cell, '@cpus')} {mib(cell.get('memory'), cell.get('unit'))}"
        for cell in element.iterfind("numa/cell")
    )
    return (*sorted(features), *cells)


def _size(element: _Element) -> tuple[str, ...]:
    return (str(mib(element.text, element.get("unit"))),)


def _backing(element: _Element) -> tuple[str, ...]:
    page = element.find("hugepages/page")
    size = "" if page is None else str(int(page.get("size") or 0) * _MEMORY_UNITS[page.get("unit") or "KiB"])
    return size, "locked" if element.find("locked") is not None else ""


def _switches(element: _Element) -> tuple[str, ...]:
    return tuple(sorted(child.tag for child in element if child.get("state") == "on"))


def _clock(element: _Element) -> tuple[str, ...]:
    return tuple(timer.get("name") or "" for timer in element.iterfind("timer[@present='yes']"))


def _host_device(element: _Element) -> tuple[str, ...]:
    """Also when a live document says which of several like devices it was."""
    address = element.find("source/address")
    parts = ("domain", "bus", "slot", "function") if element.get("type") == "pci" and address is not None else ()
    return (
        *(_fact(element, f"source/address@{part}") for part in parts),
        _fact(element, "source/vendor@id"),
        _fact(element, "source/product@id"),
    )


def _ours(tag: str, alias: str) -> str:
    return f"{tag}[starts-with(alias/@name, '{alias}')]"


KNOBS: Final = (
    Knob(
        "cpu",
        ("cpu.model", "cpu.features", "cpu.topology", "cpu.nested", "memory.numa", "memory.max_mib"),
        "",
        "cpu",
        ("@mode", "model", "topology@sockets", "topology@cores", "topology@threads"),
        _cpu,
    ),
    Knob("pins", ("cpu.pins",), "cputune", "vcpupin", ("@vcpu", "@cpuset")),
    Knob("emulator-pin", ("cpu.emulator_cpus",), "cputune", "emulatorpin", ("@cpuset",)),
    Knob("quota", ("cpu.quota_percent",), "cputune", "global_period|global_quota", (".",)),
    Knob("memory-max", ("memory.max_mib",), "", "maxMemory", ("@slots",), _size),
    Knob(
        "memory-backing",
        ("memory.huge_pages", "memory.locked", "shares"),
        "",
        "memoryBacking",
        ("source@type", "access@mode"),
        _backing,
    ),
    Knob("host-nodes", ("memory.numa",), "", "numatune/memnode", ("@cellid", "@mode", "@nodeset")),
    Knob("secure-boot", ("secure_boot",), "os", "loader", ("@secure",)),
    Knob("smm", ("secure_boot",), "features", "smm", ("@state",)),
    Knob("hyperv", ("hyperv",), "features", "hyperv", ("spinlocks@retries",), _switches),
    Knob("clock", ("clock", "hyperv"), "", "clock", ("@offset",), _clock),
    Knob("vmgenid", ("vmgenid",), "", "genid"),
    Knob("io-threads", ("io_threads",), "", "iothreads", (".",)),
    Knob("boot-menu", ("boot_menu",), "os", "bootmenu", ("@enable",)),
    Knob("tpm", ("tpm",), "devices", "tpm", ("@model",)),
    Knob("watchdog", ("watchdog",), "devices", "watchdog", ("@model", "@action")),
    Knob("rng", ("rng",), "devices", "rng", ("@model",)),
    Knob("panic", ("panic",), "devices", "panic", ("@model",)),
    Knob("video", ("video",), "devices", "video", ("model@type",)),
    Knob("sound", ("sound",), "devices", "sound", ("@model",)),
    Knob("usb", ("usb", "tablet", "host_devices"), "devices", "controller[@type='usb']", ("@model",)),
    Knob("tablet", ("tablet",), "devices", "input[@type='tablet']", ("@bus",)),
    Knob("serials", ("serials",), "devices", "serial[target/@port!='0']", ("target@port",)),
    Knob("shares", ("shares",), "devices", _ours("filesystem", "ua-share-"), ("target@dir", "source@dir")),
    Knob("host-devices", ("host_devices",), "devices", _ours("hostdev", "ua-hostdev-"), ("@type",), _host_device),
)
BY_NAME: Final[Mapping[str, Knob]] = {knob.name: knob for knob in KNOBS}

# Not looked for here: `boot_devices` and `kernel` are always compared (owned.py), as are the vCPUs and their maximum;
# `reserved_…` is the scheduler's and stands in no document.
ELSEWHERE: Final = frozenset({"boot_devices", "kernel", "cpu.vcpus_max", "cpu.reserved_percent", "memory.reserved_mib"})


def _value(hardware: HardwareSpec, path: str) -> object:
    value: object = hardware
    for part in path.split("."):
        value = getattr(value, part)
    return value


def turned(hardware: HardwareSpec) -> Iterator[Knob]:
    """The knobs that stand otherwise than a plain VM's."""
    if hardware == PLAIN:
        return
    for knob in KNOBS:
        if any(_value(hardware, path) != _value(PLAIN, path) for path in knob.fields):
            yield knob


# ---- the mark ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Mark:
    """What Corral's element in the metadata says of the hardware. `shares` are mounted before the guest starts."""

    knobs: tuple[str, ...] = ()
    shares: tuple[Share, ...] = ()


def build_mark(definition: DomainDefinition) -> str:
    """As text; empty for a plain VM."""
    names = tuple(knob.name for knob in turned(definition.hardware))
    if not names:
        return ""
    return mark_text(Mark(names, definition.hardware.shares))


def mark_text(mark: Mark) -> str:
    shares = [share.model_dump() for share in mark.shares]
    return json.dumps(asdict(mark) | {"shares": shares}, sort_keys=True) if mark.knobs else ""


def parse_mark(text: str) -> Mark:
    """Nothing where it is not readable: somebody edited it."""
    try:
        document = json.loads(text or "{}")
        return Mark(
            tuple(str(name) for name in document.get("knobs", ())),
            tuple(Share.model_validate(share) for share in document.get("shares", ())),
        )
    except (ValueError, AttributeError, TypeError):
        return Mark()
