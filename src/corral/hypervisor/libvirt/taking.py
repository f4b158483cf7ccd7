"""A point in time is taken, in libvirt's calls: blocking functions."""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Final

import libvirt
from lxml.etree import Element, SubElement, _Element, tostring

from corral.hypervisor.base import DomainDisk
from corral.hypervisor.libvirt import domains, reading, thaw_deadline
from corral.hypervisor.libvirt.disks import DISK_ALIAS
from corral.hypervisor.libvirt.kept import MEMORY_FILE, keep, keep_steady
from corral.hypervisor.libvirt.live_memory import captured
from corral.hypervisor.libvirt.observe import STATES
from corral.hypervisor.points import PointTaken, PointWanted
from corral.model.vm import VmState

# A guest that is asked to freeze its file systems may flush for a while; then it is thawed, whatever it says.
FREEZE_TIMEOUT_S: Final = 10

_CREATE: Final = (
    libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_NO_METADATA
    | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_ATOMIC
    | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_REUSE_EXT
)


def take(
    domain: libvirt.virDomain,
    document: _Element,
    wanted: PointWanted,
    kept: Sequence[tuple[str, Path]],
    cut: threading.Event,
) -> PointTaken:
    """All disks, and what lies beside them, of one instant. `cut`, from another thread, ends it before that instant."""
    state = STATES.get(domain.state(0)[0], VmState.UNKNOWN)
    live = wanted.runs and wanted.with_memory
    if wanted.quiesce and wanted.runs:
        domains.resume(domain)  # where a former process stopped it: its agent freezes nothing then
    held = wanted.runs and not live and not wanted.quiesce and (bool(kept) or state is VmState.PAUSED)
    state = VmState.RUNNING if held or live or (wanted.quiesce and wanted.runs) else state
    began = time.monotonic()
    with captured(domain, wanted.directory / MEMORY_FILE, cut) if live else _held(domain) if held else nullcontext():
        names = (keep_steady if wanted.quiesce else keep)(kept, wanted.directory)
        _create(domain, document, wanted, by_save=wanted.with_memory and not live)
    pause_ms = None if wanted.with_memory else (time.monotonic() - began) * 1000
    return PointTaken(state, pause_ms, wanted.quiesce, names)


@contextmanager
def _held(domain: libvirt.virDomain) -> Iterator[None]:
    """Firmware variables and TPM are files that the guest writes by itself: it stands still while they are copied."""
    domains.suspend(domain)
    try:
        yield
    finally:
        domains.resume(domain)


def _create(domain: libvirt.virDomain, document: _Element, wanted: PointWanted, *, by_save: bool) -> None:
    """`by_save`: libvirt writes the memory of a guest that stands still anyway."""
    flags = _CREATE if by_save else _CREATE | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY
    if wanted.quiesce:
        flags |= libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_QUIESCE
        domain.agentSetResponseTimeout(FREEZE_TIMEOUT_S, 0)
        _thaw(domain)
        thaw_deadline.arm(domain)
    try:
        domain.snapshotCreateXML(_snapshot_document(document, wanted, by_save=by_save), flags)
    finally:
        if wanted.quiesce:
            _thaw(domain)
            domain.agentSetResponseTimeout(libvirt.VIR_DOMAIN_AGENT_RESPONSE_TIMEOUT_BLOCK, 0)


def release(domain: libvirt.virDomain, *, frozen: bool, runs: bool) -> None:
    if not domain.isActive():
        return
    if frozen:
        domain.agentSetResponseTimeout(FREEZE_TIMEOUT_S, 0)
        _thaw(domain)
    if runs:
        domains.resume(domain)


def _thaw(domain: libvirt.virDomain) -> None:
    """libvirt thaws by itself unless it died meanwhile. A guest that is not frozen, or has no agent, says so; for one whose agent
    does not answer its own deadline stays."""
    try:
        if domain.isActive():
            domain.fsThaw(None, 0)
            thaw_deadline.disarm(domain)
    except libvirt.libvirtError as error:
        if error.get_error_code() not in _NOT_FROZEN:
            raise


_NOT_FROZEN: Final = frozenset(
    {
        libvirt.VIR_ERR_INTERNAL_ERROR,  # what the agent itself refuses
        libvirt.VIR_ERR_AGENT_UNRESPONSIVE,
        libvirt.VIR_ERR_AGENT_UNSYNCED,
        libvirt.VIR_ERR_OPERATION_INVALID,
        libvirt.VIR_ERR_ARGUMENT_UNSUPPORTED,
        libvirt.VIR_ERR_CONFIG_UNSUPPORTED,
        libvirt.VIR_ERR_OPERATION_UNSUPPORTED,
    }
)


def _snapshot_document(document: _Element, wanted: PointWanted, *, by_save: bool) -> str:
    """Every disk that is not named stays out of it."""
    snapshot = Element("domainsnapshot")
    if by_save:
        SubElement(snapshot, "memory", snapshot="external", file=str(wanted.directory / MEMORY_FILE))
    disks = SubElement(snapshot, "disks")
    heads = {f"{DISK_ALIAS}{disk.name}": disk for disk in wanted.disks}
    for element in document.iterfind("devices/disk"):
        target = reading.target(element)
        head = heads.get(reading.attribute(element, "alias", "name"))
        if head is None:
            SubElement(disks, "disk", name=target, snapshot="no")
            continue
        disk = SubElement(disks, "disk", name=target, snapshot="external", type="file")
        SubElement(disk, "driver", type="qcow2")
        SubElement(disk, "source", file=head.path)
    return tostring(snapshot, encoding="unicode")


def is_on(document: _Element, disks: Sequence[DomainDisk]) -> bool:
    """The domain's disks are in these heads already."""
    files = dict(reading.disk_files(document))
    return any(files.get(disk.name) == disk.path for disk in disks)
