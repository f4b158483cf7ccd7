"""Floating addresses: taken from the network of a router's uplink, and led to one VM after the other."""

from corral.errors import CorralError
from corral.model.address import AddressSpec, FloatingAddress
from corral.model.network import Network
from corral.model.requests import ListRequest
from corral.model.router import Router
from corral.model.router_requests import AssignAddressRequest, CreateAddressRequest
from corral.model.vm import Vm
from corral.names import new_uid
from corral.network.paths import address_behind
from corral.services import listing
from corral.services.access import audited, authorize, try_commit
from corral.services.caller import Caller
from corral.services.changes import ATTEMPTS_MAX, Mutation, change_at_once, check_name, too_busy
from corral.services.context import Context
from corral.services.documents import Document, Listing
from corral.services.nics import Allocated
from corral.store.objects import Transaction, claim_key


class AddressService:
    def __init__(self, context: Context) -> None:
        self._context = context

    async def list(self, caller: Caller, project: str, request: ListRequest) -> Listing:
        return await listing.list_objects(self._context, caller, project, FloatingAddress, request)

    async def get(self, caller: Caller, project: str, name: str) -> Document:
        return await listing.get_object(self._context, caller, project, FloatingAddress, name)

    async def create(self, caller: Caller, project: str, request: CreateAddressRequest) -> FloatingAddress:
        context, action, asked = self._context, "address.create", f"make address {request.name[:64]!r}"
        await authorize(context, caller, project, action, request.name)
        async with audited(context, caller, project, action, request.name):
            address = await self._created(caller, project, request, asked)
        await context.followers.until(address.revision, asked)
        return address

    async def _created(
        self, caller: Caller, project: str, request: CreateAddressRequest, asked: str
    ) -> FloatingAddress:
        context, action = self._context, "address.create"
        for _ in range(ATTEMPTS_MAX):
            await check_name(context, FloatingAddress, project, request.name, asked)
            router = await context.objects.require(Router, project, request.router)
            vm = await self._vm(project, request.vm, router, asked)
            network = await self._outside(router, asked)
            with Allocated(context.ledger) as allocated:
                address = FloatingAddress(
                    project=project,
                    name=request.name,
                    uid=new_uid(),
                    created_at=context.clock.now(),
                    labels=request.labels,
                    spec=AddressSpec(
                        address=allocated.address(network, request.address),
                        router=router.name,
                        router_uid=router.uid,
                        vm=vm.name if vm is not None else None,
                        vm_uid=vm.uid if vm is not None else None,
                    ),
                )
                transaction = context.objects.transaction()
                transaction.create(address)
                transaction.claim(claim_key("address", network.uid, address.spec.address), address.uid)
                transaction.update(router)  # as it is: who takes it or its uplink away meanwhile looks again
                detail = f"{address.spec.address} on {router.name}"
                revision = await try_commit(context, transaction, caller, project, action, request.name, detail)
                if revision is not None:
                    allocated.keep()
                    return address.model_copy(update={"revision": revision})
        raise too_busy(Mutation(caller, project, action, request.name))

    async def assign(self, caller: Caller, project: str, name: str, request: AssignAddressRequest) -> FloatingAddress:
        """Its connections to the VM before end."""
        context, asked = self._context, f"lead address {name[:64]!r} to {request.vm or 'nobody'}"

        async def draft(transaction: Transaction) -> FloatingAddress:
            address = await context.objects.require(FloatingAddress, project, name)
            router = await context.objects.get(Router, address.spec.router_uid)
            vm = await self._vm(project, request.vm, router, asked)
            update = {"vm": vm.name, "vm_uid": vm.uid} if vm is not None else {"vm": None, "vm_uid": None}
            spec = address.spec.model_copy(update=update)
            changed = address.model_copy(update={"spec": spec, "generation": address.generation + 1})
            transaction.update(changed)
            return changed

        mutation = Mutation(caller, project, "address.assign", name)
        return await change_at_once(context, mutation, draft, lambda changed: changed.spec.vm or "")

    async def delete(self, caller: Caller, project: str, name: str) -> None:
        context = self._context

        async def draft(transaction: Transaction) -> FloatingAddress:
            address = await context.objects.require(FloatingAddress, project, name)
            router = await context.objects.get(Router, address.spec.router_uid)
            transaction.delete(address)
            if router is not None and router.spec.uplink_port is not None:
                network_uid = router.spec.uplink_port.network_uid
                transaction.release(claim_key("address", network_uid, address.spec.address))
            return address

        await change_at_once(context, Mutation(caller, project, "address.delete", name), draft)

    async def _vm(self, project: str, name: str | None, router: Router | None, asked: str) -> Vm | None:
        if name is None:
            return None
        vm = await self._context.objects.require(Vm, project, name)
        if router is None or address_behind(vm, router) is None:
            known = ", ".join(port.network for port in router.spec.ports) if router is not None else "none"
            reason = f"{name} has no card on a network of the address's router (it joins {known})"
            raise CorralError("invalid-argument", asked, reason, "corral nic add, or corral router set --connect")
        return vm

    async def _outside(self, router: Router, asked: str) -> Network:
        port = router.spec.uplink_port
        network = await self._context.objects.get(Network, port.network_uid) if port is not None else None
        if network is None or router.being_deleted:
            reason = f"router {router.name!r} has no uplink"
            raise CorralError("invalid-argument", asked, reason, f"corral router set {router.name} --uplink nat")
        return network
