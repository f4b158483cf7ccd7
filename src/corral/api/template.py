"""Routes of templates."""

from starlette.requests import Request
from starlette.responses import Response

from corral.api.call import CallParam, ChangeParam, IfRevisionParam, ListParam, NameParam
from corral.api.documents import (
    ClonesAccepted,
    OperationAccepted,
    Page,
    TemplateAccepted,
    accepted_response,
    document_response,
    model_response,
    page_response,
)
from corral.api.route import noun_router
from corral.model.template import Template
from corral.model.template_requests import (
    CreateTemplateRequest,
    ForkRequest,
    RefreshTemplateRequest,
)

router = noun_router("templates", "/templates")


@router.get("", response_model=Page[Template], summary="List templates")
async def list_templates(call: CallParam, request: ListParam) -> Response:
    return page_response(await call.services.templates.list(call.caller, call.project, request))


@router.post("", status_code=202, response_model=TemplateAccepted, summary="Make a template of a VM")
async def create_template(call: ChangeParam, body: CreateTemplateRequest) -> Response:
    """From what the VM is at this instant; it goes on. With its memory, where that is wished."""
    template, operation = await call.services.templates.create(call.caller, call.project, body)
    return accepted_response(operation, template=template)


@router.get("/{name}", response_model=Template, summary="Show a template")
async def get_template(call: CallParam, name: NameParam, request: Request) -> Response:
    return document_response(request, await call.services.templates.get(call.caller, call.project, name))


@router.post("/{name}/actions/refresh", status_code=202, response_model=OperationAccepted, summary="Refresh a template")
async def refresh_template(call: ChangeParam, name: NameParam, body: RefreshTemplateRequest | None = None) -> Response:
    """Its guest boots from its disks and is frozen anew, in its place; until then it is what it was."""
    request = body or RefreshTemplateRequest()
    return accepted_response(await call.services.templates.refresh(call.caller, call.project, name, request))


@router.post("/{name}/forks", status_code=202, response_model=ClonesAccepted, summary="Make VMs of a template")
async def fork_template(call: ChangeParam, name: NameParam, body: ForkRequest) -> Response:
    """They run: of a hot template they go on from its memory, each told who it is; of another one they boot. With
    `of_project` of another project's template, which has published it to this one."""
    vms, operations = await call.services.templates.fork(call.caller, call.project, name, body)
    return model_response(ClonesAccepted(vms=vms, operations=operations), 202)


@router.delete("/{name}", status_code=202, response_model=OperationAccepted, summary="Delete a template")
async def delete_template(call: ChangeParam, name: NameParam, if_revision: IfRevisionParam) -> Response:
    """VMs that were made of it stay what they are."""
    deleted = call.services.templates.delete(call.caller, call.project, name, if_revision=if_revision)
    return accepted_response(await deleted)
