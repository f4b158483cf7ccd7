"""Routes of port forwards."""

from starlette.requests import Request
from starlette.responses import Response

from corral.api.call import CallParam, ListParam, NameParam
from corral.api.documents import Page, document_response, model_response, page_response
from corral.api.route import noun_router
from corral.model.forward import Forward
from corral.model.router_requests import CreateForwardRequest

router = noun_router("forwards", "/forwards")


@router.get("", response_model=Page[Forward], summary="List port forwards")
async def list_forwards(call: CallParam, request: ListParam) -> Response:
    return page_response(await call.services.forwards.list(call.caller, call.project, request))


@router.post("", status_code=201, response_model=Forward, summary="Forward a port")
async def create_forward(call: CallParam, body: CreateForwardRequest) -> Response:
    """Of the host's, to a VM or a balancer. Its name is its protocol and port: `tcp-8080`."""
    return model_response(await call.services.forwards.create(call.caller, call.project, body), status_code=201)


@router.get("/{name}", response_model=Forward, summary="Show a port forward")
async def get_forward(call: CallParam, name: NameParam, request: Request) -> Response:
    return document_response(request, await call.services.forwards.get(call.caller, call.project, name))


@router.delete("/{name}", status_code=204, response_class=Response, summary="Delete a port forward")
async def delete_forward(call: CallParam, name: NameParam) -> Response:
    """Connections that pass it go on until they end."""
    await call.services.forwards.delete(call.caller, call.project, name)
    return Response(status_code=204)
