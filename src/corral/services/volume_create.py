"""Volumes that stand alone: made empty, on an image, of what was uploaded, or as a copy. All that can be wrong is found
before anything is written."""

from contextlib import AsyncExitStack
from pathlib import Path

from corral import qemu_img
from corral.errors import CorralError
from corral.model.base import DEFAULT_POOL
from corral.model.image import Image
from corral.model.operation import CreateVolume, Operation
from corral.model.vm import Vm
from corral.model.volume import Volume, VolumeSpec
from corral.model.volume_requests import CopyVolumeRequest, CreateVolumeRequest
from corral.names import format_bytes, new_uid, parse_name
from corral.scheduler.admission import admit_disk
from corral.services.access import audited, authorize, record
from corral.services.caller import Caller
from corral.services.changes import Mutation, new_operation, repeated, submit
from corral.services.context import Context
from corral.services.media import ready_image
from corral.services.pool import POOL_TURN
from corral.services.rules import HAS_MEMORY
from corral.services.upload import Upload
from corral.services.volume import check_work, is_uid, named
from corral.store.objects import name_claim

SECTOR_BYTES = 512


class VolumeMaker:
    """Each verb writes the new volume and the operation that makes its file."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def create(
        self, caller: Caller, project: str, request: CreateVolumeRequest
    ) -> tuple[Volume | None, Operation]:
        """The volume, and the operation that makes it. None: an idempotent repeat whose volume is gone."""
        context, asked = self._context, f"create volume {request.name!r}"
        mutation = Mutation(caller, project, "volume.create", request.name, request)
        await authorize(context, caller, project, mutation.action, request.name)
        async with audited(context, caller, project, mutation.action, request.name):
            _check_name(request.name)
            check_shape(request, asked)
            async with context.ledger.name(f"volume/{project}", request.name):
                if (known := await repeated(context, mutation)) is not None:
                    return await context.objects.get(Volume, known.spec.target_uid), known
                await self._check_name_free(project, request.name, asked)
                image = await ready_image(context, project, request.image, "disk") if request.image else None
                spec, intent = await self._content(request, image, asked)
                if not request.force:
                    await self._admit(spec, asked)
                return await self._write(mutation, spec, intent, image, asked)

    async def copy(
        self, caller: Caller, project: str, name: str, request: CopyVolumeRequest
    ) -> tuple[Volume | None, Operation]:
        """A full copy of a volume that nobody writes meanwhile."""
        context, asked = self._context, f"copy volume {name!r} to {request.name!r}"
        mutation = Mutation(caller, project, "volume.copy", request.name, request)
        await authorize(context, caller, project, mutation.action, name)
        async with audited(context, caller, project, mutation.action, request.name):
            _check_name(request.name)
            async with context.ledger.name(f"volume/{project}", request.name):
                if (known := await repeated(context, mutation)) is not None:
                    return await context.objects.get(Volume, known.spec.target_uid), known
                await self._check_name_free(project, request.name, asked)
                original = await quiet_volume(context, project, name, asked)
                spec = VolumeSpec(
                    pool=request.pool or original.spec.pool,
                    size_bytes=original.spec.size_bytes,
                    format=request.format or original.spec.format,
                    delete_with_vm=False,
                )
                if not request.force:
                    await self._admit(spec, asked)
                return await self._write(mutation, spec, CreateVolume(copy_of=original.uid), original, asked)

    async def open_upload(self, caller: Caller, project: str) -> Upload:
        """A file from afar, for a volume; its token is a `create` request's `upload`."""
        await authorize(self._context, caller, project, "volume.create")
        await record(self._context, caller, project, "volume.create", "upload", "accepted")
        return Upload(self._context.library.staging.open())

    async def _content(
        self, request: CreateVolumeRequest, image: Image | None, asked: str
    ) -> tuple[VolumeSpec, CreateVolume]:
        facts = image.status.facts if image is not None else None
        least, intent = 0, CreateVolume()
        if facts is not None:
            least = facts.disk_virtual_bytes
        elif request.upload:
            path = self._context.library.staging.path(request.upload)
            least = await _uploaded_bytes(path, request, asked)
            intent = CreateVolume(staged=str(path), staged_format=request.upload_format)
        size_bytes = request.size_bytes or least
        if not size_bytes:
            raise CorralError("invalid-argument", asked, "it has no size", "--size 20")
        if size_bytes < least:
            raise CorralError(
                "invalid-size",
                asked,
                f"{format_bytes(size_bytes)} is smaller than what it is made from, {format_bytes(least)}",
                f"ask for {format_bytes(least)} or more",
                {"wanted_bytes": size_bytes, "least_bytes": least},
            )
        overlay = image is not None and facts is not None and bool(facts.disk_format)
        spec = VolumeSpec(
            pool=request.pool or DEFAULT_POOL,
            size_bytes=-(-size_bytes // SECTOR_BYTES) * SECTOR_BYTES,
            format=request.format,
            read_only=request.read_only,
            shared=request.shared,
            image_uid=image.uid if overlay and image is not None else None,
            image_digest=facts.digest if overlay and facts is not None else "",
            delete_with_vm=False,
        )
        return spec, intent

    async def _admit(self, spec: VolumeSpec, asked: str) -> None:
        usage = await self._context.volumes.usage(spec.pool)
        admit_disk(spec.size_bytes, usage.free_bytes, self._context.settings.disk_reserve_mib * 2**20, asked)

    async def _check_name_free(self, project: str, name: str, asked: str) -> None:
        if await self._context.objects.owner(name_claim(Volume.KIND, project, name)) is not None:
            raise _taken(asked)

    async def _write(
        self, mutation: Mutation, spec: VolumeSpec, intent: CreateVolume, source: Image | Volume | None, asked: str
    ) -> tuple[Volume, Operation]:
        context, request = self._context, mutation.parameters
        assert isinstance(request, CreateVolumeRequest | CopyVolumeRequest)
        volume = Volume(
            project=mutation.project,
            name=request.name,
            uid=new_uid(),
            created_at=context.clock.now(),
            labels=request.labels,
            spec=spec,
        )
        async with AsyncExitStack() as stack:
            if isinstance(source, Image):
                stack.enter_context(context.ledger.using_image(source.uid, asked))
            await stack.enter_async_context(context.ledger.name(POOL_TURN, spec.pool))
            context.volumes.check_pool(spec.pool)
            transaction = context.objects.transaction()
            transaction.create(volume)
            if source is not None:
                transaction.require(source)
            operation = new_operation(context, mutation, volume, intent, volume.generation)
            try:
                revision = await submit(context, mutation, transaction, operation)
            except CorralError as error:
                claim = name_claim(Volume.KIND, volume.project, volume.name)
                if error.code == "precondition-failed" and error.context.get("key") == claim:
                    raise _taken(asked) from error
                raise
        return volume.model_copy(update={"revision": revision}), operation.model_copy(update={"revision": revision})


async def quiet_volume(context: Context, project: str, name: str, asked: str) -> Volume:
    """A volume that is whole and that nobody writes now: its VM is off, or it has none, or none may write it."""
    volume = await context.objects.require(Volume, project, await named(context, project, name))
    await check_work(context, volume, asked)
    if volume.spec.read_only:
        return volume
    for vm in await context.objects.list(Vm):
        has = vm.uid == volume.spec.vm_uid or any(disk.volume_uid == volume.uid for disk in vm.spec.disks)
        if has and vm.status.seen_state in HAS_MEMORY:
            raise CorralError(
                "volume-in-use",
                asked,
                f"VM {vm.name} is {vm.status.state.value} and may write it meanwhile",
                f"corral shutdown {vm.name} first",
            )
    return volume


def _check_name(name: str) -> None:
    parse_name(name, "volume name")
    if is_uid(name):
        raise CorralError("invalid-name", f"volume name {name!r}", "it reads as a uid", "choose another name")


def check_shape(request: CreateVolumeRequest, asked: str) -> None:
    if request.image and request.upload:
        raise CorralError("invalid-argument", asked, "it has an image and an upload", "give one of the two")
    if request.shared and not request.read_only and request.format != "raw":
        raise CorralError(
            "unsupported",
            asked,
            "several VMs that write one qcow2 file destroy it: each keeps its tables in its own memory",
            "--format raw, with a file system in it that is made for sharing (GFS2, OCFS2); or --read-only",
        )


async def _uploaded_bytes(path: Path, request: CreateVolumeRequest, asked: str) -> int:
    """The size that a guest will see of an upload, which is what it was told to be and leans on nothing."""
    try:
        info = await qemu_img.info(path, request.upload_format)
        qemu_img.check_alone(path, request.upload_format, info)
    except CorralError as error:
        raise CorralError(error.code, asked, error.reason, error.hint, error.context) from error
    return info.virtual_bytes


def _taken(asked: str) -> CorralError:
    return CorralError("name-taken", asked, "the project has a volume of this name", "choose another name")
