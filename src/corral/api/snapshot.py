"""Routes of the points in time of a VM."""

from typing import Annotated

from fastapi import Path, Query
from starlette.requests import Request
from starlette.responses import Response

from corral.api.call import CallParam, ChangeParam, IfRevisionParam, NameParam
from corral.api.documents import (
    OperationAccepted,
    Page,
    SnapshotAccepted,
    accepted_response,
    document_response,
    model_response,
    page_response,
)
from corral.api.route import noun_router
from corral.model.snapshot import Snapshot
from corral.model.snapshot_diff import NOW, SnapshotDiff
from corral.model.snapshot_requests import CreateSnapshotRequest

router = noun_router("snapshots", "/vms/{name}/snapshots")

ToParam = Annotated[str, Query(max_length=256, description="Another snapshot; `now` is what the VM is.")]
SnapshotParam = Annotated[str, Path(max_length=256, description="The snapshot's name within its VM.")]


@router.get("", response_model=Page[Snapshot], summary="List the snapshots of a VM")
async def list_snapshots(call: CallParam, name: NameParam) -> Response:
    """Oldest first. Together they are a tree: `spec.parent_uid` is what each came from."""
    return page_response(await call.services.snapshots.list(call.caller, call.project, name))


@router.post("", status_code=202, response_model=SnapshotAccepted, summary="Take a snapshot")
async def create_snapshot(
    call: ChangeParam, name: NameParam, body: CreateSnapshotRequest, if_revision: IfRevisionParam
) -> Response:
    """All disks at one instant, with the memory if that is asked. A guest that runs goes on."""
    snapshots = call.services.snapshots
    snapshot, operation = await snapshots.create(call.caller, call.project, name, body, if_revision=if_revision)
    return accepted_response(operation, snapshot=snapshot)


@router.get("/{snapshot}", response_model=Snapshot, summary="Show a snapshot")
async def get_snapshot(call: CallParam, name: NameParam, snapshot: SnapshotParam, request: Request) -> Response:
    return document_response(request, await call.services.snapshots.get(call.caller, call.project, name, snapshot))


@router.get("/{snapshot}/diff", response_model=SnapshotDiff, summary="What was written since a snapshot")
async def diff_snapshots(call: CallParam, name: NameParam, snapshot: SnapshotParam, to: ToParam = NOW) -> Response:
    """Between it and another one, or what the VM is now: extents of its disks, also where the same came again."""
    return model_response(await call.services.snapshot_differ.diff(call.caller, call.project, name, snapshot, to))


@router.post("/{snapshot}/revert", status_code=202, response_model=OperationAccepted, summary="Go back to a snapshot")
async def revert_to_snapshot(
    call: ChangeParam, name: NameParam, snapshot: SnapshotParam, if_revision: IfRevisionParam
) -> Response:
    """A guest that runs is stopped, and goes on from there. What was written since is lost, unless another snapshot has
    it."""
    snapshots = call.services.snapshots
    return accepted_response(await snapshots.revert(call.caller, call.project, name, snapshot, if_revision=if_revision))


@router.delete("/{snapshot}", status_code=202, response_model=OperationAccepted, summary="Delete a snapshot")
async def delete_snapshot(
    call: ChangeParam, name: NameParam, snapshot: SnapshotParam, if_revision: IfRevisionParam
) -> Response:
    """In any order: every other snapshot, and the VM, keep what they hold."""
    snapshots = call.services.snapshots
    return accepted_response(await snapshots.delete(call.caller, call.project, name, snapshot, if_revision=if_revision))
