"""A running domain brought to its persistent document, as far as that goes without a restart.

Level-triggered: it looks at what differs and changes that, so that it may be cut at any point and done again.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import Final

import libvirt
from lxml.etree import Element, SubElement, _Element, tostring

from corral.hypervisor.base import DomainMetadata
from corral.hypervisor.libvirt import metadata
from corral.hypervisor.libvirt.metadata import parse_document
from corral.hypervisor.libvirt.pending import named, people_call, plain, same, settled, vcpus
from corral.hypervisor.libvirt.reading import attribute, memory_mib

_LIVE: Final = libvirt.VIR_DOMAIN_AFFECT_LIVE
# A guest gives a device back when its driver let it go; one that is still booting, or has no driver, never does.
RELEASE_WAIT_S: Final = 5.0
RELEASE_LOOK_S: Final = 0.05
# Linux takes memory in blocks of this size on x86-64; a smaller module cannot be brought online.
MEMORY_BLOCK_MIB: Final = 128
_PERIOD_AND_QUOTA: Final = ("global_period", "global_quota", "period", "quota", "emulator_period", "emulator_quota")
_SCHEDULER: Final = {
    "shares": "cpu_shares",
    "period": "vcpu_period",
    "quota": "vcpu_quota",
    **{name: name for name in _PERIOD_AND_QUOTA if "_" in name},
}
_IO_LIMITS: Final = ("total_iops_sec", "total_bytes_sec")
# What says that a change is refused by QEMU, the guest or the machine, not that libvirt cannot be reached.
_REFUSED: Final = frozenset(
    {
        libvirt.VIR_ERR_INTERNAL_ERROR,
        libvirt.VIR_ERR_INVALID_ARG,
        libvirt.VIR_ERR_CONFIG_UNSUPPORTED,
        libvirt.VIR_ERR_OPERATION_FAILED,
        libvirt.VIR_ERR_OPERATION_UNSUPPORTED,
        libvirt.VIR_ERR_OPERATION_TIMEOUT,
        libvirt.VIR_ERR_XML_ERROR,
        libvirt.VIR_ERR_ARGUMENT_UNSUPPORTED,
        libvirt.VIR_ERR_DEVICE_MISSING,
        libvirt.VIR_ERR_AGENT_UNRESPONSIVE,
    }
)

Change = tuple[str, Callable[[], object]]


@dataclass(frozen=True)
class Applied:
    """Why changes were refused, by name, and whether nothing at all is left to change. `document` is the persistent one
    that it was brought to; empty where it is off."""

    reasons: Mapping[str, str]
    settled: bool
    document: str = ""


def apply_live(domain: libvirt.virDomain, mark: DomainMetadata) -> Applied:
    """Change what can be changed. Nothing happens to a domain that is off.

    `mark` is written last: it says that the running domain was brought to this spec. Cut before, it is done again."""
    if not domain.isActive():
        return Applied({}, settled=False)
    document = str(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))
    live, wanted = live_document(domain), parse_document(document)
    reasons: dict[str, str] = {}
    done: set[str] = set()
    for name, change in _changes(domain, live, wanted):
        try:
            change()
            done.add(name)
        except libvirt.libvirtError as error:
            if error.get_error_code() not in _REFUSED:
                raise
            reasons[name] = error.get_error_message() or str(error)
    if metadata.parse_metadata(live, mark.vm_uid) != mark:
        text = metadata.metadata_text(mark, metadata.hardware_mark(wanted))
        kind = libvirt.VIR_DOMAIN_METADATA_ELEMENT
        domain.setMetadata(kind, text, metadata.PREFIX, metadata.NAMESPACE, _LIVE)
    return Applied(reasons, not reasons and settled(live, wanted, done), document)


def grow_disk(domain: libvirt.virDomain, name: str, size_bytes: int) -> bool:
    """The guest hears of it at once. False where QEMU has no such disk open: it went off, or never got it."""
    disk = named(live_document(domain), "disk").get(f"ua-disk-{name}")
    if disk is None or not domain.isActive():
        return False
    target = attribute(disk, "target", "dev")
    domain.blockResize(target, size_bytes, libvirt.VIR_DOMAIN_BLOCK_RESIZE_BYTES)
    return True


def live_document(domain: libvirt.virDomain) -> _Element:
    return parse_document(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_MIGRATABLE))


def _changes(domain: libvirt.virDomain, live: _Element, wanted: _Element) -> Iterator[Change]:
    """What differs, by the name that people know it by."""
    if vcpus(live) != vcpus(wanted) <= int(live.findtext("vcpu") or 1):
        yield "vcpus", lambda: domain.setVcpusFlags(vcpus(wanted), _LIVE)
    yield from _memory(domain, live, wanted)
    yield from _scheduling(domain, live, wanted)
    for tag in ("interface", "disk", "hostdev"):
        yield from _devices(domain, named(live, tag), named(wanted, tag))
    if live.findtext("description") != (text := wanted.findtext("description")):
        # For people, who read the running domain's (`virsh desc`): it need not wait for the next start.
        kind = libvirt.VIR_DOMAIN_METADATA_DESCRIPTION
        yield "description", lambda: domain.setMetadata(kind, text or None, None, None, _LIVE)


def _memory(domain: libvirt.virDomain, live: _Element, wanted: _Element) -> Iterator[Change]:
    """Up to what it has the balloon moves; beyond, a module is plugged in where the domain was started with slots."""
    has, goal = memory_mib(live, "memory"), memory_mib(wanted, "currentMemory")
    step = (goal - has) // MEMORY_BLOCK_MIB * MEMORY_BLOCK_MIB
    if step > 0 and live.find("maxMemory") is not None:
        yield "memory", lambda: domain.attachDeviceFlags(_memory_module(live, step), _LIVE)
        has += step
    reachable = min(goal, has)
    if reachable != memory_mib(live, "currentMemory"):
        yield "memory", lambda: domain.setMemoryFlags(reachable * 1024, _LIVE)


def _memory_module(live: _Element, size_mib: int) -> str:
    module = Element("memory", model="dimm")
    target = SubElement(module, "target")
    SubElement(target, "size", unit="MiB").text = str(size_mib)
    SubElement(target, "node").text = "0"
    SubElement(module, "alias", name=f"ua-memory-{len(live.findall('devices/memory'))}")
    return tostring(module, encoding="unicode")


def _scheduling(domain: libvirt.virDomain, live: _Element, wanted: _Element) -> Iterator[Change]:
    """Shares, quotas and pins; what is not wished any more goes back to libvirt's own default."""

    def said(document: _Element, tag: str) -> int:
        default = 0 if tag.endswith(("shares", "period")) else -1
        return int(document.findtext(f"cputune/{tag}") or default)

    values = {
        parameter: said(wanted, tag) for tag, parameter in _SCHEDULER.items() if said(live, tag) != said(wanted, tag)
    }
    values = {parameter: value for parameter, value in values.items() if value}
    if values:
        yield "CPU share and quota", lambda: domain.setSchedulerParametersFlags(values, _LIVE)
    before, after = _pins(live), _pins(wanted)
    for vcpu in sorted(before.keys() | after.keys()):
        if before.get(vcpu) != after.get(vcpu):
            yield f"pin of vCPU {vcpu}", partial(domain.pinVcpuFlags, vcpu, _cpu_map(after.get(vcpu)), _LIVE)
    emulator = attribute(wanted, "cputune/emulatorpin", "cpuset")
    if emulator != attribute(live, "cputune/emulatorpin", "cpuset"):
        yield "pin of the emulator", partial(domain.pinEmulator, _cpu_map(emulator or None), _LIVE)


