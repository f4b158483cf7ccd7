"""Points in time of simulated domains, whose disks hold blocks and whose memory is a text."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path

from corral.errors import CorralError
from corral.hypervisor.base import DomainDisk
from corral.hypervisor.fake_domain import FakeDomain, definition_hash
from corral.hypervisor.points import PointTaken, PointWanted, Sinking
from corral.model.vm import VmState
from corral.simulated_disks import SimulatedDisks

MEMORY: str = "memory"


class FakePoints:
    """The contract over domains in a dictionary and files in another."""

    def __init__(
        self,
        call: Callable[[str], AbstractAsyncContextManager[None]],
        domain: Callable[[str], FakeDomain],
        changed: Callable[[FakeDomain, str], None],
        run: Callable[[str], None],
        disks: SimulatedDisks,
    ) -> None:
        self._call, self._domain, self._changed, self._run = call, domain, changed, run
        self.disks = disks

    async def take(self, uid: str, wanted: PointWanted) -> PointTaken:
        async with self._call("point_take"):
            domain = self._domain(uid)
            if not domain.active:
                return PointTaken(VmState.SHUT_OFF)
            if wanted.quiesce and not domain.agent_connected:
                raise CorralError("guest-agent-unavailable", f"freeze {domain.name}", "no agent is connected")
            if wanted.with_memory:
                path = str(wanted.directory / MEMORY)
                self.disks.remove(path)
                self.disks.make(path, "")
                self.disks.write(path, 0, domain.memory)
            for disk in wanted.disks:
                self.disks.check(disk.path)
            domain.live_disks = self._with(domain.live_disks, wanted.disks)
            self._define(domain, wanted.disks)
            self._changed(domain, "defined")
            return PointTaken(domain.state, 0.0, wanted.quiesce)

    async def thaw(self, uid: str, *, frozen: bool, runs: bool) -> None:
        async with self._call("point_thaw"):
            domain = self._domain(uid)
            if runs and domain.state is VmState.PAUSED:
                domain.state, domain.reason = VmState.RUNNING, "unpaused"
                self._changed(domain, "resumed")

    async def place(self, uid: str, disks: tuple[DomainDisk, ...], dac_uid: int | None) -> None:
        async with self._call("point_place"):
            domain = self._domain(uid)
            self._define(domain, disks)
            self._changed(domain, "defined")

    async def restore(self, uid: str, directory: Path, disks: tuple[DomainDisk, ...], *, paused: bool) -> None:
        async with self._call("point_restore"):
            domain = self._domain(uid)
            if domain.active:
                raise CorralError("wrong-state", f"restore {domain.name}", "it runs")
            memory = self.disks.content(str(directory / MEMORY)).get(0, "")
            self._run(uid)
            domain.memory = memory
            domain.live_disks = self._with(domain.live_disks, disks)
            if paused:
                domain.state, domain.reason = VmState.PAUSED, "user"
            self._changed(domain, "resumed")

    async def put_back(self, uid: str, directory: Path, kept: tuple[str, ...], dac_uid: int | None) -> None:
        async with self._call("point_put_back"):
            self._domain(uid)

    async def flush(self, uid: str, disk: str) -> None:
        async with self._call("point_flush"):
            self._domain(uid)

    async def pull(
        self, uid: str, disk: str, base: str, on_share: Callable[[float], None], bytes_per_s: int = 0
    ) -> None:
        async with self._call("point_pull"):
            domain = self._domain(uid)
            found = next((live for live in domain.live_disks if live.name == disk), None)
            if not domain.active or found is None:
                raise CorralError("wrong-state", f"pull into disk {disk} of {domain.name}", "it does not run with it")
            on_share(0.5)
            self.disks.merge(found.path, base)

    async def sink(self, uid: str, sinking: Sinking, on_share: Callable[[float], None], bytes_per_s: int = 0) -> None:
        async with self._call("point_sink"):
            domain = self._domain(uid)
            if not domain.active:
                raise CorralError("wrong-state", f"merge a layer of {domain.name}", "it does not run")
            on_share(0.5)
            self.disks.sink(str(sinking.top), str(sinking.base), str(sinking.above))

    def _define(self, domain: FakeDomain, disks: tuple[DomainDisk, ...]) -> None:
        domain.disks = self._with(domain.disks, disks)
        domain.definition_hash = definition_hash(domain)

    @staticmethod
    def _with(disks: tuple[DomainDisk, ...], wanted: tuple[DomainDisk, ...]) -> tuple[DomainDisk, ...]:
        by_name = {disk.name: disk for disk in wanted}
        placed = ((disk, by_name.get(disk.name)) for disk in disks)
        return tuple(disk if new is None else replace(disk, path=new.path, backing=new.backing) for disk, new in placed)
