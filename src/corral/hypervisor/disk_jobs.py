"""What a hypervisor does to move a running guest's disk to another file."""

from collections.abc import Callable
from typing import Protocol

from corral.hypervisor.base import DomainDisk


class DiskJobs(Protocol):
    """Raises what the driver raises; `wrong-state` where the domain does not run with the disk, or the copy has ended.
    The new file is `disk.path`: empty, as large as the disk, and written by nobody else."""

    async def copies(self, uid: str, disk: DomainDisk) -> bool:
        """Whether it is being copied to the new file, or written there already."""
        ...

    async def mirror(
        self, uid: str, disk: DomainDisk, dac_uid: int | None, bytes_per_s: int, on_share: Callable[[float], None]
    ) -> None:
        """Copy a running domain's disk, with all that it stands on, into the new file. Returns once both hold the same, and
        go on to. One that an earlier process began goes on; a caller that goes away leaves it as it is."""
        ...

    async def switch(self, uid: str, disk: DomainDisk, dac_uid: int | None, *, runs: bool) -> None:
        """From one instant on the guest writes the new file, and both definitions say so. The guest stands still for that:
        wherever this is cut, the file that its domain names holds all that was written. Where it `runs`, it goes on
        afterwards, also if a former process had stopped it for this."""
        ...

    async def abandon(self, uid: str, disk: str, *, runs: bool) -> None:
        """End the copy, if there is one: the guest keeps the old file."""
        ...
