"""Routes of floating addresses."""

from starlette.requests import Request
from starlette.responses import Response

from corral.api.call import CallParam, ListParam, NameParam
from corral.api.documents import Page, document_response, model_response, page_response
from corral.api.route import noun_router
from corral.model.address import FloatingAddress
from corral.model.router_requests import AssignAddressRequest, CreateAddressRequest

router = noun_router("addresses", "/addresses")


@router.get("", response_model=Page[FloatingAddress], summary="List floating addresses")
async def list_addresses(call: CallParam, request: ListParam) -> Response:
    return page_response(await call.services.addresses.list(call.caller, call.project, request))


@router.post("", status_code=201, response_model=FloatingAddress, summary="Make a floating address")
async def create_address(call: CallParam, body: CreateAddressRequest) -> Response:
    """Of the network that the router's uplink is on."""
    return model_response(await call.services.addresses.create(call.caller, call.project, body), status_code=201)


@router.get("/{name}", response_model=FloatingAddress, summary="Show a floating address")
async def get_address(call: CallParam, name: NameParam, request: Request) -> Response:
    return document_response(request, await call.services.addresses.get(call.caller, call.project, name))


@router.patch("/{name}", response_model=FloatingAddress, summary="Lead a floating address to another VM")
async def assign_address(call: CallParam, name: NameParam, body: AssignAddressRequest) -> Response:
    """Connections to the VM before end."""
    return model_response(await call.services.addresses.assign(call.caller, call.project, name, body))


@router.delete("/{name}", status_code=204, response_class=Response, summary="Delete a floating address")
async def delete_address(call: CallParam, name: NameParam) -> Response:
    await call.services.addresses.delete(call.caller, call.project, name)
    return Response(status_code=204)
