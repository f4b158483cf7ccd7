"""An operation: one change under way, persisted, owned, resumable and cancellable.

Declarative verbs write a spec *and* an operation that tracks it (`tracks_generation`): the agent drives the object to
its spec and ends the operation when it has got there. Imperative verbs write only an operation, whose intent the agent
runs as journaled steps. Both end in exactly one of the final states.
"""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from corral.model.base import Model, Name, Object, Uid, written_unless


class OperationState(StrEnum):
    ACCEPTED = "accepted"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SUPERSEDED = "superseded"  # a later request changed the same wish: start, then shutdown
    INTERRUPTED = "interrupted"  # a `once` step was cut by a crash; it is never run twice

    @property
    def final(self) -> bool:
        return self not in (OperationState.ACCEPTED, OperationState.RUNNING)


# ---- intents: what the agent needs to know beyond the spec, one type a verb -------------------------------------


class CreateVm(Model):
    """Declarative. The VM object was written with it. `power` says whether it is to run afterwards."""

    verb: Literal["create"] = "create"
    fork_of: Annotated[Uid | None, written_unless(None)] = None
    """A hot template: its memory is loaded, once, in the place of the first start."""
    made_of: Annotated[Literal["vm", "template"] | None, written_unless(None)] = None
    """Its disks are another VM's, or a template's, as they were at one instant."""


class StartVm(Model):
    """Declarative: power=on. A saved memory image is resumed."""

    verb: Literal["start"] = "start"
    boot_from: str = ""
    """The disk, drive or card that this one start tries first; empty: the VM's own order."""


class ShutdownVm(Model):
    """Declarative: power=off, asked of the guest: its agent first, then ACPI. Late without `force_after_s`: the
    operation fails with `shutdown-timeout` and power goes back to what it was, if nobody changed it since."""

    verb: Literal["shutdown"] = "shutdown"
    deadline_s: float
    force_after_s: float | None = None


class DestroyVm(Model):
    """Declarative: power=off, at once, like pulling the plug."""

    verb: Literal["destroy"] = "destroy"


class SaveVm(Model):
    """Declarative: power=off with the memory kept; the next start resumes it."""

    verb: Literal["save"] = "save"


class PauseVm(Model):
    """Declarative: power=paused."""

    verb: Literal["pause"] = "pause"


class ResumeVm(Model):
    """Declarative: power=on from paused."""

    verb: Literal["resume"] = "resume"


class DeleteVm(Model):
    """Declarative: deletion_requested_at is set; the name is free when the operation has succeeded."""

    verb: Literal["delete"] = "delete"
    keep_disks: bool = False


class UpdateVm(Model):
    """Declarative: a changed spec or name (rename, describe, protect) to be carried into the domain's document."""

    verb: Literal["update"] = "update"
    previous_name: Name | None = None
    redefine: bool = False
    """What other tools changed of the domain's definition goes back to what Corral wants."""


class AdoptVm(Model):
    """Declarative: a domain made elsewhere gets our metadata, live, without a restart."""

    verb: Literal["adopt"] = "adopt"


class RebootVm(Model):
    """Imperative: asked of the guest."""

    verb: Literal["reboot"] = "reboot"
    deadline_s: float


class ResetVm(Model):
    """Imperative: the reset button."""

    verb: Literal["reset"] = "reset"


class BuildImage(Model):
    """Declarative on an image: make its files by building, downloading or importing."""

    verb: Literal["image-build"] = "image-build"


class DeleteImage(Model):
    verb: Literal["image-delete"] = "image-delete"


class CreateVolume(Model):
    """Declarative on a volume that stands alone: make its file, empty or on its image, or fill it."""

    verb: Literal["volume-create"] = "volume-create"
    copy_of: Uid | None = None
    """Another volume, of which it becomes a full copy."""
    staged: str = ""
    """A file that somebody handed over."""
    staged_format: Literal["qcow2", "raw"] = "qcow2"
    """Told, never probed."""


class ResizeVolume(Model):
    """Imperative on a volume that no VM has: its spec has the new size once its file has."""

    verb: Literal["volume-resize"] = "volume-resize"
    size_bytes: int


class MoveVolume(Model):
    """Imperative: into another pool. From `pool` being its own on, only the old file is left to remove."""

    verb: Literal["volume-move"] = "volume-move"
    pool: Name
    from_pool: Name
    volume_uid: Annotated[Uid | None, written_unless(None)] = None
    """Where a VM has it, the operation is the VM's: copied while its guest writes, or while it is off."""
    bytes_per_s: Annotated[int, written_unless(0)] = 0
    """At most; 0: no limit."""


