"""Routes of what other projects may make VMs of."""

from typing import Annotated

from fastapi import Path
from starlette.responses import Response

from corral.api.call import CallParam, NameParam
from corral.api.documents import Items, model_response
from corral.api.route import noun_router
from corral.model.answers import PublishedTemplate
from corral.model.template import Template
from corral.model.template_requests import PublishTemplateRequest

router = noun_router("templates")


@router.get("/published-templates", response_model=Items[PublishedTemplate], summary="List other projects' templates")
async def list_published_templates(call: CallParam) -> Response:
    """Those that were published to this project: `of_project` of a fork."""
    return model_response(Items(items=await call.services.templates.published(call.caller, call.project)))


@router.post("/templates/{name}/publications", response_model=Template, summary="Publish a template to another project")
async def publish_template(call: CallParam, name: NameParam, body: PublishTemplateRequest) -> Response:
    """Who may fork in that project gets what the template's memory and disks hold."""
    return model_response(await call.services.templates.publish(call.caller, call.project, name, body.project))


@router.delete("/templates/{name}/publications/{other}", response_model=Template, summary="Take a publication back")
async def unpublish_template(
    call: CallParam, name: NameParam, other: Annotated[str, Path(description="The other project.")]
) -> Response:
    """VMs that were made of it stay what they are."""
    return model_response(await call.services.templates.unpublish(call.caller, call.project, name, other))
