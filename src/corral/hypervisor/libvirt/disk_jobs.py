"""Disks of running domains copied to another file by QEMU itself, which guests go on in.

The copy (`blockdev-mirror`) writes what the guest writes to both files at once, so it comes to its end however much that is.
The guest stands still while it switches: whoever dies then, the old file and the new one hold the same.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import libvirt
from lxml.etree import Element, SubElement, tostring

from corral.errors import CorralError
from corral.hypervisor.base import DomainDisk
from corral.hypervisor.libvirt import confinement, domains, reading
from corral.hypervisor.libvirt.host import Host
from corral.hypervisor.libvirt.metadata import parse_document
from corral.hypervisor.libvirt.observe import STATES
from corral.hypervisor.libvirt.points import Slowly, put_disks, running_disk
from corral.model.vm import VmState

LOOK_S: Final = 0.2
SWITCH_TIMEOUT_S: Final = 60.0
ENDED_S: Final = 10.0

_COPY: Final = (
    libvirt.VIR_DOMAIN_BLOCK_COPY_REUSE_EXT
    | libvirt.VIR_DOMAIN_BLOCK_COPY_TRANSIENT_JOB
    | libvirt.VIR_DOMAIN_BLOCK_COPY_SYNCHRONOUS_WRITES
)


class LibvirtDiskJobs:
    """`DiskJobs` over libvirt."""

    def __init__(self, on: Slowly, host: Host) -> None:
        self._on = on
        self._host = host

    async def copies(self, uid: str, disk: DomainDisk) -> bool:
        def look(domain: libvirt.virDomain) -> bool:
            element = running_disk(domain, disk.name)
            mirror = element.find("mirror")
            return disk.path in (reading.source(element), "" if mirror is None else reading.source(mirror))

        return await self._on(uid, "look at the disks of", look)

    async def mirror(
        self, uid: str, disk: DomainDisk, dac_uid: int | None, bytes_per_s: int, on_share: Callable[[float], None]
    ) -> None:
        if self._host.privileged and dac_uid is not None:
            await asyncio.to_thread(confinement.give, Path(disk.path), (dac_uid, self._host.dac_gid))
        target = await self._on(uid, "copy a disk of", lambda domain: _begin(domain, disk, bytes_per_s))
        while target:
            info = await self._on(uid, "copy a disk of", lambda domain: domain.blockJobInfo(target, 0))
            if not info:
                reason = (
                    f"QEMU has ended the copy of disk {disk.name}: no space where it goes, or the guest has stopped"
                )
                raise CorralError("wrong-state", f"copy disk {disk.name} of {uid}", reason)
            # libvirt says that all is copied only once the job is ready to be switched.
            if info["end"] and info["cur"] == info["end"]:
                return
            on_share(info["cur"] / info["end"] if info["end"] else 0.0)
            await asyncio.sleep(LOOK_S)

    async def switch(self, uid: str, disk: DomainDisk, dac_uid: int | None, *, runs: bool) -> None:
        relabelled = self._host.privileged and dac_uid is None

        def switch(domain: libvirt.virDomain) -> None:
            with _standing(domain, runs=runs):
                _pivot(domain, disk)
                document = parse_document(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))
                if put_disks(document, (disk,), relabelled=relabelled):
                    domain.connect().defineXMLFlags(tostring(document, encoding="unicode"), 0)

        await self._on(uid, "switch a disk of", switch, SWITCH_TIMEOUT_S)

    async def abandon(self, uid: str, disk: str, *, runs: bool) -> None:
        await self._on(uid, "end the copy of a disk of", lambda domain: _abandon(domain, disk, runs=runs))


# ---- blocking parts ------------------------------------------------------------------------------------------------


def _begin(domain: libvirt.virDomain, disk: DomainDisk, bytes_per_s: int) -> str:
    """The disk's target while it is copied; empty where it is on the new file already."""
    element = running_disk(domain, disk.name)
    if reading.source(element) == disk.path:
        return ""
    target = reading.target(element)
    mirror = element.find("mirror")
    if mirror is not None and reading.source(mirror) == disk.path:
        return target
    parameters: dict[str, object] = {}
    if bytes_per_s:
        parameters[libvirt.VIR_DOMAIN_BLOCK_COPY_BANDWIDTH] = bytes_per_s
    domain.blockCopy(target, _new_file(disk), parameters, _COPY)
    return target


def _new_file(disk: DomainDisk) -> str:
    """It is told that there is nothing below it: then nobody looks."""
    element = Element("disk", type="file")
    SubElement(element, "driver", type=disk.format)
    SubElement(element, "source", file=disk.path)
    SubElement(element, "backingStore")
    return tostring(element, encoding="unicode")


@contextmanager
def _standing(domain: libvirt.virDomain, *, runs: bool) -> Iterator[None]:
    """Whatever happens: a guest that is to run goes on afterwards."""
    if runs and STATES.get(domain.state(0)[0]) is VmState.RUNNING:
        domains.suspend(domain)
    try:
        yield
    finally:
        if runs and domain.isActive():
            domains.resume(domain)


def _pivot(domain: libvirt.virDomain, disk: DomainDisk) -> None:
    element = running_disk(domain, disk.name)
    if reading.source(element) == disk.path:
        return
    target = reading.target(element)
    if not domain.blockJobInfo(target, 0):
        raise CorralError("wrong-state", f"switch disk {disk.name} of {domain.name()}", "its copy has ended")
    domain.blockJobAbort(target, libvirt.VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT)
    end_s = time.monotonic() + ENDED_S
    while reading.source(running_disk(domain, disk.name)) != disk.path:
        if time.monotonic() > end_s or not domain.blockJobInfo(target, 0):
            raise CorralError("hypervisor-error", f"switch disk {disk.name} of {domain.name()}", "it is where it was")
        time.sleep(0.01)


def _abandon(domain: libvirt.virDomain, name: str, *, runs: bool) -> None:
    if not domain.isActive():
        return
    try:
        element = running_disk(domain, name)
        if element.find("mirror") is not None:
            domain.blockJobAbort(reading.target(element), 0)
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_OPERATION_INVALID:  # it ended by itself
            raise
    if runs and domain.isActive():
        domains.resume(domain)
