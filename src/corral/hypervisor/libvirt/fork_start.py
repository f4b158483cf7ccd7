"""A fork's first start, in libvirt's calls: blocking functions."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Final

import libvirt
from lxml.etree import _Element, tostring

from corral.errors import CorralError
from corral.files import storage_error, write_atomic
from corral.hypervisor.base import DomainDefinition
from corral.hypervisor.forking import Fork
from corral.hypervisor.libvirt import confinement, fork_document, holder, monitor, reading
from corral.hypervisor.libvirt.devices import NIC_ALIAS
from corral.hypervisor.libvirt.domains import find_by_name, find_by_uid
from corral.hypervisor.libvirt.host import Host
from corral.hypervisor.libvirt.metadata import NAMESPACE, PREFIX, hardware_mark, metadata_text, parse_document
from corral.log import logger

MEMORY: Final = "memory"
STATE: Final = "state"
DOCUMENT: Final = "domain.xml"
CARDS: Final = "cards.xml"
NVRAM: Final = "nvram.fd"
LOAD_S: Final = 30.0
_DESCRIPTOR: Final = "corral-state"
HELD_SHARES: Final = 10
"""A hundredth of one processor's."""
_NO_CONTROL_GROUPS: Final = (libvirt.VIR_ERR_OPERATION_INVALID, libvirt.VIR_ERR_OPERATION_UNSUPPORTED)

log = logger("libvirt.forks")


def read_document(path: Path) -> _Element:
    try:
        return parse_document(path.read_text())
    except OSError as error:
        raise storage_error(f"read {path}", error) from error


def prepare_fork(handle: libvirt.virConnect, fork: Fork, host: Host) -> None:
    """Paused, waiting for the state, transient: whatever goes wrong with it, nothing of it stays."""
    old = find_by_uid(handle, fork.definition.uid)
    if old is not None and (old.isPersistent() or _waits(old)):
        return
    if old is not None:
        _destroy(old)
    _create(handle, fork, host)


def start_fork(handle: libvirt.virConnect, fork: Fork, host: Host, *, held: bool) -> None:
    """Loaded, defined, and it runs. Until it is defined it is nobody's: what a crash left of it is thrown away, unless
    nothing was loaded yet."""
    domain = find_by_uid(handle, fork.definition.uid)
    if domain is not None and domain.isPersistent():
        return
    if domain is None or not _went_on(handle, domain, fork, host):
        domain = _create(handle, fork, host)
        _go_on(handle, domain, fork, host)
    if held:
        _weigh(domain, HELD_SHARES)
    domain.resume()


def _went_on(handle: libvirt.virConnect, waiting: libvirt.virDomain, fork: Fork, host: Host) -> bool:
    """False: it was of no use, and is gone. It may have died in this instant."""
    try:
        _go_on(handle, waiting, fork, host)
    except (libvirt.libvirtError, CorralError) as error:
        log.warning("a domain that waited was of no use", domain=fork.definition.uid, error=str(error))
        return False
    return True


def _go_on(handle: libvirt.virConnect, domain: libvirt.virDomain, fork: Fork, host: Host) -> None:
    """From the state, and defined; destroyed where that fails, and where a state was sent before: QEMU refuses a second."""
    # One that waited keeps its name until it is off.
    definition = replace(fork.definition, name=domain.name())
    try:
        monitor.ask(domain, "migrate-incoming", uri=f"fd:{_DESCRIPTOR}")
        # While it loads:
        live = parse_document(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_MIGRATABLE))
        cards = fork_document.build_cards(definition, read_document(fork.template.directory / CARDS))
        lasting = fork_document.lasting_document(live, definition, host, cards)
        _wait_loaded(domain)
        handle.defineXML(lasting)
    except (libvirt.libvirtError, CorralError):
        _destroy(domain)
        raise


def _destroy(domain: libvirt.virDomain) -> None:
    try:
        domain.destroy()
    except libvirt.libvirtError as error:
        if error.get_error_code() not in (libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_OPERATION_INVALID):
            raise  # else it has ended by itself


def _waits(domain: libvirt.virDomain) -> bool:
    """For a state of which not a byte was sent yet."""
    return not monitor.ask(domain, "query-migrate").get("status")