def _pins(document: _Element) -> dict[int, str]:
    return {int(pin.get("vcpu") or 0): pin.get("cpuset") or "" for pin in document.iterfind("cputune/vcpupin")}


def _cpu_map(cpus: str | None) -> tuple[bool, ...]:
    """libvirt's map of host CPUs from `0-3,8`; None: all of them. libvirt reads it as long as it is."""
    if cpus is None:
        return (True,) * 1024
    chosen: set[int] = set()
    for part in cpus.split(","):
        first, _, last = part.partition("-")
        chosen.update(range(int(first), int(last or first) + 1))
    return tuple(number in chosen for number in range(max(chosen) + 1))


# ---- devices ---------------------------------------------------------------------------------------------------


def _devices(domain: libvirt.virDomain, live: dict[str, _Element], wanted: dict[str, _Element]) -> Iterator[Change]:
    for alias in live.keys() - wanted.keys():
        yield people_call(alias), partial(_detach, domain, live[alias], alias)
    for alias, element in wanted.items():
        if alias not in live:
            yield people_call(alias), partial(_attach, domain, element)
        elif not same(live[alias], element):
            yield from _device(domain, alias, live[alias], element)


def _device(domain: libvirt.virDomain, alias: str, live: _Element, wanted: _Element) -> Iterator[Change]:
    """A device that is there and differs: in place where libvirt can, unplugged and plugged in again for a card."""
    name, text = people_call(alias), tostring(_booting_as(live, wanted), encoding="unicode")
    if wanted.tag == "disk":
        if wanted.get("device") == "cdrom":
            yield name, lambda: domain.updateDeviceFlags(text, _LIVE | libvirt.VIR_DOMAIN_DEVICE_MODIFY_FORCE)
        if not same(live.find("iotune"), wanted.find("iotune")):
            limits = {limit: int(wanted.findtext(f"iotune/{limit}") or 0) for limit in _IO_LIMITS}
            target = attribute(wanted, "target", "dev")
            yield name, lambda: domain.setBlockIoTune(target, limits, _LIVE)
    elif wanted.tag == "interface" and _same_card(live, wanted):
        yield name, lambda: domain.updateDeviceFlags(text, _LIVE)
    else:
        yield name, lambda: _replace(domain, live, wanted, alias)


