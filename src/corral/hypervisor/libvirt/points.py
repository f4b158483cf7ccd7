"""Points in time of libvirt's domains: external snapshots without libvirt's own record of them, and the way back.

libvirt 9.0 makes external snapshots and cannot go back to one, so the tree is ours. What is written is decided by looking:
a domain whose disks are on their new heads already has been there.
"""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Final, Protocol, TypeVar

import libvirt
from lxml.etree import Element, _Element, tostring

from corral.errors import CorralError
from corral.hypervisor.base import DomainDisk
from corral.hypervisor.libvirt import confinement, live_memory, monitor, reading, starting, taking
from corral.hypervisor.libvirt.disks import DISK_ALIAS, add_backing_chain
from corral.hypervisor.libvirt.fork_document import restorable
from corral.hypervisor.libvirt.host import Host
from corral.hypervisor.libvirt.kept import MEMORY_FILE, keep, kept_files, make_durable, put_back
from corral.hypervisor.libvirt.metadata import parse_document
from corral.hypervisor.libvirt.observe import STATES
from corral.hypervisor.libvirt.standstill import Listen, Standstill
from corral.hypervisor.points import PointTaken, PointWanted, Sinking
from corral.model.vm import VmState

T = TypeVar("T")

# A guest's memory goes to disk: as long as a managed save may take.
MEMORY_TIMEOUT_S: Final = 900.0
TAKE_TIMEOUT_S: Final = 60.0
PULL_LOOK_S: Final = 0.1


class Slowly(Protocol):
    """One call on one domain, in a thread of the slow connection."""

    def __call__(
        self, uid: str, verb: str, act: Callable[[libvirt.virDomain], T], timeout_s: float | None = None
    ) -> Awaitable[T]: ...


