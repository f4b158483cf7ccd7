"""Virtual machines: the verbs that change them. Each writes a wish; the agent makes it so."""

from collections.abc import Callable

from corral.errors import CorralError
from corral.hypervisor.hardware_rules import check_hardware
from corral.hypervisor.support import HardwareSupport
from corral.model.answers import DriftAnswer, WaitAnswer
from corral.model.base import DEFAULT_PROJECT
from corral.model.network import Network
from corral.model.operation import (
    DeleteVm,
    DestroyVm,
    Intent,
    Operation,
    PauseVm,
    RebootVm,
    ResetVm,
    ResumeVm,
    SaveVm,
    ShutdownVm,
    StartVm,
    UpdateVm,
)
from corral.model.requests import (
    CreateVmRequest,
    ListRequest,
    RebootRequest,
    ShutdownRequest,
    StartRequest,
    UpdateVmRequest,
    WaitCondition,
)
from corral.model.vm import Power, Vm
from corral.model.volume import Volume
from corral.names import parse_name
from corral.scheduler.admission import further_demand
from corral.services import listing, rules
from corral.services.acceptance import accept_drift
from corral.services.access import audited, authorize
from corral.services.caller import Caller
from corral.services.changes import Decision, Mutation, change
from corral.services.context import Context
from corral.services.creation import create_vm
from corral.services.documents import Document, Listing, without_vm_secrets
from corral.services.domain_name import check_domain_name_free
from corral.services.drift import find_drift
from corral.services.hardware import read_support
from corral.services.nics import check_host_name
from corral.services.update import changes_machine, takes_from_host, updated
from corral.services.waiting import wait_for
from corral.storage.room import has_room
from corral.store.objects import Transaction, name_claim


