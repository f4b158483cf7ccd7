"""Live forks: VMs that go on from what a running VM is at this instant, while it goes on itself.

A template that only passes by is frozen of the running VM; its forks are forks like others, and it goes when the last of them
is there. Nothing is accepted before the instant has been kept.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Final

from corral.errors import CorralError
from corral.model.operation import CreateVm, DeleteTemplate, Operation, OperationState
from corral.model.template import Template
from corral.model.template_requests import CreateTemplateRequest, LiveForkRequest
from corral.model.vm import Vm, VmState
from corral.names import new_uid
from corral.services import rules
from corral.services.access import audited, authorize
from corral.services.caller import Caller
from corral.services.changes import Decision, Mutation, change
from corral.services.context import Context
from corral.services.descent import Descendant, Descendants, Origin, create_all
from corral.services.snapshot import MEMORY_TIMEOUT_S, until_ended
from corral.services.template import TemplateService
from corral.services.template_use import origin_of

ACTION: Final = "vm.fork"


@dataclass
class LiveForks:
    """What came of it. `pause_ms`: how long the VM stood still; None: nothing was done anew."""

    made: Descendants = ((), ())
    pause_ms: float | None = None


class LiveForkService:
    def __init__(self, context: Context) -> None:
        self._context = context

    async def fork(self, caller: Caller, project: str, name: str, request: LiveForkRequest) -> LiveForks:
        """VMs called `request.names`, all of one instant, and an operation for each."""
        context = self._context
        await authorize(context, caller, project, ACTION, name)
        async with audited(context, caller, project, ACTION, name):
            source = await context.objects.require(Vm, project, name)
            rules.check_not_deleting(source, "fork")
            if source.status.seen_state is not VmState.RUNNING:
                hint = f"corral start {name}; corral clone {name} makes VMs of its disks"
                raise CorralError("wrong-state", f"fork VM {name!r} live", "it does not run", hint)
            found = LiveForks()
            wish = Descendant(start=True, force=request.force)
            origin = self._origin(caller, source, found)
            asked = f"fork VM {name!r} live"
            found.made = await create_all(context, caller, project, request, origin, source.spec, wish, asked)
            return found

    @asynccontextmanager
    async def _origin(self, caller: Caller, source: Vm, found: LiveForks) -> AsyncIterator[Origin]:
        context = self._context
        plain = Caller(caller.identity, caller.request_id)
        wanted = CreateTemplateRequest(name=f"live-{new_uid()[:8]}", source=source.name, hot=True)
        _template, operation = await TemplateService(context).create(plain, source.project, wanted, passing=True)
        try:
            template = await self._frozen(operation)
            found.pause_ms = template.status.pause_ms
            origin = await origin_of(context, source.project, template)
            yield replace(origin, name=source.name, intent=CreateVm(fork_of=template.uid))
        finally:
            await self._let_go(plain, operation)

    async def _frozen(self, operation: Operation) -> Template:
        done = await until_ended(self._context, operation, MEMORY_TIMEOUT_S)
        template = await self._context.objects.get(Template, operation.spec.target_uid)
        if done.status.state is OperationState.SUCCEEDED and template is not None:
            return template
        if (problem := done.status.error) is not None:
            raise CorralError(problem.code, problem.asked, problem.reason, problem.hint)
        asked = f"keep an instant of {operation.spec.target_name}"
        raise CorralError("operation-cancelled", asked, f"that has {done.status.state.value}")

    async def _let_go(self, caller: Caller, operation: Operation) -> None:
        """It waits for its forks by itself."""

        def decide(template: Template) -> Decision:
            asked_at = template.deletion_requested_at or self._context.clock.now()
            return Decision(DeleteTemplate(), template.model_copy(update={"deletion_requested_at": asked_at}))

        mutation = Mutation(caller, operation.project, "template.delete", operation.spec.target_name)
        try:
            await change(self._context, mutation, Template, decide)
        except CorralError as error:
            if error.code != "template-not-found":  # it was not made
                raise
