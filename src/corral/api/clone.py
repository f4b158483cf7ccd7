"""The route of clones."""

from starlette.responses import Response

from corral.api.call import ChangeParam, NameParam
from corral.api.documents import ClonesAccepted, model_response
from corral.api.route import noun_router
from corral.model.requests import CloneVmRequest

router = noun_router("vms", "/vms/{name}")


@router.post("/clones", status_code=202, response_model=ClonesAccepted, summary="Clone a VM")
async def clone_vm(call: ChangeParam, name: NameParam, body: CloneVmRequest) -> Response:
    """New VMs from what this one is at this instant, running or not, or was at a snapshot. It answers once that instant
    is kept: a running guest stands still for it, for a fraction of a second."""
    vms, operations = await call.services.clones.clone(call.caller, call.project, name, body)
    return model_response(ClonesAccepted(vms=vms, operations=operations), 202)
