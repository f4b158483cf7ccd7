"""Points in time of VMs: list, show, take, go back to, forget. Each but the first two is an operation of the VM's."""

import asyncio
import json
from collections.abc import Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

from corral.errors import CorralError
from corral.hypervisor.capabilities import Ability, abilities_of, check_together
from corral.model import limits
from corral.model.base import Model
from corral.model.layer import Layer
from corral.model.operation import DeleteSnapshot, Operation, OperationState, RevertVm, SnapshotVm
from corral.model.requests import ListRequest
from corral.model.snapshot import Snapshot, SnapshotSpec, snapshot_claim
from corral.model.snapshot_requests import CreateSnapshotRequest
from corral.model.snapshot_rules import check_revert, check_take, disks_in_time
from corral.model.vm import Power, Vm
from corral.model.volume import Volume
from corral.names import MIB, format_bytes, new_uid, parse_name
from corral.scheduler.admission import further_demand
from corral.services import listing, rules
from corral.services.access import audited, authorize
from corral.services.caller import Caller
from corral.services.changes import Decision, Mutation, change
from corral.services.context import Context
from corral.services.documents import Document, Listing, document_of
from corral.store.objects import Transaction, name_claim

# A new head is so large before anything is written; what the guest writes next needs room too.
HEAD_BYTES: Final = 1 * MIB
KEPT_FREE_BYTES: Final = 64 * MIB
# What QEMU writes beside the memory itself.
MEMORY_OVERHEAD_BYTES: Final = 32 * MIB
POINT_TIMEOUT_S: Final = 120.0
MEMORY_TIMEOUT_S: Final = 1800.0


@dataclass(frozen=True)
class _Disks:
    """What the rules ask about."""

    volumes: Mapping[str, Volume]
    layers: Mapping[str, Layer]


class SnapshotService:
    def __init__(self, context: Context) -> None:
        self._context = context

    async def list(self, caller: Caller, project: str, name: str) -> Listing:
        """Those of one VM, oldest first, without the hidden ones."""
        vm = await self._vm(caller, project, name, "snapshot.read")
        page = await self._context.objects.records(Snapshot)
        start = b'{"kind":"snapshot","project":"%s",' % project.encode()
        found = []
        for record in page.records:
            if record.value.startswith(start):
                spec = json.loads(record.value)["spec"]
                if spec["vm_uid"] == vm.uid and not spec.get("hidden"):
                    found.append(record)
        found.sort(key=lambda record: record.created_revision)
        return Listing(tuple(document_of(record).content for record in found), page.revision, None)

    async def list_all(self, caller: Caller, project: str, request: ListRequest) -> Listing:
        """Of all VMs, the hidden ones too: for counting."""
        return await listing.list_objects(self._context, caller, project, Snapshot, request)

    async def get(self, caller: Caller, project: str, name: str, snapshot: str) -> Document:
        vm = await self._vm(caller, project, name, "snapshot.read")
        found = await self._find(vm, snapshot)
        record = await self._context.objects.store.get(found.key)
        if record is None:
            raise _not_found(vm, snapshot)
        return document_of(record)

    async def create(
        self, caller: Caller, project: str, name: str, request: CreateSnapshotRequest, *, if_revision: int | None = None
    ) -> tuple[Snapshot, Operation]:
        """The Snapshot is there at once, and ready when the operation has succeeded."""
        parse_name(request.name)
        spec = SnapshotSpec(
            vm_uid=new_uid(), description=request.description, with_memory=request.memory, quiesce=request.quiesce
        )
        mutation = Mutation(caller, project, "snapshot.create", name, request, if_revision)
        return await take_snapshot(self._context, mutation, request.name, spec, dict(request.labels))

    async def revert(
        self, caller: Caller, project: str, name: str, snapshot: str, *, if_revision: int | None = None
    ) -> Operation:
        """What was since is lost, unless another point in time has it."""
        vm = await self._vm(caller, project, name, "snapshot.revert")
        async with audited(self._context, caller, project, "snapshot.revert", name):
            found = await self._find(vm, snapshot)
            disks = await _disks(self._context, vm)

        def decide(current: Vm) -> Decision:
            check_revert(current, found, disks.volumes, saved=current.status.has_saved_memory)
            wanted = current
            if found.spec.with_memory and found.spec.vm_spec is not None:
                was = found.spec.vm_spec.model_copy(update={"power": Power.ON})
                wanted = current.model_copy(update={"spec": was})
            return Decision(RevertVm(snapshot_uid=found.uid), wanted=further_demand(current, wanted))

        mutation = Mutation(caller, project, "snapshot.revert", name, _Named(snapshot=snapshot), if_revision)
        return (await change(self._context, mutation, Vm, decide))[1]

    async def delete(
        self, caller: Caller, project: str, name: str, snapshot: str, *, if_revision: int | None = None
    ) -> Operation:
        """Every other point in time stays what it was; what is of no more use is given back in a quiet moment."""
        vm = await self._vm(caller, project, name, "snapshot.delete")
        async with audited(self._context, caller, project, "snapshot.delete", name):
            found = await self._find(vm, snapshot)

        def decide(current: Vm) -> Decision:
            rules.check_not_deleting(current, "delete a snapshot of")
            return Decision(DeleteSnapshot(snapshot_uid=found.uid))

        mutation = Mutation(caller, project, "snapshot.delete", name, _Named(snapshot=snapshot), if_revision)
        return (await change(self._context, mutation, Vm, decide))[1]

    # ---- within ----

    async def _vm(self, caller: Caller, project: str, name: str, action: str) -> Vm:
        await authorize(self._context, caller, project, action, name)
        return await self._context.objects.require(Vm, project, name)

    async def _find(self, vm: Vm, name: str) -> Snapshot:
        found = await self._context.objects.find(Snapshot, vm.project, snapshot_claim(vm.uid, name))
        if found is None:
            raise _not_found(vm, name)
        return found


