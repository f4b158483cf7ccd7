"""Routes of the firewall: whether a connection would pass, what it counts, what it denied."""

from typing import Annotated, Final

from fastapi import Query
from pydantic import TypeAdapter
from starlette.responses import Response

from corral.api.call import CallParam
from corral.api.documents import Items, items_response, model_response
from corral.api.route import noun_router
from corral.model.firewall_answers import DeniedPacket, Explanation, FirewallStatus, RuleCount
from corral.model.firewall_requests import ExplainRequest
from corral.model.limits import OPERATION_WAIT_MAX_S

router = noun_router("firewall", "/firewall")

_COUNTS: Final = TypeAdapter(tuple[RuleCount, ...])
_DENIED: Final = TypeAdapter(tuple[DeniedPacket, ...])


class RuleCountItems(Items[RuleCount]):
    pass


class DeniedPacketItems(Items[DeniedPacket]):
    pass


@router.get("", response_model=FirewallStatus, summary="What of the firewall is loaded")
async def firewall_status(call: CallParam) -> Response:
    return model_response(await call.services.firewall.status(call.caller))


@router.post("/explain", response_model=Explanation, summary="Would a connection pass, and why?")
async def explain(call: CallParam, body: ExplainRequest) -> Response:
    """A new one, decided by what is wished: no packet is sent."""
    return model_response(await call.services.firewall.explain(call.caller, call.project, body))


@router.get("/counters", response_model=RuleCountItems, summary="What rules let through")
async def counters(call: CallParam) -> Response:
    """New connections of each rule and policy of the project; who may look at the host also sees what was denied."""
    return items_response(_COUNTS, await call.services.firewall.counters(call.caller, call.project))


@router.get("/log", response_model=DeniedPacketItems, summary="What was denied lately")
async def denied(
    call: CallParam,
    after: Annotated[int, Query(ge=0, description="Only those with a larger number.")] = 0,
    wait_s: Annotated[float, Query(ge=0, le=OPERATION_WAIT_MAX_S, description="Wait so long for one to come.")] = 0,
) -> Response:
    """A sample: of each reason only so many a second are written down, and the last thousand are kept."""
    found = await call.services.firewall.denied(call.caller, call.project, after=after, wait_s=wait_s)
    return items_response(_DENIED, found)
