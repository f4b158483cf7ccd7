"""What a hypervisor does for points in time: take one, put a domain's disks on other files, restore memory, pull layers."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from corral.hypervisor.base import DomainDisk
from corral.model.vm import VmState


@dataclass(frozen=True)
class PointWanted:
    """`disks`: those of the domain as they are to be afterwards, each head an empty overlay on the file that the domain
    has now. `directory` takes the memory (`memory`), the UEFI variables (`nvram.fd`) and the TPM's state (`tpm`)."""

    disks: tuple[DomainDisk, ...]
    directory: Path
    with_memory: bool = False
    quiesce: bool = False
    dac_uid: int | None = None
    runs: bool = True
    """It is to run: where it stands still, a former process stopped it for this very instant."""


@dataclass(frozen=True)
class PointTaken:
    """What was seen. `pause_ms`: the guest stood still for at most so long."""

    state: VmState
    pause_ms: float | None = None
    quiesced: bool = False
    kept: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sinking:
    """In the chain of `disk`: what `top` has goes into `base`, on which it lies; `above` lies on `base` then."""

    disk: str
    top: Path
    base: Path
    above: Path
    dac_uid: int | None = None


class Points(Protocol):
    """Raises what the driver raises. A domain has either all of the new heads or none, whatever happens."""

    async def take(self, uid: str, wanted: PointWanted) -> PointTaken:
        """All disks of a running domain go on in their new heads from one instant on; with memory, its file is whole
        before that. Of one that is off, only what lies beside its disks is kept. A guest whose file systems were frozen
        is thawed in every case; one that stood still runs on."""
        ...

    async def thaw(self, uid: str, *, frozen: bool, runs: bool) -> None:
        """What a former process left as it was for the instant goes on: file systems, where they were `frozen`, and, where
        it is to run, the guest. Nothing happens to one that is off."""
        ...

    async def place(self, uid: str, disks: tuple[DomainDisk, ...], dac_uid: int | None) -> None:
        """The persistent definition has these files and chains, by the disks' names; nothing else of it changes. Heads
        become the domain's own, what lies below them everybody's to read."""
        ...

    async def restore(self, uid: str, directory: Path, disks: tuple[DomainDisk, ...], *, paused: bool) -> None:
        """A domain that is off goes on from a memory file, on these disks."""
        ...

    async def put_back(self, uid: str, directory: Path, kept: tuple[str, ...], dac_uid: int | None) -> None:
        """UEFI variables and TPM state of a domain that is off become what they were."""
        ...

    async def flush(self, uid: str, disk: str) -> None:
        """What QEMU knows of a running domain's disk alone is in its file; nothing happens to one that is off."""
        ...

    async def pull(
        self, uid: str, disk: str, base: str, on_share: Callable[[float], None], bytes_per_s: int = 0
    ) -> None:
        """Take into the head of a running domain's disk all that lies between it and `base` (empty: everything).
        Cancelled, or cut, the disk reads as before."""
        ...

    async def sink(self, uid: str, sinking: Sinking, on_share: Callable[[float], None], bytes_per_s: int = 0) -> None:
        """In the middle of a running domain's chain. The persistent definition may name either chain afterwards. Cancelled,
        or cut, the disk reads as before."""
        ...