async def take_snapshot(
    context: Context, mutation: Mutation, snapshot_name: str, spec: SnapshotSpec, labels: Mapping[str, str]
) -> tuple[Snapshot, Operation]:
    """As a request of its own; `spec.vm_uid` is filled in here."""
    await authorize(context, mutation.caller, mutation.project, mutation.action, mutation.target)
    async with audited(context, mutation.caller, mutation.project, mutation.action, mutation.target):
        vm = await context.objects.require(Vm, mutation.project, mutation.target)
        disks = await _disks(context, vm)
        await _check_room(context, vm, spec, disks)
        count = await _count(context, vm)
    snapshot = Snapshot(
        project=mutation.project,
        name=snapshot_name,
        uid=new_uid(),
        created_at=context.clock.now(),
        labels=dict(labels),
        spec=spec.model_copy(update={"vm_uid": vm.uid}),
    )
    asked = f"take a snapshot of {vm.name}"

    def decide(found: Vm) -> Decision:
        active = found.status.seen_state in rules.HAS_MEMORY
        saved = found.status.has_saved_memory
        check_take(found, disks.volumes, disks.layers, with_memory=spec.with_memory, active=active, saved=saved)
        if spec.with_memory:
            hint = "leave --memory out"
            check_together(asked, hint, *abilities_of(found.spec), Ability.SAVED_MEMORY)
        if spec.quiesce:
            _check_quiesce(found, asked, with_memory=spec.with_memory, active=active)
        if count >= limits.SNAPSHOTS_MAX:
            reason = f"it has {limits.SNAPSHOTS_MAX} snapshots already"
            raise CorralError("chain-too-long", asked, reason, "delete those that are no longer needed")
        return Decision(
            SnapshotVm(snapshot_uid=snapshot.uid), also=_creates(found, snapshot), lost=_name_taken(found, snapshot)
        )

    _vm, operation = await change(context, mutation, Vm, decide)
    intent = operation.spec.intent
    known = isinstance(intent, SnapshotVm) and await context.objects.get(Snapshot, intent.snapshot_uid)
    return known or snapshot, operation


async def _disks(context: Context, vm: Vm) -> _Disks:
    """The volumes of its disks, and the layers that they stand on."""
    objects = context.objects
    volumes: dict[str, Volume] = {}
    layers: dict[str, Layer] = {}
    for disk in disks_in_time(vm):
        volume = await objects.get(Volume, disk.volume_uid) if disk.volume_uid is not None else None
        if volume is None:
            continue
        volumes[volume.uid] = volume
        uid: str | None = volume.head_uid
        while uid is not None and uid not in layers and (layer := await objects.get(Layer, uid)) is not None:
            layers[uid], uid = layer, layer.spec.parent_uid
    return _Disks(volumes, layers)


