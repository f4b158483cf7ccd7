"""Routes of volumes."""

from typing import Annotated, Literal

from fastapi import Query
from starlette.requests import Request
from starlette.responses import Response
from starlette.websockets import WebSocket

from corral.api.call import CallParam, ChangeParam, IfRevisionParam, ListParam, NameParam
from corral.api.copying import receive_file, send_disk
from corral.api.documents import (
    OperationAccepted,
    Page,
    VolumeAccepted,
    accepted_response,
    document_response,
    page_response,
)
from corral.api.route import noun_router
from corral.images.staging import STAGED_MAX_BYTES
from corral.model.volume import Volume
from corral.model.volume_requests import (
    CopyVolumeRequest,
    CreateVolumeRequest,
    FlattenVolumeRequest,
    MoveVolumeRequest,
    ResizeVolumeRequest,
)

router = noun_router("volumes", "/volumes")

FormatParam = Annotated[Literal["qcow2", "raw"], Query(alias="format", description="What the file is to be.")]


@router.get("", response_model=Page[Volume], summary="List volumes")
async def list_volumes(call: CallParam, request: ListParam) -> Response:
    return page_response(await call.services.volumes.list(call.caller, call.project, request))


@router.post("", status_code=202, response_model=VolumeAccepted, summary="Make a volume")
async def create_volume(call: ChangeParam, body: CreateVolumeRequest) -> Response:
    """Empty, on an image, or of what was uploaded. No VM has it until one takes it."""
    volume, operation = await call.services.volume_maker.create(call.caller, call.project, body)
    return accepted_response(operation, volume=volume)


@router.websocket("/upload")
async def upload_volume(socket: WebSocket, call: CallParam) -> None:
    """A file for a volume: see `corral.api.copying`; the `path` of its `done` is the token for `upload`."""
    writer = await call.services.volume_maker.open_upload(call.caller, call.project)
    try:
        await receive_file(socket, writer, call.stopping, call.caller.request_id, STAGED_MAX_BYTES)
    finally:
        await writer.close()


@router.get("/{name}", response_model=Volume, summary="Show a volume")
async def get_volume(call: CallParam, name: NameParam, request: Request) -> Response:
    """By its name, or by its uid."""
    return document_response(request, await call.services.volumes.get(call.caller, call.project, name))


@router.patch("/{name}", status_code=202, response_model=OperationAccepted, summary="Resize a volume")
async def resize_volume(
    call: ChangeParam, name: NameParam, body: ResizeVolumeRequest, if_revision: IfRevisionParam
) -> Response:
    """That of a VM grows as its disk, while the guest runs. Shrinking is for one that no VM has."""
    sizer = call.services.volume_sizer
    return accepted_response(await sizer.resize(call.caller, call.project, name, body, if_revision=if_revision))


@router.post("/{name}/actions/copy", status_code=202, response_model=VolumeAccepted, summary="Copy a volume")
async def copy_volume(call: ChangeParam, name: NameParam, body: CopyVolumeRequest) -> Response:
    """All of it, into a volume that leans on nothing."""
    volume, operation = await call.services.volume_maker.copy(call.caller, call.project, name, body)
    return accepted_response(operation, volume=volume)


@router.post("/{name}/actions/move", status_code=202, response_model=OperationAccepted, summary="Move a volume")
async def move_volume(
    call: ChangeParam, name: NameParam, body: MoveVolumeRequest, if_revision: IfRevisionParam
) -> Response:
    """Into another pool, also while its VM runs; the operation is the VM's then."""
    mover = call.services.volume_mover
    return accepted_response(await mover.move(call.caller, call.project, name, body, if_revision=if_revision))


@router.post(
    "/{name}/actions/flatten", status_code=202, response_model=OperationAccepted, summary="Make a volume stand alone"
)
async def flatten_volume(
    call: ChangeParam, name: NameParam, body: FlattenVolumeRequest, if_revision: IfRevisionParam
) -> Response:
    """It leans on no image and no other disk's layers afterwards, also while its VM runs."""
    mover = call.services.volume_mover
    return accepted_response(await mover.flatten(call.caller, call.project, name, body, if_revision=if_revision))


@router.websocket("/{name}/download")
async def download_volume(
    socket: WebSocket, call: CallParam, name: NameParam, disk_format: FormatParam = "qcow2"
) -> None:
    """The whole disk as one file: see `corral.api.copying`. First `{"preparing": SHARE}`, where it must be flattened."""
    await send_disk(
        socket,
        lambda on_share: call.services.volume_reader.open(call.caller, call.project, name, disk_format, on_share),
        call.stopping,
        call.caller.request_id,
    )


@router.delete("/{name}", status_code=202, response_model=OperationAccepted, summary="Delete a volume")
async def delete_volume(call: ChangeParam, name: NameParam, if_revision: IfRevisionParam) -> Response:
    """By its name, or by its uid. Refused while a VM has it."""
    return accepted_response(
        await call.services.volumes.delete(call.caller, call.project, name, if_revision=if_revision)
    )
