"""Stacks: what it would take to make what a document says, to remove it, and the document that says what is.

Nothing is made here. A plan is made of requests of the other routes, which a client sends; each of them decides again.
"""

import asyncio
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace

from corral.errors import CorralError
from corral.model.network import Network
from corral.model.network_policy import NetworkPolicy
from corral.model.operation import Operation
from corral.model.requests import CreateVmRequest, WaitCondition
from corral.model.security_group import SecurityGroup
from corral.model.stack import STACK_LABEL
from corral.model.stack_plan import (
    ExportStackRequest,
    PlanDownRequest,
    PlanStackRequest,
    StackAction,
    StackBlock,
    StackExport,
    StackPlan,
    StackVerb,
)
from corral.model.vm import Power, Vm
from corral.model.volume import Volume
from corral.names import parse_name
from corral.scheduler.admission import NOTHING, Capacity, Demand, admit, demand_of_vm, further_demand
from corral.services import rules
from corral.services.access import authorize
from corral.services.caller import Caller
from corral.services.changes import client_claim
from corral.services.context import Context
from corral.services.creation import PlannedVm, admit_disks, authorize_host, plan_vm
from corral.services.domain_name import check_domain_name_free
from corral.services.nics import find_network
from corral.services.os import warnings_of
from corral.services.stack_actions import Sketch, Target
from corral.services.stack_diff import compare
from corral.services.stack_document import Stack, Trouble, Wish, read_stack, refuse
from corral.services.stack_entrances import declared_entrances
from corral.services.stack_export import export_stack
from corral.services.stack_groups import declared_groups, sketch_groups, sketch_groups_gone
from corral.services.stack_networks import NETWORKS_HINT, check_cards, declared_networks
from corral.services.stack_policies import declared_policies, sketch_policies, sketch_policies_gone
from corral.services.stack_routers import declared_routing, sketch_routers, sketch_routing_gone, sketch_ways_in
from corral.services.stack_state import (
    ImageNeed,
    find_image,
    find_members,
    find_of_stack,
    find_unfinished,
    is_settled,
    read_there,
)
from corral.services.stack_volumes import Needs, declared_volumes, volumes_for


