"""The route of the domains that wait for a hot template's state."""

from starlette.responses import Response

from corral.api.call import CallParam, NameParam
from corral.api.documents import model_response
from corral.api.route import noun_router
from corral.model.slot import WarmRequest
from corral.model.template import Template

router = noun_router("templates", "/templates")


@router.put("/{name}/warm", response_model=Template, summary="Keep domains of a hot template waiting")
async def set_warm(call: CallParam, name: NameParam, body: WarmRequest) -> Response:
    """So many wait for its memory's state, as far as memory goes: a VM that takes one is there at once. They are made, or
    thrown away, in the background; `status.waiting` counts them."""
    return model_response(await call.services.warm.set(call.caller, call.project, name, body))
