"""Routes of hosts, and what an examination of this one finds."""

from typing import Final

from pydantic import TypeAdapter
from starlette.requests import Request
from starlette.responses import Response

from corral.api.call import CallParam, ListParam, NameParam
from corral.api.documents import FindingItems, IncapabilityItems, Page, document_response, items_response, page_response
from corral.api.route import noun_router
from corral.model.answers import Incapability
from corral.model.doctor import Finding
from corral.model.host import Host

router = noun_router("hosts")

_INCAPABILITIES: Final = TypeAdapter(tuple[Incapability, ...])
_FINDINGS: Final = TypeAdapter(tuple[Finding, ...])


@router.get("/hosts", response_model=Page[Host], summary="List hosts")
async def list_hosts(call: CallParam, request: ListParam) -> Response:
    return page_response(await call.services.hosts.list(call.caller, request))


@router.get("/hosts/{name}", response_model=Host, summary="Show a host")
async def get_host(call: CallParam, name: NameParam, request: Request) -> Response:
    """`self` is the host that answers."""
    return document_response(request, await call.services.hosts.get(call.caller, name))


@router.get("/host/incapabilities", response_model=IncapabilityItems, summary="What this host cannot do, and why")
async def incapabilities(call: CallParam) -> Response:
    """What an accelerator's measurement showed, and what does not go together on the hypervisor."""
    return items_response(_INCAPABILITIES, await call.services.hosts.incapabilities(call.caller))


@router.get("/host/doctor", response_model=FindingItems, summary="Examine this host")
async def doctor(call: CallParam) -> Response:
    return items_response(_FINDINGS, await call.services.hosts.doctor(call.caller))
