"""What is done to libvirt's domains: blocking functions, each of which may be repeated."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

import libvirt
from lxml.etree import _Element

from corral.errors import CorralError
from corral.hypervisor.base import (
    NO_SPACE,
    DomainDefinition,
    DomainMetadata,
    DomainUsage,
    HypervisorFacts,
    NicCounters,
    ObservedDomain,
    StopCause,
)
from corral.hypervisor.libvirt import confinement, metadata, reading, schema
from corral.hypervisor.libvirt.document import Host, build_document, build_domain
from corral.hypervisor.libvirt.fork_document import is_introduced, restorable
from corral.hypervisor.libvirt.live import live_document
from corral.hypervisor.libvirt.observe import STATES, state_reason, stop_cause
from corral.hypervisor.libvirt.pending import Left
from corral.hypervisor.libvirt.redefinition import redefine, with_boot_device
from corral.hypervisor.libvirt.standing import standing_in
from corral.hypervisor.libvirt.starting import Needs, needs_of

Remembered = Callable[[str], StopCause | None]

# libvirt keeps a running domain's process number here (system mode).
PID_DIR: Final = Path("/run/libvirt/qemu")
_UNDEFINE_FLAGS: Final = libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE | libvirt.VIR_DOMAIN_UNDEFINE_NVRAM
_STATS: Final = (
    libvirt.VIR_DOMAIN_STATS_STATE
    | libvirt.VIR_DOMAIN_STATS_CPU_TOTAL
    | libvirt.VIR_DOMAIN_STATS_BALLOON
    | libvirt.VIR_DOMAIN_STATS_BLOCK
    | libvirt.VIR_DOMAIN_STATS_INTERFACE
)


def facts(handle: libvirt.virConnect, uri: str) -> HypervisorFacts:
    return HypervisorFacts(
        driver="libvirt",
        connected=True,
        libvirt_version=_version(handle.getLibVersion()),
        qemu_version=_version(handle.getVersion()),
        uri=uri,
        max_vcpus=handle.getMaxVcpus("qemu"),
    )


def _version(number: int) -> str:
    """libvirt's packing: major * 1,000,000 + minor * 1,000 + release."""
    return f"{number // 1_000_000}.{number // 1_000 % 1_000}.{number % 1_000}"


# ---- observing -----------------------------------------------------------------------------------------------------


def persistent_document(domain: libvirt.virDomain) -> Any:
    return metadata.parse_document(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))


def observe(domain: libvirt.virDomain, remembered: Remembered, left: Left, document: str = "") -> ObservedDomain:
    """`document` is its persistent one, where that was read a moment ago: who changes it meanwhile is heard of."""
    persistent = bool(document) or bool(domain.isPersistent())
    return _observed(
        domain,
        document or domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE),
        remembered,
        left,
        persistent=persistent,
        autostart=persistent and bool(domain.autostart()),
        saved=lambda: bool(domain.hasManagedSaveImage(0)),
    )


def observe_all(handle: libvirt.virConnect, remembered: Remembered, left: Left) -> tuple[ObservedDomain, ...]:
    """All of them; flags by listing, so that most of the questions are asked once and not for each domain."""

    def listed(flag: int) -> frozenset[str]:
        return frozenset(domain.UUIDString() for domain in handle.listAllDomains(flag))

    persistent = listed(libvirt.VIR_CONNECT_LIST_DOMAINS_PERSISTENT)
    autostart = listed(libvirt.VIR_CONNECT_LIST_DOMAINS_AUTOSTART)
    saved = listed(libvirt.VIR_CONNECT_LIST_DOMAINS_MANAGEDSAVE)
    observed = []
    for domain in handle.listAllDomains(0):
        uid = domain.UUIDString()
        try:
            observed.append(
                _observed(
                    domain,
                    domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE),
                    remembered,
                    left,
                    persistent=uid in persistent,
                    autostart=uid in autostart,
                    saved=partial(saved.__contains__, uid),
                )
            )
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:  # it went while we looked
                raise
    return tuple(observed)


def _observed(
    domain: libvirt.virDomain,
    document: str,
    remembered: Remembered,
    left: Left,
    *,
    persistent: bool,
    autostart: bool,
    saved: Callable[[], bool],
) -> ObservedDomain:
    uid = domain.UUIDString()
    standing = standing_in(document, uid)
    state, reason = domain.state(0)
    active = state not in (libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_CRASHED)
    running = metadata.parse_document(domain.XMLDesc(0)) if active else None
    mark = metadata.parse_metadata(running, uid) if running is not None else None

    def waiting() -> tuple[str, ...]:
        return left.of(uid, lambda: live_document(domain), lambda: metadata.parse_document(document))

    return ObservedDomain(
        uid=uid,
        name=standing.name,
        state=STATES.get(state, STATES[libvirt.VIR_DOMAIN_NOSTATE]),
        reason=NO_SPACE if _has_no_space(domain, state, reason) else state_reason(state, reason),
        stop_cause=stop_cause(state, reason, remembered(uid)),
        persistent=persistent,
        metadata=standing.metadata,
        autostart=autostart,
        has_managed_save=not active and saved(),  # a running guest has none: it went when it was restored
        vcpus=standing.vcpus,
        memory_mib=standing.memory_mib,
        pid=_pid(standing.name) if active else None,
        agent_connected=running is not None and reading.agent_connected(running),
        definition_hash=standing.digest,
        live_spec_json=mark.spec_json if mark is not None else None,
        pending=waiting() if active and persistent else (),
        introduced=running is None or is_introduced(running),
        waiting=running is not None and not persistent and not is_introduced(running),
        files=standing.files if running is None else reading.disk_files(running),
        chains=() if running is None else reading.disk_chains(running),
    )


