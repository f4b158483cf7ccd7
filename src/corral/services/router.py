"""Routers: made between networks, changed while they run, and deleted once nothing hangs on them."""

import asyncio
import ipaddress
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from typing import Final

from corral.errors import CorralError
from corral.model import limits
from corral.model.address import FloatingAddress
from corral.model.balancer import Balancer
from corral.model.network import Network
from corral.model.requests import ListRequest
from corral.model.router import Router, RouterPort, RouterRoute, RouterSpec, Uplink
from corral.model.router_requests import CreateRouterRequest, UpdateRouterRequest
from corral.names import new_mac, new_uid
from corral.network.subnet_turn import subnet_turn
from corral.services import listing
from corral.services.access import audited, authorize, try_commit
from corral.services.caller import Caller
from corral.services.changes import ATTEMPTS_MAX, Mutation, check_name, too_busy
from corral.services.context import Context
from corral.services.documents import Document, Listing
from corral.services.nics import Allocated, find_network
from corral.services.subnet_room import check_joined, joins_more
from corral.settings import subnet_lock
from corral.store.objects import Transaction, claim_key

# A router that is made, or removed, is waited for so long; the agent goes on trying.
WAIT_S: Final = 15.0
LOOK_S: Final = 0.02


class RouterService:
    def __init__(self, context: Context) -> None:
        self._context = context

    async def list(self, caller: Caller, project: str, request: ListRequest) -> Listing:
        return await listing.list_objects(self._context, caller, project, Router, request)

    async def get(self, caller: Caller, project: str, name: str) -> Document:
        return await listing.get_object(self._context, caller, project, Router, name)

    async def create(self, caller: Caller, project: str, request: CreateRouterRequest) -> Router:
        """Answered when it routes, or with what keeps it from that in its conditions."""
        context, action, asked = self._context, "router.create", f"make router {request.name[:64]!r}"
        await authorize(context, caller, project, action, request.name)
        async with audited(context, caller, project, action, request.name):
            for _ in range(ATTEMPTS_MAX):
                await check_name(context, Router, project, request.name, asked)
                router = Router(
                    project=project,
                    name=request.name,
                    uid=new_uid(),
                    created_at=context.clock.now(),
                    labels=request.labels,
                    spec=RouterSpec(uplink="none"),
                )
                transaction = context.objects.transaction()
                with Allocated(context.ledger) as allocated:
                    draft = _Draft(context, project, router, allocated, asked)
                    await draft.connect(request.connect)
                    await draft.set_uplink(request.uplink, request.uplink_network)
                    draft.set_routes(request.routes)
                    router = await draft.result()
                    transaction.create(router)
                    draft.require_networks(transaction)
                    _claim(transaction, router, router.spec.all_ports)
                    if await self._committed(transaction, caller, router, action, asked):
                        allocated.keep()
                        return await self._made(router)
        raise too_busy(Mutation(caller, project, action, request.name))

    async def update(self, caller: Caller, project: str, name: str, request: UpdateRouterRequest) -> Router:
        """Connections that pass it go on, where both of their networks stay."""
        context, action, asked = self._context, "router.update", f"change router {name[:64]!r}"
        await authorize(context, caller, project, action, name)
        async with audited(context, caller, project, action, name):
            for _ in range(ATTEMPTS_MAX):
                before = await self._standing(project, name, asked)
                with Allocated(context.ledger) as allocated:
                    draft = _Draft(context, project, before, allocated, asked)
                    draft.disconnect(request.disconnect)
                    await draft.connect(request.connect)
                    if request.uplink is not None or request.uplink_network is not None:
                        uplink = request.uplink or before.spec.uplink
                        await draft.set_uplink(uplink, request.uplink_network or draft.uplink_network)
                    draft.set_routes(before.spec.routes if request.routes is None else request.routes)
                    router = await draft.result()
                    await self._check_hanging(before, router, asked)
                    if router.spec == before.spec:
                        return before
                    router = router.model_copy(update={"generation": before.generation + 1})
                    transaction = context.objects.transaction()
                    transaction.update(router)
                    draft.require_networks(transaction)
                    old, new = before.spec.all_ports, router.spec.all_ports
                    _release(transaction, [port for port in old if port not in new])
                    _claim(transaction, router, [port for port in new if port not in old])
                    if await self._committed(transaction, caller, router, action, asked):
                        allocated.keep()
                        return await self._made(router)
        raise too_busy(Mutation(caller, project, action, name))

    async def delete(self, caller: Caller, project: str, name: str) -> None:
        """While no floating address and no balancer is on it. Its networks' guests lose their way out."""
        context, action, asked = self._context, "router.delete", f"delete router {name[:64]!r}"
        await authorize(context, caller, project, action, name)
        async with audited(context, caller, project, action, name):
            for _ in range(ATTEMPTS_MAX):
                router = await context.objects.require(Router, project, name)
                await self._check_unused(router, asked)
                if router.being_deleted:
                    break
                transaction = context.objects.transaction()
                going = router.model_copy(update={"deletion_requested_at": context.clock.now()})
                transaction.update(going)
                if await self._committed(transaction, caller, going, action, asked):
                    break
            await self._gone(router, asked)

    # ---- what may be -----------------------------------------------------------------------------------------------

    async def _standing(self, project: str, name: str, asked: str) -> Router:
        router = await self._context.objects.require(Router, project, name)
        if router.being_deleted:
            raise CorralError("router-in-use", asked, "it is being deleted", "make a new one")
        return router

    async def _hanging(self, router: Router) -> Sequence[str]:
        objects = self._context.objects
        addresses = [one.name for one in await objects.list(FloatingAddress) if one.spec.router_uid == router.uid]
        balancers = [one.name for one in await objects.list(Balancer) if one.spec.router_uid == router.uid]
        return [*(f"address {name}" for name in addresses), *(f"balancer {name}" for name in balancers)]

    async def _check_unused(self, router: Router, asked: str) -> None:
        if on_it := await self._hanging(router):
            reason = f"on it are {', '.join(on_it[:5])}{' …' if len(on_it) > 5 else ''}"
            hint = "delete them first: corral address delete, corral balancer delete"
            raise CorralError("router-in-use", asked, reason, hint, {"users": len(on_it)})

    async def _check_hanging(self, before: Router, after: Router, asked: str) -> None:
        """Floating addresses are of the uplink's network."""
        old, new = before.spec.uplink_port, after.spec.uplink_port
        if old is None or (new is not None and new.network_uid == old.network_uid):
            return
        on_it = [one for one in await self._hanging(before) if one.startswith("address ")]
        if on_it:
            reason = f"{on_it[0]} is an address of its uplink's network {old.network}"
            raise CorralError("router-in-use", asked, reason, "corral address delete", {"users": len(on_it)})

    # ---- writing, and waiting for the agent ------------------------------------------------------------------------

    async def _committed(
        self, transaction: Transaction, caller: Caller, router: Router, action: str, asked: str
    ) -> bool:
        """False: somebody was first, with the name, an address or a change."""
        networks = ",".join(port.network for port in router.spec.all_ports)
        more = await joins_more(self._context, router)
        # Nobody chooses a subnet, or joins others to its networks, while it is joined.
        async with subnet_turn(subnet_lock()) if more else nullcontext():
            if more:
                await check_joined(self._context, router, asked)
            done = await try_commit(self._context, transaction, caller, router.project, action, router.name, networks)
        return done is not None

    async def _made(self, router: Router) -> Router:
        """As the agent has left it: it routes, or has a reason why not."""
        await self._context.followers.until(self._context.objects.store.revision, f"make router {router.name}")
        found = router
        for _ in range(round(WAIT_S / LOOK_S)):
            found = await self._context.objects.get(Router, router.uid) or router
            failed = any(one.type == "Ready" and one.status == "false" for one in found.status.conditions)
            if found.status.observed_generation >= router.generation or failed:
                break
            await asyncio.sleep(LOOK_S)
        return found

    async def _gone(self, router: Router, asked: str) -> None:
        for _ in range(round(WAIT_S / LOOK_S)):
            if await self._context.objects.get(Router, router.uid) is None:
                return await self._context.followers.until(self._context.objects.store.revision, asked)
            await asyncio.sleep(LOOK_S)
        reason = "its namespace has not been removed yet; that is tried on"
        raise CorralError("hypervisor-timeout", asked, reason, f"corral router show {router.name}")


