"""The route that captures packets of a card."""

from typing import Final

from fastapi.responses import Response

from corral.api.call import CallParam, NameParam
from corral.api.device import DeviceParam
from corral.api.live import LiveResponse
from corral.api.route import noun_router
from corral.model.capture import CaptureRequest

router = noun_router("captures", "/vms/{name}")

PCAP: Final = "application/vnd.tcpdump.pcap"


@router.post(
    "/nics/{nic}/capture",
    summary="Capture packets of a card",
    response_class=Response,
    responses={
        200: {
            "description": "A capture file (pcap) that grows until a bound is met or the guest stops, of whole packets. "
            "Who leaves before it ends it.",
            "content": {PCAP: {"schema": {"type": "string", "format": "binary"}}},
        }
    },
)
async def capture(call: CallParam, name: NameParam, nic: DeviceParam, body: CaptureRequest) -> Response:
    """Needs the right `vm.capture`. The filter is pcap-filter(7)'s language, in numbers."""
    pieces = await call.services.captures.open(call.caller, call.project, name, nic, body)
    return LiveResponse(pieces, media_type=PCAP, heartbeat=b"", stopping=call.stopping)
