"""Volumes grown, and shrunk where it is proven that nothing is lost."""

from corral.errors import CorralError
from corral.model.operation import Operation, ResizeVolume
from corral.model.requests import ChangeDiskRequest
from corral.model.vm import Vm
from corral.model.volume import Volume
from corral.model.volume_requests import ResizeVolumeRequest
from corral.names import format_bytes
from corral.scheduler.admission import admit_disk
from corral.services import rules
from corral.services.access import audited, authorize
from corral.services.caller import Caller
from corral.services.changes import Decision, Mutation, change, repeated
from corral.services.context import Context
from corral.services.device import DeviceService
from corral.services.volume import check_free, lost_work, named
from corral.store.objects import Transaction, work_claim


class VolumeSizer:
    def __init__(self, context: Context, devices: DeviceService) -> None:
        self._context = context
        self._devices = devices

    async def resize(
        self,
        caller: Caller,
        project: str,
        name: str,
        request: ResizeVolumeRequest,
        *,
        if_revision: int | None = None,
    ) -> Operation:
        """That of a VM grows as its disk, while the guest runs; to shrink it, it is detached first."""
        context, action = self._context, "volume.update"
        await authorize(context, caller, project, action, name)
        asked = f"resize volume {name!r} to {format_bytes(request.size_bytes)}"
        async with audited(context, caller, project, action, name):
            name = await named(context, project, name)
            mutation = Mutation(caller, project, action, name, request, if_revision)
            if (known := await repeated(context, mutation)) is not None:
                return known
            volume = await context.objects.require(Volume, project, name)
            rules.check_revision(volume, if_revision)
            disk = None if request.shrink else await self._disk_of(volume)
            if disk is None:
                await self._check(volume, request, asked)
        if disk is not None:
            change_of = ChangeDiskRequest(size_bytes=request.size_bytes, force=request.force)
            return await self._devices.change_disk(caller, project, *disk, change_of)

        def decide(now: Volume) -> Decision:
            if now.spec != volume.spec or now.being_deleted:
                raise CorralError("precondition-failed", asked, "it was changed meanwhile", "look, and ask again")

            def hold(transaction: Transaction) -> None:
                transaction.claim(work_claim(now.uid), now.uid)

            intent = ResizeVolume(size_bytes=request.size_bytes)
            return Decision(intent, now.model_copy(), also=hold, lost=lambda key: lost_work(key, now, asked))

        return (await change(context, mutation, Volume, decide))[1]

    async def _disk_of(self, volume: Volume) -> tuple[str, str] | None:
        """The VM that has the volume, and the name of its disk there; None: it stands alone, or may be shared."""
        vm = await self._context.objects.get(Vm, volume.spec.vm_uid) if volume.spec.vm_uid is not None else None
        disks = vm.spec.disks if vm is not None else ()
        disk = next((disk.name for disk in disks if disk.volume_uid == volume.uid), None)
        return (vm.name, disk) if vm is not None and disk is not None else None

    async def _check(self, volume: Volume, request: ResizeVolumeRequest, asked: str) -> None:
        context = self._context
        await check_free(context, volume, asked, alone=True)
        if request.size_bytes < volume.spec.size_bytes:
            await self._check_shrink(volume, request, asked)
        elif not request.force:
            usage = await context.volumes.usage(volume.spec.pool)
            more = request.size_bytes - volume.spec.size_bytes
            admit_disk(more, usage.free_bytes, context.settings.disk_reserve_mib * 2**20, asked)

    async def _check_shrink(self, volume: Volume, request: ResizeVolumeRequest, asked: str) -> None:
        if not request.shrink:
            raise CorralError(
                "invalid-size",
                asked,
                f"it has {format_bytes(volume.spec.size_bytes)}; a smaller one would cut off what lies behind",
                "--shrink does it where it is proven that nothing lies there",
                {"wanted_bytes": request.size_bytes, "size_bytes": volume.spec.size_bytes},
            )
        if volume.spec.layer_uid is not None:
            reason = "there are points in time of it, which would not fit it any more"
            raise CorralError("unsupported", asked, reason, "delete its snapshots first")
        await self._context.volumes.check_shrink(volume, request.size_bytes)
