"""What passes the cards of running VMs."""

from starlette.responses import Response

from corral.api.call import CallParam
from corral.api.documents import model_response
from corral.api.route import noun_router
from corral.model.network_usage import NetworkUsageReport

router = noun_router("networks")


@router.get("/usage/networks", response_model=NetworkUsageReport, summary="What passes cards and networks")
async def network_usage(call: CallParam) -> Response:
    """Counters, drops and connections; rates against the request before this one."""
    return model_response(await call.services.network_usage.report(call.caller, call.project))
