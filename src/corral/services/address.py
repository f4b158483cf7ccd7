"""Floating addresses: taken from the network of a router's uplink, and led to one VM after the other."""

from corral.errors import CorralError
from corral.model.address import AddressSpec, FloatingAddress
from corral.model.network import Network
from corral.model.requests import ListRequest
from corral.model.router import Router
from corral.model.router_requests import AssignAddressRequest, CreateAddressRequest
from corral.model.vm import Vm
from corral.names import new_uid, parse_name
from corral.network.paths import address_behind
from corral.services import listing
from corral.services.access import audited, authorize, commit
from corral.services.caller import Caller
from corral.services.changes import ATTEMPTS_MAX
from corral.services.context import Context
from corral.services.documents import Document, Listing
from corral.services.nics import Allocated
from corral.store.objects import claim_key


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
            parse_name(request.name, "address name")
            for _ in range(ATTEMPTS_MAX):
                if await context.objects.find(FloatingAddress, project, request.name) is not None:
                    raise CorralError("name-taken", asked, "there is an address of this name", "choose another name")
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
                    transaction.require(router)  # with its uplink the address would have no place
                    detail = f"{address.spec.address} on {router.name}"
                    try:
                        done = await commit(context, transaction, caller, project, action, request.name, detail)
                    except CorralError as error:
                        if error.code != "precondition-failed":
                            raise
                        continue
                    allocated.keep()
                    return address.model_copy(update={"revision": done.revision})
        raise CorralError("precondition-failed", asked, f"others were first {ATTEMPTS_MAX} times", "try again")

    async def assign(self, caller: Caller, project: str, name: str, request: AssignAddressRequest) -> FloatingAddress:
        """Its connections to the VM before end."""
        context, action, asked = (
            self._context,
            "address.assign",
            f"lead address {name[:64]!r} to {request.vm or 'nobody'}",
        )
        await authorize(context, caller, project, action, name)
        async with audited(context, caller, project, action, name):
            for _ in range(ATTEMPTS_MAX):
                address = await context.objects.require(FloatingAddress, project, name)
                router = await context.objects.get(Router, address.spec.router_uid)
                vm = await self._vm(project, request.vm, router, asked)
                update = {"vm": vm.name, "vm_uid": vm.uid} if vm is not None else {"vm": None, "vm_uid": None}
                spec = address.spec.model_copy(update=update)
                changed = address.model_copy(update={"spec": spec, "generation": address.generation + 1})
                transaction = context.objects.transaction()
                transaction.update(changed)
                try:
                    done = await commit(context, transaction, caller, project, action, name, request.vm or "")
                except CorralError as error:
                    if error.code != "precondition-failed":
                        raise
                    continue
                return changed.model_copy(update={"revision": done.revision})
        raise CorralError("precondition-failed", asked, f"others were first {ATTEMPTS_MAX} times", "try again")

    async def delete(self, caller: Caller, project: str, name: str) -> None:
        context, action = self._context, "address.delete"
        await authorize(context, caller, project, action, name)
        async with audited(context, caller, project, action, name):
            address = await context.objects.require(FloatingAddress, project, name)
            router = await context.objects.get(Router, address.spec.router_uid)
            transaction = context.objects.transaction()
            transaction.delete(address)
            if router is not None and router.spec.uplink_port is not None:
                network_uid = router.spec.uplink_port.network_uid
                transaction.release(claim_key("address", network_uid, address.spec.address))
            await commit(context, transaction, caller, project, action, name)

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
