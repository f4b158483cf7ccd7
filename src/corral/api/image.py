"""Routes of images and of the catalogue that they are made from."""

from typing import Final

from pydantic import TypeAdapter
from starlette.requests import Request
from starlette.responses import Response
from starlette.websockets import WebSocket

from corral.api.call import CallParam, ChangeParam, IfRevisionParam, ListParam, NameParam
from corral.api.copying import receive_file
from corral.api.documents import (
    CatalogueItems,
    ImageAccepted,
    Page,
    accepted_response,
    document_response,
    items_response,
    page_response,
)
from corral.api.route import noun_router
from corral.images.base import CatalogueEntry
from corral.images.staging import STAGED_MAX_BYTES
from corral.model.image import Image
from corral.model.requests import BuildImageRequest

router = noun_router("images")

_CATALOGUE: Final = TypeAdapter(tuple[CatalogueEntry, ...])


@router.get("/images", response_model=Page[Image], summary="List images")
async def list_images(call: CallParam, request: ListParam) -> Response:
    return page_response(await call.services.images.list(call.caller, call.project, request))


@router.post("/images", status_code=202, response_model=ImageAccepted, summary="Build, download or import an image")
async def build_image(call: ChangeParam, body: BuildImageRequest) -> Response:
    image, operation = await call.services.images.build(call.caller, call.project, body)
    return accepted_response(operation, image=image)


@router.websocket("/images/upload")
async def upload(socket: WebSocket, call: CallParam) -> None:
    """A file for an image: see `corral.api.copying`; the `path` of its `done` is the token for `upload`."""
    writer = await call.services.images.open_upload(call.caller, call.project)
    try:
        await receive_file(socket, writer, call.stopping, call.caller.request_id, STAGED_MAX_BYTES)
    finally:
        await writer.close()


@router.get("/images/{name}", response_model=Image, summary="Show an image")
async def get_image(call: CallParam, name: NameParam, request: Request) -> Response:
    return document_response(request, await call.services.images.get(call.caller, call.project, name))


@router.delete("/images/{name}", status_code=202, response_model=ImageAccepted, summary="Delete an image")
async def delete_image(call: ChangeParam, name: NameParam, if_revision: IfRevisionParam) -> Response:
    """Refused while a disk stands on it."""
    return accepted_response(
        await call.services.images.delete(call.caller, call.project, name, if_revision=if_revision)
    )


@router.get("/catalogue", response_model=CatalogueItems, summary="What images can be made from")
async def catalogue(call: CallParam) -> Response:
    return items_response(_CATALOGUE, await call.services.images.catalogue(call.caller))