async def _check_room(context: Context, vm: Vm, spec: SnapshotSpec, disks: _Disks) -> None:
    """`insufficient-disk` with figures, before anything is made."""
    needed: dict[str, int] = {}
    for volume in disks.volumes.values():
        needed[volume.spec.pool] = needed.get(volume.spec.pool, KEPT_FREE_BYTES) + HEAD_BYTES
    if spec.with_memory:
        memory_bytes = vm.spec.memory_mib * MIB + MEMORY_OVERHEAD_BYTES
        needed["default"] = needed.get("default", KEPT_FREE_BYTES) + memory_bytes
    for pool, bytes_ in needed.items():
        free_bytes = (await context.volumes.usage(pool)).free_bytes
        if free_bytes < bytes_:
            raise CorralError(
                "insufficient-disk",
                f"take a snapshot of {vm.name}",
                f"pool {pool} has {format_bytes(free_bytes)} free, it may need {format_bytes(bytes_)}",
                "free space, or leave --memory out" if spec.with_memory else "free space or add a disk",
                {"pool": pool, "free_bytes": free_bytes, "needed_bytes": bytes_},
            )


async def _count(context: Context, vm: Vm) -> int:
    prefix = name_claim(Snapshot.KIND, vm.project, snapshot_claim(vm.uid, ""))
    return await context.objects.store.count(prefix)


class _Named(Model):
    """What tells one request from another under an Idempotency-Key."""

    snapshot: str


def _creates(vm: Vm, snapshot: Snapshot) -> Callable[[Transaction], None]:
    def create(transaction: Transaction) -> None:
        transaction.create(snapshot)
        transaction.require(vm)  # it is not being deleted

    return create


def _name_taken(vm: Vm, snapshot: Snapshot) -> Callable[[str], CorralError | None]:
    claim = name_claim(Snapshot.KIND, vm.project, snapshot_claim(vm.uid, snapshot.name))

    def meaning(key: str) -> CorralError | None:
        if key != claim:
            return None
        asked = f"take snapshot {snapshot.name!r} of {vm.name}"
        return CorralError("name-taken", asked, "it has one of this name", "choose another name")

    return meaning


def _check_quiesce(vm: Vm, asked: str, *, with_memory: bool, active: bool) -> None:
    if with_memory:
        reason = "with its memory nothing of a guest is cut, so there is nothing to quiesce"
        raise CorralError("invalid-argument", asked, reason, "leave one of the two out")
    if active and not vm.status.agent_connected:
        raise CorralError(
            "guest-agent-unavailable",
            asked,
            "no guest agent is there to freeze its file systems",
            "leave --quiesce out",
        )


def _not_found(vm: Vm, name: str) -> CorralError:
    return CorralError(
        "snapshot-not-found",
        f"snapshot {name[:64]!r} of {vm.name}",
        "it has none of that name",
        f"corral snapshot list {vm.name}",
    )


# ---- for clones, templates and forks -------------------------------------------------------------------------------


async def take_point(context: Context, caller: Caller, vm: Vm, *, with_memory: bool = False) -> Snapshot:
    """A hidden point in time, once it is there. Raises what was in its way."""
    plain = Caller(caller.identity, caller.request_id)
    mutation = Mutation(plain, vm.project, "snapshot.create", vm.name)
    spec = SnapshotSpec(vm_uid=vm.uid, with_memory=with_memory, hidden=True)
    snapshot, operation = await take_snapshot(context, mutation, f"hidden-{new_uid()[:8]}", spec, {})
    timeout_s = MEMORY_TIMEOUT_S if with_memory else POINT_TIMEOUT_S
    done = await until_ended(context, operation, timeout_s)
    found = await context.objects.get(Snapshot, snapshot.uid)
    if done.status.state is OperationState.SUCCEEDED and found is not None:
        return found
    problem = done.status.error
    if problem is not None:
        raise CorralError(problem.code, problem.asked, problem.reason, problem.hint)
    raise CorralError("operation-cancelled", f"keep an instant of {vm.name}", f"that has {done.status.state.value}")


async def forget_point(context: Context, caller: Caller, vm: Vm, snapshot: Snapshot) -> None:
    """What was made of it stays as long as it stands on it."""
    plain = Caller(caller.identity, caller.request_id)
    await SnapshotService(context).delete(plain, vm.project, vm.name, snapshot.name)


async def until_ended(context: Context, operation: Operation, timeout_s: float) -> Operation:
    current = await context.objects.get(Operation, operation.uid) or operation
    try:
        async with asyncio.timeout(timeout_s):
            async with aclosing(context.objects.watch(Operation, operation.revision)) as changes:
                if current.status.state.final:
                    return current
                async for found in changes:
                    if found.uid == operation.uid and found.value is not None and found.value.status.state.final:
                        return found.value
    except TimeoutError:
        pass
    raise CorralError(
        "wait-timeout",
        f"{operation.spec.intent.verb} of {operation.spec.target_name}",
        f"it did not end within {timeout_s:g} s",
        f"corral operation watch {operation.uid}",
    )
