"""What the planner is given, and what it answers. Values only."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

from corral.agent.layer_tree import LayerTree
from corral.agent.steps import (
    AskShutdown,
    ForkFrom,
    GrowVolume,
    MakeVolume,
    MergeLayer,
    Reboot,
    RemoveHeads,
    RemoveLayer,
    RemovePoint,
    RemoveVolume,
    Reset,
    RestorePoint,
    Resume,
    SealDisk,
    SealPoint,
    SinkLayer,
    Start,
    StartReverted,
    Step,
    SyncClock,
)
from corral.hypervisor.base import NO_SPACE, ObservedDomain, StopCause
from corral.model.base import Object
from corral.model.operation import Operation, OperationState, Problem, ShutdownVm, StepKind
from corral.model.snapshot import Snapshot
from corral.model.vm import Power, Vm, VmSpec, VmState
from corral.model.volume import Volume

ACTIVE: Final = frozenset({VmState.RUNNING, VmState.PAUSED, VmState.SHUTTING_DOWN, VmState.SUSPENDED})

# A guest that is still booting misses the first press of its power button; it is pressed again, ever more rarely.
ASK_AGAIN_FIRST_S: Final = 3.0
ASK_AGAIN_MAX_S: Final = 30.0
ASKED_ANEW_S: Final = 10.0
"""What a guest is given at least after a restart of the daemon, whatever the clock says of the time before."""


@dataclass(frozen=True)
class Asked:
    """A guest was asked to power off, on behalf of `operation_uid` (empty: of the spec alone). Monotonic seconds."""

    operation_uid: str
    since_s: float
    times: int
    next_s: float
    agent: bool = False
    """The guest's agent was asked; before it was there, only the power button could be pressed."""


@dataclass(frozen=True)
class Known:
    """What this process remembers of a VM beyond the store and the hypervisor. All of it may be lost."""

    made: frozenset[str] = frozenset()
    """Volumes that this process made and that are not yet recorded as ready."""
    removed: frozenset[str] = frozenset()
    """Volumes that this process removed, whose objects are still there."""
    grown: frozenset[tuple[str, int]] = frozenset()
    """Volumes that this process has grown, to which size, and that are not yet recorded as such."""
    stop_cause: StopCause = StopCause.NONE
    """From the newest event, for where the hypervisor forgets."""
    asked: Asked | None = None
    once_done: frozenset[str] = frozenset()
    """Operations whose `once` step has returned in this process."""
    reboot_asked_s: float = 0.0
    rebooted: bool = False
    """A reboot was seen since it was asked for."""
    restart_at_s: float = 0.0
    queued_for_boot: bool = False
    started: bool = False
    """This process started it since the last record of its state."""
    room: bool = False
    """There is space again for a guest that was paused for want of it."""
    resumed_for: str | None = None
    """The operation (empty: none) on whose behalf it was last made to go on."""
    steps_done: frozenset[tuple[str, str]] = frozenset()
    """What this process has done for operations on points in time: operation and step."""
    clock_behind: bool | None = None
    """Its memory was restored, and its clock stands where it was then. None: what the store says is so."""
    merged: frozenset[tuple[str, str]] = frozenset()
    """Layers that this process took another one into, above or below it, which is not yet recorded: (whole, gone)."""
    postponed: Mapping[str, float] = field(default_factory=dict)
    """Layers that could not be removed or merged, and when to try again (monotonic)."""


@dataclass(frozen=True)
class Taken:
    """What was seen when a point in time was taken. A process that comes later knows less of it."""

    at: datetime | None = None
    state: VmState = VmState.SHUT_OFF
    pause_ms: float | None = None
    quiesced: bool = False
    memory_bytes: int = 0
    kept: tuple[str, ...] = ()


