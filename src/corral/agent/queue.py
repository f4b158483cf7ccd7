"""The unfinished operations of one VM, sorted by what they want. Pure."""

from dataclasses import dataclass
from typing import Final

from corral.agent.view import Ending
from corral.errors import CorralError
from corral.model.operation import (
    AdoptVm,
    CreateVm,
    DeleteSnapshot,
    DeleteVm,
    FlattenVolume,
    MoveVolume,
    Operation,
    OperationState,
    Problem,
    RebootVm,
    ResetVm,
    RevertVm,
    SnapshotVm,
    UpdateVm,
)
from corral.model.vm import Vm

_DOCUMENT: Final = (UpdateVm, AdoptVm)
_ON_DISKS: Final = (MoveVolume, FlattenVolume)
_IMPERATIVE: Final = (ResetVm, RebootVm, SnapshotVm, RevertVm, DeleteSnapshot)


@dataclass(frozen=True)
class Queue:
    """At most one operation decides about power; older ones of its sort are superseded."""

    create: Operation | None
    power: Operation | None
    delete: Operation | None
    document: tuple[Operation, ...]
    imperative: tuple[Operation, ...]
    superseded: tuple[Operation, ...]
    disks: tuple[Operation, ...] = ()
    """Work on disks, which goes on beside all others; one at a time."""

    @property
    def declarative(self) -> tuple[Operation, ...]:
        found = (self.create, self.power, self.delete, *self.document)
        return tuple(operation for operation in found if operation is not None)

    @property
    def everything(self) -> tuple[Operation, ...]:
        return (*self.declarative, *self.imperative, *self.superseded, *self.disks)


def sorted_operations(operations: tuple[Operation, ...]) -> Queue:
    """`operations` in order of creation. A deletion supersedes all that came before it, a power verb its elders.

    A create is not superseded by a power verb: it ends when the domain is there, and power is the newer one's matter.
    """
    create: Operation | None = None
    power: Operation | None = None
    delete: Operation | None = None
    document: list[Operation] = []
    imperative: list[Operation] = []
    superseded: list[Operation] = []
    disks: list[Operation] = []
    for operation in operations:
        intent = operation.spec.intent
        if isinstance(intent, DeleteVm):
            older = (create, power, delete, *document, *imperative, *disks)
            superseded.extend(found for found in older if found is not None)
            create, power, delete, document, imperative, disks = None, None, operation, [], [], []
        elif isinstance(intent, CreateVm):
            create = operation
        elif isinstance(intent, _DOCUMENT):
            document.append(operation)
        elif isinstance(intent, _IMPERATIVE):
            imperative.append(operation)
        elif isinstance(intent, _ON_DISKS):
            disks.append(operation)
        else:
            superseded.extend([power] if power is not None else [])
            power = operation
    return Queue(create, power, delete, tuple(document), tuple(imperative), tuple(superseded), tuple(disks))


def superseded_endings(queue: Queue) -> tuple[Ending, ...]:
    return tuple(Ending(operation, OperationState.SUPERSEDED) for operation in queue.superseded)


def cancelled(operation: Operation | None) -> bool:
    return operation is not None and operation.spec.cancel_requested_at is not None


def problem_of(error: CorralError) -> Problem:
    """The error as a document, with what lies below it."""
    below = error.__cause__
    cause: Problem | None = None
    if isinstance(below, CorralError):
        cause = problem_of(below)
    elif isinstance(below, Exception):
        cause = Problem(code="internal", asked="", reason=f"{type(below).__name__}: {below}"[:500])
    return Problem(code=error.code, asked=error.asked, reason=error.reason, hint=error.hint, cause=cause)


def visible(vm: Vm, operations: tuple[Operation, ...]) -> tuple[Operation, ...]:
    """Without those whose own change of the spec has not been seen yet."""
    return tuple(operation for operation in operations if operation.spec.tracks_generation <= vm.generation)


def wish_of(vm: Vm | None, operations: tuple[Operation, ...]) -> str:
    """Changes with every new wish about a VM: its generation, its operations, a cancellation."""
    if vm is None:
        return ""
    parts = [f"{operation.uid}{'!' if operation.spec.cancel_requested_at else ''}" for operation in operations]
    return f"{vm.generation}/{bool(vm.deletion_requested_at)}/{','.join(parts)}"


def is_unwanted(vm: Vm | None, operations: tuple[Operation, ...]) -> bool:
    """What is being made for it need not be finished."""
    return vm is None or vm.being_deleted or any(cancelled(operation) for operation in operations)