class LibvirtPoints:
    """`Points` over libvirt."""

    def __init__(self, on: Slowly, host: Host, listen: Listen) -> None:
        self._on = on
        self._host = host
        self._listen = listen

    async def take(self, uid: str, wanted: PointWanted) -> PointTaken:
        state, document = await self._on(uid, "look at", _live)
        kept = kept_files(document, uid, self._host)
        if state is VmState.SHUT_OFF:
            names = await asyncio.to_thread(keep, kept, wanted.directory)
            taken = PointTaken(state, None, False, names)
        elif taking.is_on(document, wanted.disks):
            taken = await self._taken(uid, state, wanted)
        else:
            # What is below the heads is written until the switch: a guest whose daemon dies before that opens it anew to go on.
            heads = tuple(replace(disk, backing=()) for disk in wanted.disks)
            await asyncio.to_thread(self._own, heads, wanted.dac_uid)
            taken = await self._take(uid, document, wanted, kept)
        if state is not VmState.SHUT_OFF:
            await asyncio.to_thread(self._own, wanted.disks, wanted.dac_uid)
        await asyncio.to_thread(make_durable, wanted.directory)
        return taken

    async def _taken(self, uid: str, state: VmState, wanted: PointWanted) -> PointTaken:
        """By a former process, which ended before the guest went on, or after."""
        await self.thaw(uid, frozen=wanted.quiesce, runs=wanted.runs)
        if wanted.with_memory and wanted.runs:
            await self._on(uid, "thaw", live_memory.settle)
        return PointTaken(VmState.RUNNING if wanted.runs else state, None, wanted.quiesce, ())

    async def _take(
        self, uid: str, document: _Element, wanted: PointWanted, kept: Sequence[tuple[str, Path]]
    ) -> PointTaken:
        cut = threading.Event()
        timeout_s = MEMORY_TIMEOUT_S if wanted.with_memory else TAKE_TIMEOUT_S
        async with Standstill(self._listen, uid) if wanted.with_memory else nullcontext() as still:
            try:
                taken = await self._on(
                    uid, "snapshot", lambda domain: taking.take(domain, document, wanted, kept, cut), timeout_s
                )
            finally:
                cut.set()  # whoever asked may have gone
        return taken if still is None else replace(taken, pause_ms=still.ms)

    async def thaw(self, uid: str, *, frozen: bool, runs: bool) -> None:
        await self._on(uid, "thaw", lambda domain: taking.release(domain, frozen=frozen, runs=runs))

    async def place(self, uid: str, disks: tuple[DomainDisk, ...], dac_uid: int | None) -> None:
        await asyncio.to_thread(self._own, disks, dac_uid)
        relabelled = self._host.privileged and dac_uid is None

        def define(domain: libvirt.virDomain) -> None:
            document = parse_document(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))
            if put_disks(document, disks, relabelled=relabelled):
                domain.connect().defineXMLFlags(tostring(document, encoding="unicode"), 0)

        await self._on(uid, "place the disks of", define)

    async def restore(self, uid: str, directory: Path, disks: tuple[DomainDisk, ...], *, paused: bool) -> None:
        document = await self._on(uid, "look at", _persistent)
        if needs := starting.needs_of(document):
            await asyncio.to_thread(starting.prepare, needs, self._host)
        if run_dir := reading.run_dir_of(document):
            await asyncio.to_thread(confinement.ensure_run_dir, run_dir, reading.dac_owner_of(document))
        relabelled = self._host.privileged and reading.dac_owner_of(document) is None
        path = str(directory / MEMORY_FILE)

        def restore(domain: libvirt.virDomain) -> None:
            if domain.isActive():
                return
            connection = domain.connect()
            saved = parse_document(connection.saveImageGetXMLDesc(path, libvirt.VIR_DOMAIN_SAVE_IMAGE_XML_SECURE))
            put_disks(saved, disks, relabelled=relabelled)
            name = saved.find("name")
            if name is not None:
                name.text = domain.name()
            state = libvirt.VIR_DOMAIN_SAVE_PAUSED if paused else libvirt.VIR_DOMAIN_SAVE_RUNNING
            connection.restoreFlags(path, restorable(tostring(saved, encoding="unicode")), state)

        await self._on(uid, "restore", restore, MEMORY_TIMEOUT_S)

    async def put_back(self, uid: str, directory: Path, kept: tuple[str, ...], dac_uid: int | None) -> None:
        document = await self._on(uid, "look at", _persistent)
        places = kept_files(document, uid, self._host)
        owner = (dac_uid, self._host.dac_gid) if self._host.privileged and dac_uid is not None else None
        await asyncio.to_thread(put_back, places, directory, kept, owner)

    async def flush(self, uid: str, disk: str) -> None:
        await self._on(uid, "flush a disk of", lambda domain: _flush(domain, disk) if domain.isActive() else None)

    async def pull(
        self, uid: str, disk: str, base: str, on_share: Callable[[float], None], bytes_per_s: int = 0
    ) -> None:
        target = await self._on(uid, "pull a layer of", lambda domain: _begin_pull(domain, disk, base, bytes_per_s))
        await self._job(uid, target, on_share)
        await self._on(uid, "pull a layer of", lambda domain: _flush(domain, disk))
        below = await self._on(uid, "pull a layer of", lambda domain: _first_below(domain, disk))
        if below != base:
            raise CorralError("hypervisor-error", f"pull a layer of {uid}", f"{disk} still lies on {below}")

    async def sink(self, uid: str, sinking: Sinking, on_share: Callable[[float], None], bytes_per_s: int = 0) -> None:
        """QEMU writes to the lower file, and into the header of the one above: they are its own meanwhile."""
        dac_uid = sinking.dac_uid if self._host.privileged else None
        head = await self._on(uid, "look at", lambda domain: reading.source(running_disk(domain, sinking.disk)))
        changed = [path for path in (sinking.base, sinking.above) if str(path) != head]
        if dac_uid is not None:
            for path in changed:
                await asyncio.to_thread(confinement.give, path, (dac_uid, self._host.dac_gid))
        try:
            target = await self._on(uid, "merge a layer of", lambda domain: _begin_sink(domain, sinking, bytes_per_s))
            await self._job(uid, target, on_share)
            chain = await self._on(uid, "merge a layer of", lambda domain: _chain(domain, sinking.disk))
            if str(sinking.top) in chain:
                reason = f"{sinking.disk} still lies on {sinking.top.name}"
                raise CorralError("hypervisor-error", f"merge a layer of {uid}", reason)
        finally:  # others' QEMUs stand on these files, or will
            for path in changed if dac_uid is not None else ():
                await asyncio.to_thread(confinement.share, path, self._host.dac_gid)

    async def _job(self, uid: str, target: str, on_share: Callable[[float], None]) -> None:
        """Until QEMU's job on this disk has ended; a caller that goes away ends it."""
        ended = False
        try:
            while True:
                info = await self._on(uid, "merge a layer of", lambda domain: domain.blockJobInfo(target, 0))
                if not info:
                    break
                if info.get("end"):
                    on_share(info["cur"] / info["end"])
                await asyncio.sleep(PULL_LOOK_S)
            ended = True
        finally:
            if not ended:
                await self._on(uid, "merge a layer of", lambda domain: _end_job(domain, target))

    def _own(self, disks: Sequence[DomainDisk], dac_uid: int | None) -> None:
        """Heads are the VM's own. What is below them is frozen, and several VMs may stand on it: root's, and readable by
        QEMUs, which have a group in common, and by nobody else."""
        if not self._host.privileged or dac_uid is None:
            return
        for disk in disks:
            confinement.give(Path(disk.path), (dac_uid, self._host.dac_gid))
            for path, _format in disk.backing:
                confinement.share(Path(path), self._host.dac_gid)


