"""Images: made from the catalogue or from a file, listed, deleted when nothing stands on them."""

import stat
from pathlib import Path
from typing import Final

from corral.errors import CorralError
from corral.images.base import CatalogueEntry
from corral.model.base import DEFAULT_PROJECT
from corral.model.image import Image, ImageSource, ImageSpec, ImageState, ImageStatus
from corral.model.layer import Layer
from corral.model.operation import BuildImage, DeleteImage, Operation
from corral.model.requests import BuildImageRequest, ListRequest
from corral.model.vm import Vm
from corral.model.volume import Volume
from corral.names import new_uid, parse_image_name
from corral.services import listing, rules
from corral.services.access import audited, authorize, record
from corral.services.caller import Caller
from corral.services.changes import Decision, Mutation, change, new_operation, repeated, submit
from corral.services.context import Context
from corral.services.documents import Document, Listing
from corral.services.installer import medium_spec, stage_files
from corral.services.upload import Upload
from corral.store.objects import name_claim

USERS_SHOWN: Final = 10


class ImageService:
    def __init__(self, context: Context) -> None:
        self._context = context

    async def list(self, caller: Caller, project: str, request: ListRequest) -> Listing:
        return await listing.list_objects(self._context, caller, project, Image, request)

    async def get(self, caller: Caller, project: str, name: str) -> Document:
        return await listing.get_object(self._context, caller, project, Image, name)

    async def catalogue(self, caller: Caller) -> tuple[CatalogueEntry, ...]:
        """What can be made or downloaded on this host."""
        await authorize(self._context, caller, DEFAULT_PROJECT, "image.read")
        return self._context.library.catalogue()

    async def build(self, caller: Caller, project: str, request: BuildImageRequest) -> tuple[Image, Operation]:
        """Make an image; one that failed before is tried again under the same name."""
        name = request.name or request.catalogue or Path(request.path).stem
        mutation = Mutation(caller, project, "image.build", name, request)
        await authorize(self._context, caller, project, mutation.action, name)
        async with audited(self._context, caller, project, mutation.action, name):
            parse_image_name(name)
            spec = self._spec(request, name)
            if spec.path:
                await authorize(self._context, caller, DEFAULT_PROJECT, "host.use-path", name)
            if request.path:
                _check_file(request.path)
            async with self._context.ledger.name(f"image/{project}", name):
                known = await repeated(self._context, mutation)
                image = await self._context.objects.find(Image, project, name)
                if known is not None:
                    return image or _new(self._context, project, name, spec, request), known
                if request.files:
                    spec = await stage_files(self._context, request, spec)
                if image is None:
                    return await self._create(mutation, _new(self._context, project, name, spec, request))
        return await self._again(mutation, spec)

    async def open_upload(self, caller: Caller, project: str) -> Upload:
        """A file from afar, for an image; its token is a `build` request's `upload`."""
        await authorize(self._context, caller, project, "image.build")
        await record(self._context, caller, project, "image.build", "upload", "accepted")
        return Upload(self._context.library.staging.open())

    async def delete(self, caller: Caller, project: str, name: str, *, if_revision: int | None = None) -> Operation:
        """Remove an image that nothing stands on; `image-in-use` names what does."""
        mutation = Mutation(caller, project, "image.delete", name, None, if_revision)
        await authorize(self._context, caller, project, mutation.action, name)
        async with audited(self._context, caller, project, mutation.action, name):
            image = await self._context.objects.require(Image, project, name)
            asked = f"delete image {name!r}"
        with self._context.ledger.deleting_image(image.uid, asked):
            async with audited(self._context, caller, project, mutation.action, name):
                rules.check_revision(image, if_revision)
                await self._check_unused(image, asked)
            return (await change(self._context, mutation, Image, self._deletion))[1]

    def _deletion(self, image: Image) -> Decision:
        asked_at = image.deletion_requested_at or self._context.clock.now()
        return Decision(DeleteImage(), image.model_copy(update={"deletion_requested_at": asked_at}))

    async def _create(self, mutation: Mutation, image: Image) -> tuple[Image, Operation]:
        transaction = self._context.objects.transaction()
        transaction.create(image)
        operation = new_operation(self._context, mutation, image, BuildImage(), image.generation)
        try:
            revision = await submit(self._context, mutation, transaction, operation)
        except CorralError as error:
            claim = name_claim(Image.KIND, image.project, image.name)
            if error.code == "precondition-failed" and error.context.get("key") == claim:
                raise _taken(image.name) from error
            raise
        return image.model_copy(update={"revision": revision}), operation.model_copy(update={"revision": revision})

    async def _again(self, mutation: Mutation, spec: ImageSpec) -> tuple[Image, Operation]:
        def decide(image: Image) -> Decision:
            if image.being_deleted or image.status.state is ImageState.READY:
                raise _taken(image.name)
            if image.status.state is not ImageState.FAILED:
                raise CorralError(
                    "wrong-state",
                    f"build image {image.name!r}",
                    "it is being made already",
                    "corral operation list shows how far it is",
                )
            return Decision(BuildImage(), image.model_copy(update={"spec": spec}))

        image, operation = await change(self._context, mutation, Image, decide)
        return image or await self._context.objects.require(Image, mutation.project, mutation.target), operation

    def _spec(self, request: BuildImageRequest, name: str) -> ImageSpec:
        asked = f"build image {name!r}"
        if (medium := medium_spec(request, name, asked)) is not None:
            return medium
        if request.upload:
            if request.path or request.catalogue:
                raise CorralError("invalid-argument", asked, "it is an upload and something else", "give one")
            staged = str(self._context.library.staging.path(request.upload))
            return ImageSpec(catalogue=name, source=ImageSource.IMPORT, format=request.format, staged=staged)
        if request.path:
            if request.source not in (None, ImageSource.IMPORT) or request.catalogue:
                raise CorralError(
                    "invalid-argument", asked, "it has a path and a catalogue entry", "give one of the two"
                )
            return ImageSpec(catalogue=name, source=ImageSource.IMPORT, path=request.path, format=request.format)
        wanted = request.catalogue or name
        entry = next((entry for entry in self._context.library.catalogue() if entry.name == wanted), None)
        if entry is None:
            names = ", ".join(entry.name for entry in self._context.library.catalogue())
            raise CorralError("image-not-found", asked, f"the catalogue has no {wanted[:64]!r}", f"it has: {names}")
        source = request.source or (ImageSource.BUILD if entry.build else ImageSource.DOWNLOAD)
        if source is ImageSource.IMPORT or not (entry.build if source is ImageSource.BUILD else entry.url):
            other = ImageSource.DOWNLOAD if source is ImageSource.BUILD else ImageSource.BUILD
            raise CorralError("unsupported", asked, f"{wanted} cannot be had by {source.value}", f"try {other.value}")
        return ImageSpec(catalogue=entry.name, source=source)

    async def _check_unused(self, image: Image, asked: str) -> None:
        objects = self._context.objects
        vms = {vm.uid: vm.name for vm in await objects.list(Vm) if image.uid in vm.image_uids}
        volumes = [volume for volume in await objects.list(Volume) if volume.spec.image_uid == image.uid]
        layers = [layer for layer in await objects.list(Layer) if layer.spec.image_uid == image.uid]
        alone = {layer.spec.volume_uid for layer in layers} - {volume.uid for volume in volumes}
        users = [f"VM {name}" for name in vms.values()]
        users += [f"volume {volume.name}" for volume in volumes if volume.spec.vm_uid not in vms]
        users += [f"layers of a disk that is gone ({uid})" for uid in sorted(alone)]
        if users:
            hint = "delete them first"
            if image.status.facts is not None and image.status.facts.kind == "iso":
                hint = "delete them first, or take the medium out of their drives"
            shown = ", ".join(users[:USERS_SHOWN]) + (
                f" and {len(users) - USERS_SHOWN} more" if len(users) > USERS_SHOWN else ""
            )
            raise CorralError("image-in-use", asked, f"in use by {shown}", hint, {"users": len(users)})


def _new(context: Context, project: str, name: str, spec: ImageSpec, request: BuildImageRequest) -> Image:
    return Image(
        project=project,
        name=name,
        uid=new_uid(),
        created_at=context.clock.now(),
        labels=request.labels,
        spec=spec,
        status=ImageStatus(),
    )


def _taken(name: str) -> CorralError:
    return CorralError(
        "name-taken",
        f"build image {name!r}",
        "there is an image of this name",
        f"corral image delete {name}, or another name",
    )


def _check_file(path: str) -> None:
    try:
        if Path(path).is_absolute() and stat.S_ISREG(Path(path).stat().st_mode):
            return
        reason = "it is no absolute path of a regular file"
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "there is no such file"
    raise CorralError("invalid-argument", f"import {path[:200]!r}", reason, "give the whole path of the image's file")
