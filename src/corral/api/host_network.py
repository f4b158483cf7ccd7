"""Routes of the host's own network."""

from starlette.responses import Response

from corral.api.call import CallParam
from corral.api.documents import model_response
from corral.api.route import noun_router
from corral.model.host_network import BridgePlan, BridgeRequest, HostNetworkChange

router = noun_router("hosts", "/host/network")


@router.get("", response_model=HostNetworkChange, summary="The last change of this host's network")
async def show_change(call: CallParam) -> Response:
    return model_response(await call.services.host_networks.show(call.caller))


@router.post("/bridge/plan", response_model=BridgePlan, summary="What making a bridge would change")
async def plan_bridge(call: CallParam, body: BridgeRequest) -> Response:
    return model_response(await call.services.host_networks.plan(call.caller, body))


@router.post("/bridge", response_model=HostNetworkChange, summary="Make a bridge over a card")
async def make_bridge(call: CallParam, body: BridgeRequest) -> Response:
    """Applied at once, and taken back by itself unless it is confirmed in time, also if the daemon dies meanwhile."""
    return model_response(await call.services.host_networks.begin(call.caller, body))


@router.post("/confirm", response_model=HostNetworkChange, summary="Keep the change")
async def confirm(call: CallParam) -> Response:
    return model_response(await call.services.host_networks.confirm(call.caller))


@router.post("/rollback", response_model=HostNetworkChange, summary="Take the change back now")
async def roll_back(call: CallParam) -> Response:
    return model_response(await call.services.host_networks.roll_back(call.caller))
