"""The steps that an agent can take for a VM: typed, idempotent, named. What they do is in `executor`."""

from dataclasses import dataclass, field
from typing import ClassVar, Final, Literal

from corral.model.layer import Layer
from corral.model.operation import StepKind
from corral.model.snapshot import Snapshot
from corral.model.vm import NicSpec
from corral.model.volume import Volume


@dataclass(frozen=True)
class Step:
    """`phase` is for people: what is being done while it runs."""

    NAME: ClassVar[str]
    PHASE: ClassVar[str]
    KIND: ClassVar[StepKind] = StepKind.REPEATABLE
    DURABLE: ClassVar[bool] = False
    """It stands in its operation's journal, on disk, before it is done; as with all that is done once."""


@dataclass(frozen=True)
class MakeVolume(Step):
    """Never planned for a volume that was ready once: its content would silently be another."""

    NAME, PHASE = "make-volume", "making the disk"
    volume_uid: str


@dataclass(frozen=True)
class CopyVolume(MakeVolume):
    """From a frozen layer, whole."""

    NAME, PHASE = "copy-volume", "copying the disk"


@dataclass(frozen=True)
class GrowVolume(Step):
    NAME, PHASE = "grow-volume", "growing the disk"
    volume_uid: str
    disk: str
    size_bytes: int


@dataclass(frozen=True)
class WriteSeed(Step):
    NAME, PHASE = "write-seed", "writing the cloud-init seed"
    in_place: bool = False
    """A QEMU that waits for its state has the file open."""


@dataclass(frozen=True)
class Reserve(Step):
    NAME, PHASE = "reserve", "reserving the address"
    nic: str


@dataclass(frozen=True)
class Define(Step):
    NAME, PHASE = "define", "defining the domain"


@dataclass(frozen=True)
class ApplyLive(Step):
    """It marks the running domain as changed when all else is done: cut before, it is done again. Before SetMetadata,
    which marks it too."""

    NAME, PHASE = "apply-live", "changing the running guest"


@dataclass(frozen=True)
class SetMetadata(Step):
    """What is new and no part of the document itself; a definition brings its own."""

    NAME, PHASE = "set-metadata", "recording the change in the domain"


@dataclass(frozen=True)
class Rename(Step):
    NAME, PHASE = "rename", "renaming the domain"


@dataclass(frozen=True)
class Start(Step):
    NAME, PHASE = "start", "starting"
    boot_from: str = field(default="", kw_only=True)


@dataclass(frozen=True)
class ForkFrom(Step):
    """In the place of defining and starting it: a guest that goes on from a template's memory, as somebody's double."""

    NAME, PHASE = "fork", "going on from the template"
    template_uid: str


@dataclass(frozen=True)
class PlugCards(Step):
    """Cables out."""

    NAME, PHASE = "plug-cards", "plugging its cards in"
    template_uid: str


@dataclass(frozen=True)
class Introduce(Step):
    """Its guest is told who it is."""

    NAME, PHASE = "introduce", "telling the guest who it is"
    template_uid: str


@dataclass(frozen=True)
class Connect(Step):
    """Its cables are put in: from then on it is a VM like all others."""

    NAME, PHASE = "connect", "putting its cables in"


@dataclass(frozen=True)
class Resume(Step):
    NAME, PHASE = "resume", "resuming"


@dataclass(frozen=True)
class Suspend(Step):
    NAME, PHASE = "suspend", "pausing"


@dataclass(frozen=True)
class Save(Step):
    NAME, PHASE = "save", "saving the memory to disk"


@dataclass(frozen=True)
class AskShutdown(Step):
    NAME, PHASE = "ask-shutdown", "asking the guest to power off"
    mode: Literal["agent", "acpi"]


@dataclass(frozen=True)
class Destroy(Step):
    NAME, PHASE = "destroy", "stopping it"


@dataclass(frozen=True)
class Reset(Step):
    NAME, PHASE, KIND = "reset", "pressing the reset button", StepKind.ONCE
    operation_uid: str


@dataclass(frozen=True)
class Reboot(Step):
    NAME, PHASE, KIND = "reboot", "asking the guest to reboot", StepKind.ONCE
    operation_uid: str
    mode: Literal["agent", "acpi"]


@dataclass(frozen=True)
class AskRestart(AskShutdown):
    """A reboot by which something applies that only a start brings: the guest's own would keep its QEMU."""

    NAME, PHASE, DURABLE = "ask-restart", "asking the guest to power off, to start it with what is pending", True
    operation_uid: str


@dataclass(frozen=True)
class Restart(Start):
    NAME, PHASE, DURABLE = "restart", "starting it again", True
    operation_uid: str = ""


@dataclass(frozen=True)
class Undefine(Step):
    NAME, PHASE = "undefine", "removing the domain"


@dataclass(frozen=True)
class Release(Step):
    """The card may be none of the VM's any more."""

    NAME, PHASE = "release", "releasing the address"
    nic: NicSpec


@dataclass(frozen=True)
class RemoveSeed(Step):
    NAME, PHASE = "remove-seed", "removing the cloud-init seed"


@dataclass(frozen=True)
class RemoveTraces(Step):
    """The console's log and the directory of sockets."""

    NAME, PHASE = "remove-traces", "removing the console log"


@dataclass(frozen=True)
class RemoveVolume(Step):
    NAME, PHASE = "remove-volume", "removing the disk"
    volume_uid: str


