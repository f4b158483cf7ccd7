"""Templates: made from a VM at one instant, listed, refreshed, published, deleted; and VMs made from them."""

from contextlib import nullcontext
from dataclasses import replace

from corral.errors import CorralError
from corral.hypervisor.capabilities import Ability, abilities_of, check_together
from corral.model import limits
from corral.model.answers import PublishedTemplate
from corral.model.base import DEFAULT_PROJECT
from corral.model.identity import Project
from corral.model.layer import Layer
from corral.model.operation import CreateTemplate, CreateVm, DeleteTemplate, Operation, RefreshTemplate, SnapshotVm
from corral.model.requests import ListRequest
from corral.model.snapshot import Snapshot, SnapshotSpec
from corral.model.snapshot_rules import check_take
from corral.model.template import Template, TemplateSpec
from corral.model.template_requests import CreateTemplateRequest, ForkRequest, RefreshTemplateRequest
from corral.model.vm import CloudInitSpec, Vm, VmState
from corral.model.volume import Volume
from corral.names import new_uid, parse_name
from corral.services import listing
from corral.services.access import audited, authorize
from corral.services.caller import Caller
from corral.services.changes import (
    Decision,
    Mutation,
    change,
    new_operation,
    repeated,
    submit,
)
from corral.services.context import Context
from corral.services.descent import Descendant, Descendants, create_all
from corral.services.documents import Document, Listing
from corral.services.template_refresh import refresh_template
from corral.services.template_use import check_fresh, edit_template, find_usable, origin_of
from corral.services.warm import check_warm, waiting_slots
from corral.store.objects import name_claim


