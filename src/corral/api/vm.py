"""Routes of virtual machines: create, look, change, power, wait."""

from enum import StrEnum
from typing import Annotated

from fastapi import Query
from starlette.requests import Request
from starlette.responses import Response

from corral.api.call import CallParam, ChangeParam, IfRevisionParam, ListParam, NameParam
from corral.api.documents import Page, VmAccepted, accepted_response, document_response, model_response, page_response
from corral.api.route import noun_router
from corral.model.answers import DriftAnswer, VmPreview, WaitAnswer
from corral.model.limits import WAIT_TIMEOUT_DEFAULT_S, WAIT_TIMEOUT_MAX_S
from corral.model.requests import (
    CreateVmRequest,
    RebootRequest,
    ShutdownRequest,
    StartRequest,
    UpdateVmRequest,
    WaitCondition,
)
from corral.model.vm import Vm

router = noun_router("vms", "/vms")


class PlainAction(StrEnum):
    """Actions that need no words beside their name."""

    DESTROY = "destroy"
    SAVE = "save"
    PAUSE = "pause"
    RESUME = "resume"
    RESET = "reset"


@router.get("", response_model=Page[Vm], summary="List VMs")
async def list_vms(call: CallParam, request: ListParam) -> Response:
    return page_response(await call.services.vms.list(call.caller, call.project, request))


@router.post(
    "", status_code=202, response_model=VmAccepted, summary="Create a VM", responses={200: {"model": VmPreview}}
)
async def create_vm(call: ChangeParam, body: CreateVmRequest) -> Response:
    """Allocates everything, writes the VM and an operation that follows it until it runs (or is defined).

    With `dry_run`, everything is checked, nothing is made, and 200 says what would be."""
    previews = call.services.previews
    if body.dry_run:
        return model_response(await previews.create(call.caller, call.project, body))
    vm, operation = await call.services.vms.create(call.caller, call.project, body)
    return accepted_response(operation, vm=vm, warnings=() if vm is None else previews.warnings(vm))


@router.get("/{name}", response_model=Vm, summary="Show a VM")
async def get_vm(call: CallParam, name: NameParam, request: Request) -> Response:
    return document_response(request, await call.services.vms.get(call.caller, call.project, name))


@router.patch("/{name}", status_code=202, response_model=VmAccepted, summary="Change a VM")
async def update_vm(
    call: ChangeParam, name: NameParam, body: UpdateVmRequest, if_revision: IfRevisionParam
) -> Response:
    return accepted_response(
        await call.services.vms.update(call.caller, call.project, name, body, if_revision=if_revision)
    )


@router.delete("/{name}", status_code=202, response_model=VmAccepted, summary="Delete a VM")
async def delete_vm(
    call: ChangeParam,
    name: NameParam,
    if_revision: IfRevisionParam,
    keep_disks: Annotated[bool, Query(description="Leave its volumes, as `virsh undefine` does.")] = False,
) -> Response:
    """Stops it if it runs. Its name is free when the operation has succeeded."""
    return accepted_response(
        await call.services.vms.delete(call.caller, call.project, name, keep_disks=keep_disks, if_revision=if_revision)
    )


@router.post("/{name}/actions/start", status_code=202, response_model=VmAccepted, summary="Start a VM")
async def start_vm(
    call: ChangeParam, name: NameParam, if_revision: IfRevisionParam, body: StartRequest | None = None
) -> Response:
    """A saved one goes on where it was."""
    return accepted_response(
        await call.services.vms.start(call.caller, call.project, name, body, if_revision=if_revision)
    )


@router.post(
    "/{name}/actions/shutdown", status_code=202, response_model=VmAccepted, summary="Ask the guest to power off"
)
async def shutdown_vm(
    call: ChangeParam, name: NameParam, if_revision: IfRevisionParam, body: ShutdownRequest | None = None
) -> Response:
    """Its agent is asked first, then ACPI. It is never forced unless `force_after_s` says so."""
    request = body or ShutdownRequest()
    return accepted_response(
        await call.services.vms.shutdown(call.caller, call.project, name, request, if_revision=if_revision)
    )


@router.post("/{name}/actions/reboot", status_code=202, response_model=VmAccepted, summary="Ask the guest to reboot")
async def reboot_vm(
    call: ChangeParam, name: NameParam, if_revision: IfRevisionParam, body: RebootRequest | None = None
) -> Response:
    request = body or RebootRequest()
    return accepted_response(
        await call.services.vms.reboot(call.caller, call.project, name, request, if_revision=if_revision)
    )


@router.post("/{name}/actions/{action}", status_code=202, response_model=VmAccepted, summary="Stop, pause, save …")
async def act_on_vm(call: ChangeParam, name: NameParam, action: PlainAction, if_revision: IfRevisionParam) -> Response:
    """`destroy` (pull the plug), `save` (hibernate), `pause`, `resume`, `reset`."""
    vms = call.services.vms
    act = {
        PlainAction.DESTROY: vms.destroy,
        PlainAction.SAVE: vms.save,
        PlainAction.PAUSE: vms.pause,
        PlainAction.RESUME: vms.resume,
        PlainAction.RESET: vms.reset,
    }[action]
    return accepted_response(await act(call.caller, call.project, name, if_revision=if_revision))


@router.get("/{name}/drift", response_model=DriftAnswer, summary="What other tools changed of a VM's definition")
async def drift_of_vm(call: CallParam, name: NameParam) -> Response:
    """Undo it with a change, `{"reset_drift": true}`, or take it over: `{"accept_drift": true}`."""
    return model_response(await call.services.vms.drift(call.caller, call.project, name))


@router.get("/{name}/wait", response_model=WaitAnswer, summary="Wait until a VM has got somewhere")
async def wait_for_vm(
    call: CallParam,
    name: NameParam,
    condition: Annotated[WaitCondition, Query(alias="for")],
    timeout_s: Annotated[float, Query(gt=0, le=WAIT_TIMEOUT_MAX_S)] = WAIT_TIMEOUT_DEFAULT_S,
) -> Response:
    """Answers when it is so, or with `wait-timeout`."""
    return model_response(await call.services.vms.wait(call.caller, call.project, name, condition, timeout_s))
