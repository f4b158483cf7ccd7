"""Port forwards: ports of the host's that lead to VMs and balancers."""

import asyncio

from corral.errors import CorralError
from corral.model.balancer import Balancer
from corral.model.forward import Forward, ForwardSpec
from corral.model.network import Network
from corral.model.requests import ListRequest
from corral.model.router import Router
from corral.model.router_requests import CreateForwardRequest
from corral.model.vm import Vm
from corral.names import new_uid
from corral.network import host_ports
from corral.network.paths import path_to
from corral.services import listing
from corral.services.access import audited, authorize, try_commit
from corral.services.caller import Caller
from corral.services.changes import Mutation, change_at_once
from corral.services.context import Context
from corral.services.documents import Document, Listing
from corral.store.objects import Transaction, host_port_claim


class ForwardService:
    def __init__(self, context: Context) -> None:
        self._context = context

    async def list(self, caller: Caller, project: str, request: ListRequest) -> Listing:
        return await listing.list_objects(self._context, caller, project, Forward, request)

    async def get(self, caller: Caller, project: str, name: str) -> Document:
        return await listing.get_object(self._context, caller, project, Forward, name)

    async def create(self, caller: Caller, project: str, request: CreateForwardRequest) -> Forward:
        context, action = self._context, "forward.create"
        name = f"{request.protocol}-{request.host_port}"
        asked = f"forward port {request.host_port}/{request.protocol}"
        await authorize(context, caller, project, action, name)
        async with audited(context, caller, project, action, name):
            spec = await self._spec(project, request, asked)
            if await asyncio.to_thread(host_ports.in_use, request.protocol, request.host_port):
                reason = "something on the host itself listens at it, and would not be reached any more"
                raise CorralError("address-taken", asked, reason, "choose another port of the host's")
            forward = Forward(
                project=project,
                name=name,
                uid=new_uid(),
                created_at=context.clock.now(),
                labels=request.labels,
                spec=spec,
            )
            transaction = context.objects.transaction()
            transaction.create(forward)
            transaction.claim(host_port_claim(forward.spec.protocol, forward.spec.host_port), forward.uid)
            led = spec.vm or spec.balancer or ""
            revision = await try_commit(context, transaction, caller, project, action, name, led)
            if revision is None:
                raise CorralError("address-taken", asked, "it is forwarded already", "corral forward list")
        await context.followers.until(revision, asked)
        return forward.model_copy(update={"revision": revision})

    async def delete(self, caller: Caller, project: str, name: str) -> None:
        """Connections that pass it go on until they end."""

        async def draft(transaction: Transaction) -> Forward:
            forward = await self._context.objects.require(Forward, project, name)
            transaction.delete(forward)
            transaction.release(host_port_claim(forward.spec.protocol, forward.spec.host_port))
            return forward

        await change_at_once(self._context, Mutation(caller, project, "forward.delete", name), draft)

    async def _spec(self, project: str, request: CreateForwardRequest, asked: str) -> ForwardSpec:
        objects, given = self._context.objects, {"protocol": request.protocol, "host_port": request.host_port}
        if (request.vm is None) == (request.balancer is None):
            raise CorralError(
                "invalid-argument", asked, "it leads to one VM, or to one balancer", "name one of the two"
            )
        if request.balancer is not None:
            balancer = await objects.require(Balancer, project, request.balancer)
            router = await objects.get(Router, balancer.spec.router_uid)
            if router is None or router.spec.uplink_port is None:
                reason = f"router {balancer.spec.router!r} has no uplink"
                raise CorralError(
                    "invalid-argument", asked, reason, f"corral router set {balancer.spec.router} --uplink nat"
                )
            if request.protocol != "tcp" or request.port not in (None, balancer.spec.listen):
                reason = f"balancer {balancer.name!r} listens on TCP port {balancer.spec.listen}"
                raise CorralError("invalid-argument", asked, reason, "leave its port out")
            return ForwardSpec.model_validate(
                {**given, "balancer": balancer.name, "balancer_uid": balancer.uid, "port": balancer.spec.listen}
            )
        vm = await objects.require(Vm, project, str(request.vm))
        networks = {network.uid: network for network in await objects.list(Network)}
        routers = await listing.read_objects(self._context, Router, project)
        if path_to(vm, networks, routers) is None:
            reason = f"{vm.name} has no card on a network of mode nat or routed, and is behind no router with an uplink"
            raise CorralError("invalid-argument", asked, reason, "corral router create, or corral nic add")
        port = request.port or request.host_port
        return ForwardSpec.model_validate({**given, "vm": vm.name, "vm_uid": vm.uid, "port": port})
