"""Routes of the disks, drives and cards of a VM that is there."""

from typing import Annotated

from fastapi import Path
from starlette.responses import Response

from corral.api.call import ChangeParam, IfRevisionParam, NameParam
from corral.api.documents import VmAccepted, accepted_response
from corral.api.route import noun_router
from corral.model.requests import AttachDiskRequest, ChangeDiskRequest, ChangeNicRequest, NicRequest

router = noun_router("devices", "/vms/{name}")

DeviceParam = Annotated[str, Path(max_length=256, description="The device's name within its VM.")]


@router.post("/disks", status_code=202, response_model=VmAccepted, summary="Attach a disk or a drive")
async def attach_disk(
    call: ChangeParam, name: NameParam, body: AttachDiskRequest, if_revision: IfRevisionParam
) -> Response:
    """A running guest has it when the operation has succeeded; `status.pending_restart` says so where it cannot."""
    devices = call.services.devices
    return accepted_response(await devices.attach_disk(call.caller, call.project, name, body, if_revision=if_revision))


@router.patch("/disks/{disk}", status_code=202, response_model=VmAccepted, summary="Change a disk or a medium")
async def change_disk(
    call: ChangeParam, name: NameParam, disk: DeviceParam, body: ChangeDiskRequest, if_revision: IfRevisionParam
) -> Response:
    """Grow it, limit it, or put another medium into a drive."""
    devices = call.services.devices
    return accepted_response(
        await devices.change_disk(call.caller, call.project, name, disk, body, if_revision=if_revision)
    )


@router.delete("/disks/{disk}", status_code=202, response_model=VmAccepted, summary="Detach a disk")
async def detach_disk(call: ChangeParam, name: NameParam, disk: DeviceParam, if_revision: IfRevisionParam) -> Response:
    """Its volume stays, for another VM or for `DELETE /volumes/{name}`."""
    devices = call.services.devices
    return accepted_response(await devices.detach_disk(call.caller, call.project, name, disk, if_revision=if_revision))


@router.post("/nics", status_code=202, response_model=VmAccepted, summary="Attach a network card")
async def attach_nic(call: ChangeParam, name: NameParam, body: NicRequest, if_revision: IfRevisionParam) -> Response:
    devices = call.services.devices
    return accepted_response(await devices.attach_nic(call.caller, call.project, name, body, if_revision=if_revision))


@router.patch("/nics/{nic}", status_code=202, response_model=VmAccepted, summary="Change a network card")
async def change_nic(
    call: ChangeParam, name: NameParam, nic: DeviceParam, body: ChangeNicRequest, if_revision: IfRevisionParam
) -> Response:
    """Its cable, its network, or the card itself."""
    devices = call.services.devices
    return accepted_response(
        await devices.change_nic(call.caller, call.project, name, nic, body, if_revision=if_revision)
    )


@router.delete("/nics/{nic}", status_code=202, response_model=VmAccepted, summary="Detach a network card")
async def detach_nic(call: ChangeParam, name: NameParam, nic: DeviceParam, if_revision: IfRevisionParam) -> Response:
    """Its MAC and its address are free at once."""
    devices = call.services.devices
    return accepted_response(await devices.detach_nic(call.caller, call.project, name, nic, if_revision=if_revision))
