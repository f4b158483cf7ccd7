"""The volumes of a stack: which are there, which are to be made, and what of them cannot be changed."""

from dataclasses import dataclass
from typing import Any

from corral.errors import CorralError
from corral.model import limits
from corral.model.base import DEFAULT_POOL
from corral.model.vm import Vm
from corral.model.volume import Volume, VolumeSpec
from corral.model.volume_requests import CreateVolumeRequest
from corral.names import format_bytes, new_uid
from corral.scheduler.admission import admit_disk
from corral.services.access import authorize
from corral.services.caller import Caller
from corral.services.context import Context
from corral.services.stack_document import Stack, Trouble, Wish
from corral.services.stack_networks import NetworkNeed
from corral.services.stack_state import ImageNeed, check_own
from corral.services.volume import free_volume, named
from corral.services.volume_create import check_shape


@dataclass(frozen=True)
class VolumeNeed:
    """A volume that the stack declares. `volume`: it, or what it will be."""

    request: CreateVolumeRequest
    there: Volume | None
    volume: Volume
    fixed: tuple[str, ...] = ()
    """What only a new one could have otherwise."""

    @property
    def name(self) -> str:
        return self.request.name

    @property
    def grows(self) -> bool:
        return self.there is not None and (self.request.size_bytes or 0) > self.there.spec.size_bytes


@dataclass(frozen=True)
class Needs:
    """What a stack declares beside its VMs, by name."""

    images: dict[str, ImageNeed]
    volumes: dict[str, VolumeNeed]
    networks: dict[str, NetworkNeed]


async def declared_volumes(
    context: Context, caller: Caller, project: str, stack: Stack, troubles: list[Trouble]
) -> dict[str, VolumeNeed]:
    """Those of the document, as they are or will be."""
    found: dict[str, VolumeNeed] = {}
    if stack.volumes:
        await authorize(context, caller, project, "volume.create", stack.name)
    for name, request in stack.volumes.items():
        try:
            found[name] = await find_volume(context, project, request, stack.name)
        except CorralError as error:
            troubles.append(Trouble(f"volumes.{name}", error))
    return found


async def find_volume(context: Context, project: str, request: CreateVolumeRequest, stack: str) -> VolumeNeed:
    """Raises `name-taken` for a volume that is not the stack's."""
    asked = f"volume {request.name!r}"
    check_shape(request, asked)
    context.volumes.check_pool(request.pool or DEFAULT_POOL)
    there = await context.objects.find(Volume, project, request.name)
    if there is None:
        if request.size_bytes is None and request.image is None:
            raise CorralError("invalid-argument", asked, "it has no size", "size: 20")
        await _admit(context, request, asked)
        return VolumeNeed(request, None, _unmade(context, project, request))
    check_own(there, stack, asked)
    if there.being_deleted:
        raise CorralError("volume-in-use", asked, "it is being deleted", "apply again in a moment")
    return VolumeNeed(request, there, there, tuple(_fixed(request, there)))


def _fixed(request: CreateVolumeRequest, there: Volume) -> list[str]:
    spec, found = there.spec, list[str]()
    wished: dict[str, Any] = {
        "format": (spec.format, request.format),
        "read_only": (spec.read_only, request.read_only),
        "shared": (spec.shared, request.shared),
    }
    if request.pool is not None:
        wished["pool"] = (spec.pool, request.pool)
    found += [f"volume {there.name} {what}: {old} → {new}" for what, (old, new) in wished.items() if old != new]
    if request.size_bytes is not None and request.size_bytes < spec.size_bytes:
        sizes = f"{format_bytes(spec.size_bytes)} → {format_bytes(request.size_bytes)}"
        found.append(f"volume {there.name} size: {sizes} (stacks shrink no volumes)")
    return found


def _unmade(context: Context, project: str, request: CreateVolumeRequest) -> Volume:
    spec = VolumeSpec(
        pool=request.pool or DEFAULT_POOL,
        size_bytes=request.size_bytes or limits.DISK_MIN_BYTES,
        format=request.format,
        read_only=request.read_only,
        shared=request.shared,
        delete_with_vm=False,
    )
    now = context.clock.now()
    return Volume(project=project, name=request.name, uid=new_uid(), created_at=now, spec=spec)


async def _admit(context: Context, request: CreateVolumeRequest, asked: str) -> None:
    usage = await context.volumes.usage(request.pool or DEFAULT_POOL)
    reserve_bytes = context.settings.disk_reserve_mib * 2**20
    admit_disk(request.size_bytes or 0, usage.free_bytes, reserve_bytes, asked)


async def volumes_for(
    context: Context, project: str, wish: Wish, vm: Vm | None, needs: dict[str, VolumeNeed]
) -> dict[str, Volume]:
    """The volumes that one VM's disks name: those to be made, those that it has already, and free ones."""
    found: dict[str, Volume] = {}
    for disk in wish.request.disks:
        if disk.volume is None:
            continue
        need = needs.get(disk.volume)
        there = need.there if need is not None else None
        if need is None:
            name = await named(context, project, disk.volume)
            there = await context.objects.find(Volume, project, name)
        own = there is not None and vm is not None and there.uid in {known.volume_uid for known in vm.spec.disks}
        if there is not None and own:
            found[disk.volume] = there
        elif need is not None and (there is None or not there.status.ready):
            found[disk.volume] = need.volume
        else:
            found[disk.volume] = await free_volume(context, project, disk.volume, f"VM {wish.name!r}")
    return found