def _booting_as(live: _Element | None, wanted: _Element) -> _Element:
    """`wanted` with the place in the boot order that `live` has: a running domain's order cannot change, and a number that
    has another device there is refused. The next start brings the wanted one."""
    copy = deepcopy(wanted)
    for boot in copy.findall("boot"):
        copy.remove(boot)
    if live is not None:
        copy.extend(deepcopy(live.findall("boot")))
    return copy


def _same_card(live: _Element, wanted: _Element) -> bool:
    """Only its cable and its network differ: those are changed under the guest's eyes."""

    def beside(child: _Element) -> bool:
        return child.tag in ("link", "source")

    return plain(live, without=beside) == plain(wanted, without=beside)


def _replace(domain: libvirt.virDomain, live: _Element, wanted: _Element, alias: str) -> None:
    if _detach(domain, live, alias):
        _attach(domain, wanted)


def _attach(domain: libvirt.virDomain, element: _Element) -> None:
    """At the place that the persistent document gives it, so that its name in the guest stays over restarts; where
    another device has taken that place meanwhile, at a free one."""
    element = _booting_as(None, element)
    try:
        domain.attachDeviceFlags(tostring(element, encoding="unicode"), _LIVE)
    except libvirt.libvirtError:
        free = deepcopy(element)
        address = free.find("address")
        if address is None:
            raise
        free.remove(address)
        domain.attachDeviceFlags(tostring(free, encoding="unicode"), _LIVE)


def _detach(domain: libvirt.virDomain, element: _Element, alias: str) -> bool:
    """Whether the guest let it go in time. A card's cable is pulled first: that needs nobody's consent, and from then
    on its address is free for others."""
    if element.tag == "interface":
        unplugged = deepcopy(element)
        for link in unplugged.findall("link"):
            unplugged.remove(link)
        SubElement(unplugged, "link", state="down")
        domain.updateDeviceFlags(tostring(unplugged, encoding="unicode"), _LIVE)
    domain.detachDeviceAlias(alias, _LIVE)
    end = time.monotonic() + RELEASE_WAIT_S
    while alias in named(live_document(domain), str(element.tag)):
        if time.monotonic() > end:
            return False
        time.sleep(RELEASE_LOOK_S)
    return True
