"""Volumes: read, and those that no VM has any more deleted."""

import re
from typing import Final

from corral.errors import CorralError
from corral.model.operation import DeleteVolume, Operation
from corral.model.requests import ListRequest
from corral.model.snapshot import Snapshot
from corral.model.vm import Vm
from corral.model.volume import Volume
from corral.services import listing
from corral.services.access import audited, authorize
from corral.services.caller import Caller
from corral.services.changes import Decision, Mutation, change
from corral.services.context import Context
from corral.services.documents import Document, Listing
from corral.store.objects import work_claim

_UID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class VolumeService:
    """A volume is meant by its name or, where that is long, by its uid."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def list(self, caller: Caller, project: str, request: ListRequest) -> Listing:
        return await listing.list_objects(self._context, caller, project, Volume, request)

    async def get(self, caller: Caller, project: str, name: str) -> Document:
        await authorize(self._context, caller, project, "volume.read", name)
        return await listing.get_object(
            self._context, caller, project, Volume, await named(self._context, project, name)
        )

    async def delete(self, caller: Caller, project: str, name: str, *, if_revision: int | None = None) -> Operation:
        """Remove a volume that no VM has; `volume-in-use` names the one that does."""
        action = "volume.delete"
        await authorize(self._context, caller, project, action, name)
        async with audited(self._context, caller, project, action, name):
            name = await named(self._context, project, name)
            volume = await self._context.objects.find(Volume, project, name)
            if volume is not None:
                await check_unused(self._context, volume, f"delete volume {volume.name!r}")
                await self._check_no_point(volume)
        mutation = Mutation(caller, project, action, name, None, if_revision)
        return (await change(self._context, mutation, Volume, self._deletion))[1]

    async def _check_no_point(self, volume: Volume) -> None:
        """Going back to a point in time gives a VM the disks that it had then."""
        for point in await self._context.objects.list(Snapshot):
            if any(disk.volume_uid == volume.uid for disk in point.spec.disks):
                vm = await self._context.objects.get(Vm, point.spec.vm_uid)
                raise CorralError(
                    "volume-in-use",
                    f"delete volume {volume.name!r}",
                    f"the snapshot {point.name} of VM {vm.name if vm is not None else '?'} has it",
                    "delete the snapshot first",
                )

    def _deletion(self, volume: Volume) -> Decision:
        if volume.spec.vm_uid is not None:
            raise _in_use(f"delete volume {volume.name!r}", "its VM")
        asked_at = volume.deletion_requested_at or self._context.clock.now()
        return Decision(DeleteVolume(), volume.model_copy(update={"deletion_requested_at": asked_at}))


async def named(context: Context, project: str, name: str) -> str:
    """The name of the volume that is meant."""
    if not _UID.fullmatch(name):
        return name
    volume = await context.objects.get(Volume, name)
    return volume.name if volume is not None and volume.project == project else name


async def free_volume(context: Context, project: str, name: str, asked: str) -> Volume:
    """A volume that is whole, and that no VM has or that several may have."""
    volume = await context.objects.require(Volume, project, await named(context, project, name))
    await check_free(context, volume, asked, alone=not volume.spec.shared)
    return volume


async def check_free(context: Context, volume: Volume, asked: str, *, alone: bool) -> None:
    """Nothing if the volume is whole and nobody works on it; with `alone` also, if nobody has it."""
    if volume.spec.vm_uid is not None:
        owner = await context.objects.get(Vm, volume.spec.vm_uid)
        raise _in_use(asked, f"VM {owner.name}" if owner is not None else "its VM")
    await check_work(context, volume, asked)
    if alone:
        await check_unused(context, volume, asked)


async def check_work(context: Context, volume: Volume, asked: str) -> None:
    """Nothing if it is whole, and stays so: nobody makes, resizes or deletes it."""
    if volume.being_deleted or not volume.status.ready:
        reason = "it is being deleted" if volume.being_deleted else "it is not made yet"
        raise CorralError("volume-in-use", asked, reason, "corral volume list")
    if await context.objects.owner(work_claim(volume.uid)) is not None:
        raise _being_worked_on(asked)


def is_uid(name: str) -> bool:
    return _UID.fullmatch(name) is not None


def lost_work(key: str, volume: Volume, asked: str) -> CorralError | None:
    """What it means that somebody was first to work on a volume."""
    return _being_worked_on(asked) if key == work_claim(volume.uid) else None


def _being_worked_on(asked: str) -> CorralError:
    reason = "it is being resized, moved or flattened"
    return CorralError("volume-in-use", asked, reason, "wait for its operation: corral operation list")


async def check_unused(context: Context, volume: Volume, asked: str) -> None:
    """By what Corral knows, and by what the hypervisor's domains say: somebody may have attached it with virsh, or
    put an overlay over it."""
    path = str(context.volumes.volume_path(volume))
    for vm in await context.objects.list(Vm):
        known = any(disk.volume_uid == volume.uid or disk.path == path for disk in vm.spec.disks)
        if known or vm.uid == volume.spec.vm_uid:
            raise _in_use(asked, f"VM {vm.name}")
    hypervisor = context.hypervisor
    for domain in await hypervisor.observe_all():
        try:
            found = await hypervisor.describe(domain.uid)
        except CorralError as error:
            if error.code == "domain-not-found":  # it went meanwhile
                continue
            raise
        if any(path in (disk.path, *(below for below, _ in disk.backing)) for disk in found.disks):
            raise _in_use(asked, f"domain {domain.name}")


def _in_use(asked: str, user: str) -> CorralError:
    return CorralError("volume-in-use", asked, f"{user} has it", "delete the VM, or detach the disk first")
