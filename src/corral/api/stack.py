"""Routes of stacks: what it would take, and what is. Clients carry a plan out by the routes that its actions name."""

from typing import Any

from starlette.responses import Response

from corral.api.call import CallParam
from corral.api.documents import model_response
from corral.api.route import noun_router
from corral.model.stack import stack_schema
from corral.model.stack_plan import ExportStackRequest, PlanDownRequest, PlanStackRequest, StackExport, StackPlan

router = noun_router("stacks", "/stacks")


@router.get("/schema", summary="The JSON Schema of a stack's document")
async def get_schema() -> dict[str, Any]:
    """For editors; `corral stack schema` prints it."""
    return stack_schema()


@router.post("/plan", response_model=StackPlan, summary="Plan a stack")
async def plan_stack(call: CallParam, body: PlanStackRequest) -> Response:
    """Checks everything, makes nothing, and answers the requests that make what the document says, in order."""
    return model_response(await call.services.stacks.plan(call.caller, call.project, body))


@router.post("/plan-down", response_model=StackPlan, summary="Plan the removal of a stack")
async def plan_down(call: CallParam, body: PlanDownRequest) -> Response:
    return model_response(await call.services.stacks.plan_down(call.caller, call.project, body))


@router.post("/export", response_model=StackExport, summary="Describe VMs as a stack")
async def export_stack(call: CallParam, body: ExportStackRequest) -> Response:
    return model_response(await call.services.stacks.export(call.caller, call.project, body))
