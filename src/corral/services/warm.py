"""How many domains wait for a hot template's state, and which of them a fork may take."""

from collections import deque

from corral.errors import CorralError
from corral.model.slot import WarmRequest, WarmSlot
from corral.model.template import Template, TemplateSpec
from corral.services.access import audited, authorize
from corral.services.caller import Caller
from corral.services.changes import Mutation
from corral.services.context import Context
from corral.services.template_use import edit_template


class WarmService:
    def __init__(self, context: Context) -> None:
        self._context = context

    async def set(self, caller: Caller, project: str, name: str, request: WarmRequest) -> Template:
        """They are made, or thrown away, in the background."""
        context, action = self._context, "template.warm"
        await authorize(context, caller, project, action, name)
        async with audited(context, caller, project, action, name):

            def kept_warm(spec: TemplateSpec) -> TemplateSpec:
                check_warm(name, request.count, hot=spec.hot)
                return spec.model_copy(update={"warm": request.count})

            return await edit_template(
                context, Mutation(caller, project, action, name), kept_warm, f"{request.count} waiting"
            )


def check_warm(name: str, count: int, *, hot: bool) -> None:
    """Raises `invalid-argument` where there is no state to wait for."""
    if count and not hot:
        reason = "it has no memory: its VMs boot"
        hint = "corral template create NAME --from VM --hot --warm 5"
        raise CorralError("invalid-argument", f"keep domains of template {name!r} waiting", reason, hint)


async def waiting_slots(context: Context, template: Template) -> deque[WarmSlot]:
    """The oldest first."""
    found = [
        slot
        for slot in await context.objects.list(WarmSlot)
        if slot.spec.template_uid == template.uid and slot.spec.digest == template.status.digest and slot.status.ready
    ]
    return deque(sorted(found, key=lambda slot: slot.created_at))
