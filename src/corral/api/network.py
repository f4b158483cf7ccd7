"""Routes of networks."""

from starlette.requests import Request
from starlette.responses import Response

from corral.api.call import CallParam, ListParam, NameParam
from corral.api.documents import Page, document_response, page_response
from corral.api.route import noun_router
from corral.model.network import Network

router = noun_router("networks", "/networks")


@router.get("", response_model=Page[Network], summary="List networks")
async def list_networks(call: CallParam, request: ListParam) -> Response:
    return page_response(await call.services.networks.list(call.caller, call.project, request))


@router.get("/{name}", response_model=Network, summary="Show a network")
async def get_network(call: CallParam, name: NameParam, request: Request) -> Response:
    return document_response(request, await call.services.networks.get(call.caller, call.project, name))
