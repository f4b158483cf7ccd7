"""Copies of simulated running domains' disks: what a guest writes meanwhile is in both once it switches."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace

from corral.errors import CorralError
from corral.hypervisor.base import DomainDisk
from corral.hypervisor.fake_domain import FakeDomain, definition_hash
from corral.model.vm import VmState
from corral.simulated_disks import SimulatedDisks


@dataclass
class FakeDiskJobs:
    """A copy ends with the QEMU that makes it."""

    call: Callable[[str], AbstractAsyncContextManager[None]]
    domain: Callable[[str], FakeDomain]
    changed: Callable[[FakeDomain, str], None]
    disks: SimulatedDisks

    def __post_init__(self) -> None:
        self.running: dict[tuple[str, str], tuple[int, str]] = {}
        """By domain and disk: which start of it makes the copy, and where to."""

    async def copies(self, uid: str, disk: DomainDisk) -> bool:
        async with self.call("disk_copies"):
            domain = self._with(uid, disk.name)
            written = any(found.path == disk.path for found in domain.live_disks)
            return written or self.running.get((uid, disk.name)) == (domain.starts, disk.path)

    async def mirror(
        self, uid: str, disk: DomainDisk, dac_uid: int | None, bytes_per_s: int, on_share: Callable[[float], None]
    ) -> None:
        async with self.call("disk_mirror"):
            domain = self._with(uid, disk.name)
            self.running[uid, disk.name] = (domain.starts, disk.path)
            on_share(0.5)

    async def switch(self, uid: str, disk: DomainDisk, dac_uid: int | None, *, runs: bool) -> None:
        async with self.call("disk_pause"):
            domain = self._with(uid, disk.name)
            if runs and domain.state is VmState.RUNNING:
                domain.state, domain.reason = VmState.PAUSED, "user"
                self.changed(domain, "suspended")
        async with self.call("disk_switch"):
            domain = self._with(uid, disk.name)
            live = next(found for found in domain.live_disks if found.name == disk.name)
            gone = self.running.get((uid, disk.name)) != (domain.starts, disk.path)
            if live.path != disk.path and not gone:
                for block, value in self.disks.content(live.path).items():
                    self.disks.write(disk.path, block, value)
                domain.live_disks = _placed(domain.live_disks, disk)
                domain.disks = _placed(domain.disks, disk)
                domain.definition_hash = definition_hash(domain)
            self._go_on(domain, runs=runs)
            if live.path != disk.path and gone:
                raise CorralError("wrong-state", f"switch disk {disk.name} of {domain.name}", "the copy has ended")

    async def abandon(self, uid: str, disk: str, *, runs: bool) -> None:
        async with self.call("disk_abandon"):
            self.running.pop((uid, disk), None)
            self._go_on(self.domain(uid), runs=runs)

    def _go_on(self, domain: FakeDomain, *, runs: bool) -> None:
        if runs and domain.state is VmState.PAUSED:
            domain.state, domain.reason = VmState.RUNNING, "unpaused"
            self.changed(domain, "resumed")

    def _with(self, uid: str, disk: str) -> FakeDomain:
        domain = self.domain(uid)
        if not domain.active or all(found.name != disk for found in domain.live_disks):
            raise CorralError("wrong-state", f"move disk {disk} of {domain.name}", "it does not run with it")
        return domain


def _placed(disks: tuple[DomainDisk, ...], wanted: DomainDisk) -> tuple[DomainDisk, ...]:
    return tuple(
        replace(disk, path=wanted.path, backing=wanted.backing) if disk.name == wanted.name else disk for disk in disks
    )
