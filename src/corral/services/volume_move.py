"""Volumes moved to another pool, and made to lean on nothing: those that stand alone, and VMs' while they run or are off."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from corral.errors import CorralError
from corral.model.operation import FlattenVolume, MoveVolume, Operation
from corral.model.snapshot import Snapshot
from corral.model.vm import Vm
from corral.model.volume import Volume
from corral.model.volume_requests import FlattenVolumeRequest, MoveVolumeRequest
from corral.scheduler.admission import admit_disk
from corral.services import rules
from corral.services.access import audited, authorize
from corral.services.caller import Caller
from corral.services.changes import Decision, Mutation, change, repeated
from corral.services.context import Context
from corral.services.pool import POOL_TURN
from corral.services.volume import check_unused, check_work, lost_work, named
from corral.store.objects import Transaction, work_claim

ACTION = "volume.update"


class VolumeMover:
    def __init__(self, context: Context) -> None:
        self._context = context

    async def move(
        self,
        caller: Caller,
        project: str,
        name: str,
        request: MoveVolumeRequest,
        *,
        if_revision: int | None = None,
    ) -> Operation:
        """Also while its VM runs, which hardly notices. Not one of which there are points in time."""
        context = self._context
        async with context.ledger.name(POOL_TURN, request.pool):
            asked = f"move volume {name!r} to pool {request.pool!r}"
            mutation = Mutation(caller, project, ACTION, name, request, if_revision)
            async with self._asked(mutation, asked) as (known, volume):
                if known is not None:
                    return known
                context.volumes.check_pool(request.pool)
                if request.pool == volume.spec.pool:
                    hint = "corral pool list shows the others"
                    raise CorralError("invalid-argument", asked, "it lies there already", hint)
                await self._check(volume, request.pool, asked, force=request.force)
            intent = MoveVolume(
                pool=request.pool, from_pool=volume.spec.pool, bytes_per_s=self._limit(request.bytes_per_s)
            )
            return await self._submit(mutation, volume, intent, asked)

    async def flatten(
        self,
        caller: Caller,
        project: str,
        name: str,
        request: FlattenVolumeRequest,
        *,
        if_revision: int | None = None,
    ) -> Operation:
        """All that it leans on, an image or another disk's layers, comes into its own file."""
        asked = f"flatten volume {name!r}"
        mutation = Mutation(caller, project, ACTION, name, request, if_revision)
        async with self._asked(mutation, asked) as (known, volume):
            if known is not None:
                return known
            await self._check(volume, volume.spec.pool, asked, force=request.force)
        return await self._submit(mutation, volume, FlattenVolume(bytes_per_s=self._limit(request.bytes_per_s)), asked)

    @asynccontextmanager
    async def _asked(self, mutation: Mutation, asked: str) -> AsyncIterator[tuple[Operation | None, Volume]]:
        """The volume that is meant; an operation where this very request got one before."""
        context, caller, project, name = self._context, mutation.caller, mutation.project, mutation.target
        await authorize(context, caller, project, ACTION, name)
        async with audited(context, caller, project, ACTION, name):
            volume = await context.objects.require(Volume, project, await named(context, project, name))
            yield await repeated(context, await self._meant(mutation, volume)), volume

    async def _meant(self, mutation: Mutation, volume: Volume) -> Mutation:
        """Of a VM's volume the operation is the VM's: its turns see to it."""
        vm = await self._context.objects.get(Vm, volume.spec.vm_uid) if volume.spec.vm_uid is not None else None
        name, if_revision = (volume.name, mutation.if_revision) if vm is None else (vm.name, None)
        return replace(mutation, target=name, if_revision=if_revision)

    async def _submit(
        self, mutation: Mutation, volume: Volume, intent: MoveVolume | FlattenVolume, asked: str
    ) -> Operation:
        context = self._context

        def hold(transaction: Transaction) -> None:
            transaction.claim(work_claim(volume.uid), volume.uid)

        def lost(key: str) -> CorralError | None:
            changed = CorralError("precondition-failed", asked, "it was changed meanwhile", "look, and ask again")
            return changed if key == volume.key else lost_work(key, volume, asked)

        def of_volume(now: Volume) -> Decision:
            if now.spec != volume.spec or now.being_deleted:
                raise CorralError("precondition-failed", asked, "it was changed meanwhile", "look, and ask again")
            return Decision(intent, now.model_copy(), also=hold, lost=lost)

        def of_vm(now: Vm) -> Decision:
            rules.check_not_deleting(now, "move a disk of")

            def also(transaction: Transaction) -> None:
                hold(transaction)
                transaction.require(volume)
                transaction.require(now)

            mine = intent.model_copy(update={"volume_uid": volume.uid})
            return Decision(mine, also=also, lost=lost)

        meant = await self._meant(mutation, volume)
        if volume.spec.vm_uid is None:
            return (await change(context, meant, Volume, of_volume))[1]
        rules.check_revision(volume, mutation.if_revision)
        return (await change(context, meant, Vm, of_vm))[1]

    async def _check(self, volume: Volume, pool: str, asked: str, *, force: bool) -> None:
        context = self._context
        await check_work(context, volume, asked)
        vm = await context.objects.get(Vm, volume.spec.vm_uid) if volume.spec.vm_uid is not None else None
        disk = next((d for d in vm.spec.disks if d.volume_uid == volume.uid), None) if vm is not None else None
        if vm is None:
            await check_unused(context, volume, asked)
        elif disk is None:
            raise CorralError("volume-in-use", asked, f"VM {vm.name} has not let it go yet", "try again")
        else:
            _check_vm(vm, asked, read_only=disk.read_only or volume.spec.read_only)
        for point in await context.objects.list(Snapshot):
            if any(found.volume_uid == volume.uid for found in point.spec.disks):
                reason = f"there are points in time of it ({point.name}), which lie where it does"
                raise CorralError("unsupported", asked, reason, "delete its snapshots first")
        if not force:
            usage = await context.volumes.usage(pool)
            reserve_bytes = context.settings.disk_reserve_mib * 2**20
            admit_disk(volume.spec.size_bytes, usage.free_bytes, reserve_bytes, asked)

    def _limit(self, asked: int | None) -> int:
        return self._context.settings.copy_bytes_per_s if asked is None else asked


def _check_vm(vm: Vm, asked: str, *, read_only: bool) -> None:
    if vm.spec.adopted:
        raise CorralError("unsupported", asked, f"the domain of {vm.name} was made elsewhere", "detach it first")
    if vm.status.has_saved_memory:
        reason = f"the memory of {vm.name} is saved, and knows the disk where it is"
        raise CorralError("wrong-state", asked, reason, f"corral start {vm.name}")
    if read_only and vm.status.seen_state in rules.HAS_MEMORY:
        reason = f"{vm.name} runs and only reads it, which nothing can be copied beside"
        raise CorralError("wrong-state", asked, reason, f"corral shutdown {vm.name}, or detach the disk")
