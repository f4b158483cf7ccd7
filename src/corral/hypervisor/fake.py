"""A hypervisor in memory: every state, event and error of the real one, at a thousand VMs a second.

Long because it is the whole contract, one short method a verb, and what happens to domains by itself.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Final, Literal, cast

from pydantic import TypeAdapter

from corral.errors import CorralError
from corral.hypervisor import fake_domain
from corral.hypervisor.base import (
    NO_SPACE,
    Accelerator,
    Console,
    DomainDefinition,
    DomainDescription,
    DomainEvent,
    DomainMetadata,
    DomainUsage,
    ExecResult,
    GuestFacts,
    HypervisorFacts,
    ObservedDomain,
    OnOutput,
    StopCause,
)
from corral.hypervisor.fake_disk_jobs import FakeDiskJobs
from corral.hypervisor.fake_domain import CONSOLE_BANNER, FakeConsole, FakeDomain, definition_hash
from corral.hypervisor.fake_forks import FakeForking
from corral.hypervisor.fake_points import FakePoints
from corral.hypervisor.fake_reach import FakeGuests, FakeScreens
from corral.hypervisor.support import HardwareSupport
from corral.model.host import AcceleratorFinding
from corral.model.vm import VmState
from corral.simulated_disks import disks_of
from corral.simulation import Simulation

AGENT_DELAY_S: Final = 1.0
"""After this long a simulated guest's agent is connected."""
EVENTS_MAX: Final = 100_000
OBSERVED_AT_ONCE: Final = 50


__all__ = ["FakeDomain", "FakeHypervisor", "definition_hash"]

_DOMAIN: Final = TypeAdapter(FakeDomain)


