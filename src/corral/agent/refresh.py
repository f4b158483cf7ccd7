"""A template is refreshed: a guest boots from its disks and is frozen, and what comes of that takes the template's name.

All that is known of it stands in the store: a crash anywhere goes on from there. Until one transaction puts the successor
into the template's place, the template is what it was; the same transaction sees to what is left of the old one.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from corral.agent.cache import Cache
from corral.agent.guest import FINAL
from corral.agent.operations import Progress, Shown, ended, ended_event, requested, write_end
from corral.agent.view import Ending
from corral.clock import Clock
from corral.model.base import Object
from corral.model.operation import (
    CreateTemplate,
    CreateVm,
    DeleteTemplate,
    DeleteVm,
    Operation,
    OperationState,
    Problem,
    RefreshTemplate,
    SnapshotVm,
)
from corral.model.snapshot import Snapshot, SnapshotSpec
from corral.model.template import Template, TemplateSpec, successor_of
from corral.model.vm import CloudInitStatus, Vm, VmState
from corral.names import new_uid
from corral.store.objects import Objects, Transaction, name_claim

BOOTING: Final = "booting its guest"
UNDOING: Final = "taking back what was made"


@dataclass(frozen=True)
class Refresher:
    """Goes on with refreshes, a step at each look."""

    objects: Objects
    cache: Cache
    progress: Progress
    clock: Clock

    async def go_on(self, operation: Operation, intent: RefreshTemplate) -> bool:
        """False: it waits for something else."""
        template = self.cache.templates.get(operation.spec.target_uid)
        if operation.spec.cancel_requested_at is not None:
            return await self._give_up(operation, intent, OperationState.CANCELLED)
        if template is None or template.being_deleted:
            return await self._fail(operation, intent, "template-not-found", "the template was deleted meanwhile")
        successor = self.cache.templates.get(intent.successor_uid)
        if successor is not None and successor.status.ready:
            return await self._take_over(operation, intent, template, successor)
        freeze = await self.objects.get(Operation, intent.freeze_operation_uid)
        if freeze is None:
            return await self._boot(operation, intent, template)
        return await self._follow(operation, intent, freeze)

    async def _follow(self, operation: Operation, intent: RefreshTemplate, freeze: Operation) -> bool:
        """The freeze, as it goes on."""
        if not freeze.status.state.final:
            self._say(operation, freeze.status.phase or "freezing it")
            return False
        successor = await self.cache.refresh(Template, intent.successor_uid)
        if successor is not None and successor.status.ready:
            return False  # at the next look
        return await self._give_up(operation, intent, OperationState.FAILED, freeze.status.error)

    # ---- its guest boots ----

    async def _boot(self, operation: Operation, intent: RefreshTemplate, template: Template) -> bool:
        vm = self.cache.vms.get(intent.vm_uid) or await self.cache.refresh(Vm, intent.vm_uid)
        if vm is None or vm.being_deleted:
            made = await self.objects.get(Operation, intent.vm_operation_uid)
            if made is not None and made.status.error is not None:
                return await self._give_up(operation, intent, OperationState.FAILED, made.status.error)
            return await self._fail(operation, intent, "vm-not-found", "the VM that boots its guest was deleted")
        if vm.status.cloud_init is CloudInitStatus.ERROR:
            reason = f"cloud-init failed in its guest: {vm.status.cloud_init_detail or 'it does not say why'}"
            return await self._fail(operation, intent, "template-not-ready", reason)
        if is_settled(vm) and not self._is_being_made(vm):
            await self._freeze(operation, intent, template, vm)
            return False
        if self.clock.now() > operation.created_at + timedelta(seconds=intent.deadline_s):
            reason = f"its guest had not booted after {intent.deadline_s:g} s: {_seen(vm)}"
            return await self._fail(operation, intent, "wait-timeout", reason)
        self._say(operation, BOOTING)
        return False

    def _is_being_made(self, vm: Vm) -> bool:
        return any(isinstance(found.spec.intent, CreateVm) for found in self.cache.unfinished(vm.uid))

    async def _freeze(self, operation: Operation, intent: RefreshTemplate, template: Template, vm: Vm) -> None:
        """The successor, its point in time, and an operation for each, as for every new template."""
        now, asked = self.clock.now(), operation.spec
        snapshot = Snapshot(
            project=vm.project,
            name=f"hidden-{new_uid()[:8]}",
            uid=new_uid(),
            created_at=now,
            spec=SnapshotSpec(vm_uid=vm.uid, with_memory=True, hidden=True),
        )
        seed = vm.spec.cloud_init
        successor = Template(
            project=template.project,
            name=vm.name,
            uid=intent.successor_uid,
            created_at=now,
            spec=TemplateSpec(
                hot=True,
                source=vm.name,
                source_uid=vm.uid,
                snapshot_uid=snapshot.uid,
                hostname=seed.hostname if seed is not None else template.spec.hostname,
                cloud_init=seed,
            ),
        )
        point = requested(vm, SnapshotVm(snapshot_uid=snapshot.uid), asked.requested_by, asked.request_id, now)
        freeze = CreateTemplate(snapshot_operation_uid=point.uid)
        freezing = requested(successor, freeze, asked.requested_by, asked.request_id, now)
        freezing = freezing.model_copy(update={"name": intent.freeze_operation_uid, "uid": intent.freeze_operation_uid})
        transaction = self.objects.transaction()
        for made in (snapshot, successor, point, freezing):
            transaction.create(made)
        transaction.require(template)
        await self._commit(transaction, snapshot, successor, point, freezing)

    # ---- the end ----

    async def _take_over(
        self, operation: Operation, intent: RefreshTemplate, template: Template, successor: Template
    ) -> bool:
        """Whoever is being forked of the old one has its memory and its disks, and never of both a half."""
        if forks_under_way(self.cache, template.uid):
            self._say(operation, "waiting for VMs that are being made of it")
            return False
        now, asked = self.clock.now(), operation.spec
        old = template.model_copy(
            update={"name": successor.name, "deletion_requested_at": now, "generation": template.generation + 1}
        )
        new = successor_of(template, successor)
        removal = requested(old, DeleteTemplate(), asked.requested_by, asked.request_id, now)
        transaction = self.objects.transaction()
        transaction.update(old)
        transaction.update(new)
        transaction.create(removal)
        transaction.hand_over(name_claim(Template.KIND, template.project, new.name), new.uid)
        transaction.hand_over(name_claim(Template.KIND, template.project, old.name), old.uid)
        gone = await self._delete_vm(transaction, operation, intent)
        return await self._end(transaction, operation, OperationState.SUCCEEDED, None, (old, new, removal, *gone))

    async def _fail(self, operation: Operation, intent: RefreshTemplate, code: str, reason: str) -> bool:
        asked = f"refresh template {operation.spec.target_name}"
        return await self._give_up(
            operation, intent, OperationState.FAILED, Problem(code=code, asked=asked, reason=reason)
        )

    async def _give_up(
        self, operation: Operation, intent: RefreshTemplate, state: OperationState, problem: Problem | None = None
    ) -> bool:
        """The template stays what it was. What was made goes one after the other: what stands on the VM's disks first."""
        if state is OperationState.FAILED and problem is None:
            title = f"refresh template {operation.spec.target_name}"
            problem = Problem(code="operation-cancelled", asked=title, reason="the freeze of its guest was cancelled")
        if not await self._is_undone(operation, intent):
            self._say(operation, UNDOING)
            return False
        transaction = self.objects.transaction()
        gone = await self._delete_vm(transaction, operation, intent)
        return await self._end(transaction, operation, state, problem, gone)

    async def _is_undone(self, operation: Operation, intent: RefreshTemplate) -> bool:
        """Neither is there a successor, nor will there be one."""
        now, asked = self.clock.now(), operation.spec
        transaction = self.objects.transaction()
        freezing = await self.objects.get(Operation, intent.freeze_operation_uid)
        if freezing is not None and not freezing.status.state.final:
            if freezing.spec.cancel_requested_at is None:
                spec = freezing.spec.model_copy(update={"cancel_requested_at": now})
                freezing = freezing.model_copy(update={"spec": spec})
                transaction.update(freezing)
                await self._commit(transaction, freezing)
            return False
        successor = await self.cache.refresh(Template, intent.successor_uid)
        if successor is not None and not successor.being_deleted:
            going = successor.model_copy(update={"deletion_requested_at": now, "generation": successor.generation + 1})
            removal = requested(going, DeleteTemplate(), asked.requested_by, asked.request_id, now)
            transaction.update(going)
            transaction.create(removal)
            await self._commit(transaction, going, removal)
        return successor is None

    async def _delete_vm(
        self, transaction: Transaction, operation: Operation, intent: RefreshTemplate
    ) -> tuple[Object, ...]:
        vm = await self.cache.refresh(Vm, intent.vm_uid)
        if vm is None or vm.being_deleted:
            return ()
        now, asked = self.clock.now(), operation.spec
        going = vm.model_copy(update={"deletion_requested_at": now, "generation": vm.generation + 1})
        removal = requested(going, DeleteVm(), asked.requested_by, asked.request_id, now)
        transaction.update(going)
        transaction.create(removal)
        return going, removal

    async def _end(
        self,
        transaction: Transaction,
        operation: Operation,
        state: OperationState,
        problem: Problem | None,
        written: tuple[Object, ...],
    ) -> bool:
        self.progress.discard(operation.uid)
        now = self.clock.now()
        done = ended(Ending(operation, state, problem), now, (), now)
        if write_end(transaction, self.cache, done):
            transaction.event(ended_event(operation, state, problem, "TemplateRefreshed", now))
            await self._commit(transaction, *written, done)
        return True

    async def _commit(self, transaction: Transaction, *written: Object) -> None:
        revision = (await transaction.commit()).revision
        for value in written:
            self.cache.put(value.model_copy(update={"revision": revision}))

    def _say(self, operation: Operation, phase: str) -> None:
        if operation.status.phase != phase:
            self.progress.show(operation, Shown(phase, self.clock.now()))


def is_settled(vm: Vm) -> bool:
    """Its guest has booted: it answers, and what is to be done at a first boot is done."""
    booted = vm.status.state is VmState.RUNNING and vm.status.agent_connected
    return booted and (vm.spec.cloud_init is None or vm.status.cloud_init in FINAL)


def forks_under_way(cache: Cache, template_uid: str) -> bool:
    intents = (operation.spec.intent for operation in cache.all_unfinished())
    return any(isinstance(intent, CreateVm) and intent.fork_of == template_uid for intent in intents)


def _seen(vm: Vm) -> str:
    if vm.status.state is not VmState.RUNNING:
        return f"it is {vm.status.state.value}"
    if not vm.status.agent_connected:
        return "its agent does not answer"
    return f"cloud-init is {vm.status.cloud_init.value}"
