"""A template's memory taken anew: a VM boots from its disks, and the agent freezes it in the template's place."""

from collections.abc import Mapping
from typing import Final

from corral.errors import CorralError
from corral.model import limits
from corral.model.layer import Layer, chain_of
from corral.model.operation import CreateVm, Operation, RefreshTemplate
from corral.model.template import Template
from corral.model.template_requests import RefreshTemplateRequest
from corral.model.vm import Vm
from corral.names import new_uid
from corral.services.access import audited, authorize
from corral.services.caller import Caller
from corral.services.changes import Mutation, new_operation, repeated
from corral.services.context import Context
from corral.services.descent import Descendant, create_descendant
from corral.services.template_use import find_usable, origin_of, refresh_of

# Each refresh puts two layers more under the VMs that come. From here on its VM's disks are copies that stand alone.
LAYERS_TALL: Final = limits.CHAIN_LAYERS_MAX // 2


async def refresh_template(
    context: Context, caller: Caller, project: str, name: str, request: RefreshTemplateRequest
) -> Operation:
    """The VM, its operation and the refresh's own, in one transaction; the agent goes on from there."""
    mutation = Mutation(caller, project, "template.refresh", name, request)
    await authorize(context, caller, project, mutation.action, name)
    one_at_a_time = context.ledger.name(f"template-refresh/{project}", name)
    async with audited(context, caller, project, mutation.action, name), one_at_a_time:
        if (known := await repeated(context, mutation)) is not None:
            return known
        template = await find_usable(context, project, None, name)
        await _check(context, template)
        return await _submit(context, mutation, template, request.deadline_s)


async def _check(context: Context, template: Template) -> None:
    asked = f"refresh template {template.name!r}"
    if not template.spec.hot:
        raise CorralError("unsupported", asked, "it has no memory that could be refreshed", "its VMs boot anyway")
    if not template.status.agent:
        reason = "its guest has no agent: nobody could tell when it has booted"
        hint = f"corral fork {template.name} NAME --boot, then corral template create NEW --from NAME --hot"
        raise CorralError("unsupported", asked, reason, hint)
    if (running := await refresh_of(context, template)) is not None:
        raise CorralError(
            "template-in-use", asked, "it is being refreshed already", f"corral operation watch {running.uid}"
        )


async def _submit(context: Context, mutation: Mutation, template: Template, deadline_s: float) -> Operation:
    origin = await origin_of(context, template.project, template)
    layers = {layer.uid: layer for layer in await context.objects.list(Layer)}
    leading: list[Operation] = []

    def whole(vm: Vm, booting: Operation) -> tuple[Mutation, Operation]:
        intent = RefreshTemplate(
            vm_uid=vm.uid,
            vm_operation_uid=booting.uid,
            successor_uid=new_uid(),
            freeze_operation_uid=new_uid(),
            deadline_s=deadline_s,
        )
        leading[:] = [new_operation(context, mutation, template, intent, 0)]
        return mutation, leading[0]

    wish = Descendant(name=f"refresh-{new_uid()[:8]}", start=True, full=_is_tall(layers, origin.layers), part_of=whole)
    caller = Caller(mutation.caller.identity, mutation.caller.request_id)
    of_vm = Mutation(caller, template.project, "vm.create", wish.name)
    vm, _booting = await create_descendant(context, of_vm, origin, wish, CreateVm(made_of="template"))
    assert vm is not None  # there was no key by which it could have been known
    return leading[0].model_copy(update={"revision": vm.revision})


def _is_tall(layers: Mapping[str, Layer], disks: Mapping[str, Layer]) -> bool:
    return any(len(chain_of(layers, layer.uid)) >= LAYERS_TALL for layer in disks.values())
