"""Routes of pools."""

from starlette.requests import Request
from starlette.responses import Response

from corral.api.call import CallParam, ListParam, NameParam
from corral.api.documents import Page, document_response, model_response, page_response
from corral.api.route import noun_router
from corral.model.pool import Pool
from corral.model.volume_requests import CreatePoolRequest

router = noun_router("pools", "/pools")


@router.get("", response_model=Page[Pool], summary="List pools")
async def list_pools(call: CallParam, request: ListParam) -> Response:
    """What is taken and what is free was measured at most half a minute ago."""
    return page_response(await call.services.pools.list(call.caller, request))


@router.post("", status_code=201, response_model=Pool, summary="Make a pool")
async def create_pool(call: CallParam, body: CreatePoolRequest) -> Response:
    """In a directory of the host's that is new or empty."""
    return model_response(await call.services.pools.create(call.caller, body), status_code=201)


@router.get("/{name}", response_model=Pool, summary="Show a pool")
async def get_pool(call: CallParam, name: NameParam, request: Request) -> Response:
    return document_response(request, await call.services.pools.get(call.caller, name))


@router.delete("/{name}", status_code=204, response_class=Response, summary="Delete a pool")
async def delete_pool(call: CallParam, name: NameParam) -> Response:
    """Refused while a volume lies in it. The directory stays."""
    await call.services.pools.delete(call.caller, name)
    return Response(status_code=204)