# ---- layers and points in time ----


@dataclass(frozen=True)
class MakeHeads(Step):
    """The files that disks go on in. `anew`: what lies there from an earlier try is thrown away first."""

    NAME, PHASE = "make-heads", "making new layers"
    layers: tuple[Layer, ...]
    anew: bool = False


@dataclass(frozen=True)
class TakePoint(Step):
    """All disks go on in their new heads from one instant on, or none does."""

    NAME, PHASE = "take-point", "taking the snapshot"
    operation_uid: str
    snapshot: Snapshot


@dataclass(frozen=True)
class PlaceDisks(Step):
    """The domain's persistent definition has `heads` (volume uid, layer uid) instead of the volumes' own; with none, what
    the volumes have now."""

    NAME, PHASE = "place-disks", "putting the disks in place"
    heads: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class PutBack(Step):
    """UEFI variables and TPM as they were."""

    NAME, PHASE = "put-back", "putting firmware variables back"
    snapshot: Snapshot


@dataclass(frozen=True)
class RestorePoint(Step):
    NAME, PHASE = "restore-point", "restoring the memory"
    operation_uid: str
    snapshot: Snapshot
    heads: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class StartReverted(Start):
    NAME, PHASE = "start-reverted", "starting it again"
    operation_uid: str = ""


@dataclass(frozen=True)
class SyncClock(Step):
    """As far as its agent takes it."""

    NAME, PHASE = "sync-clock", "setting the guest's clock"
    operation_uid: str = ""


@dataclass(frozen=True)
class SealPoint(Step):
    """What recovery without a database needs to know, before the store says that it is so."""

    NAME, PHASE = "seal-point", "recording it beside the disks"
    operation_uid: str
    layers: tuple[Layer, ...]
    volumes: tuple[Volume, ...]
    snapshots: tuple[Snapshot, ...]
    heads: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Thaw(Step):
    NAME, PHASE = "thaw", "letting the guest run on"
    frozen: bool


@dataclass(frozen=True)
class RemoveHeads(Step):
    """Of a try that is taken back; nothing was written to them that is to be kept."""

    NAME, PHASE = "remove-heads", "removing the new layers"
    operation_uid: str
    layers: tuple[Layer, ...]
    snapshot_uid: str = ""
    """A point in time that never came to be, whose files go too."""


@dataclass(frozen=True)
class RemovePoint(Step):
    """From here on the deletion cannot be cancelled."""

    NAME, PHASE, DURABLE = "remove-point", "removing the snapshot", True
    operation_uid: str
    snapshot_uid: str
    children: tuple[Snapshot, ...] = ()
    """Those that came from it, as they are afterwards."""


@dataclass(frozen=True)
class RemoveLayer(Step):
    """In a quiet moment; where it fails, it is tried again later."""

    NAME, PHASE = "remove-layer", "removing a layer"
    layer: Layer


@dataclass(frozen=True)
class MergeLayer(Step):
    """All that lies between `child` and `base` is taken into `child`. Cut short by any new wish, and begun again later."""

    NAME, PHASE = "merge-layer", "merging a layer"
    child: Layer
    middle: Layer
    base: Layer | None
    disk: str = ""
    """The disk whose head the child is, where the domain runs; empty: it is off."""
    seen: bool = False
    """A running guest's QEMU did it before, and it was not recorded until there was a new head."""


@dataclass(frozen=True)
class SinkLayer(Step):
    """In the middle of a running guest's chain `child`, on which `above` alone lies, is taken into `middle`. Cut short by
    any new wish, and begun again later; meanwhile the chain reads the same."""

    NAME, PHASE = "sink-layer", "merging a layer"
    child: Layer
    middle: Layer
    above: Layer
    disk: str


# ---- disks that are moved or flattened ----


@dataclass(frozen=True)
class BeginDiskWork(Step):
    """What takes long is done beside the VM's turns, by QEMU where the guest runs, by this process where it is off."""

    NAME, PHASE = "begin-disk-work", "copying the disk"
    operation_uid: str
    by: tuple[bool, int | None]
    """Whether the guest runs, and as which process."""


@dataclass(frozen=True)
class StopDiskWork(Step):
    """The disk stays what it is. `thaw`: its guest may stand still for what is not to be."""

    NAME, PHASE = "stop-disk-work", "ending the copy"
    operation_uid: str
    thaw: bool = False


@dataclass(frozen=True)
class SwitchDisk(Step):
    """From here on it is not taken back unless the disk is found where it was."""

    NAME, PHASE, DURABLE = "switch-disk", "switching to the new place", True
    operation_uid: str


@dataclass(frozen=True)
class SealDisk(Step):
    """The persistent definition, and what recovery without a database needs to know, before the store says that it is so."""

    NAME, PHASE = "seal-disk", "recording it beside the disk"
    operation_uid: str
    volume: Volume
    layer: Layer | None


@dataclass(frozen=True)
class RemoveCopy(Step):
    """The file of a volume in a pool where it does not, or does no longer, lie."""

    NAME, PHASE = "remove-copy", "removing what is of no use"
    volume: Volume
    pool: str


TIDYING: Final = (RemoveLayer, MergeLayer, SinkLayer)


def operation_of(step: Step) -> str:
    """The operation in whose journal the step belongs; empty: in that of whichever is under way."""
    return step.operation_uid if isinstance(step, AskRestart | Restart | Reset | Reboot) else ""