class VmService:
    """Everything that a caller may ask of VMs, but for the sessions of `services/session.py`."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def list(self, caller: Caller, project: str, request: ListRequest) -> Listing:
        return await listing.list_objects(self._context, caller, project, Vm, request)

    async def get(self, caller: Caller, project: str, name: str) -> Document:
        return await listing.get_object(self._context, caller, project, Vm, name)

    async def drift(self, caller: Caller, project: str, name: str) -> DriftAnswer:
        """What other tools changed of its definition."""
        return await find_drift(self._context, caller, project, name)

    async def wait(
        self, caller: Caller, project: str, name: str, condition: WaitCondition, timeout_s: float
    ) -> WaitAnswer:
        """Return when `condition` holds; `wait-timeout` says what was seen instead."""
        return await wait_for(self._context, caller, project, name, condition, timeout_s)

    async def create(self, caller: Caller, project: str, request: CreateVmRequest) -> tuple[Vm | None, Operation]:
        """A new VM. The VM is None for a repeated request whose VM is gone."""
        vm, operation = await create_vm(self._context, caller, project, request)
        return (None if vm is None else without_vm_secrets(vm)), operation

    async def start(
        self,
        caller: Caller,
        project: str,
        name: str,
        request: StartRequest | None = None,
        *,
        if_revision: int | None = None,
    ) -> Operation:
        """A saved VM goes on where it was."""
        boot_from = request.boot_from if request is not None else None

        def check(vm: Vm) -> None:
            rules.check_start(vm)
            rules.check_boot_from(vm, boot_from)

        intent = StartVm(boot_from=boot_from or "")
        return await self._power(caller, project, name, intent, Power.ON, check, if_revision)

    async def shutdown(
        self, caller: Caller, project: str, name: str, request: ShutdownRequest, *, if_revision: int | None = None
    ) -> Operation:
        """Ask the guest; never forced unless the request says after how long."""
        intent = ShutdownVm(deadline_s=request.deadline_s, force_after_s=request.force_after_s)
        return await self._power(caller, project, name, intent, Power.OFF, rules.check_shutdown, if_revision)

    async def destroy(self, caller: Caller, project: str, name: str, *, if_revision: int | None = None) -> Operation:
        return await self._power(caller, project, name, DestroyVm(), Power.OFF, rules.check_destroy, if_revision)

    async def save(self, caller: Caller, project: str, name: str, *, if_revision: int | None = None) -> Operation:
        return await self._power(caller, project, name, SaveVm(), Power.OFF, rules.check_save, if_revision)

    async def pause(self, caller: Caller, project: str, name: str, *, if_revision: int | None = None) -> Operation:
        return await self._power(caller, project, name, PauseVm(), Power.PAUSED, rules.check_pause, if_revision)

    async def resume(self, caller: Caller, project: str, name: str, *, if_revision: int | None = None) -> Operation:
        """A guest that stands still for want of space is refused while there is none: it goes on by itself then."""
        await authorize(self._context, caller, project, "vm.resume", name)
        async with audited(self._context, caller, project, "vm.resume", name):
            await self._check_room(project, name)
        return await self._power(caller, project, name, ResumeVm(), Power.ON, rules.check_resume, if_revision)

    async def _check_room(self, project: str, name: str) -> None:
        vm = await self._context.objects.find(Vm, project, name)
        if vm is None or not rules.stands_still(vm):
            return
        volumes = {volume.uid: volume for volume in await self._context.objects.list(Volume)}
        if not await has_room(self._context.volumes, vm, volumes):
            reason = "its guest wrote to a disk that has no space, and there still is none"
            hint = "free space (corral pool list): it goes on by itself once there is some"
            raise CorralError("disk-full", f"resume VM {name!r}", reason, hint)

    async def reboot(
        self, caller: Caller, project: str, name: str, request: RebootRequest, *, if_revision: int | None = None
    ) -> Operation:
        intent = RebootVm(deadline_s=request.deadline_s)
        return await self._imperative(caller, project, name, intent, rules.check_reboot, if_revision)

    async def reset(self, caller: Caller, project: str, name: str, *, if_revision: int | None = None) -> Operation:
        return await self._imperative(caller, project, name, ResetVm(), rules.check_reset, if_revision)

    async def delete(
        self, caller: Caller, project: str, name: str, *, keep_disks: bool = False, if_revision: int | None = None
    ) -> Operation:
        """Ask for its removal; the name is free when the operation has succeeded."""
        intent = DeleteVm(keep_disks=keep_disks)

        def decide(vm: Vm) -> Decision:
            rules.check_delete(vm)
            asked_at = vm.deletion_requested_at or self._context.clock.now()
            return Decision(intent, vm.model_copy(update={"deletion_requested_at": asked_at}))

        return await self._changed(Mutation(caller, project, "vm.delete", name, intent, if_revision), decide)

    async def update(
        self, caller: Caller, project: str, name: str, request: UpdateVmRequest, *, if_revision: int | None = None
    ) -> Operation:
        """Change what the request names; a rename moves the name's claim in the same transaction."""
        if request.accept_drift:
            mutation = Mutation(caller, project, "vm.update", name, request, if_revision)
            return await accept_drift(self._context, mutation)
        asked = f"change VM {name!r}"
        new_name = None if request.name is None else parse_name(request.name)
        if new_name is not None:
            await self._check_new_name(caller, project, name, new_name)
        support = await self._support(caller, project, name, request)

        def decide(vm: Vm) -> Decision:
            rules.check_not_deleting(vm, "change")
            renamed = new_name is not None and new_name != vm.name
            if renamed:
                rules.check_rename(vm)
            changed = updated(vm, request, new_name, asked)
            if support is not None:
                rules.check_devices(vm, "change")
                check_hardware(asked, changed.spec, support)
            if request.reset_drift:
                rules.check_has_definition(vm)
            intent = UpdateVm(previous_name=vm.name if renamed else None, redefine=request.reset_drift)
            wanted = further_demand(vm, changed)
            if not renamed:
                return Decision(intent, changed, wanted)
            return Decision(intent, changed, wanted, also=_move_name(vm, changed), lost=_name_taken(changed))

        return await self._changed(Mutation(caller, project, "vm.update", name, request, if_revision), decide)

    async def _support(
        self, caller: Caller, project: str, name: str, request: UpdateVmRequest
    ) -> HardwareSupport | None:
        """What this host can do, if the request asks for other hardware."""
        if not changes_machine(request):
            return None
        await authorize(self._context, caller, project, "vm.update", name)
        if takes_from_host(request):
            await authorize(self._context, caller, DEFAULT_PROJECT, "host.use-path", name)
        if request.graphics_listen:
            await authorize(self._context, caller, DEFAULT_PROJECT, "host.open-port", name)
        return await read_support(self._context)

    async def _check_new_name(self, caller: Caller, project: str, name: str, new_name: str) -> None:
        """A domain of somebody else's is found before anything is written; a VM of ours is found by the name's claim."""
        objects = self._context.objects
        await authorize(self._context, caller, project, "vm.update", name)
        if await objects.owner(name_claim(Vm.KIND, project, new_name)) is None:
            own_uid = await objects.owner(name_claim(Vm.KIND, project, name)) or ""
            async with audited(self._context, caller, project, "vm.update", name):
                asked = f"rename VM {name!r} to {new_name!r}"
                vm = await objects.find(Vm, project, name)
                for uid in {nic.network_uid for nic in vm.spec.nics} if vm is not None else ():
                    if (network := await objects.get(Network, uid)) is not None:
                        check_host_name(network, new_name)
                await check_domain_name_free(self._context, project, new_name, asked, own_uid)

    async def _power(
        self,
        caller: Caller,
        project: str,
        name: str,
        intent: Intent,
        power: Power,
        check: Callable[[Vm], None],
        if_revision: int | None,
    ) -> Operation:
        def decide(vm: Vm) -> Decision:
            check(vm)
            changed = vm.model_copy(update={"spec": vm.spec.model_copy(update={"power": power})})
            return Decision(intent, changed, further_demand(vm, changed))

        return await self._changed(Mutation(caller, project, f"vm.{intent.verb}", name, intent, if_revision), decide)

    async def _imperative(
        self,
        caller: Caller,
        project: str,
        name: str,
        intent: Intent,
        check: Callable[[Vm], None],
        if_revision: int | None,
    ) -> Operation:
        def decide(vm: Vm) -> Decision:
            check(vm)
            return Decision(intent)

        return await self._changed(Mutation(caller, project, f"vm.{intent.verb}", name, intent, if_revision), decide)

    async def _changed(self, mutation: Mutation, decide: Callable[[Vm], Decision]) -> Operation:
        return (await change(self._context, mutation, Vm, decide))[1]


def _move_name(vm: Vm, changed: Vm) -> Callable[[Transaction], None]:
    def move(transaction: Transaction) -> None:
        transaction.release(name_claim(vm.KIND, vm.project, vm.name))
        transaction.claim(name_claim(vm.KIND, vm.project, changed.name), vm.uid)

    return move


def _name_taken(changed: Vm) -> Callable[[str], CorralError | None]:
    claim = name_claim(changed.KIND, changed.project, changed.name)

    def meaning(key: str) -> CorralError | None:
        if key != claim:
            return None
        return CorralError(
            "name-taken", f"rename to {changed.name!r}", "another VM has this name", "choose another name"
        )

    return meaning