def _has_no_space(domain: libvirt.virDomain, state: int, reason: int) -> bool:
    """QEMU pauses a guest whose disk has no room, and one whose disk is broken, and libvirt gives one reason for both."""
    if (state, reason) != (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_IOERROR):
        return False
    return libvirt.VIR_DOMAIN_DISK_ERROR_NO_SPACE in domain.diskErrors().values()


def _pid(name: str) -> int | None:
    try:
        return int((PID_DIR / f"{name}.pid").read_text())
    except (OSError, ValueError):
        return None


def usage_all(handle: libvirt.virConnect) -> tuple[DomainUsage, ...]:
    flags = libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_ACTIVE | libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT
    return tuple(_usage(domain, stats) for domain, stats in handle.getAllDomainStats(_STATS, flags))


def _usage(domain: libvirt.virDomain, stats: dict[str, int]) -> DomainUsage:
    """A busy domain leaves fields out: they read as zero, and a rate over zero is not a rate; callers see none."""

    def total(kind: str, field: str) -> int:
        return sum(stats.get(f"{kind}.{index}.{field}", 0) for index in range(stats.get(f"{kind}.count", 0)))

    return DomainUsage(
        uid=domain.UUIDString(),
        cpu_time_ns=stats.get("cpu.time", 0),
        memory_rss_bytes=stats.get("balloon.rss", 0) * 1024,
        memory_mib=stats.get("balloon.current", 0) // 1024,
        disk_read_bytes=total("block", "rd.bytes"),
        disk_written_bytes=total("block", "wr.bytes"),
        net_received_bytes=total("net", "rx.bytes"),
        net_sent_bytes=total("net", "tx.bytes"),
        nics=tuple(_nic_counters(stats, index) for index in range(stats.get("net.count", 0))),
    )


def _nic_counters(stats: dict[str, int], index: int) -> NicCounters:
    def of(field: str) -> int:
        return stats.get(f"net.{index}.{field}", 0)

    return NicCounters(
        device=str(stats.get(f"net.{index}.name", "")),
        received_bytes=of("rx.bytes"),
        sent_bytes=of("tx.bytes"),
        received_packets=of("rx.pkts"),
        sent_packets=of("tx.pkts"),
        received_drops=of("rx.drop"),
        sent_drops=of("tx.drop"),
        errors=of("rx.errs") + of("tx.errs"),
    )


# ---- changing ------------------------------------------------------------------------------------------------------


def find_by_name(handle: libvirt.virConnect, name: str) -> libvirt.virDomain | None:
    try:
        return handle.lookupByName(name)
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
            return None
        raise


def find_by_uid(handle: libvirt.virConnect, uid: str) -> libvirt.virDomain | None:
    try:
        return handle.lookupByUUIDString(uid)
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
            return None
        raise


def define(handle: libvirt.virConnect, definition: DomainDefinition, host: Host) -> bool:
    """Make it or change it; whether it is new. Raises `domain-not-ours`, `domain-name-taken`, `wrong-state`."""
    asked = f"define domain {definition.name}"
    old = find_by_uid(handle, definition.uid)
    if old is None:
        _refuse_taken(handle, definition.uid, definition.name, asked)
        built = build_document(definition, host)
        handle.defineXMLFlags(built, 0 if schema.is_valid(built) else libvirt.VIR_DOMAIN_DEFINE_VALIDATE)
        return True
    document = persistent_document(old)
    mark = metadata.parse_metadata(document, definition.uid)
    if mark is None or mark.installation_id != definition.metadata.installation_id:
        reason = f"a domain with its UUID {definition.uid} was made by somebody else"
        raise CorralError("domain-not-ours", asked, reason, f"see `virsh dumpxml {old.name()}`")
    if old.name() != definition.name:
        rename(handle, definition.uid, definition.name)
        document = persistent_document(old)
    # libvirt's own document with parts of ours: to hold it against the schema costs a hot change 10 ms.
    handle.defineXMLFlags(redefine(build_domain(definition, host), document), 0)
    return False


def _refuse_taken(handle: libvirt.virConnect, uid: str, name: str, asked: str) -> None:
    other = find_by_name(handle, name)
    if other is not None and other.UUIDString() != uid:
        hint = "choose another name, or adopt or rename that domain"
        raise CorralError("domain-name-taken", asked, f"libvirt already has a domain {name!r}", hint)


