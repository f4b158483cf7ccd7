"""Volumes moved to another pool."""

from corral.errors import CorralError
from corral.model.operation import MoveVolume, Operation
from corral.model.volume import Volume
from corral.model.volume_requests import MoveVolumeRequest
from corral.scheduler.admission import admit_disk
from corral.services import rules
from corral.services.access import audited, authorize
from corral.services.caller import Caller
from corral.services.changes import Decision, Mutation, change, repeated
from corral.services.context import Context
from corral.services.pool import POOL_TURN
from corral.services.volume import check_free, lost_work, named
from corral.store.objects import Transaction, work_claim


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
        """Of a volume that no VM has, and of which there is no point in time. It then leans on nothing."""
        context, action = self._context, "volume.update"
        await authorize(context, caller, project, action, name)
        asked = f"move volume {name!r} to pool {request.pool!r}"
        async with context.ledger.name(POOL_TURN, request.pool):
            async with audited(context, caller, project, action, name):
                name = await named(context, project, name)
                mutation = Mutation(caller, project, action, name, request, if_revision)
                if (known := await repeated(context, mutation)) is not None:
                    return known
                volume = await context.objects.require(Volume, project, name)
                rules.check_revision(volume, if_revision)
                await self._check(volume, request, asked)

            def decide(now: Volume) -> Decision:
                if now.spec != volume.spec or now.being_deleted:
                    raise CorralError("precondition-failed", asked, "it was changed meanwhile", "look, and ask again")

                def hold(transaction: Transaction) -> None:
                    transaction.claim(work_claim(now.uid), now.uid)

                intent = MoveVolume(pool=request.pool, from_pool=now.spec.pool)
                return Decision(intent, now.model_copy(), also=hold, lost=lambda key: lost_work(key, now, asked))

            return (await change(context, mutation, Volume, decide))[1]

    async def _check(self, volume: Volume, request: MoveVolumeRequest, asked: str) -> None:
        context = self._context
        context.volumes.check_pool(request.pool)
        if request.pool == volume.spec.pool:
            raise CorralError("invalid-argument", asked, "it lies there already", "corral pool list shows the others")
        await check_free(context, volume, asked, alone=True)
        if volume.spec.layer_uid is not None:
            reason = "there are points in time of it, which lie in its pool"
            raise CorralError("unsupported", asked, reason, "delete its snapshots first")
        if not request.force:
            usage = await context.volumes.usage(request.pool)
            reserve_bytes = context.settings.disk_reserve_mib * 2**20
            admit_disk(volume.spec.size_bytes, usage.free_bytes, reserve_bytes, asked)
