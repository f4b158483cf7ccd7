"""Routes of volumes."""

from starlette.requests import Request
from starlette.responses import Response

from corral.api.call import CallParam, ChangeParam, IfRevisionParam, ListParam, NameParam
from corral.api.documents import OperationAccepted, Page, accepted_response, document_response, page_response
from corral.api.route import noun_router
from corral.model.volume import Volume

router = noun_router("volumes", "/volumes")


@router.get("", response_model=Page[Volume], summary="List volumes")
async def list_volumes(call: CallParam, request: ListParam) -> Response:
    return page_response(await call.services.volumes.list(call.caller, call.project, request))


@router.get("/{name}", response_model=Volume, summary="Show a volume")
async def get_volume(call: CallParam, name: NameParam, request: Request) -> Response:
    """By its name, or by its uid."""
    return document_response(request, await call.services.volumes.get(call.caller, call.project, name))


@router.delete("/{name}", status_code=202, response_model=OperationAccepted, summary="Delete a volume")
async def delete_volume(call: ChangeParam, name: NameParam, if_revision: IfRevisionParam) -> Response:
    """By its name, or by its uid. Refused while a VM has it."""
    return accepted_response(
        await call.services.volumes.delete(call.caller, call.project, name, if_revision=if_revision)
    )
