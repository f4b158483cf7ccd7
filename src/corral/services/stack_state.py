"""What is there of a stack: its VMs, what they lean on, the operations under way on them, and the images that it needs."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, TypeVar

from corral.errors import CorralError
from corral.model import limits
from corral.model.base import Object
from corral.model.image import Image, ImageFacts, ImageSource, ImageSpec, ImageState, ImageStatus
from corral.model.operation import Operation
from corral.model.stack import STACK_LABEL
from corral.model.vm import Vm
from corral.model.volume import Volume
from corral.names import new_uid
from corral.services.context import Context
from corral.services.listing import read_objects, read_records
from corral.services.stack_diff import There
from corral.store.objects import decode

T = TypeVar("T", bound=Object)
_UNFINISHED: Final = (b'"state":"accepted"', b'"state":"running"')


async def find_members(context: Context, project: str, stack: str) -> dict[str, Vm]:
    """The VMs of the stack, by name. Stored bytes are looked at; only what may be meant is decoded."""
    label = b'"%s":"%s"' % (STACK_LABEL.encode(), stack.encode())
    vms = [decode(Vm, record) for record in await read_records(context, Vm, project) if label in record.value]
    return {vm.name: vm for vm in sorted(vms, key=lambda vm: vm.name) if vm.labels.get(STACK_LABEL) == stack}


async def find_of_stack(context: Context, cls: type[T], project: str, stack: str) -> list[T]:
    """What the stack declared of a kind, by name."""
    found = await read_objects(context, cls, project)
    return sorted((one for one in found if one.labels.get(STACK_LABEL) == stack), key=lambda one: one.name)


def check_own(there: Object | None, stack: str, asked: str) -> None:
    """Raises `name-taken` for what is there and is not the stack's."""
    if there is not None and there.labels.get(STACK_LABEL) != stack:
        raise CorralError(
            "name-taken", asked, "there is one of this name, and it is not this stack's", "choose another"
        )


async def read_there(context: Context, vm: Vm) -> There:
    """The VM with its volumes and the names of its media."""
    volumes, media = {}, {}
    for disk in vm.spec.disks:
        if disk.volume_uid is not None and (volume := await context.objects.get(Volume, disk.volume_uid)) is not None:
            volumes[volume.uid] = volume
        if disk.image_uid is not None and (image := await context.objects.get(Image, disk.image_uid)) is not None:
            media[image.uid] = image.name
    return There(vm, volumes, media)


def is_settled(vm: Vm) -> bool:
    """Nothing that was asked of it is still to be done."""
    return not vm.being_deleted and vm.status.observed_generation == vm.generation


async def find_unfinished(context: Context, uids: Iterable[str]) -> dict[str, str]:
    """The newest operation under way on each of these objects, by the object's uid."""
    wanted = frozenset(uids)
    if not wanted:
        return {}
    records = await read_records(context, Operation)
    operations = [
        decode(Operation, record) for record in records if any(state in record.value for state in _UNFINISHED)
    ]
    going_on = [one for one in operations if not one.status.state.final and one.spec.target_uid in wanted]
    return {one.spec.target_uid: one.uid for one in sorted(going_on, key=lambda one: one.created_at)}


@dataclass(frozen=True)
class ImageNeed:
    """An image that the stack names. `there`: its object; `unmade`: what it will be, while it is not ready."""

    name: str
    there: Image | None
    unmade: Image | None


async def find_image(context: Context, project: str, name: str) -> ImageNeed:
    """Raises `image-not-found` for what is neither there nor in the catalogue, `image-not-ready` where it is going."""
    image = await context.objects.find(Image, project, name)
    if image is not None and image.being_deleted:
        raise CorralError("image-not-ready", f"image {name!r}", "it is being deleted", "apply again in a moment")
    if image is not None and image.status.state is ImageState.READY:
        return ImageNeed(name, image, None)
    entry = next((entry for entry in context.library.catalogue() if entry.name == name), None)
    if entry is None:
        if image is not None and image.status.state is not ImageState.FAILED:
            raise CorralError("image-not-ready", f"image {name!r}", f"it is {image.status.state.value}", "wait for it")
        names = ", ".join(entry.name for entry in context.library.catalogue())
        raise CorralError(
            "image-not-found", f"image {name!r}", "the catalogue has none of that name", f"it has: {names}"
        )
    facts = ImageFacts(
        digest="0" * 64,
        os_id=entry.os_id,
        disk_virtual_bytes=limits.DISK_MIN_BYTES,  # so that no size is refused that may turn out to be enough
        bios=True,
        uefi=True,
        default_user=entry.default_user,
        memory_min_mib=entry.memory_min_mib,
    )
    unmade = Image(
        project=project,
        name=name,
        uid=new_uid(),
        created_at=context.clock.now(),
        spec=ImageSpec(catalogue=entry.name, source=ImageSource.BUILD if entry.build else ImageSource.DOWNLOAD),
        status=ImageStatus(state=ImageState.READY, facts=facts),
    )
    return ImageNeed(name, image, unmade)