class StackService:
    def __init__(self, context: Context) -> None:
        self._context = context

    async def plan(self, caller: Caller, project: str, request: PlanStackRequest) -> StackPlan:
        """What is to be done. Everything that would be refused later and can be known now is refused."""
        context = self._context
        await authorize(context, caller, project, "vm.create", "stack")
        stack = await asyncio.to_thread(read_stack, request.document, request.variables)
        asked = f"plan stack {stack.name!r}"
        members = await find_members(context, project, stack.name)
        troubles: list[Trouble] = []
        images = await self._images(caller, project, stack, troubles)
        volumes = await declared_volumes(context, caller, project, stack, troubles)
        networks = await declared_networks(context, caller, project, stack, troubles)
        groups = await declared_groups(context, caller, project, stack, troubles)
        routing = await declared_routing(context, caller, project, stack, troubles)
        policies = await declared_policies(context, caller, project, stack, troubles)
        entrances = await declared_entrances(context, caller, project, stack, troubles)
        needs = Needs(images, volumes, networks)
        targets = await self._targets(caller, project, stack, request, needs, troubles)
        refuse(asked, troubles)
        targets = _replaced(stack, targets, request.replace)
        wanted = {wish.name for wish in stack.vms}
        orphans = [vm for vm in members.values() if vm.name not in wanted]
        leaving = orphans if request.prune else [vm for vm in orphans if vm.being_deleted]
        going = [*leaving, *(one.vm for one in targets if one.vm is not None and one.is_new)]
        tight = await self._admit(targets, going, asked)
        sketch = Sketch(await self._under_way(targets, needs, going))
        for need in images.values():
            sketch.image(need)
        for network in networks.values():
            sketch.network(network)
        sketch_routers(sketch, routing)
        sketch_groups(sketch, groups)
        sketch_policies(sketch, policies, prune=request.prune)
        for volume in volumes.values():
            sketch.volume(volume)
        self._leave(sketch, going)
        room = [one.id for one in sketch.actions if one.verb is StackVerb.DELETE] if tight else []
        for target in targets:
            sketch.vm(target, images, room)
            if request.delete_disks:
                sketch.free(target.wish.name, target.difference.freed)
            sketch.blocked += _blocks(target)
        sketch_ways_in(sketch, routing, entrances, prune=request.prune)
        return StackPlan(
            stack=stack.name,
            actions=await self._keyed(caller, project, sketch),
            unchanged=tuple(sketch.unchanged),
            blocked=tuple(sketch.blocked),
            orphans=() if request.prune else tuple(vm.name for vm in orphans if not vm.being_deleted),
            warnings=tuple(_warnings(targets)),
        )

    async def plan_down(self, caller: Caller, project: str, request: PlanDownRequest) -> StackPlan:
        """Delete what is in the stack, those first that others do not wait for. With its disks kept, each is asked to
        shut down before."""
        context = self._context
        await authorize(context, caller, project, "vm.delete", request.stack)
        members = await find_members(context, project, request.stack)
        order: list[Vm] = list(members.values())
        followers: dict[str, list[str]] = {}
        if request.document is not None:
            stack = await asyncio.to_thread(read_stack, request.document, request.variables)
            for wish in stack.vms:
                for other in wish.after:
                    followers.setdefault(other, []).append(wish.name)
            ranks = {wish.name: rank for rank, wish in enumerate(reversed(stack.vms))}
            order.sort(key=lambda vm: ranks.get(vm.name, -1))
        sketch = Sketch(await find_unfinished(context, [vm.uid for vm in order if vm.being_deleted]))
        query = {"keep_disks": "true"} if request.keep_disks else {}
        for vm in order:
            after = [sketch.last[f"vm/{name}"] for name in followers.get(vm.name, ()) if f"vm/{name}" in sketch.last]
            if vm.spec.protected:
                sketch.blocked.append(_protected(vm))
            if request.keep_disks and not vm.being_deleted and vm.status.seen_state in rules.HAS_MEMORY:
                _ask_to_stop(sketch, vm, after)
            sketch.gone(
                vm, query=query, why=("its disks stay",) if request.keep_disks else ("with its disks",), after=after
            )
        kept = {nic.network_uid for vm in order if vm.spec.protected for nic in vm.spec.nics}
        if not kept:
            sketch_policies_gone(sketch, await find_of_stack(context, NetworkPolicy, project, request.stack))
            await sketch_routing_gone(context, project, request.stack, sketch)
        for network in await find_of_stack(context, Network, project, request.stack):
            if network.uid not in kept:
                sketch.network_gone(network.name, after=tuple(sketch.last.values()))
        worn = {name for vm in order if vm.spec.protected for nic in vm.spec.nics for name in nic.groups}
        groups = [] if worn else await find_of_stack(context, SecurityGroup, project, request.stack)
        sketch_groups_gone(sketch, groups)
        actions = await self._keyed(caller, project, sketch)
        stays = [volume.name for volume in await find_of_stack(context, Volume, project, request.stack)]
        warnings = (f"its volumes stay: corral volume delete {' '.join(stays)}",) if stays else ()
        return StackPlan(stack=request.stack, actions=actions, blocked=tuple(sketch.blocked), warnings=warnings)

    async def export(self, caller: Caller, project: str, request: ExportStackRequest) -> StackExport:
        """The document of the VMs named, or selected; applied to them as a stack of that name, it changes nothing."""
        await authorize(self._context, caller, project, "vm.read", request.stack)
        return await export_stack(self._context, project, request)

    # ---- what is there, and what it would become ---------------------------------------------------------------

    async def _images(
        self, caller: Caller, project: str, stack: Stack, troubles: list[Trouble]
    ) -> dict[str, ImageNeed]:
        found: dict[str, ImageNeed] = {}
        for name in dict.fromkeys(stack.images):
            try:
                found[name] = await find_image(self._context, project, name)
            except CorralError as error:
                troubles.append(Trouble("images", error))
        if any(need.unmade is not None for need in found.values()):
            await authorize(self._context, caller, project, "image.build", stack.name)
        for name in stack.networks:
            try:
                await find_network(self._context, project, name)
            except CorralError as error:
                troubles.append(Trouble("networks", replace(error, hint=NETWORKS_HINT)))
        return found

    async def _targets(
        self,
        caller: Caller,
        project: str,
        stack: Stack,
        request: PlanStackRequest,
        needs: Needs,
        troubles: list[Trouble],
    ) -> list[Target]:
        found: list[Target] = []
        for wish in stack.vms:
            await asyncio.sleep(0)  # many VMs take a while, and others want an answer too
            try:
                found.append(await self._target(caller, project, stack, wish, request.ssh_keys, needs))
            except CorralError as error:
                if error.code == "forbidden":  # written down already; the other VMs would only repeat it
                    raise
                troubles.append(Trouble(wish.place, error))
        return found

    async def _target(
        self,
        caller: Caller,
        project: str,
        stack: Stack,
        wish: Wish,
        ssh_keys: tuple[str, ...],
        needs: Needs,
    ) -> Target:
        context, asked, request = self._context, f"VM {wish.name!r}", wish.request
        parse_name(wish.name)
        rules.check_system_hypervisor(context.settings, wish.name)
        await authorize_host(context, caller, request)
        if ssh_keys and request.image and not wish.names("ssh_keys"):
            request = request.model_copy(update={"ssh_keys": ssh_keys})
        vm = await context.objects.find(Vm, project, wish.name)
        if vm is not None and vm.labels.get(STACK_LABEL) != stack.name:
            raise _foreign(vm, stack.name)
        if vm is None:
            await check_domain_name_free(context, project, wish.name, asked)
        volumes = await volumes_for(context, project, wish, vm, needs.volumes)
        planned = await self._planned(project, wish, request, needs.images.get(request.image or ""), volumes)
        await check_cards(context, project, planned, vm, needs.networks)
        if vm is None or vm.being_deleted:
            await admit_disks(context, planned)
            return Target(wish, request, planned, vm)
        return Target(wish, request, planned, vm, compare(wish, planned, await read_there(context, vm)))

    async def _planned(
        self,
        project: str,
        wish: Wish,
        request: CreateVmRequest,
        need: ImageNeed | None,
        volumes: Mapping[str, Volume],
    ) -> PlannedVm:
        asked = f"VM {wish.name!r}"
        unmade = None if need is None else need.unmade
        try:
            planned = await plan_vm(self._context, project, request, asked, unmade, volumes)
        except CorralError as error:
            if error.code == "image-not-found" and error.asked == f"image {request.image!r}":
                raise replace(error, hint=f"name it under `images:` to have it built, or {error.hint}") from error
            raise
        admit(planned.demand, NOTHING, planned.capacity, asked)  # more than the host has
        return planned

    async def _admit(self, targets: Sequence[Target], going: Sequence[Vm], asked: str) -> bool:
        """All of it together fits. True: only once those that go are gone."""
        wanted = sum((_further(target) for target in targets), NOTHING)
        if wanted == NOTHING:
            return False
        capacity, committed = await self._context.capacity(), self._context.ledger.committed
        freed = sum((demand_of_vm(vm) for vm in going), NOTHING)
        if freed != NOTHING and not _fits(wanted, committed, capacity):
            admit(wanted, committed - freed, capacity, asked)
            return True
        admit(wanted, committed, capacity, asked)
        return False

    async def _under_way(self, targets: Sequence[Target], needs: Needs, going: Sequence[Vm]) -> dict[str, str]:
        vms = [*going, *(target.vm for target in targets if target.vm is not None)]
        unmade = [
            need.there.uid for need in needs.images.values() if need.there is not None and need.unmade is not None
        ]
        unmade += [need.there.uid for need in needs.volumes.values() if need.there is not None]
        return await find_unfinished(self._context, [*unmade, *(vm.uid for vm in vms if not is_settled(vm))])

    # ---- the plan ----------------------------------------------------------------------------------------------

    @staticmethod
    def _leave(sketch: Sketch, going: Sequence[Vm]) -> None:
        for vm in going:
            if vm.spec.protected and not vm.being_deleted:
                sketch.blocked.append(_protected(vm))
            else:
                sketch.gone(vm, query={}, why=("with its disks",))

    async def _keyed(self, caller: Caller, project: str, sketch: Sketch) -> tuple[StackAction, ...]:
        return tuple(
            [
                action.model_copy(update={"key": await self._key(caller, project, action, sketch.basis[action.id])})
                if action.method
                else action
                for action in sketch.actions
            ]
        )

    async def _key(self, caller: Caller, project: str, action: StackAction, basis: str) -> str:
        """The Idempotency-Key of an action: the same for whoever plans the same on the same state, so that two applies
        at once, or one that was killed and begun again, ask once. One that was used up is followed by another."""
        wish = [project, action.id, action.method, action.path, action.query, action.body, basis]
        key = f"stack-{hashlib.sha256(json.dumps(wish, sort_keys=True).encode()).hexdigest()[:40]}"
        while True:
            uid = await self._context.objects.owner(client_claim(replace(caller, client_key=key)))
            operation = None if uid is None else await self._context.objects.get(Operation, uid)
            if uid is None or (operation is not None and not operation.status.state.final):
                return key
            key = f"stack-{hashlib.sha256(f'{key}/{uid}'.encode()).hexdigest()[:40]}"