class FakeHypervisor:
    """The driver contract over a dictionary. `guest_*` methods are what a guest, virsh or the kernel do to a domain."""

    def __init__(self, simulation: Simulation, installation_id: str = "", agent_delay_s: float = AGENT_DELAY_S) -> None:
        self.simulation = simulation
        self.installation_id = installation_id
        self.agent_delay_s = agent_delay_s
        self.obeys_shutdown = True
        self.shutdown_delay_s = 0.0
        self._kept = simulation.section("domains", _DOMAIN)
        self.domains = self._kept.restore()
        self.support = HardwareSupport()  # a test may say otherwise
        self.consoles: dict[str, FakeConsole] = {}
        self.screens = FakeScreens(self._call, self._active)
        self.guests = FakeGuests(self._call, self._with_agent)
        self.disks = disks_of(simulation)
        self.points = FakePoints(self._call, self._domain, self._emit, self.run, self.disks)
        self.disk_jobs = FakeDiskJobs(self._call, self._domain, self._emit, self.disks)
        self._names = {domain.name: uid for uid, domain in self.domains.items()}
        self._queues: set[asyncio.Queue[DomainEvent]] = set()
        self.forking = FakeForking(self._call, self.domains, self._names, self._emit)
        self._pids = 1000 + len(self.domains)
        for domain in self.domains.values():
            if domain.active and not domain.agent_connected:
                self._agent_later(domain.uid, domain.starts)

    # ---- the contract ----

    async def facts(self) -> HypervisorFacts:
        async with self._call("facts"):
            return HypervisorFacts("fake", self.simulation.connected, "0.0.0", "0.0.0", "fake:///", max_vcpus=288)

    async def hardware_support(self, accelerator: Accelerator) -> HardwareSupport:
        async with self._call("hardware_support"):
            return replace(self.support, accelerator=accelerator)

    async def probe_accelerators(self) -> tuple[AcceleratorFinding, ...]:
        async with self._call("probe_accelerators"):
            return (
                AcceleratorFinding(name="kvm", usable=False, reason="the fake hypervisor runs no guest code"),
                AcceleratorFinding(name="tcg", usable=True, reason="pretended"),
            )

    async def define(self, definition: DomainDefinition) -> None:
        async with self._call("define"):
            holder = self._names.get(definition.name)
            if holder is not None and holder != definition.uid:
                raise CorralError("domain-name-taken", f"define {definition.name}", "another domain has this name")
            domain = self.domains.get(definition.uid)
            if domain is None:
                domain = FakeDomain(definition.uid, definition.name, definition.vcpus, definition.memory_mib, None)
                self.domains[definition.uid] = domain
            elif not fake_domain.may_define(domain, definition):
                raise CorralError("domain-not-ours", f"define {definition.name}", "it is another installation's")
            elif domain.name != definition.name:
                raise CorralError("hypervisor-error", f"define {definition.name}", f"it is called {domain.name}")
            self._names[definition.name] = definition.uid
            domain.take(definition)
            self._emit(domain, "defined")

    async def start(self, uid: str, *, boot_from: str = "") -> ObservedDomain:
        async with self._call("start"):
            self._domain(uid).boot_from = boot_from
            self.run(uid)
            return fake_domain.observed(self._domain(uid), self.disks)

    async def shutdown(self, uid: str, mode: Literal["agent", "acpi"]) -> None:
        async with self._call("shutdown"):
            domain = self._domain(uid)
            if not domain.active:
                return
            if mode == "agent" and not domain.agent_connected:
                raise CorralError("guest-agent-unavailable", f"shut down {domain.name}", "no agent is connected")
            if self.obeys_shutdown:
                self._later(self.shutdown_delay_s, uid, StopCause.GUEST)

    async def destroy(self, uid: str) -> None:
        async with self._call("destroy"):
            domain = self._domain(uid)
            if domain.active:
                self.stop(uid, StopCause.DESTROYED)

    async def reboot(self, uid: str, mode: Literal["agent", "acpi"]) -> None:
        async with self._call("reboot"):
            domain = self._active(uid, "reboot")
            if mode == "agent" and not domain.agent_connected:
                raise CorralError("guest-agent-unavailable", f"reboot {domain.name}", "no agent is connected")
            if self.obeys_shutdown:
                domain.resets += 1
                self._emit(domain, "reboot")

    async def reset(self, uid: str) -> None:
        async with self._call("reset"):
            domain = self._active(uid, "reset")
            domain.resets += 1
            self._emit(domain, "reboot")

    async def suspend(self, uid: str) -> None:
        async with self._call("suspend"):
            domain = self._active(uid, "suspend")
            domain.state, domain.reason = VmState.PAUSED, "user"
            self._emit(domain, "suspended")

    async def resume(self, uid: str) -> None:
        async with self._call("resume"):
            domain = self._active(uid, "resume")
            domain.state, domain.reason = VmState.RUNNING, "unpaused"
            self._emit(domain, "resumed")

    async def save(self, uid: str) -> None:
        async with self._call("save"):
            domain = self._domain(uid)
            if not domain.active and domain.has_managed_save:
                return
            self._active(uid, "save")
            domain.has_managed_save = True
            self.stop(uid, StopCause.SAVED)

    async def undefine(self, uid: str) -> None:
        async with self._call("undefine"):
            domain = self.domains.get(uid)
            if domain is None:
                return
            if domain.active:
                domain.persistent = False
            else:
                self._forget(domain)
            self._emit(domain, "undefined")

    async def rename(self, uid: str, name: str) -> None:
        async with self._call("rename"):
            domain = self._domain(uid)
            if domain.name == name:
                return
            if domain.active:
                raise CorralError("wrong-state", f"rename {domain.name}", "it runs")
            if domain.has_managed_save:
                raise CorralError("wrong-state", f"rename {domain.name}", "its memory is saved")
            if name in self._names:
                raise CorralError("domain-name-taken", f"rename {domain.name}", f"there is a domain {name}")
            self._names.pop(domain.name, None)
            self._names[name] = uid
            domain.name = name
            domain.definition_hash = definition_hash(domain)
            self._emit(domain, "defined")

    async def set_metadata(self, uid: str, metadata: DomainMetadata) -> None:
        async with self._call("set_metadata"):
            domain = self._domain(uid)
            domain.metadata = metadata
            domain.live_spec_json = metadata.spec_json if domain.active else None
            self._kept.keep(uid, domain)

    async def apply_live(self, uid: str, metadata: DomainMetadata) -> ObservedDomain:
        async with self._call("apply_live"):
            domain = self._domain(uid)  # what can change while it runs is what the definition says
            if domain.active:
                domain.live_spec_json = metadata.spec_json
                domain.plug()
                self._kept.keep(uid, domain)
            return fake_domain.observed(domain, self.disks)

    async def grow_disk(self, uid: str, disk: str, size_bytes: int) -> bool:
        async with self._call("grow_disk"):
            return any(found.name == disk for found in self._active(uid, "grow a disk of").disks)

    async def observe(self, uid: str) -> ObservedDomain | None:
        async with self._call("observe"):
            domain = self.domains.get(uid)
            return None if domain is None else fake_domain.observed(domain, self.disks)

    async def observe_all(self) -> tuple[ObservedDomain, ...]:
        async with self._call("observe_all"):
            found = []
            for number, domain in enumerate(list(self.domains.values())):
                if number % OBSERVED_AT_ONCE == 0:  # the real one takes a thread for it
                    await asyncio.sleep(0)
                found.append(fake_domain.observed(domain, self.disks))
            return tuple(found)

    async def find(self, name: str) -> str | None:
        async with self._call("find"):
            return self._names.get(name)

    async def describe(self, uid: str) -> DomainDescription:
        async with self._call("describe"):
            return fake_domain.described(self._domain(uid))

    async def usage_all(self) -> tuple[DomainUsage, ...]:
        async with self._call("usage_all"):
            return tuple(fake_domain.used(domain) for domain in self.domains.values() if domain.active)

    async def events(self) -> AsyncIterator[DomainEvent]:
        queue: asyncio.Queue[DomainEvent] = asyncio.Queue(EVENTS_MAX)
        self._queues.add(queue)
        try:
            if self.simulation.connected:
                yield DomainEvent("", "", "connected")
            while True:
                yield await queue.get()
        finally:
            self._queues.discard(queue)

    async def open_console(self, uid: str, *, force: bool) -> Console:
        async with self._call("open_console"):
            domain = self._active(uid, "open the console of")
            if uid in self.consoles and not force:
                raise CorralError("console-in-use", f"console of {domain.name}", "somebody else has it open", "--force")
            if uid in self.consoles:
                await self.consoles[uid].close()
            console = FakeConsole(lambda ended: self._console_ended(uid, ended))
            console.output.put_nowait(CONSOLE_BANNER)
            self.consoles[uid] = console
            return console

    async def guest_facts(self, uid: str) -> GuestFacts:
        async with self._call("guest_facts"):
            return fake_domain.told(self._with_agent(uid))

    async def guest_exec(
        self,
        uid: str,
        argv: Sequence[str],
        *,
        stdin: bytes,
        timeout_s: float,
        capture_max_bytes: int,
        on_output: OnOutput | None = None,
    ) -> ExecResult:
        async with self._call("guest_exec"):
            self._with_agent(uid)
            done = fake_domain.ran(argv, stdin, capture_max_bytes)
            if on_output is not None:
                on_output("stdout", done.stdout)
            return done

    async def document(self, uid: str) -> str:
        async with self._call("document"):
            return fake_domain.document(self._domain(uid).name, uid)

    async def close(self) -> None:
        self.simulation.close()

    # ---- what happens to domains by itself ----

    def run(self, uid: str) -> None:
        """As `virsh start` does; nothing happens if it runs."""
        domain = self._domain(uid)
        if domain.active:
            return
        self._check_files(domain)
        self._pids += 1
        domain.state, domain.reason = VmState.RUNNING, "restored" if domain.has_managed_save else "booted"
        domain.stop_cause, domain.pid = StopCause.NONE, self._pids
        domain.has_managed_save = False
        domain.starts += 1
        domain.boot()
        self._emit(domain, "started")
        self._agent_later(uid, domain.starts)

    def stop(self, uid: str, cause: StopCause) -> None:
        """The domain stops: a guest's own doing, virsh's, a killed QEMU or a panic."""
        domain = self.domains.get(uid)
        if domain is None or not domain.active:
            return
        domain.state = VmState.CRASHED if cause is StopCause.CRASHED else VmState.SHUT_OFF
        domain.reason = "shutdown" if cause is StopCause.GUEST else cause.value
        domain.stop_cause, domain.pid, domain.agent_connected = cause, None, False
        if uid in self.consoles:
            self.consoles[uid].end()
        self.screens.end(uid)
        if not domain.persistent:
            self._forget(domain)
        self._emit(domain, "crashed" if cause is StopCause.CRASHED else "stopped", cause)

    def reboot_host(self) -> None:
        """Every domain is off and nobody remembers why; what was never defined is gone."""
        for domain in list(self.domains.values()):
            if not domain.persistent:
                self._forget(domain)
                self._kept.keep(domain.uid, None)
            elif domain.active:
                domain.state, domain.reason, domain.pid = VmState.SHUT_OFF, "unknown", None
                domain.stop_cause, domain.agent_connected = StopCause.UNKNOWN, False
                self._kept.keep(domain.uid, domain)

    def disconnect(self) -> None:
        """libvirtd is gone; domains run on."""
        self.simulation.connected = False
        self._emit(None, "disconnected")

    def reconnect(self) -> None:
        self.simulation.connected = True
        self._emit(None, "connected")

    def edit(self, uid: str, change: Callable[[FakeDomain], object]) -> None:
        """`virsh edit` by somebody else."""
        domain = self._domain(uid)
        change(domain)
        domain.definition_hash = definition_hash(domain)
        self._emit(domain, "defined")

    def add_foreign(self, domain: FakeDomain) -> None:
        """A domain that Corral did not make."""
        self.domains[domain.uid] = domain
        self._names[domain.name] = domain.uid
        self._kept.keep(domain.uid, domain)

    def guest_meets_full_disk(self, uid: str) -> None:
        """Its write finds no space: QEMU pauses it."""
        domain = self._active(uid, "write in")
        domain.state, domain.reason = VmState.PAUSED, NO_SPACE
        self._emit(domain, "io-error")

    def guest_reads(self, uid: str, disk: str) -> dict[int, str]:
        """What a guest would find on its disk, running or started now."""
        domain = self._domain(uid)
        disks = domain.live_disks if domain.active else domain.disks
        return self.disks.content(next(found.path for found in disks if found.name == disk))

    # ---- within ----

    def _check_files(self, domain: FakeDomain) -> None:
        """QEMU opens the whole chain that the definition names."""
        for disk in domain.disks:
            for path in (disk.path, *(below for below, _ in disk.backing)):
                self.disks.check(path)

    def _call(self, name: str) -> AbstractAsyncContextManager[None]:
        return self.simulation.call(f"hypervisor.{name}", connection=name != "facts")

    def _domain(self, uid: str) -> FakeDomain:
        domain = self.domains.get(uid)
        if domain is None:
            raise CorralError("domain-not-found", f"domain {uid}", "there is none")
        return domain

    def _active(self, uid: str, verb: str) -> FakeDomain:
        domain = self._domain(uid)
        if not domain.active:
            raise CorralError("wrong-state", f"{verb} {domain.name}", "it does not run")
        return domain

    def _with_agent(self, uid: str) -> FakeDomain:
        domain = self._active(uid, "ask the guest agent of")
        if not domain.agent_connected:
            raise CorralError("guest-agent-unavailable", f"guest agent of {domain.name}", "it is not connected")
        return domain

    def _console_ended(self, uid: str, console: FakeConsole) -> None:
        if self.consoles.get(uid) is console:
            del self.consoles[uid]

    def _forget(self, domain: FakeDomain) -> None:
        self.domains.pop(domain.uid, None)
        self._names.pop(domain.name, None)

    def _emit(self, domain: FakeDomain | None, kind: str, cause: StopCause = StopCause.NONE) -> None:
        """Whoever listens hears of what has changed, once it is kept."""
        uid, name = (domain.uid, domain.name) if domain else ("", "")
        if domain is not None:
            self._kept.keep(uid, self.domains.get(uid))
        event = DomainEvent(uid, name, cast("Literal['defined']", kind), cause)
        for queue in self._queues:
            if not queue.full():
                queue.put_nowait(event)

    def _later(self, delay_s: float, uid: str, cause: StopCause) -> None:
        if delay_s:
            asyncio.get_running_loop().call_later(delay_s, self.stop, uid, cause)
        else:
            self.stop(uid, cause)

    def _agent_later(self, uid: str, start: int) -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # a test moves the world between two event loops
            return
        loop.call_later(self.agent_delay_s, self._connect_agent, uid, start)

    def _connect_agent(self, uid: str, start: int) -> None:
        domain = self.domains.get(uid)
        if domain is not None and domain.active and domain.starts == start and not domain.agent_connected:
            domain.agent_connected = True
            self._emit(domain, "agent")
