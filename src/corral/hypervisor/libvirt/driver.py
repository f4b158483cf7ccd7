"""The libvirt driver: the contract's verbs, each one call into libvirt in a thread, repeatable, with a time-out."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import Final, Literal, Self, TypeVar

import libvirt
import libvirt_qemu

from corral.errors import CorralError
from corral.hypervisor.base import (
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
)
from corral.hypervisor.libvirt import abilities, confinement, domains, guest_agent, guest_exec, starting
from corral.hypervisor.libvirt.accelerator import probe_accelerators
from corral.hypervisor.libvirt.connection import Connection
from corral.hypervisor.libvirt.console import StreamConsole, open_stream
from corral.hypervisor.libvirt.disk_jobs import LibvirtDiskJobs
from corral.hypervisor.libvirt.events import Events
from corral.hypervisor.libvirt.forks import LibvirtForking
from corral.hypervisor.libvirt.guests import LibvirtGuests
from corral.hypervisor.libvirt.host import Host
from corral.hypervisor.libvirt.live import apply_live, grow_disk
from corral.hypervisor.libvirt.pending import Left
from corral.hypervisor.libvirt.points import LibvirtPoints
from corral.hypervisor.libvirt.reading import describe
from corral.hypervisor.libvirt.screens import LibvirtScreens
from corral.hypervisor.libvirt.starting import Needs, needs_of
from corral.hypervisor.support import HardwareSupport
from corral.model.host import AcceleratorFinding

T = TypeVar("T")

FIRST_CONNECTION_S: Final = 5.0
# A managed save writes the guest's memory: 1 GiB takes 2 s on a slow disk.
SAVE_TIMEOUT_S: Final = 900.0
# `guest-shutdown` gives no answer when it works; libvirt waits this long for an error.
AGENT_TIMEOUT_S: Final = guest_agent.COMMAND_TIMEOUT_S + 5.0


class LibvirtDriver:
    """`HypervisorDriver` over libvirt. Two connections: what answers at once, and what may take its time (memory being
    saved, guest agents), so that slow guests never keep the others waiting for one of libvirtd's five slots."""

    def __init__(self, uri: str, timeout_s: float, host: Host) -> None:
        loop = asyncio.get_running_loop()
        self._uri = uri
        self._host = host
        self._left = Left()
        self._events = Events(loop, self._left)
        self._facts = HypervisorFacts("libvirt", connected=False, libvirt_version="", qemu_version="", uri=uri)
        self._versions = (0, 0)
        self._capabilities: dict[Accelerator, str] = {}
        self._agent_turns = guest_agent.Turns()
        self.screens = LibvirtScreens(self._on)
        self.points = LibvirtPoints(self._slow_on, host, self._events.listen)
        self.disk_jobs = LibvirtDiskJobs(self._slow_on, host)
        self.guests = LibvirtGuests(lambda uid: lambda command: self._ask_agent(uid, command))
        self.forking = LibvirtForking(
            self._host,
            self._slow_call,
            self._slow_on,
            lambda uid: lambda command: self._ask_agent(uid, command),
            lambda uid: self._left.heard(uid, "defined"),
        )
        self._quick = Connection(uri, timeout_s, "quick", setup=self._set_up, changed=self._changed)
        self._slow = Connection(uri, timeout_s, "slow", setup=lambda _: (), changed=lambda _: None)

    @classmethod
    async def open(cls, uri: str, *, timeout_s: float) -> Self:
        """Connect, waiting a few seconds at most: a driver whose libvirtd is away is a driver all the same."""
        driver = cls(uri, timeout_s, confinement.find_host(uri))
        driver._quick.start()
        driver._slow.start()
        await driver._quick.wait_connected(FIRST_CONNECTION_S)
        return driver

    async def close(self) -> None:
        await self._quick.close()
        await self._slow.close()

    def _set_up(self, handle: libvirt.virConnect) -> Sequence[int]:
        """In the opening thread."""
        subscriptions = self._events.register(handle)
        self._facts = domains.facts(handle, self._uri)
        self._versions = abilities.versions(handle)
        self._capabilities.clear()  # another libvirtd, maybe another QEMU
        self.forking.forget_key()
        return subscriptions

    def _changed(self, connected: bool) -> None:
        self._events.publish(DomainEvent("", "", "connected" if connected else "disconnected"))

    async def call(self, asked: str, function: Callable[[libvirt.virConnect], T]) -> T:
        """For the network driver, which shares the connection."""
        return await self._quick.call(asked, function)

    async def _on(self, uid: str, verb: str, act: Callable[[libvirt.virDomain], T]) -> T:
        return await self._quick.call(f"{verb} domain {uid}", lambda handle: act(handle.lookupByUUIDString(uid)))

    # ---- what is ---------------------------------------------------------------------------------------------------

    async def facts(self) -> HypervisorFacts:
        known = self._facts
        return HypervisorFacts(
            driver="libvirt",
            connected=self._quick.connected,
            libvirt_version=known.libvirt_version,
            qemu_version=known.qemu_version,
            uri=known.uri,
            max_vcpus=known.max_vcpus,
        )

    async def hardware_support(self, accelerator: Accelerator) -> HardwareSupport:
        asked = "read what guests can have"
        if accelerator not in self._capabilities:
            read = partial(abilities.capabilities, accelerator=accelerator)
            self._capabilities[accelerator] = await self._quick.call(asked, read)
        document = self._capabilities[accelerator]
        return await asyncio.to_thread(abilities.read_support, document, self._versions, accelerator, self._host)

    async def probe_accelerators(self) -> tuple[AcceleratorFinding, ...]:
        return await probe_accelerators()

    async def observe(self, uid: str) -> ObservedDomain | None:
        remembered = self._events.remembered_stop
        try:
            return await self._on(uid, "observe", lambda domain: domains.observe(domain, remembered, self._left))
        except CorralError as error:
            if error.code == "domain-not-found":
                return None
            raise

    async def observe_all(self) -> tuple[ObservedDomain, ...]:
        remembered = self._events.remembered_stop
        return await self._quick.call(
            "list domains", lambda handle: domains.observe_all(handle, remembered, self._left)
        )

    async def find(self, name: str) -> str | None:
        def look(handle: libvirt.virConnect) -> str | None:
            domain = domains.find_by_name(handle, name)
            return None if domain is None else str(domain.UUIDString())

        return await self._quick.call(f"look for domain {name}", look)

    async def describe(self, uid: str) -> DomainDescription:
        return await self._on(uid, "describe", lambda domain: describe(domains.persistent_document(domain)))

    async def usage_all(self) -> tuple[DomainUsage, ...]:
        return await self._quick.call("read usage", domains.usage_all)

    async def document(self, uid: str) -> str:
        return await self._on(uid, "show", lambda domain: str(domain.XMLDesc(0)))

    def events(self) -> AsyncIterator[DomainEvent]:
        return self._events.listen()

    # ---- what is to be ---------------------------------------------------------------------------------------------

    async def define(self, definition: DomainDefinition) -> None:
        def act(handle: libvirt.virConnect) -> bool:
            confinement.prepare_files(definition, self._host)
            return domains.define(handle, definition, self._host)

        if await self._quick.call(f"define domain {definition.name}", act):
            self._events.never_ran(definition.uid)

    async def start(self, uid: str, *, boot_from: str = "") -> ObservedDomain:
        prepared: Needs | None = None
        remembered = self._events.remembered_stop

        def act(domain: libvirt.virDomain) -> Needs | ObservedDomain:
            found = domains.start(domain, prepared, boot_from)
            return domains.observe(domain, remembered, self._left, found) if isinstance(found, str) else found

        while not isinstance(found := await self._slow_on(uid, "start", act), ObservedDomain):
            await asyncio.to_thread(starting.prepare, found, self._host)
            prepared = found
        return found

    async def shutdown(self, uid: str, mode: Literal["agent", "acpi"]) -> None:
        await self._slow_on(uid, "shut down", lambda domain: domains.shutdown(domain, mode), AGENT_TIMEOUT_S)

    async def destroy(self, uid: str) -> None:
        await self._on(uid, "destroy", domains.destroy)

    async def reboot(self, uid: str, mode: Literal["agent", "acpi"]) -> None:
        await self._slow_on(uid, "reboot", lambda domain: domains.reboot(domain, mode), AGENT_TIMEOUT_S)

    async def reset(self, uid: str) -> None:
        await self._on(uid, "reset", lambda domain: domain.reset(0))

    async def suspend(self, uid: str) -> None:
        await self._on(uid, "pause", domains.suspend)

    async def resume(self, uid: str) -> None:
        await self._on(uid, "resume", domains.resume)

    async def save(self, uid: str) -> None:
        await self._slow_on(uid, "save", domains.save, SAVE_TIMEOUT_S)

    async def undefine(self, uid: str) -> None:
        try:
            needs = await self._on(uid, "undefine", lambda domain: needs_of(domains.persistent_document(domain)))
            await asyncio.to_thread(starting.remove_mounts, needs)
            await self._on(uid, "undefine", domains.undefine)
        except CorralError as error:
            if error.code != "domain-not-found":
                raise
        await asyncio.to_thread(starting.remove_state, uid, self._host)

    async def rename(self, uid: str, name: str) -> None:
        asked = f"rename domain {uid} to {name}"
        await self._quick.call(asked, lambda handle: domains.rename(handle, uid, name))

    async def set_metadata(self, uid: str, metadata: DomainMetadata) -> None:
        await self._on(uid, "write metadata of", lambda domain: domains.set_metadata(domain, metadata))

    async def apply_live(self, uid: str, metadata: DomainMetadata) -> ObservedDomain:
        remembered = self._events.remembered_stop

        def act(domain: libvirt.virDomain) -> ObservedDomain:
            applied = apply_live(domain, metadata)
            self._left.tried(uid, applied.reasons, settled=applied.settled)
            return domains.observe(domain, remembered, self._left, applied.document)

        return await self._slow_on(uid, "change", act)

    async def grow_disk(self, uid: str, disk: str, size_bytes: int) -> bool:
        return await self._slow_on(uid, "grow a disk of", lambda domain: grow_disk(domain, disk, size_bytes))

    # ---- talking to guests -----------------------------------------------------------------------------------------

    async def open_console(self, uid: str, *, force: bool) -> Console:
        stream = await self._quick.call(
            f"open the console of {uid}", lambda handle: open_stream(handle, uid, force=force)
        )
        return StreamConsole(stream, lambda asked, act: self._quick.call(asked, lambda _handle: act()))

    async def guest_facts(self, uid: str) -> GuestFacts:
        return await guest_agent.facts(lambda command: self._ask_agent(uid, command))

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
        return await guest_exec.execute(
            lambda command: self._ask_agent(uid, command),
            argv,
            stdin=stdin,
            timeout_s=timeout_s,
            capture_max_bytes=capture_max_bytes,
            on_output=on_output,
        )

    async def _ask_agent(self, uid: str, command: str) -> str:
        def ask(domain: libvirt.virDomain) -> str:
            return str(libvirt_qemu.qemuAgentCommand(domain, command, guest_agent.COMMAND_TIMEOUT_S, 0))

        try:
            async with self._agent_turns.of(uid):
                return await self._slow_on(uid, "ask the guest agent of", ask, AGENT_TIMEOUT_S)
        except CorralError as error:
            if error.code != "hypervisor-error":
                raise
            # libvirt reports what the agent itself refused (a command it lacks, a program that is not there) as this.
            raise CorralError("guest-agent-error", error.asked, error.reason, context=error.context) from error

    async def _slow_call(
        self, asked: str, function: Callable[[libvirt.virConnect], T], timeout_s: float | None = None
    ) -> T:
        if self._quick.connected and not self._slow.connected:  # it is being opened: libvirtd is there
            await self._slow.wait_connected(FIRST_CONNECTION_S)
        return await self._slow.call(asked, function, timeout_s)

    async def _slow_on(
        self, uid: str, verb: str, act: Callable[[libvirt.virDomain], T], timeout_s: float | None = None
    ) -> T:
        asked = f"{verb} domain {uid}"
        return await self._slow_call(asked, lambda handle: act(handle.lookupByUUIDString(uid)), timeout_s)
