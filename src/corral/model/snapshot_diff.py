"""What lies between two points in time, as it is told."""

from typing import Annotated, Final

from corral.model.base import Model, written_unless

NOW: Final = "now"
"""In the place of a snapshot's name: what the VM is. A snapshot that is called so comes first."""


class Extent(Model):
    """Bytes of a disk, as a guest counts them."""

    start: int
    length: int
    zero: Annotated[bool, written_unless(False)] = False
    """It reads as zeros: trimmed, or written so."""


class DiskDiff(Model):
    disk: str
    size_bytes: int
    changed_bytes: int = 0
    zero_bytes: int = 0
    """Of those, what every layer that has it has as zeros."""
    pieces: int = 0
    """How many extents there are in all."""
    extents: tuple[Extent, ...] = ()
    """The first of them, in order."""
    note: Annotated[str, written_unless("")] = ""
    """Why there is nothing to compare."""


class SnapshotDiff(Model):
    """Where disks may differ: what was written since the two parted, in clusters of 64 KiB, also where the same came again."""

    vm: str
    before: str
    after: str
    disks: tuple[DiskDiff, ...]
