"""Routes of operations: look, wait for the end, cancel."""

from typing import Annotated

from fastapi import Path, Query
from starlette.requests import Request
from starlette.responses import Response

from corral.api.call import CallParam, ListParam
from corral.api.documents import OperationAccepted, Page, accepted_response, document_response, page_response
from corral.api.route import noun_router
from corral.model.limits import OPERATION_WAIT_MAX_S
from corral.model.operation import Operation

router = noun_router("operations", "/operations")

UidParam = Annotated[str, Path(max_length=64, description="Its uid, or at least six characters of its beginning.")]


@router.get("", response_model=Page[Operation], summary="List operations")
async def list_operations(call: CallParam, request: ListParam) -> Response:
    return page_response(await call.services.operations.list(call.caller, call.project, request))


@router.get("/{uid}", response_model=Operation, summary="Show an operation, or wait for its end")
async def get_operation(
    call: CallParam,
    uid: UidParam,
    request: Request,
    wait_s: Annotated[
        float, Query(ge=0, le=OPERATION_WAIT_MAX_S, description="Answer when it has ended, or after so many seconds.")
    ] = 0.0,
) -> Response:
    return document_response(request, await call.services.operations.get(call.caller, uid, wait_s=wait_s))


@router.post("/{uid}/cancel", status_code=202, response_model=OperationAccepted, summary="Cancel an operation")
async def cancel_operation(call: CallParam, uid: UidParam) -> Response:
    """Stops at the next safe point; what was made is undone."""
    return accepted_response(await call.services.operations.cancel(call.caller, uid))