@dataclass(frozen=True)
class DiskSeen:
    """What this process knows of work on a disk. `path`: where the disk is to be in the end."""

    path: str
    running: bool = False
    done: bool = False
    by: tuple[bool, int | None] = (False, None)
    """Whether the running guest's QEMU does it, and which one; else this process."""
    share: float = 0.0
    problem: Problem | None = None


@dataclass(frozen=True)
class View:
    """One VM and its surroundings at one instant."""

    vm: Vm
    domain: ObservedDomain | None
    operations: tuple[Operation, ...]
    """Unfinished ones, in the order of their creation."""
    volumes: Mapping[str, Volume]
    """Those of this VM: of its disks, or naming it as theirs."""
    wanted_hashes: frozenset[str]
    """What the document may hash to; none if it cannot be built, which whoever tries to define it says."""
    wanted_json: str
    installation_id: str
    boot_id: str
    now_s: float
    known: Known = field(default_factory=Known)
    ran_long: bool = False
    """It ran for so long that an earlier crash says nothing about this one."""
    draining: bool = False
    """The host goes down: nothing that stops now was anybody's wish."""
    tree: LayerTree = field(default_factory=LayerTree)
    points: Mapping[str, Snapshot] = field(default_factory=dict)
    """This VM's, by uid."""
    taken: Taken | None = None
    """What this process saw for the operation on a point in time that is under way."""
    disk_work: Mapping[str, DiskSeen] = field(default_factory=dict)
    """By operation."""
    freezing: tuple[str, ...] = ()
    """Templates that are being made of its points in time, by name; of a VM that is to go."""

    @property
    def active(self) -> bool:
        return self.domain is not None and self.domain.state in ACTIVE

    @property
    def out_of_space(self) -> bool:
        """Its guest stands still, at a write for which there is no space."""
        return self.domain is not None and self.domain.state is VmState.PAUSED and self.domain.reason == NO_SPACE

    @property
    def clock_behind(self) -> bool:
        behind = self.known.clock_behind
        return self.active and (self.vm.status.clock_behind if behind is None else behind)

    @property
    def ours(self) -> bool:
        """The domain may be touched: it says so itself, or has said so before somebody took the metadata out."""
        if self.domain is None:
            return True
        if self.domain.metadata is None:
            return self.vm.spec.adopted or self.vm.status.state is not VmState.PENDING
        return self.domain.metadata.installation_id == self.installation_id


@dataclass(frozen=True)
class Ending:
    """An operation that ends now."""

    operation: Operation
    state: OperationState
    problem: Problem | None = None


@dataclass(frozen=True)
class Wait:
    """Nothing to do before `until_s` (monotonic) unless something happens."""

    until_s: float
    phase: str
    progress: float | None = None


@dataclass(frozen=True)
class Writes:
    """Further objects of the same transaction."""

    created: tuple[Object, ...] = ()
    updated: tuple[Object, ...] = ()
    deleted: tuple[Object, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.created or self.updated or self.deleted)


@dataclass(frozen=True)
class Settle:
    """What is to be written, in one transaction, together with the status that was observed."""

    endings: tuple[Ending, ...] = ()
    power: Power | None = None
    """The one field of the spec that the agent may change."""
    source: str = ""
    """Why it changes: `external:guest`, `external:virsh`, or `agent` when an operation is taken back."""
    reason: str = ""
    message: str = ""
    restarts: int | None = None
    reached: bool = False
    """The wish of this generation is fulfilled."""
    forget: bool = False
    """The VM's object goes, with its claims and the volumes that are not kept."""
    kept: frozenset[str] = frozenset()
    undelete: bool = False
    drifted: bool = False
    refused: Problem | None = None
    keep_started: bool = False
    """It stopped right after its start; the next look decides what that means."""
    more: bool = False
    """There is more to be done at once."""
    keep_boot_id: bool = False
    """The host's reboot is not yet dealt with; the next look must still see it."""
    writes: Writes = Writes()
    spec: VmSpec | None = None
    """Where the VM is in its tree of points in time, and what going back brought back."""


