"""One domain of the fake hypervisor, and its console."""

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from corral.hypervisor.base import (
    Console,
    DirectKernel,
    DomainDefinition,
    DomainDescription,
    DomainDisk,
    DomainMetadata,
    DomainNic,
    DomainUsage,
    ExecResult,
    GuestFacts,
    NicCounters,
    ObservedDomain,
    StopCause,
)
from corral.hypervisor.targets import disk_targets
from corral.model.vm import VmState
from corral.names import tap_name
from corral.simulated_disks import SimulatedDisks

CONSOLE_BANNER: Final = b"corral fake guest\r\n# "


def definition_hash(definition: "DomainDefinition | FakeDomain") -> str:
    """Of the fields that Corral owns; the metadata is not one of them."""
    owned = (
        definition.name,
        definition.description,
        definition.vcpus,
        definition.memory_mib,
        definition.cpu_shares,
        definition.firmware,
        [(disk.path, disk.format, disk.bus, disk.read_only) for disk in definition.disks],
        [(nic.mac, nic.network, nic.model) for nic in definition.nics],
        definition.seed_path,
        definition.kernel,
        definition.graphics,
    )
    return hashlib.sha256(repr(owned).encode()).hexdigest()[:16]


@dataclass
class FakeDomain:
    """One domain of the fake world."""

    uid: str
    name: str
    vcpus: int
    memory_mib: int
    metadata: DomainMetadata | None
    definition_hash: str = ""
    firmware: Literal["bios", "uefi"] = "bios"
    disks: tuple[DomainDisk, ...] = ()
    nics: tuple[DomainNic, ...] = ()
    description: str = ""
    cpu_shares: int = 0
    seed_path: str | None = None
    kernel: DirectKernel | None = None
    graphics: Literal["vnc", "spice", "none"] = "vnc"
    state: VmState = VmState.SHUT_OFF
    reason: str = "unknown"
    stop_cause: StopCause = StopCause.NONE
    persistent: bool = True
    autostart: bool = False
    has_managed_save: bool = False
    pid: int | None = None
    agent_connected: bool = False
    starts: int = 0
    resets: int = 0
    live_spec_json: str | None = None
    live_disks: tuple[DomainDisk, ...] = ()
    """What its QEMU has open while it runs."""
    memory: str = ""
    """What a guest remembers as long as it runs: a text, in the place of its RAM."""
    boot_from: str = ""
    """What its last start was told to boot."""
    started_with: tuple[int, int] = (0, 0)
    """vCPUs and MiB at its start: the most that it can have until the next one. Its devices can all be plugged."""
    introduced: bool = True
    """False: it was forked just now."""
    waiting: bool = False
    """For the state of a template's memory; it goes with its QEMU."""

    @property
    def active(self) -> bool:
        return self.state not in (VmState.SHUT_OFF, VmState.CRASHED)

    def take(self, definition: DomainDefinition) -> None:
        """Become what is defined, for good."""
        self.vcpus, self.memory_mib, self.cpu_shares = definition.vcpus, definition.memory_mib, definition.cpu_shares
        self.firmware, self.disks, self.nics = definition.firmware, definition.disks, definition.nics
        self.seed_path, self.kernel, self.graphics = definition.seed_path, definition.kernel, definition.graphics
        self.description, self.metadata, self.persistent = definition.description, definition.metadata, True
        self.definition_hash = definition_hash(definition)

    def boot(self) -> None:
        """Everything is as defined."""
        self.started_with = (self.vcpus, self.memory_mib)
        self.live_disks, self.memory = self.disks, ""
        self.live_spec_json = self.metadata.spec_json if self.metadata is not None else None

    def plug(self) -> None:
        """Disks that are new come, those that went go; what is open stays open."""
        had = {disk.name: disk for disk in self.live_disks}
        self.live_disks = tuple(had.get(disk.name, disk) for disk in self.disks)

    @property
    def pending(self) -> tuple[str, ...]:
        if not self.active:
            return ()
        limits = (("vcpus", self.vcpus), ("memory", self.memory_mib))
        return tuple(
            f"{name}: it can have at most {most} until then"
            for (name, wanted), most in zip(limits, self.started_with, strict=True)
            if wanted > most
        )