def rename(handle: libvirt.virConnect, uid: str, name: str) -> None:
    asked = f"rename domain {uid} to {name}"
    domain = handle.lookupByUUIDString(uid)
    if domain.name() == name:
        return
    _refuse_taken(handle, uid, name, asked)
    if domain.isActive():
        raise CorralError("wrong-state", asked, "it is running", "shut it down first")
    domain.rename(name, 0)


def start(domain: libvirt.virDomain, prepared: Needs | None = None, boot_from: str = "") -> Needs | str:
    """The run directory is made anew: it lies where a reboot of the host clears it. Where something else must be there
    first, nothing is started, and what is needed is told. Returns the persistent document that it was started from;
    nothing of one that ran already."""
    text = str(domain.XMLDesc(0))
    document = metadata.parse_document(text)
    if document.get("id") is not None:  # running ones alone have a number; the document of others is the persistent one
        return ""
    needs = needs_of(document)
    if needs and needs != prepared:
        return needs
    if run_dir := reading.run_dir_of(document):
        confinement.ensure_run_dir(run_dir, reading.dac_owner_of(document))
    try:
        _run(domain, document, boot_from)
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_OPERATION_INVALID or not domain.isActive():
            raise  # else somebody else started it between the question and the call
    return text


def _run(domain: libvirt.virDomain, document: _Element, boot_from: str) -> None:
    """`boot_from` first, in the running document alone: the persistent one, and with it the next start, stays."""
    if boot_from:
        domain.connect().createXML(with_boot_device(document, boot_from), 0)
    else:
        mend_saved(domain)
        domain.create()


def mend_saved(domain: libvirt.virDomain) -> None:
    """A guest that runs on its template's memory is saved with the document of that run; it resumes with memory of its
    own."""
    if domain.hasManagedSaveImage(0):
        document = domain.managedSaveGetXMLDesc(libvirt.VIR_DOMAIN_SAVE_IMAGE_XML_SECURE)
        if (mended := restorable(document)) != document:
            domain.managedSaveDefineXML(mended)


def shutdown(domain: libvirt.virDomain, mode: Literal["agent", "acpi"]) -> None:
    if not domain.isActive():
        return
    agent = libvirt.VIR_DOMAIN_SHUTDOWN_GUEST_AGENT
    domain.shutdownFlags(agent if mode == "agent" else libvirt.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN)


def reboot(domain: libvirt.virDomain, mode: Literal["agent", "acpi"]) -> None:
    domain.reboot(
        libvirt.VIR_DOMAIN_REBOOT_GUEST_AGENT if mode == "agent" else libvirt.VIR_DOMAIN_REBOOT_ACPI_POWER_BTN
    )


def destroy(domain: libvirt.virDomain) -> None:
    """SIGTERM, then SIGKILL after 15 s, as libvirt does by itself."""
    if not domain.isActive():
        return
    try:
        domain.destroyFlags(libvirt.VIR_DOMAIN_DESTROY_DEFAULT)
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_OPERATION_INVALID:  # it went by itself
            raise


def suspend(domain: libvirt.virDomain) -> None:
    _bring_to(domain, libvirt.VIR_DOMAIN_PAUSED, domain.suspend)


def resume(domain: libvirt.virDomain) -> None:
    _bring_to(domain, libvirt.VIR_DOMAIN_RUNNING, domain.resume)


def _bring_to(domain: libvirt.virDomain, state: int, act: Callable[[], object]) -> None:
    """An earlier call that hung may come to its end while this one waits for its turn: then nothing is left to do."""
    if domain.state(0)[0] == state:
        return
    try:
        act()
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_OPERATION_INVALID or domain.state(0)[0] != state:
            raise


def save(domain: libvirt.virDomain) -> None:
    """Repeated after it happened, it does nothing; nor while an earlier call that hung comes to its end."""

    def saved() -> bool:
        return not domain.isActive() and bool(domain.hasManagedSaveImage(0))

    if saved():
        return
    try:
        domain.managedSave(0)
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_OPERATION_INVALID or not saved():
            raise
    else:
        mend_saved(domain)  # for those who start it by hand


def undefine(domain: libvirt.virDomain) -> None:
    domain.undefineFlags(_UNDEFINE_FLAGS)


def set_metadata(domain: libvirt.virDomain, mark: DomainMetadata) -> None:
    """Into the live document too, where there is one; not twice into the persistent one, which libvirt writes to disk."""
    document = persistent_document(domain)
    flags = libvirt.VIR_DOMAIN_AFFECT_LIVE if domain.isActive() else 0
    if domain.isPersistent() and metadata.parse_metadata(document, mark.vm_uid) != mark:
        flags |= libvirt.VIR_DOMAIN_AFFECT_CONFIG
    if flags:
        text = metadata.metadata_text(mark, metadata.hardware_mark(document))
        kind = libvirt.VIR_DOMAIN_METADATA_ELEMENT
        domain.setMetadata(kind, text, metadata.PREFIX, metadata.NAMESPACE, flags)
