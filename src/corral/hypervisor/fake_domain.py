"""One domain of the fake hypervisor, and its console."""

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from corral.hypervisor.base import (
    Console,
    DomainDefinition,
    DomainDisk,
    DomainMetadata,
    DomainNic,
    ObservedDomain,
    StopCause,
)
from corral.model.vm import VmState


def definition_hash(definition: DomainDefinition) -> str:
    """Of the fields that Corral owns; the metadata is not one of them."""
    owned = (
        definition.name,
        definition.description,
        definition.vcpus,
        definition.memory_mib,
        definition.cpu_shares,
        definition.firmware,
        definition.disks,
        definition.nics,
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

    @property
    def active(self) -> bool:
        return self.state not in (VmState.SHUT_OFF, VmState.CRASHED)


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


def observed(domain: FakeDomain) -> ObservedDomain:
    metadata = domain.metadata
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
    )
