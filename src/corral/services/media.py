"""The images that a new VM is made from: its own, and those in its drives."""

from typing import Literal

from corral.errors import CorralError
from corral.model.image import Image, ImageState
from corral.model.requests import CreateVmRequest
from corral.names import parse_image_name
from corral.services.context import Context


async def find_media(context: Context, project: str, request: CreateVmRequest) -> dict[str, Image]:
    """The ISO images that the request's drives name, by name, in its order."""
    names = dict.fromkeys(disk.image for disk in request.disks if disk.device == "cdrom" and disk.image is not None)
    return {name: await ready_image(context, project, name, "iso") for name in names}


async def ready_image(context: Context, project: str, name: str, kind: Literal["disk", "iso"]) -> Image:
    """The image, if it is there, whole and of that kind."""
    parse_image_name(name)
    image = await context.objects.find(Image, project, name)
    if image is None:
        known = any(entry.name == name for entry in context.library.catalogue())
        raise CorralError(
            "image-not-found",
            f"image {name!r}",
            "it is in the catalogue but not on this host" if known else "there is none of that name",
            f"corral image build {name}" if known else "corral image list shows what there is and what can be made",
        )
    if image.being_deleted or image.status.state is not ImageState.READY or image.status.facts is None:
        failed = image.status.state is ImageState.FAILED
        raise CorralError(
            "image-not-ready",
            f"image {name!r}",
            "it is being deleted"
            if image.being_deleted
            else image.status.last_error or f"it is {image.status.state.value}",
            f"corral image build {name}" if failed else "wait for its operation: corral operation list",
        )
    if image.status.facts.kind != kind:
        iso = kind == "disk"
        raise CorralError(
            "unsupported",
            f"image {name!r}",
            "it is the medium of a CD or DVD, not a disk" if iso else "it is a disk, not a medium for a drive",
            f"--cdrom {name} --disk size=20 boots it as an installer" if iso else f"--image {name}",
        )
    return image