@dataclass
class FakeConsole(Console):
    """Says a banner and then echoes."""

    ended: Callable[["FakeConsole"], None]
    output: asyncio.Queue[bytes] = field(default_factory=asyncio.Queue)
    closed: bool = False

    async def read(self) -> bytes:
        if self.closed and self.output.empty():
            return b""
        return await self.output.get()

    async def write(self, data: bytes) -> None:
        if not self.closed:
            self.output.put_nowait(data)

    async def close(self) -> None:
        self.end()

    def end(self) -> None:
        """The guest stopped, or somebody else took the console over."""
        if not self.closed:
            self.closed = True
            self.output.put_nowait(b"")
            self.ended(self)


def may_define(domain: FakeDomain, definition: DomainDefinition) -> bool:
    metadata = domain.metadata
    return metadata is None or metadata.installation_id == definition.metadata.installation_id


def described(domain: FakeDomain) -> DomainDescription:
    """As libvirt tells it: disks by their targets."""
    targets = disk_targets((disk.bus, disk.slot) for disk in domain.disks)
    return DomainDescription(
        uid=domain.uid,
        name=domain.name,
        vcpus=domain.vcpus,
        memory_mib=domain.memory_mib,
        firmware=domain.firmware,
        disks=tuple(replace(disk, name=target) for disk, target in zip(domain.disks, targets, strict=True)),
        nics=domain.nics,
        current_memory_mib=domain.memory_mib,
        description=domain.description,
        cpu_shares=domain.cpu_shares,
        seed_path=domain.seed_path or "",
        kernel=domain.kernel,
        graphics=domain.graphics,
    )


def observed(domain: FakeDomain, files: SimulatedDisks) -> ObservedDomain:
    metadata = domain.metadata
    disks = domain.live_disks if domain.active else domain.disks
    return ObservedDomain(
        uid=domain.uid,
        name=domain.name,
        state=domain.state,
        reason=domain.reason,
        stop_cause=domain.stop_cause,
        persistent=domain.persistent,
        metadata=metadata if metadata is not None and metadata.vm_uid == domain.uid else None,
        autostart=domain.autostart,
        has_managed_save=domain.has_managed_save,
        vcpus=domain.vcpus,
        memory_mib=domain.memory_mib,
        pid=domain.pid,
        agent_connected=domain.agent_connected,
        definition_hash=domain.definition_hash,
        live_spec_json=domain.live_spec_json if domain.active else None,
        pending=domain.pending,
        files=tuple((disk.name, disk.path) for disk in disks),
        chains=tuple((disk.name, files.below(disk.path)) for disk in disks if domain.active),
        introduced=domain.introduced,
        waiting=domain.waiting,
    )


def used(domain: FakeDomain) -> DomainUsage:
    nics = tuple(NicCounters(tap_name(domain.uid, nic.name)) for nic in domain.nics)
    return DomainUsage(
        domain.uid, domain.starts * 10**9, domain.memory_mib * 2**19, domain.memory_mib, 0, 0, 0, 0, nics
    )


def told(domain: FakeDomain) -> GuestFacts:
    """What its guest agent says of the guest."""
    hostname = domain.metadata.name if domain.metadata else domain.name
    return GuestFacts(hostname, "Fake Guest 1", ())


def ran(argv: Sequence[str], stdin: bytes, capture_max_bytes: int) -> ExecResult:
    """What a command in its guest does: `cat` and `echo`, and cloud-init has always ended well."""
    if list(argv[:2]) == ["cloud-init", "status"]:
        return ExecResult(0, None, b'{"status": "done", "errors": []}\n', b"", False)
    said = stdin if list(argv) == ["cat"] else " ".join(argv[1:]).encode() + b"\n"
    return ExecResult(0, None, said[:capture_max_bytes], b"", len(said) > capture_max_bytes)


def document(name: str, uid: str) -> str:
    return f'<domain type="fake"><name>{name}</name><uuid>{uid}</uuid></domain>\n'


def render(definition: DomainDefinition) -> str:
    """What `document` would show of it."""
    return document(definition.name, definition.uid)