def _replaced(stack: Stack, targets: Sequence[Target], names: Sequence[str]) -> list[Target]:
    """Those that may be made anew, and have to be, are."""
    known = {wish.name for wish in stack.vms} | {wish.place.removeprefix("vms.") for wish in stack.vms}
    for name in names:
        if name not in known:
            raise CorralError(
                "invalid-argument",
                f"--replace {name}",
                "the stack has no such VM",
                f"its VMs: {', '.join(sorted(known))}",
            )
    return [
        replace(one, replaced=True)
        if one.difference.fixed and {one.wish.name, one.wish.place.removeprefix("vms.")} & set(names)
        else one
        for one in targets
    ]


def _blocks(target: Target) -> list[StackBlock]:
    """Why it cannot become what the document says."""
    wish, vm, difference = target.wish, target.vm, target.difference
    if vm is None or target.is_new:
        return []
    if difference.fixed:
        reason = "it cannot be changed in place"
        hint = f"--replace {wish.name} deletes it with its disks and makes it anew"
        return [StackBlock(name=wish.name, changes=tuple(difference.fixed), reason=reason, hint=hint)]
    if any(draft.machine for draft in difference.drafts):
        try:
            rules.check_devices(vm, "change")
        except CorralError as error:
            lines = tuple(line for draft in difference.drafts for line in draft.changes)
            return [StackBlock(name=wish.name, changes=lines, reason=error.reason, hint=error.hint)]
    return []


