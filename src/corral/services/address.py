"""Floating addresses: of the network of a router's uplink, or of the host's own, led to one VM after the other."""

from corral.errors import CorralError
from corral.model.address import AddressSpec, FloatingAddress
from corral.model.base import DEFAULT_PROJECT
from corral.model.network import Network
from corral.model.requests import ListRequest
from corral.model.router import Router
from corral.model.router_requests import AssignAddressRequest, CreateAddressRequest
from corral.model.vm import Vm
from corral.names import new_uid
from corral.network.paths import address_behind, path_to
from corral.services import listing
from corral.services.access import audited, authorize, try_commit
from corral.services.caller import Caller
from corral.services.changes import ATTEMPTS_MAX, Mutation, change_at_once, check_name, too_busy
from corral.services.context import Context
from corral.services.documents import Document, Listing
from corral.services.nics import Allocated
from corral.store.objects import Transaction, claim_key, host_address_claim


class AddressService:
    def __init__(self, context: Context) -> None:
        self._context = context

    async def list(self, caller: Caller, project: str, request: ListRequest) -> Listing:
        return await listing.list_objects(self._context, caller, project, FloatingAddress, request)

    async def get(self, caller: Caller, project: str, name: str) -> Document:
        return await listing.get_object(self._context, caller, project, FloatingAddress, name)

    async def create(self, caller: Caller, project: str, request: CreateAddressRequest) -> FloatingAddress:
        asked = f"make address {request.name[:64]!r}"
        mutation = Mutation(caller, project, "address.create", request.name)
        return await (self._on_host if request.router is None else self._on_router)(mutation, request, asked)

    async def _on_host(self, mutation: Mutation, request: CreateAddressRequest, asked: str) -> FloatingAddress:
        """One that the host has already, and is not its face. What listens there on the host is not reached any more."""
        context, project = self._context, mutation.project

        async def draft(transaction: Transaction) -> FloatingAddress:
            await authorize(context, mutation.caller, DEFAULT_PROJECT, "host.open-port", request.name)
            spare = await context.networks.spare_addresses()
            if request.address is None or request.address not in spare:
                reason = "without a router it is one of the host's own addresses, besides the first of an interface"
                hint = (
                    f"the host has: {', '.join(spare)}" if spare else "give the host another address first, or --router"
                )
                raise CorralError("invalid-argument", asked, reason, hint)
            await check_name(context, FloatingAddress, project, request.name, asked)
            claim = host_address_claim(request.address)
            if await context.objects.owner(claim) is not None:
                raise CorralError("address-taken", asked, "it leads somewhere already", "corral address list")
            vm = await self._vm_at_host(project, request.vm, "", asked)
            address = self._made(project, request, AddressSpec(address=request.address, **_led(vm)))
            transaction.create(address)
            transaction.claim(claim, address.uid)
            return address

        def detail(made: FloatingAddress) -> str:
            return f"{made.spec.address} of the host's"

        return await change_at_once(context, mutation, draft, detail, counted=FloatingAddress.PLURAL)

    async def _on_router(self, mutation: Mutation, request: CreateAddressRequest, asked: str) -> FloatingAddress:
        context, caller, project = self._context, mutation.caller, mutation.project
        await authorize(context, caller, project, mutation.action, request.name)
        async with audited(context, caller, project, mutation.action, request.name):
            for _ in range(ATTEMPTS_MAX):
                await check_name(context, FloatingAddress, project, request.name, asked)
                router = await context.objects.require(Router, project, request.router or "")
                vm = await self._vm(project, request.vm, router, asked)
                network = await self._outside(router, asked)
                with Allocated(context.ledger) as allocated:
                    given = allocated.address(network, request.address)
                    spec = AddressSpec(address=given, router=router.name, router_uid=router.uid, **_led(vm))
                    address = self._made(project, request, spec)
                    transaction = context.objects.transaction()
                    transaction.create(address)
                    transaction.claim(claim_key("address", network.uid, given), address.uid)
                    transaction.update(router)  # as it is: who takes it or its uplink away meanwhile looks again
                    detail = f"{given} on {router.name}"
                    revision = await try_commit(
                        context, transaction, caller, project, mutation.action, request.name, detail
                    )
                    if revision is not None:
                        allocated.keep()
                        break
            else:
                raise too_busy(mutation)
        await context.followers.until(revision, asked)
        return address.model_copy(update={"revision": revision})

    def _made(self, project: str, request: CreateAddressRequest, spec: AddressSpec) -> FloatingAddress:
        now = self._context.clock.now()
        return FloatingAddress(
            project=project, name=request.name, uid=new_uid(), created_at=now, labels=request.labels, spec=spec
        )

    async def assign(self, caller: Caller, project: str, name: str, request: AssignAddressRequest) -> FloatingAddress:
        """Its connections to the VM before end."""
        context, asked = self._context, f"lead address {name[:64]!r} to {request.vm or 'nobody'}"

        async def draft(transaction: Transaction) -> FloatingAddress:
            address = await context.objects.require(FloatingAddress, project, name)
            if address.spec.router_uid is None:
                vm = await self._vm_at_host(project, request.vm, address.uid, asked)
            else:
                router = await context.objects.get(Router, address.spec.router_uid)
                vm = await self._vm(project, request.vm, router, asked)
            spec = address.spec.model_copy(update=_led(vm))
            changed = address.model_copy(update={"spec": spec, "generation": address.generation + 1})
            transaction.update(changed)
            return changed

        mutation = Mutation(caller, project, "address.assign", name)
        return await change_at_once(
            context, mutation, draft, lambda changed: changed.spec.vm or "", counted=FloatingAddress.PLURAL
        )

    async def delete(self, caller: Caller, project: str, name: str) -> None:
        context = self._context

        async def draft(transaction: Transaction) -> FloatingAddress:
            address = await context.objects.require(FloatingAddress, project, name)
            router_uid = address.spec.router_uid
            router = await context.objects.get(Router, router_uid) if router_uid is not None else None
            transaction.delete(address)
            if router_uid is None:
                transaction.release(host_address_claim(address.spec.address))
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

    async def _vm_at_host(self, project: str, name: str | None, own_uid: str, asked: str) -> Vm | None:
        """One that the host reaches without a router. It goes out under one address alone."""
        if name is None:
            return None
        objects = self._context.objects
        vm = await objects.require(Vm, project, name)
        networks = {network.uid: network for network in await objects.list(Network)}
        if path_to(vm, networks, ()) is None:
            reason = f"{name} has no card on a network of mode nat or routed whose gateway is the host"
            raise CorralError("invalid-argument", asked, reason, "--router NAME for one that is behind a router")
        for other in await objects.list(FloatingAddress):
            if other.uid != own_uid and other.spec.router_uid is None and other.spec.vm_uid == vm.uid:
                reason = f"{other.spec.address} ({other.name}) leads to {name} already, and it goes out under one alone"
                raise CorralError("address-taken", asked, reason, f"corral address unassign {other.name}")
        return vm

    async def _outside(self, router: Router, asked: str) -> Network:
        port = router.spec.uplink_port
        network = await self._context.objects.get(Network, port.network_uid) if port is not None else None
        if network is None or router.being_deleted:
            reason = f"router {router.name!r} has no uplink"
            raise CorralError("invalid-argument", asked, reason, f"corral router set {router.name} --uplink nat")
        return network


def _led(vm: Vm | None) -> dict[str, str | None]:
    return {"vm": vm.name, "vm_uid": vm.uid} if vm is not None else {"vm": None, "vm_uid": None}
