"""Routes of domains that were made elsewhere: see them, take one over."""

from typing import Final

from pydantic import TypeAdapter
from starlette.responses import Response

from corral.api.call import CallParam, ChangeParam, NameParam
from corral.api.documents import DomainItems, VmAccepted, accepted_response, items_response
from corral.api.route import noun_router
from corral.model.answers import UnmanagedDomain

router = noun_router("domains", "/domains")

_DOMAINS: Final = TypeAdapter(tuple[UnmanagedDomain, ...])


@router.get("", response_model=DomainItems, summary="List domains that Corral did not make")
async def list_domains(call: CallParam) -> Response:
    return items_response(_DOMAINS, await call.services.domains.list(call.caller))


@router.post("/{name}/adopt", status_code=202, response_model=VmAccepted, summary="Take a domain over")
async def adopt_domain(call: ChangeParam, name: NameParam) -> Response:
    """It becomes a VM of that name without being restarted."""
    vm, operation = await call.services.domains.adopt(call.caller, call.project, name)
    return accepted_response(operation, vm=vm)
