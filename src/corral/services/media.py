"""The images that a new VM is made from: its own, and those in its drives."""

import asyncio
from pathlib import Path
from typing import Literal

from corral.errors import CorralError
from corral.images.iso_import import iso_facts
from corral.model.image import Image, ImageSource, ImageSpec, ImageState, ImageStatus
from corral.model.requests import CreateVmRequest
from corral.names import new_uid, parse_image_name
from corral.services.context import Context


async def find_media(context: Context, project: str, request: CreateVmRequest) -> dict[str, Image]:
    """The ISO images that the request's drives name, by name, in its order."""
    drives = [disk for disk in request.disks if disk.device == "cdrom"]
    names = dict.fromkeys(disk.image for disk in drives if disk.image is not None)
    media = {name: await ready_image(context, project, name, "iso") for name in names}
    for path in (disk.path for disk in drives if disk.path is not None and request.dry_run):
        media[path] = await asyncio.to_thread(_unmade, context, path)
    return media


def _unmade(context: Context, path: str) -> Image:
    """The image that a file would become; only a dry run, which makes nothing, has one in a drive."""
    try:
        facts = iso_facts(Path(path), f"not imported from {Path(path).name}", context.systems)
    except OSError as error:
        raise CorralError(
            "image-invalid",
            f"read {path[:200]}",
            error.strerror or str(error),
            "name a file that the daemon may read",
        ) from error
    spec = ImageSpec(catalogue="medium", source=ImageSource.IMPORT, path=path, format="iso")
    status = ImageStatus(state=ImageState.READY, facts=facts)
    return Image(name="medium", uid=new_uid(), created_at=context.clock.now(), spec=spec, status=status)


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
