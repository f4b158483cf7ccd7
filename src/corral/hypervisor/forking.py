"""An optional ability of a hypervisor: a running guest is frozen, memory included, and new ones go on from there."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from corral.hypervisor.base import Accelerator, DomainDefinition, DomainDisk


@dataclass(frozen=True)
class Freeze:
    """A template that is to be made. The guest whose memory was saved runs on, undisturbed: another one, of this module's
    own and without a cable, goes on from that memory for a moment, lets go of what is one machine's alone, and is frozen."""

    uid: str
    """The template's; also that passing domain's, so that one that a crash left is found."""
    saved: Path
    """The memory, as the hypervisor saved it; not changed."""
    disks: tuple[DomainDisk, ...]
    """What the passing guest writes: one for each of the guest's own disks, on the layers that were frozen with the memory."""
    directory: Path
    """Where the template's files go; its owner's alone."""
    run_dir: Path
    """Where sockets live; short."""
    nvram: Path | None = None
    """The UEFI variables of that moment."""
    script: str = "sync"
    """Shell, run by the passing guest's agent before it is frozen."""


@dataclass(frozen=True)
class Frozen:
    memory_bytes: int
    stored_bytes: int
    """What the files take on disk."""
    digest: str
    """Of the memory."""
    key: str
    """What a host must have in common with the one that it was frozen on; see `Forking.key`."""
    agent: bool
    """The guest's agent answered: forks can be told who they are."""


@dataclass(frozen=True)
class Template:
    """A frozen guest, as it lies on disk."""

    uid: str
    directory: Path
    run_dir: Path
    digest: str


@dataclass(frozen=True)
class Fork:
    """A guest that is to go on from a template. Its memory, processors and devices are the template's; its disks lie on
    the template's, its cards are its own."""

    definition: DomainDefinition
    template: Template


@dataclass(frozen=True)
class MemoryShare:
    """What one running guest takes of the host's memory, as the kernel counts it. Bytes."""

    uid: str
    resident: int
    private: int
    """Would be free if it ended. What it has of its template's memory would not."""
    proportional: int
    """Its private pages, and its part of those that it shares."""


class Forking(Protocol):
    """Every method may be repeated. Raises what `HypervisorDriver` does, and `template-damaged`, `unsupported`."""

    async def key(self, accelerator: Accelerator) -> str:
        """What frozen guests must have in common with this host: hypervisor, its version, accelerator, processor."""
        ...

    async def freeze(self, freeze: Freeze) -> Frozen: ...

    async def discard(self, template: Template) -> None:
        """Nothing of it is left: no passing guest, no process that holds its memory, no file."""
        ...

    async def rest(self, template: Template) -> None:
        """Let go of its memory, which those who go on from it keep. The next fork brings it in again."""
        ...

    async def prepare(self, fork: Fork) -> None:
        """A domain of this uid waits for the state (`ObservedDomain.waiting`), under the definition's name: `fork` goes on
        with it, whatever that one's is called. One that waits already is left alone."""
        ...

    async def fork(self, fork: Fork, *, held: bool = False) -> None:
        """Its memory is loaded, it is defined, once, and it runs: `ObservedDomain.introduced=False` until `connect`. `held`:
        where guests compete for the processors it gets next to nothing until it is introduced. A crash before it is defined
        leaves nothing that counts; a domain that is defined is left alone."""
        ...

    async def plug_cards(self, fork: Fork) -> None:
        """Its cards are plugged in, cables out. What a crash kept `fork` from after it was defined is done first."""
        ...

    async def introduce(self, fork: Fork, script: str, patience_s: float) -> bool:
        """Have its agent run the shell `script` that tells it who it is, no longer held. False: no agent answered for
        `patience_s`, and the guest is somebody's double."""
        ...

    async def connect(self, definition: DomainDefinition) -> None:
        """Put the cables in, and mark it as the VM that it is now."""
        ...

    async def memory_shares(self, uids: Sequence[str]) -> tuple[MemoryShare, ...]: ...
