"""Routes of clones and live forks."""

from starlette.responses import Response

from corral.api.call import ChangeParam, NameParam
from corral.api.documents import ClonesAccepted, LiveForksAccepted, model_response
from corral.api.route import noun_router
from corral.model.requests import CloneVmRequest
from corral.model.template_requests import LiveForkRequest

router = noun_router("vms", "/vms/{name}")


@router.post("/clones", status_code=202, response_model=ClonesAccepted, summary="Clone a VM")
async def clone_vm(call: ChangeParam, name: NameParam, body: CloneVmRequest) -> Response:
    """New VMs from what this one is at this instant, running or not, or was at a snapshot. It answers once that instant
    is kept: a running guest stands still for it, for a fraction of a second."""
    vms, operations = await call.services.clones.clone(call.caller, call.project, name, body)
    return model_response(ClonesAccepted(vms=vms, operations=operations), 202)


@router.post("/forks", status_code=202, response_model=LiveForksAccepted, summary="Fork a running VM")
async def fork_vm(call: ChangeParam, name: NameParam, body: LiveForkRequest) -> Response:
    """New VMs that go on from this one's memory and disks as they are at this instant, each told who it is; this one goes on.
    It answers once that instant is kept, which takes about as long as its memory takes to be copied."""
    found = await call.services.live_forks.fork(call.caller, call.project, name, body)
    vms, operations = found.made
    return model_response(LiveForksAccepted(vms=vms, operations=operations, pause_ms=found.pause_ms), 202)