def _protected(vm: Vm) -> StackBlock:
    hint = f"corral unprotect {vm.name}, then try again"
    return StackBlock(name=vm.name, changes=("deleted",), reason="it is protected", hint=hint)


def _foreign(vm: Vm, stack: str) -> CorralError:
    other = vm.labels.get(STACK_LABEL)
    reason = (
        f"the stack {other!r} has a VM of this name" if other else "there is a VM of this name, and it is in no stack"
    )
    take_in = f"choose another name, or take it in: corral tag {vm.name} {STACK_LABEL}={stack}"
    return CorralError("name-taken", f"VM {vm.name!r}", reason, take_in)


def _ask_to_stop(sketch: Sketch, vm: Vm, after: Sequence[str]) -> None:
    deadline_s = vm.spec.boot.shutdown_deadline_s
    body = {"deadline_s": deadline_s, "force_after_s": deadline_s}
    path, basis = f"/vms/{vm.name}/actions/shutdown", f"{vm.uid}:{vm.generation}"
    sketch.add("vm", vm.name, StackVerb.SHUTDOWN, (), path=path, body=body, after=after, basis=basis)


def _further(target: Target) -> Demand:
    """What it takes beyond what it takes now."""
    planned, vm = target.planned, target.vm
    if vm is None or target.is_new:
        return planned.demand if planned.request.start else NOTHING
    starts = any(draft.verb is StackVerb.START for draft in target.difference.drafts)
    power = Power.ON if starts else vm.spec.power
    takes = {knob: getattr(planned.spec, knob) for knob in ("vcpus", "memory_mib", "hardware")}
    spec = vm.spec.model_copy(update={"power": power, **takes})
    return further_demand(vm, vm.model_copy(update={"spec": spec}))


def _fits(wanted: Demand, committed: Demand, capacity: Capacity) -> bool:
    try:
        admit(wanted, committed, capacity, "")
    except CorralError:
        return False
    return True


def _warnings(targets: Sequence[Target]) -> list[str]:
    """What the user of new VMs should know, and who waits for what may never come."""
    found = [
        f"{one.wish.name}: {text}"
        for one in targets
        if one.is_new
        for text in warnings_of(one.planned.spec, one.planned.system)
    ]
    images = {one.wish.name: one.planned.image for one in targets}
    for one in targets:
        for other, condition in one.wish.after.items() if one.is_new else ():
            facts = image.status.facts if (image := images[other]) is not None else None
            if condition is WaitCondition.SSH and facts is not None and not facts.ssh:
                found.append(f"{one.wish.name} waits for SSH in {other}, whose image has no server for it")
    return found
