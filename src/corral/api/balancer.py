"""Routes of load balancers."""

from starlette.requests import Request
from starlette.responses import Response

from corral.api.call import CallParam, ListParam, NameParam
from corral.api.documents import Page, document_response, model_response, page_response
from corral.api.route import noun_router
from corral.model.balancer import Balancer
from corral.model.router_requests import CreateBalancerRequest, UpdateBalancerRequest

router = noun_router("balancers", "/balancers")


@router.get("", response_model=Page[Balancer], summary="List load balancers")
async def list_balancers(call: CallParam, request: ListParam) -> Response:
    return page_response(await call.services.balancers.list(call.caller, call.project, request))


@router.post("", status_code=201, response_model=Balancer, summary="Make a load balancer")
async def create_balancer(call: CallParam, body: CreateBalancerRequest) -> Response:
    """On a router that reaches all of its VMs."""
    return model_response(await call.services.balancers.create(call.caller, call.project, body), status_code=201)


@router.get("/{name}", response_model=Balancer, summary="Show a load balancer")
async def get_balancer(call: CallParam, name: NameParam, request: Request) -> Response:
    return document_response(request, await call.services.balancers.get(call.caller, call.project, name))


@router.patch("/{name}", response_model=Balancer, summary="Change a load balancer")
async def update_balancer(call: CallParam, name: NameParam, body: UpdateBalancerRequest) -> Response:
    """Connections go on."""
    return model_response(await call.services.balancers.update(call.caller, call.project, name, body))


@router.delete("/{name}", status_code=204, response_class=Response, summary="Delete a load balancer")
async def delete_balancer(call: CallParam, name: NameParam) -> Response:
    await call.services.balancers.delete(call.caller, call.project, name)
    return Response(status_code=204)