def _create(handle: libvirt.virConnect, fork: Fork, host: Host) -> libvirt.virDomain:
    """Its QEMU waits for the stream without the memory, and has it open."""
    definition, template = fork.definition, fork.template
    if find_by_name(handle, definition.name) is not None:
        reason = f"libvirt already has a domain {definition.name!r}"
        raise CorralError("domain-name-taken", f"fork {definition.name}", reason, "choose another name")
    owner = (definition.dac_uid, host.dac_gid) if host.privileged and definition.dac_uid is not None else None
    confinement.ensure_run_dir(definition.run_dir, owner)
    _give_variables(template.directory / NVRAM, definition, host)
    ids = owner or (os.geteuid(), os.getegid())
    with holder.lent(template.directory / MEMORY, template.digest, template.run_dir, ids) as memory:
        machine = read_document(template.directory / DOCUMENT)
        text = fork_document.fork_document(machine, definition, host, memory.path, memory.size_bytes)
        domain = handle.createXML(text, libvirt.VIR_DOMAIN_START_PAUSED)
    try:
        monitor.ignore_shared_memory(domain, on=True)
        _hand_over(domain, template.directory / STATE)
    except (libvirt.libvirtError, CorralError):
        _destroy(domain)
        raise
    return domain


def _hand_over(domain: libvirt.virDomain, state: Path) -> None:
    """The devices' state; the memory is there already."""
    try:
        descriptor = os.open(state, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise storage_error(f"open {state}", error) from error
    try:
        monitor.hand_over(domain, _DESCRIPTOR, descriptor)
    finally:
        os.close(descriptor)


def _wait_loaded(domain: libvirt.virDomain) -> None:
    def loaded() -> bool:
        return bool(monitor.ask(domain, "query-status")["status"] != "inmigrate")

    monitor.wait_until(loaded, LOAD_S, f"fork {domain.name()}", "its state was not loaded")
    monitor.ignore_shared_memory(domain, on=False)


def _give_variables(kept: Path, definition: DomainDefinition, host: Host) -> None:
    """The UEFI variables as they were when the template was frozen."""
    if definition.firmware != "uefi" or not host.privileged or definition.dac_uid is None:
        return
    path = Path(host.nvram(definition.uid, secure=definition.hardware.secure_boot))
    try:
        write_atomic(path, kept.read_bytes())
    except OSError as error:
        raise storage_error(f"read {kept}", error) from error
    confinement.ensure_nvram(definition, host)  # is there: its owner is set


def plug_cards(domain: libvirt.virDomain, fork: Fork) -> None:
    """Cables out, as far as they are not there; and it runs: a crash may have come right after it was defined."""
    running = parse_document(domain.XMLDesc(0))
    if fork_document.is_introduced(running):
        return
    if domain.state(0)[0] == libvirt.VIR_DOMAIN_PAUSED:
        domain.resume()
    there = fork_document.card_places(running)
    for card in fork_document.build_cards(fork.definition, read_document(fork.template.directory / CARDS)):
        if there.find(f"card[@name='{reading.attribute(card, 'alias', 'name')}']") is None:
            domain.attachDeviceFlags(tostring(card, encoding="unicode"), libvirt.VIR_DOMAIN_AFFECT_LIVE)


def let_go(domain: libvirt.virDomain, fork: Fork) -> bool:
    """Its part of the processors is what was wished. False: it was introduced."""
    running = parse_document(domain.XMLDesc(0))
    if fork_document.is_introduced(running):
        return False
    if running.findtext("cputune/shares") == str(HELD_SHARES):
        _weigh(domain, fork.definition.cpu_shares)
    return True


def _weigh(domain: libvirt.virDomain, shares: int) -> None:
    """As far as there are control groups: an ordinary user's session has none."""
    try:
        domain.setSchedulerParametersFlags({"cpu_shares": shares}, libvirt.VIR_DOMAIN_AFFECT_LIVE)
    except libvirt.libvirtError as error:
        if error.get_error_code() not in _NO_CONTROL_GROUPS:
            raise


def connect(domain: libvirt.virDomain, definition: DomainDefinition) -> None:
    """The cables that belong in, what it is called now, and last that it is introduced."""
    live = libvirt.VIR_DOMAIN_AFFECT_LIVE
    running = parse_document(domain.XMLDesc(0))
    if fork_document.is_introduced(running):
        return
    wanted = frozenset(f"{NIC_ALIAS}{nic.name}" for nic in definition.nics if nic.link_up)
    for card in fork_document.with_cables(running, wanted):
        domain.updateDeviceFlags(card, live)
    if domain.name() != definition.name:
        domain.setMetadata(libvirt.VIR_DOMAIN_METADATA_TITLE, definition.name, None, None, live)
    element, text = libvirt.VIR_DOMAIN_METADATA_ELEMENT, metadata_text(definition.metadata, hardware_mark(running))
    domain.setMetadata(element, text, PREFIX, NAMESPACE, live)
    domain.setMetadata(element, None, fork_document.FORK_PREFIX, fork_document.FORK_NAMESPACE, live)
