"""Routes of routers."""

from starlette.requests import Request
from starlette.responses import Response

from corral.api.call import CallParam, ListParam, NameParam
from corral.api.documents import Page, document_response, model_response, page_response
from corral.api.route import noun_router
from corral.model.router import Router
from corral.model.router_requests import CreateRouterRequest, UpdateRouterRequest

router = noun_router("routers", "/routers")


@router.get("", response_model=Page[Router], summary="List routers")
async def list_routers(call: CallParam, request: ListParam) -> Response:
    return page_response(await call.services.routers.list(call.caller, call.project, request))


@router.post("", status_code=201, response_model=Router, summary="Make a router")
async def create_router(call: CallParam, body: CreateRouterRequest) -> Response:
    """Its condition `Ready` says whether it routes."""
    return model_response(await call.services.routers.create(call.caller, call.project, body), status_code=201)


@router.get("/{name}", response_model=Router, summary="Show a router")
async def get_router(call: CallParam, name: NameParam, request: Request) -> Response:
    return document_response(request, await call.services.routers.get(call.caller, call.project, name))


@router.patch("/{name}", response_model=Router, summary="Change a router")
async def update_router(call: CallParam, name: NameParam, body: UpdateRouterRequest) -> Response:
    """Connections that pass it go on, where both of their networks stay."""
    return model_response(await call.services.routers.update(call.caller, call.project, name, body))


@router.delete("/{name}", status_code=204, response_class=Response, summary="Delete a router")
async def delete_router(call: CallParam, name: NameParam) -> Response:
    """Refused while floating addresses or balancers are on it."""
    await call.services.routers.delete(call.caller, call.project, name)
    return Response(status_code=204)
