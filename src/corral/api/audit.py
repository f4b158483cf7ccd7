"""Routes of the audit log."""

from typing import Annotated

from fastapi import Query
from starlette.responses import Response

from corral.api.call import CallParam
from corral.api.documents import AuditEntry, Items, journal_response, model_response
from corral.api.route import noun_router
from corral.model.answers import AuditVerification
from corral.model.limits import PAGE_MAX

router = noun_router("audit", "/audit")


@router.get("", response_model=Items[AuditEntry], summary="Read the audit log")
async def list_audit(
    call: CallParam,
    after: Annotated[int, Query(ge=0, description="Only what came after this entry.")] = 0,
    limit: Annotated[int, Query(ge=1, le=PAGE_MAX)] = PAGE_MAX,
) -> Response:
    return journal_response(await call.services.audit.list(call.caller, after=after, limit=limit), "entry")


@router.get("/verify", response_model=AuditVerification, summary="Check the audit log's chain")
async def verify_audit(call: CallParam) -> Response:
    return model_response(await call.services.audit.verify(call.caller))