class TemplateService:
    def __init__(self, context: Context) -> None:
        self._context = context

    async def list(self, caller: Caller, project: str, request: ListRequest) -> Listing:
        return await listing.list_objects(self._context, caller, project, Template, request)

    async def get(self, caller: Caller, project: str, name: str) -> Document:
        return await listing.get_object(self._context, caller, project, Template, name)

    async def published(self, caller: Caller, project: str) -> tuple[PublishedTemplate, ...]:
        """Those of other projects that `project` may make VMs of, by project and name."""
        await authorize(self._context, caller, project, "template.read")
        found = [
            PublishedTemplate(
                project=template.project,
                name=template.name,
                description=template.spec.description,
                hot=template.spec.hot,
                stale=bool(template.status.stale),
                memory_bytes=template.status.memory_bytes,
            )
            for template in await self._context.objects.list(Template)
            if project in template.spec.published_to and template.status.ready and not template.being_deleted
        ]
        return tuple(sorted(found, key=lambda one: (one.project, one.name)))

    async def create(
        self, caller: Caller, project: str, request: CreateTemplateRequest, *, passing: bool = False
    ) -> tuple[Template | None, Operation]:
        """The template, and the operation that freezes it. None: an idempotent repeat whose template is gone."""
        context = self._context
        mutation = Mutation(caller, project, "template.create", request.name, request)
        await authorize(context, caller, project, mutation.action, request.name)
        async with audited(context, caller, project, mutation.action, request.name):
            parse_name(request.name, "template name")
            check_warm(request.name, request.warm, hot=request.hot)
            async with context.ledger.name(f"template/{project}", request.name):
                if (known := await repeated(context, mutation)) is not None:
                    return await context.objects.get(Template, known.spec.target_uid), known
                if await context.objects.owner(name_claim(Template.KIND, project, request.name)) is not None:
                    asked = f"create template {request.name!r}"
                    raise CorralError("name-taken", asked, "the project has one of this name", "choose another name")
                source = await context.objects.require(Vm, project, request.source)
                await self._check_source(source, request)
                return await self._write(mutation, source, request, passing=passing)

    async def _check_source(self, source: Vm, request: CreateTemplateRequest) -> None:
        asked = f"make a template of VM {source.name!r}"
        active = source.status.seen_state in (VmState.RUNNING, VmState.PAUSED)
        if request.hot and source.status.seen_state is not VmState.RUNNING:
            hint = f"corral start {source.name}; without --hot its disks alone are taken"
            raise CorralError("wrong-state", asked, "it does not run, so there is no memory to take", hint)
        if request.hot and source.status.pending_restart:
            reason = "it does not run as it is wished: " + "; ".join(source.status.pending_restart)
            raise CorralError("wrong-state", asked, reason, f"corral reboot {source.name}")
        if request.hot:
            check_together(asked, "leave --hot out", *abilities_of(source.spec), Ability.HOT_TEMPLATE)
        volumes = [await self._context.objects.get(Volume, d.volume_uid) for d in source.spec.disks if d.volume_uid]
        layers = {layer.uid: layer for layer in await self._context.objects.list(Layer)}
        known = {volume.uid: volume for volume in volumes if volume is not None}
        saved = source.status.has_saved_memory
        check_take(source, known, layers, with_memory=request.hot, active=active, saved=saved)

    async def _write(
        self, mutation: Mutation, source: Vm, request: CreateTemplateRequest, *, passing: bool
    ) -> tuple[Template, Operation]:
        """The template, the hidden point in time that it is made from, and an operation for each, at once."""
        context, now = self._context, self._context.clock.now()
        snapshot = Snapshot(
            project=source.project,
            name=f"hidden-{new_uid()[:8]}",
            uid=new_uid(),
            created_at=now,
            spec=SnapshotSpec(vm_uid=source.uid, with_memory=request.hot, hidden=True),
        )
        seed = source.spec.cloud_init
        template = Template(
            project=source.project,
            name=request.name,
            uid=new_uid(),
            created_at=now,
            labels=request.labels,
            spec=TemplateSpec(
                description=request.description,
                hot=request.hot,
                warm=request.warm,
                passing=passing,
                source=source.name,
                source_uid=source.uid,
                snapshot_uid=snapshot.uid,
                hostname=seed.hostname if seed is not None else source.name,
                cloud_init=_without_secrets(seed),
            ),
        )
        point = new_operation(context, mutation, source, SnapshotVm(snapshot_uid=snapshot.uid), 0)
        point = point.model_copy(update={"spec": point.spec.model_copy(update={"client_key": ""}), "annotations": {}})
        intent = CreateTemplate(snapshot_operation_uid=point.uid)
        operation = new_operation(context, mutation, template, intent, template.generation)
        transaction = context.objects.transaction()
        transaction.create(template)
        transaction.create(snapshot)
        transaction.create(point)
        transaction.require(source)
        revision = await submit(context, mutation, transaction, operation)
        return template.model_copy(update={"revision": revision}), operation.model_copy(update={"revision": revision})

    async def delete(self, caller: Caller, project: str, name: str, *, if_revision: int | None = None) -> Operation:
        """VMs that were made from it stay what they are; those that are being made are waited for."""
        refreshed = {
            operation.spec.target_uid: operation.uid
            for operation in await self._context.objects.list(Operation)
            if isinstance(operation.spec.intent, RefreshTemplate) and not operation.status.state.final
        }

        def decide(template: Template) -> Decision:
            asked = f"delete template {template.name!r}"
            if template.uid in refreshed:
                hint = f"corral operation cancel {refreshed[template.uid]}"
                raise CorralError("template-in-use", asked, "it is being refreshed", hint)
            if not template.status.ready and template.deletion_requested_at is None:
                hint = "cancel its operation: corral operation cancel"
                raise CorralError("template-in-use", asked, "it is being made", hint)
            asked_at = template.deletion_requested_at or self._context.clock.now()
            return Decision(DeleteTemplate(), template.model_copy(update={"deletion_requested_at": asked_at}))

        mutation = Mutation(caller, project, "template.delete", name, None, if_revision)
        return (await change(self._context, mutation, Template, decide))[1]

    async def refresh(self, caller: Caller, project: str, name: str, request: RefreshTemplateRequest) -> Operation:
        """Its memory taken anew; VMs that were made of it stay what they are."""
        return await refresh_template(self._context, caller, project, name, request)

    # ---- other projects ----

    async def publish(self, caller: Caller, project: str, name: str, to: str) -> Template:
        """From now on `to` may make VMs of it, and read there what its memory and its disks hold."""
        asked = f"publish template {name!r} to project {to[:64]!r}"
        await authorize(self._context, caller, project, "template.publish", name)
        async with audited(self._context, caller, project, "template.publish", name):
            if to == project:
                raise CorralError("invalid-argument", asked, "it is that project's own", "name another project")
            if await self._context.objects.find(Project, DEFAULT_PROJECT, to) is None:
                raise CorralError("project-not-found", asked, "there is no project of that name")

            def published(spec: TemplateSpec) -> TemplateSpec:
                if len(spec.published_to) >= limits.PUBLICATIONS_MAX and to not in spec.published_to:
                    reason = f"it is published to {limits.PUBLICATIONS_MAX} projects already"
                    raise CorralError("invalid-argument", asked, reason, "corral template unpublish")
                return spec.model_copy(update={"published_to": tuple(sorted({*spec.published_to, to}))})

            mutation = Mutation(caller, project, "template.publish", name)
            return await edit_template(self._context, mutation, published, f"to {to}")

    async def unpublish(self, caller: Caller, project: str, name: str, to: str) -> Template:
        """VMs that were made of it stay what they are."""
        action = "template.publish"
        await authorize(self._context, caller, project, action, name)
        async with audited(self._context, caller, project, action, name):

            def taken_back(spec: TemplateSpec) -> TemplateSpec:
                return spec.model_copy(update={"published_to": tuple(one for one in spec.published_to if one != to)})

            return await edit_template(
                self._context, Mutation(caller, project, action, name), taken_back, f"not to {to}"
            )

    # ---- VMs from it ----

    async def fork(self, caller: Caller, project: str, name: str, request: ForkRequest) -> Descendants:
        """VMs called `request.names`, running, and an operation for each. The right to it is asked for in the project that
        gets them; another project's template must have been published to that."""
        context, action = self._context, "template.fork"
        await authorize(context, caller, project, action, name)
        async with audited(context, caller, project, action, name):
            template = await find_usable(context, project, request.of_project, name)
            goes_on = template.spec.hot and not request.boot
            if goes_on:
                check_fresh(template)
            origin = await origin_of(context, project, template)
            if goes_on:
                origin = replace(origin, slots=await waiting_slots(context, template))
            intent = CreateVm(fork_of=template.uid if goes_on else None, made_of="template")
            wish = Descendant(start=True, force=request.force)
            asked, found = f"make VMs of template {name!r}", nullcontext(origin)
            return await create_all(context, caller, project, request, found, origin.spec, wish, asked, intent)


def _without_secrets(seed: CloudInitSpec | None) -> CloudInitSpec | None:
    """The guest has done what its documents said, and has its passwords; those who make VMs of it need not see them."""
    if seed is None:
        return None
    users = tuple(user.model_copy(update={"password_hash": ""}) for user in seed.users)
    return seed.model_copy(update={"users": users, "user_data": "", "network_config": ""})
