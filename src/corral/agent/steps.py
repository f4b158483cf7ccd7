"""The steps that an agent can take for a VM: typed, idempotent, named. What they do is in `executor`."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from corral.model.operation import StepKind
from corral.model.vm import NicSpec


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
class GrowVolume(Step):
    NAME, PHASE = "grow-volume", "growing the disk"
    volume_uid: str
    disk: str
    size_bytes: int


@dataclass(frozen=True)
class WriteSeed(Step):
    NAME, PHASE = "write-seed", "writing the cloud-init seed"


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


def operation_of(step: Step) -> str:
    """The operation in whose journal the step belongs; empty: in that of whichever is under way."""
    return step.operation_uid if isinstance(step, AskRestart | Restart | Reset | Reboot) else ""
