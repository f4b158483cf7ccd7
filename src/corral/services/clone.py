"""Clones: other VMs from what one was at an instant. Nothing is accepted before that instant has been kept."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from corral.errors import CorralError
from corral.model.layer import Layer
from corral.model.requests import CloneVmRequest
from corral.model.snapshot import Snapshot, snapshot_claim
from corral.model.vm import Vm
from corral.services import rules
from corral.services.access import audited, authorize
from corral.services.caller import Caller
from corral.services.context import Context
from corral.services.descent import Descendant, Descendants, Origin, create_all
from corral.services.snapshot import forget_point, take_point

ACTION: Final = "vm.clone"


class CloneService:
    def __init__(self, context: Context) -> None:
        self._context = context

    async def clone(self, caller: Caller, project: str, name: str, request: CloneVmRequest) -> Descendants:
        """VMs called `request.names`, and an operation for each. All come from one instant."""
        context = self._context
        await authorize(context, caller, project, ACTION, name)
        async with audited(context, caller, project, ACTION, name):
            source = await context.objects.require(Vm, project, name)
            rules.check_not_deleting(source, "clone")
            wish = Descendant(
                start=request.start, full=request.full, keep_identity=request.keep_identity, force=request.force
            )
            origin = self._origin(caller, source, request)
            asked = f"clone VM {name!r}"
            return await create_all(context, caller, project, request, origin, source.spec, wish, asked)

    @asynccontextmanager
    async def _origin(self, caller: Caller, source: Vm, request: CloneVmRequest) -> AsyncIterator[Origin]:
        """A point in time of the user's, or one that is made for this and forgotten afterwards: what the clones stand
        on stays as long as they do."""
        context = self._context
        if request.from_snapshot is not None:
            claim = snapshot_claim(source.uid, request.from_snapshot)
            snapshot = await context.objects.find(Snapshot, source.project, claim)
            if snapshot is None or not snapshot.status.ready:
                raise CorralError(
                    "snapshot-not-found",
                    f"clone {source.name} from {request.from_snapshot!r}",
                    "there is none of that name",
                    f"corral snapshot list {source.name}",
                )
            yield await self._origin_of(source, snapshot)
            return
        snapshot = await take_point(context, caller, source)
        try:
            yield await self._origin_of(source, snapshot)
        finally:
            await forget_point(context, caller, source, snapshot)

    async def _origin_of(self, source: Vm, snapshot: Snapshot) -> Origin:
        layers: dict[str, Layer] = {}
        for disk in snapshot.spec.disks:
            layer = await self._context.objects.get(Layer, disk.layer_uid)
            if layer is None:
                raise CorralError(
                    "snapshot-not-found", f"clone VM {source.name!r}", "the point in time is going", "try again"
                )
            layers[disk.name] = layer
        spec = snapshot.spec.vm_spec or source.spec
        beside = self._context.volumes.layers.point_dir(snapshot.uid) if snapshot.status.kept else None
        return Origin(source.name, spec, source.spec.cloud_init, layers, source.labels, beside)
