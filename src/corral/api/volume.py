"""Routes of volumes."""

from starlette.requests import Request
from starlette.responses import Response

from corral.api.call import CallParam, ListParam, NameParam
from corral.api.documents import Page, document_response, page_response
from corral.api.route import noun_router
from corral.model.volume import Volume

router = noun_router("volumes", "/volumes")


@router.get("", response_model=Page[Volume], summary="List volumes")
async def list_volumes(call: CallParam, request: ListParam) -> Response:
    return page_response(await call.services.volumes.list(call.caller, call.project, request))


@router.get("/{name}", response_model=Volume, summary="Show a volume")
async def get_volume(call: CallParam, name: NameParam, request: Request) -> Response:
    return document_response(request, await call.services.volumes.get(call.caller, call.project, name))
