"""Load balancers on routers: which VMs serve, and how it is found out that one does not."""

from collections.abc import Sequence

from corral.errors import CorralError
from corral.model.balancer import Balancer, BalancerSpec, BalancerTarget
from corral.model.forward import Forward
from corral.model.requests import ListRequest
from corral.model.router import Router
from corral.model.router_requests import CreateBalancerRequest, UpdateBalancerRequest
from corral.model.vm import Vm
from corral.names import new_uid
from corral.network.paths import address_behind
from corral.services import listing
from corral.services.caller import Caller
from corral.services.changes import Mutation, change_at_once, check_name
from corral.services.context import Context
from corral.services.documents import Document, Listing
from corral.store.objects import Transaction, claim_key


def listen_claim(spec: BalancerSpec) -> str:
    return claim_key("listen", spec.router_uid, str(spec.listen))


class BalancerService:
    def __init__(self, context: Context) -> None:
        self._context = context

    async def list(self, caller: Caller, project: str, request: ListRequest) -> Listing:
        return await listing.list_objects(self._context, caller, project, Balancer, request)

    async def get(self, caller: Caller, project: str, name: str) -> Document:
        return await listing.get_object(self._context, caller, project, Balancer, name)

    async def create(self, caller: Caller, project: str, request: CreateBalancerRequest) -> Balancer:
        context, name, asked = self._context, request.name, f"make balancer {request.name[:64]!r}"

        async def draft(transaction: Transaction) -> Balancer:
            await check_name(context, Balancer, project, name, asked)
            vms = await self._vms(project, request.targets, asked)
            router = await self._router(project, request.router, vms, asked)
            spec = BalancerSpec(
                router=router.name,
                router_uid=router.uid,
                listen=request.listen,
                port=request.port or request.listen,
                mode=request.mode,
                algorithm=request.algorithm,
                targets=_targets(vms),
                check=request.check,
            )
            if await context.objects.owner(listen_claim(spec)) is not None:
                reason = f"another balancer of router {router.name!r} listens on {request.listen}"
                raise CorralError("address-taken", asked, reason, "choose another port")
            balancer = Balancer(
                project=project,
                name=name,
                uid=new_uid(),
                created_at=context.clock.now(),
                labels=request.labels,
                spec=spec,
            )
            transaction.create(balancer)
            transaction.claim(listen_claim(spec), balancer.uid)
            transaction.update(router)  # as it is: who takes it away meanwhile looks again
            return balancer

        mutation = Mutation(caller, project, "balancer.create", name)
        return await change_at_once(context, mutation, draft, lambda made: made.spec.router)

    async def update(self, caller: Caller, project: str, name: str, request: UpdateBalancerRequest) -> Balancer:
        """Connections go on: what is new takes over from what was."""
        context, asked = self._context, f"change balancer {name[:64]!r}"

        async def draft(transaction: Transaction) -> Balancer:
            balancer = await context.objects.require(Balancer, project, name)
            given = request.model_dump(exclude_none=True, exclude={"targets"})
            if request.targets is not None:
                vms = await self._vms(project, request.targets, asked)
                await self._router(project, balancer.spec.router, vms, asked)
                given["targets"] = _targets(vms)
            spec = BalancerSpec.model_validate({**dict(balancer.spec), **given})
            changed = balancer.model_copy(update={"spec": spec, "generation": balancer.generation + 1})
            transaction.update(changed)
            return changed

        return await change_at_once(context, Mutation(caller, project, "balancer.update", name), draft)

    async def delete(self, caller: Caller, project: str, name: str) -> None:
        context, asked = self._context, f"delete balancer {name[:64]!r}"

        async def draft(transaction: Transaction) -> Balancer:
            balancer = await context.objects.require(Balancer, project, name)
            forwards = [one for one in await context.objects.list(Forward) if one.spec.balancer_uid == balancer.uid]
            if forwards:
                reason = f"forward {forwards[0].name} leads to it"
                raise CorralError("balancer-in-use", asked, reason, "corral forward remove")
            transaction.delete(balancer)
            transaction.release(listen_claim(balancer.spec))
            return balancer

        await change_at_once(context, Mutation(caller, project, "balancer.delete", name), draft)

    async def _vms(self, project: str, names: Sequence[str], asked: str) -> tuple[Vm, ...]:
        if not names:
            raise CorralError("invalid-argument", asked, "it leads to nobody", "--to web-1,web-2")
        return tuple([await self._context.objects.require(Vm, project, name) for name in dict.fromkeys(names)])

    async def _router(self, project: str, name: str | None, vms: Sequence[Vm], asked: str) -> Router:
        """The one that is named, or the only one that reaches all of them."""
        objects = self._context.objects
        if name is not None:
            routers = [await objects.require(Router, project, name)]
        else:
            routers = await listing.read_objects(self._context, Router, project)
        fitting = [one for one in routers if not one.being_deleted and all(address_behind(vm, one) for vm in vms)]
        if len(fitting) == 1:
            return fitting[0]
        if not fitting:
            reason = (
                "no router joins networks of all these VMs"
                if name is None
                else f"router {name!r} does not reach them all"
            )
            raise CorralError("invalid-argument", asked, reason, "corral router create NAME --connect …")
        reason = f"several routers could: {', '.join(sorted(one.name for one in fitting))}"
        raise CorralError("invalid-argument", asked, reason, "--router NAME")


def _targets(vms: Sequence[Vm]) -> tuple[BalancerTarget, ...]:
    return tuple(BalancerTarget(vm=vm.name, vm_uid=vm.uid) for vm in vms)