class FlattenVolume(Model):
    """Imperative: all that a volume leans on, images and other disks' layers, is taken into its own file."""

    verb: Literal["volume-flatten"] = "volume-flatten"
    volume_uid: Annotated[Uid | None, written_unless(None)] = None
    """As with a move."""
    bytes_per_s: Annotated[int, written_unless(0)] = 0


class DeleteVolume(Model):
    """Declarative: `deletion_requested_at` is set on a volume that no VM has."""

    verb: Literal["volume-delete"] = "volume-delete"


class CreateTemplate(Model):
    """Declarative on a template: freeze what its point in time holds."""

    verb: Literal["template-create"] = "template-create"
    snapshot_operation_uid: Uid


class RefreshTemplate(Model):
    """Declarative on a template: a VM boots from its disks and is frozen, and what comes of it takes its place and name."""

    verb: Literal["template-refresh"] = "template-refresh"
    vm_uid: Uid
    vm_operation_uid: Uid
    """What makes and starts the VM; it was written together with this."""
    successor_uid: Uid
    freeze_operation_uid: Uid
    """The template that is frozen of the VM, and the operation that does it, once the guest has booted."""
    deadline_s: float
    """For booting."""


class DeleteTemplate(Model):
    verb: Literal["template-delete"] = "template-delete"


class SnapshotVm(Model):
    """Imperative: a point in time of all disks, and of the memory if the Snapshot says so."""

    verb: Literal["snapshot-create"] = "snapshot-create"
    snapshot_uid: Uid


class RevertVm(Model):
    """Imperative: back to a point in time. What was since is lost, unless another point in time has it."""

    verb: Literal["snapshot-revert"] = "snapshot-revert"
    snapshot_uid: Uid


class DeleteSnapshot(Model):
    """Imperative: forget a point in time; every other one stays what it was."""

    verb: Literal["snapshot-delete"] = "snapshot-delete"
    snapshot_uid: Uid


Intent = Annotated[
    CreateVm
    | StartVm
    | ShutdownVm
    | DestroyVm
    | SaveVm
    | PauseVm
    | ResumeVm
    | DeleteVm
    | UpdateVm
    | AdoptVm
    | RebootVm
    | ResetVm
    | BuildImage
    | DeleteImage
    | CreateVolume
    | ResizeVolume
    | MoveVolume
    | FlattenVolume
    | DeleteVolume
    | CreateTemplate
    | RefreshTemplate
    | DeleteTemplate
    | SnapshotVm
    | RevertVm
    | DeleteSnapshot,
    Field(discriminator="verb"),
]


# ---- the operation -----------------------------------------------------------------------------------------------


class StepKind(StrEnum):
    REPEATABLE = "repeatable"
    ONCE = "once"


class StepRecord(Model):
    """One step in the journal. A `once` step that has `started_at` and no `ended_at` after a crash was interrupted."""

    name: str
    kind: StepKind = StepKind.REPEATABLE
    started_at: datetime
    ended_at: datetime | None = None


class Problem(Model):
    """A CorralError as a document; the same shape as the API's problem+json body."""

    code: str
    asked: str
    reason: str
    hint: str = ""
    cause: "Problem | None" = None
    """What lies below, outermost first."""


class OperationSpec(Model):
    intent: Intent
    target_kind: Literal["vm", "image", "volume", "network", "host", "template"]
    target_uid: Uid
    target_name: str
    tracks_generation: int = 0
    """Declarative verbs: the spec generation that this operation waits for. 0 for imperative ones."""
    previous_power: str = ""
    """What `power` was before, for restoring it on cancel or shutdown-timeout while the generation is unchanged."""
    requested_by: str
    """The identity: `local:root`, `token:ci`."""
    request_id: str
    client_key: str = ""
    """The caller's Idempotency-Key; the same key answers with the same operation."""
    cancel_requested_at: datetime | None = None


class OperationStatus(Model):
    state: OperationState = OperationState.ACCEPTED
    phase: str = ""
    """What is being done now, for people: `making disk`, `waiting for the guest to power off`."""
    progress: Annotated[float, Field(ge=0, le=1)] | None = None
    """0 to 1, None where it cannot be known."""
    detail: str = ""
    steps: tuple[StepRecord, ...] = ()
    attempts: int = 0
    error: Problem | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None


class Operation(Object):
    KIND: ClassVar[str] = "operation"
    PLURAL: ClassVar[str] = "operations"

    kind: Literal["operation"] = "operation"
    spec: OperationSpec
    status: OperationStatus = OperationStatus()

    @property
    def claimed_name(self) -> str | None:
        return None