class _Draft:
    """A router as it is asked for, with what it takes."""

    def __init__(self, context: Context, project: str, router: Router, allocated: Allocated, asked: str) -> None:
        self._context, self._project, self._router = context, project, router
        self._allocated, self._asked = allocated, asked
        self._ports = list(router.spec.ports)
        self._uplink, self._uplink_port = router.spec.uplink, router.spec.uplink_port
        self._routes = router.spec.routes
        self.joined: list[Network] = []
        """Those that it has not been on before."""

    @property
    def uplink_network(self) -> str:
        return self._uplink_port.network if self._uplink_port is not None else "default"

    async def connect(self, names: Iterable[str]) -> None:
        """Networks of the project itself: others are their owners' to join."""
        for name in names:
            network = await self._context.objects.require(Network, self._project, name)
            if any(port.network_uid == network.uid for port in self._ports):
                continue
            await self._check(network)
            kept = next((port for port in self._router.spec.ports if port.network_uid == network.uid), None)
            # What the same request disconnects has its address still.
            self._ports.append(kept or await self._port(network))
        if len(self._ports) > limits.ROUTER_PORTS_MAX:
            raise self._refused(f"a router joins at most {limits.ROUTER_PORTS_MAX} networks")

    def disconnect(self, names: Iterable[str]) -> None:
        for name in names:
            if not any(port.network == name for port in self._ports):
                raise self._refused(f"it is not on network {name!r}", "corral router show names its networks")
            self._ports = [port for port in self._ports if port.network != name]

    async def set_uplink(self, uplink: Uplink, network_name: str) -> None:
        self._uplink = uplink
        if uplink == "none":
            self._uplink_port = None
            return
        network = await find_network(self._context, self._project, network_name)
        if network.spec.mode not in ("nat", "routed"):
            reason = f"network {network_name!r} is of mode {network.spec.mode}, and leads nowhere"
            raise self._refused(reason, "name one of mode nat or routed as uplink, or --uplink none")
        if self._uplink_port is None or self._uplink_port.network_uid != network.uid:
            await self._check(network)
            self._uplink_port = await self._port(network)

    def set_routes(self, routes: Sequence[RouterRoute]) -> None:
        seen: dict[str, RouterRoute] = {}
        for route in routes:
            try:
                to, via = ipaddress.IPv4Network(route.to), ipaddress.IPv4Address(route.via)
            except ValueError as error:
                raise self._refused(
                    f"route {route.to} via {route.via}: {error}", "--route 10.9.0.0/16=10.20.0.5"
                ) from error
            plain = RouterRoute(to=str(to), via=str(via))  # one destination has one spelling: `/08` is `/8`
            if seen.setdefault(plain.to, plain) != plain:
                raise self._refused(f"two routes lead to {plain.to}", "name one of them")
        self._routes = tuple(seen.values())

    async def result(self) -> Router:
        spec = RouterSpec(
            ports=tuple(self._ports), uplink=self._uplink, uplink_port=self._uplink_port, routes=self._routes
        )
        inner = {port.network_uid for port in self._ports}
        if self._uplink_port is not None and self._uplink_port.network_uid in inner:
            raise self._refused(
                f"network {self._uplink_port.network!r} cannot be on both of its sides", "--disconnect it"
            )
        if self._uplink == "routed":
            await self._check_led()
        return self._router.model_copy(update={"spec": spec})

    async def _check_led(self) -> None:
        """The host leads to them through the router, and not past it."""
        for port in self._ports:
            network = await self._context.objects.get(Network, port.network_uid)
            if network is not None and network.spec.hosted:
                reason = (
                    f"this host has an address in network {port.network!r}, and would answer its guests past the router"
                )
                hint = "join networks whose gateway is a router (corral network create NAME --gateway router), or --uplink nat"
                raise self._refused(reason, hint)

    def require_networks(self, transaction: Transaction) -> None:
        """None of them is deleted meanwhile."""
        for network in self.joined:
            transaction.require(network)

    async def _check(self, network: Network) -> None:
        """It has addresses of ours, and none that another network of the router has, too."""
        if network.being_deleted:
            raise CorralError("network-in-use", self._asked, f"network {network.name!r} is being deleted")
        if not network.spec.ours or not network.spec.subnet:
            reason = (
                f"network {network.name!r} is of mode {network.spec.mode}: addresses there are not Corral's to give"
            )
            raise self._refused(reason, "join networks of mode isolated, nat or routed")
        subnet = ipaddress.IPv4Network(network.spec.subnet)
        others = (*self._ports, *((self._uplink_port,) if self._uplink_port is not None else ()))
        for port in others:
            if ipaddress.IPv4Address(port.address) in subnet and port.network_uid != network.uid:
                raise self._refused(f"networks {network.name!r} and {port.network!r} have addresses in common")

    async def _port(self, network: Network) -> RouterPort:
        """The first on a network whose gateway is a router has the gateway's address."""
        address = network.spec.router_address
        owner = await self._context.objects.owner(claim_key("address", network.uid, address)) if address else ""
        if owner not in (None, self._router.uid):
            address = self._allocated.address(network, None)
        self.joined.append(network)
        return RouterPort(network=network.name, network_uid=network.uid, mac=new_mac(), address=address)

    def _refused(self, reason: str, hint: str = "") -> CorralError:
        return CorralError("invalid-argument", self._asked, reason, hint)


def _claim(transaction: Transaction, router: Router, ports: Iterable[RouterPort]) -> None:
    for port in ports:
        transaction.claim(claim_key("mac", "host", port.mac), router.uid)
        transaction.claim(claim_key("address", port.network_uid, port.address), router.uid)


def _release(transaction: Transaction, ports: Iterable[RouterPort]) -> None:
    for port in ports:
        transaction.release(claim_key("mac", "host", port.mac))
        transaction.release(claim_key("address", port.network_uid, port.address))
