"""What VMs are made of a template with: whether it can be used, and the spec, seed and layers that they come from."""

from collections.abc import Callable

from corral.errors import CorralError
from corral.model.layer import Layer
from corral.model.operation import Operation, RefreshTemplate
from corral.model.template import Template, TemplateSpec
from corral.model.vm import VmSpec
from corral.services.access import commit
from corral.services.changes import ATTEMPTS_MAX, Mutation, too_busy
from corral.services.context import Context
from corral.services.descent import Origin
from corral.services.nics import find_network


async def find_usable(context: Context, project: str, of_project: str | None, name: str) -> Template:
    """A template of the project's, or of another one's that has published it to this one: of what is not, it is not told
    whether it is there. Raises `template-not-found`, `template-not-published`, `template-not-ready`."""
    asked = f"make VMs of template {name!r}"
    if of_project is None or of_project == project:
        template = await context.objects.require(Template, project, name)
    else:
        found = await context.objects.find(Template, of_project, name)
        if found is None or project not in found.spec.published_to:
            raise CorralError(
                "template-not-published",
                f"make VMs of template {of_project}/{name}",
                f"project {of_project!r} has published none of that name to {project!r}",
                f"an administrator of {of_project!r} does: corral template publish {name} --to {project}",
            )
        template = found
    if not template.status.ready or template.being_deleted:
        reason = "it is being deleted" if template.being_deleted else "it is not frozen yet"
        raise CorralError("template-not-ready", asked, reason, "corral template list")
    return template


def check_fresh(template: Template) -> None:
    """That its memory can be gone on from."""
    if template.status.stale:
        raise CorralError(
            "template-stale",
            f"make VMs of template {template.name!r} go on from its memory",
            template.status.stale,
            f"corral template refresh {template.name}; or boot from its disks: corral fork {template.name} NAME --boot",
        )


async def origin_of(context: Context, project: str, template: Template) -> Origin:
    """For VMs of `project`, whose cards are in networks that it may use."""
    layers: dict[str, Layer] = {}
    for disk in template.spec.disks:
        layer = await context.objects.get(Layer, disk.layer_uid)
        if layer is None:
            reason = f"the layer of disk {disk.name} is gone"
            raise CorralError("chain-broken", f"make VMs of template {template.name!r}", reason, "corral doctor")
        layers[disk.name] = layer
    spec = template.spec.vm_spec or VmSpec()
    update: dict[str, object] = {"template_uid": template.uid}
    if project != template.project:
        networks = [await find_network(context, project, nic.network) for nic in spec.nics]
        update["nics"] = tuple(
            # Its groups are those of the template's project: here their names may mean others.
            nic.model_copy(update={"network_uid": network.uid, "groups": ()})
            for nic, network in zip(spec.nics, networks, strict=True)
        )
    beside = context.settings.state_dir / "templates" / template.uid
    return Origin(
        template.name, spec.model_copy(update=update), template.spec.cloud_init, layers, template.labels, beside
    )


async def refresh_of(context: Context, template: Template) -> Operation | None:
    """The one that is under way."""
    for operation in await context.objects.list(Operation):
        refreshes = isinstance(operation.spec.intent, RefreshTemplate) and operation.spec.target_uid == template.uid
        if refreshes and not operation.status.state.final:
            return operation
    return None


async def edit_template(
    context: Context, mutation: Mutation, spec_of: Callable[[TemplateSpec], TemplateSpec], detail: str
) -> Template:
    """Change what is wished of a template, which nobody has to carry out: there is no operation. Who asks was authorized."""
    caller, project, name = mutation.caller, mutation.project, mutation.target
    for _ in range(ATTEMPTS_MAX):
        template = await context.objects.require(Template, project, name)
        spec = spec_of(template.spec)
        if spec == template.spec:
            return template
        changed = template.model_copy(update={"spec": spec, "generation": template.generation + 1})
        transaction = context.objects.transaction()
        transaction.update(changed)
        try:
            done = await commit(context, transaction, caller, project, mutation.action, f"template/{name}", detail)
        except CorralError as error:
            if error.code != "precondition-failed":
                raise
        else:
            return changed.model_copy(update={"revision": done.revision})
    raise too_busy(mutation)
