"""A point in a VM's time: what its disks, and if wished its memory, were at one instant."""

from datetime import datetime
from typing import Annotated, ClassVar, Literal

from pydantic import Field, StringConstraints

from corral.model import limits
from corral.model.base import Model, Name, Object, Uid, written_unless
from corral.model.vm import VmSpec, VmState


class SnapshotDisk(Model):
    """One disk: the layer that was frozen holds what it was, and it went on in `head_uid`."""

    name: Name
    volume_uid: Uid
    layer_uid: Uid
    head_uid: Uid
    size_bytes: int


class SnapshotSpec(Model):
    vm_uid: Uid
    description: Annotated[str, StringConstraints(max_length=limits.DESCRIPTION_MAX_CHARS)] = ""
    with_memory: bool = False
    quiesce: bool = False
    """The guest's file systems are frozen for the instant, through its agent."""
    hidden: Annotated[bool, written_unless(False)] = False
    """Made for a clone, a template or a fork, and not shown among the user's own."""
    parent_uid: Uid | None = None
    """The point in time that the VM had come from."""
    disks: Annotated[tuple[SnapshotDisk, ...], Field(max_length=limits.DISKS_MAX)] = ()
    """Filled in by the agent when it begins: until then nothing was made for it."""
    vm_spec: VmSpec | None = None
    """The VM at that moment, without its cloud-init."""


class SnapshotStatus(Model):
    ready: bool = False
    state: VmState = VmState.SHUT_OFF
    """Of the VM at that moment."""
    taken_at: datetime | None = None
    pause_ms: float | None = None
    """How long the guest stood still, at most; None: it was off, or the daemon died meanwhile."""
    quiesced: bool = False
    memory_bytes: int = 0
    """Of the file that the memory is kept in; 0: it is not kept."""
    kept: tuple[Literal["nvram", "tpm"], ...] = ()
    """What else belongs to it."""


class Snapshot(Object):
    """Its name is unique within its VM."""

    KIND: ClassVar[str] = "snapshot"
    PLURAL: ClassVar[str] = "snapshots"

    kind: Literal["snapshot"] = "snapshot"
    name: Name
    spec: SnapshotSpec
    status: SnapshotStatus = SnapshotStatus()

    @property
    def claimed_name(self) -> str | None:
        return snapshot_claim(self.spec.vm_uid, self.name)


def snapshot_claim(vm_uid: str, name: str) -> str:
    """By which `Objects.find(Snapshot, project, …)` finds it."""
    return f"{vm_uid}/{name}"