@dataclass(frozen=True)
class Plan:
    """Run `steps`; with `again` look and plan once more, otherwise write `settle`, then wait."""

    steps: tuple[Step, ...] = ()
    settle: Settle = field(default_factory=Settle)
    wait: Wait | None = None
    again: bool = False
    operation_uid: str = ""
    """On whose behalf, where that is told; else of whichever operation is the first."""

    @property
    def repeatable(self) -> bool:
        """Only steps that do no harm where they are done already, and a look before anything is written."""
        return bool(self.steps) and self.again and all(step.KIND is StepKind.REPEATABLE for step in self.steps)


def reached(view: View) -> bool:
    """The domain's power is as wished."""
    state = view.domain.state if view.domain is not None else VmState.SHUT_OFF
    match view.vm.spec.power:
        case Power.ON:
            return state in ACTIVE and state is not VmState.PAUSED
        case Power.PAUSED:
            return state is VmState.PAUSED
        case Power.OFF:
            return state not in ACTIVE


_NOTED: Final = (SealDisk, SealPoint, RemoveHeads, RemovePoint, RestorePoint, StartReverted, SyncClock)


def asked_ago_s(operation: Operation | None, now: datetime) -> float:
    """How long ago a former process first asked the guest on behalf of `operation`; its deadline goes on from there.

    Told by the journal of steps and the wall clock, which may have jumped: never so much that the deadline is near."""
    intent = operation.spec.intent if operation is not None else None
    if operation is None or not isinstance(intent, ShutdownVm):
        return 0.0
    asked_at = next((step.started_at for step in operation.status.steps if step.name == AskShutdown.NAME), now)
    end_s = intent.deadline_s if intent.force_after_s is None else intent.force_after_s
    return max(0.0, min((now - asked_at).total_seconds(), end_s - ASKED_ANEW_S))


def remembered(  # noqa: C901, PLR0911  (a decision table)
    known: Known, step: Step, operation_uid: str, now_s: float, asked_ago_s: float = 0.0
) -> Known:
    """`known` after `step` was done; a former process had asked the guest to power off `asked_ago_s` before."""
    if isinstance(step, MakeVolume):
        return replace(known, made=known.made | {step.volume_uid})
    if isinstance(step, RemoveVolume):
        return replace(known, removed=known.removed | {step.volume_uid})
    if isinstance(step, RemoveLayer):
        return replace(known, removed=known.removed | {step.layer.uid})
    if isinstance(step, MergeLayer | SinkLayer):
        whole, gone = (step.child, step.middle) if isinstance(step, MergeLayer) else (step.middle, step.child)
        return replace(known, merged=known.merged | {(whole.uid, gone.uid)})
    if isinstance(step, _NOTED):
        known = replace(known, steps_done=known.steps_done | {(step.operation_uid, step.NAME)})
    if isinstance(step, RestorePoint | SyncClock):
        return replace(known, clock_behind=isinstance(step, RestorePoint))
    if isinstance(step, GrowVolume):
        return replace(known, grown=known.grown | {(step.volume_uid, step.size_bytes)})
    if isinstance(step, Start | ForkFrom):
        return replace(known, stop_cause=StopCause.NONE, asked=None, started=True, clock_behind=False)
    if isinstance(step, Resume):
        return replace(known, room=False, resumed_for=operation_uid)
    if isinstance(step, AskShutdown):
        old = known.asked
        if old is None or old.operation_uid != operation_uid:
            old = Asked(operation_uid, now_s - asked_ago_s, 0, now_s)
        pause_s = min(ASK_AGAIN_FIRST_S * 2**old.times, ASK_AGAIN_MAX_S)
        asked = replace(old, times=old.times + 1, next_s=now_s + pause_s, agent=old.agent or step.mode == "agent")
        return replace(known, asked=asked)
    if isinstance(step, Reset | Reboot):
        return replace(known, once_done=known.once_done | {step.operation_uid})
    return known
