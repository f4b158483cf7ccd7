"""Routes of networks."""

from starlette.requests import Request
from starlette.responses import Response

from corral.api.call import CallParam, IfRevisionParam, ListParam, NameParam
from corral.api.documents import Page, document_response, model_response, page_response
from corral.api.route import noun_router
from corral.model.network import Network
from corral.model.network_requests import ChangeNetworkRequest, CreateNetworkRequest

router = noun_router("networks", "/networks")


@router.get("", response_model=Page[Network], summary="List networks")
async def list_networks(call: CallParam, request: ListParam) -> Response:
    return page_response(await call.services.networks.list(call.caller, call.project, request))


@router.post("", status_code=201, response_model=Network, summary="Make a network")
async def create_network(call: CallParam, body: CreateNetworkRequest) -> Response:
    """On a free subnet, or on a bridge or a card of the host's. Its condition `Ready` says whether it is up."""
    made = await call.services.networks.create(call.caller, call.project, body)
    return model_response(made, status_code=201)


@router.get("/{name}", response_model=Network, summary="Show a network")
async def get_network(call: CallParam, name: NameParam, request: Request) -> Response:
    return document_response(request, await call.services.networks.get(call.caller, call.project, name))


@router.patch("/{name}", response_model=Network, summary="Change a network")
async def change_network(
    call: CallParam, name: NameParam, body: ChangeNetworkRequest, if_revision: IfRevisionParam
) -> Response:
    """What DHCP and names serve changes at once; what would unplug guests waits until none is plugged in (condition
    `Outdated`)."""
    networks = call.services.networks
    return model_response(await networks.change(call.caller, call.project, name, body, if_revision=if_revision))


@router.delete("/{name}", status_code=204, response_class=Response, summary="Delete a network")
async def delete_network(call: CallParam, name: NameParam) -> Response:
    """Refused while a VM has a card on it. A bridge of the host's stays as it was."""
    await call.services.networks.delete(call.caller, call.project, name)
    return Response(status_code=204)