# ---- blocking parts ------------------------------------------------------------------------------------------------


def _live(domain: libvirt.virDomain) -> tuple[VmState, _Element]:
    state = STATES.get(domain.state(0)[0], VmState.UNKNOWN) if domain.isActive() else VmState.SHUT_OFF
    return state, parse_document(domain.XMLDesc(0))


def _persistent(domain: libvirt.virDomain) -> _Element:
    return parse_document(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))


def put_disks(document: _Element, disks: Sequence[DomainDisk], *, relabelled: bool) -> bool:
    """Files and chains of these disks; whether anything changed."""
    by_alias = {f"{DISK_ALIAS}{disk.name}": disk for disk in disks}
    before = tostring(document)
    for element in document.iterfind("devices/disk"):
        disk = by_alias.get(reading.attribute(element, "alias", "name"))
        source = element.find("source")
        if disk is None or source is None:
            continue
        source.set("file", disk.path)
        for old in element.findall("backingStore"):
            element.remove(old)
        chain = Element("chain")
        add_backing_chain(chain, disk.backing, relabelled)
        for below in reversed(list(chain)):
            source.addnext(below)
    return tostring(document) != before


# ---- pulling -------------------------------------------------------------------------------------------------------


def running_disk(domain: libvirt.virDomain, name: str) -> _Element:
    document = parse_document(domain.XMLDesc(0))
    for element in document.iterfind("devices/disk"):
        if domain.isActive() and reading.attribute(element, "alias", "name") == f"{DISK_ALIAS}{name}":
            return element
    raise CorralError("wrong-state", f"pull a layer of {domain.name()}", f"it does not run with disk {name}")


def _begin_pull(domain: libvirt.virDomain, name: str, base: str, bytes_per_s: int) -> str:
    """The disk's target. One that goes on from an earlier process is waited for."""
    target = reading.target(running_disk(domain, name))
    if not domain.blockJobInfo(target, 0) and _first_below(domain, name) != base:
        domain.blockRebase(target, base or None, bytes_per_s, libvirt.VIR_DOMAIN_BLOCK_REBASE_BANDWIDTH_BYTES)
    return target


def _begin_sink(domain: libvirt.virDomain, sinking: Sinking, bytes_per_s: int) -> str:
    target = reading.target(running_disk(domain, sinking.disk))
    if not domain.blockJobInfo(target, 0) and str(sinking.top) in _chain(domain, sinking.disk):
        flags = libvirt.VIR_DOMAIN_BLOCK_COMMIT_BANDWIDTH_BYTES
        domain.blockCommit(target, str(sinking.base), str(sinking.top), bytes_per_s, flags)
    return target


def _chain(domain: libvirt.virDomain, name: str) -> tuple[str, ...]:
    return reading.chain(running_disk(domain, name))


def _first_below(domain: libvirt.virDomain, name: str) -> str:
    return next(iter(_chain(domain, name)[1:]), "")


def _flush(domain: libvirt.virDomain, name: str) -> None:
    """QEMU's own tables to disk: the job has changed the header, and what it copied may be known to its memory alone."""
    found = (str(block.get("qdev", "")) for block in monitor.ask(domain, "query-block"))
    # A virtio disk's is its path, `/machine/peripheral/ALIAS/virtio-backend`.
    device = next((qdev for qdev in found if f"{DISK_ALIAS}{name}" in qdev.split("/")), f"{DISK_ALIAS}{name}")
    command = f"qemu-io -d {device} flush"
    said = str(monitor.ask(domain, "human-monitor-command", **{"command-line": command})).strip()
    if said:
        raise CorralError("hypervisor-error", f"flush disk {name} of {domain.name()}", said)


def _end_job(domain: libvirt.virDomain, target: str) -> None:
    try:
        if domain.isActive() and domain.blockJobInfo(target, 0):
            domain.blockJobAbort(target, 0)
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_OPERATION_INVALID:  # it ended by itself
            raise
