"""Routers of this host: made as they are wished, mended when something of them goes, and removed."""

import asyncio
from collections.abc import Awaitable, Iterable
from dataclasses import dataclass, field
from typing import ClassVar, Final

from corral.agent.cache import Cache
from corral.agent.router_addresses import router_reservations
from corral.agent.router_guests import committed, tidy
from corral.agent.status import condition
from corral.clock import Clock
from corral.errors import CorralError
from corral.log import logger
from corral.model.balancer import BalancerStatus
from corral.model.base import Object, with_condition
from corral.model.network import Network, Reservation
from corral.model.router import Router, RouterStatus
from corral.names import namespace_name
from corral.network.base import NetworkDriver
from corral.network.joints import Joints, joints_of
from corral.network.router import RouterDriver, RouterWish
from corral.network.router_wish import build_wish, dhcp_lines
from corral.settings import Settings
from corral.store.objects import Objects, claim_key

log = logger("agent.router")
SERVED: Final = ("router", "")
UNSERVED: Final = (
    "no-router",
    "no router is its gateway: guests get no address (corral router create NAME --connect …)",
)


@dataclass
class RouterKeeper:
    """One of the wire's keepers: woken by each change of what is wished, and by word from the kernel."""

    objects: Objects
    cache: Cache
    routers: RouterDriver
    networks: NetworkDriver
    clock: Clock
    settings: Settings
    name: ClassVar[str] = "routers"
    _made: dict[str, RouterWish] = field(default_factory=dict)
    """What was made so by this process."""
    _looked_at_s: float = 0.0
    _reserved: dict[str, frozenset[Reservation]] = field(default_factory=dict)
    _told: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """By network: what its guests are told by DHCP."""
    _served: frozenset[tuple[str, int]] = frozenset()
    """Networks, routers and floating addresses, with the revisions at which all guests were told."""

    async def sync(self) -> None:
        """All of them; raises the last failure once all the others were seen to."""
        await self.cache.loaded.wait()
        if self.clock.monotonic_s() - self._looked_at_s >= self.settings.relist_interval_s:
            self._made.clear()
            self._looked_at_s = self.clock.monotonic_s()
        standing = await self.routers.standing(tuple(self._made.values()))
        joints = joints_of(self.cache.layout)
        failed: CorralError | None = None
        for router in list(self.cache.routers.values()):
            try:
                await (self._remove(router) if router.being_deleted else self._ensure(router, joints, standing))
            except CorralError as error:
                failed = error
                self._made.pop(router.uid, None)
                log.warning("router is not up", router=router.name, code=error.code, reason=error.reason)
                await self._record(router, error)
        failed = await self._serve_all() or failed
        await tidy(self.objects, self.cache)
        if failed is not None:
            raise failed

    # ---- one router ------------------------------------------------------------------------------------------------

    async def _ensure(self, router: Router, joints: Joints, standing: frozenset[str]) -> None:
        wish = build_wish(router, self.cache.layout, joints)
        known = self._made.get(router.uid) == wish and router.status.observed_generation == router.generation
        if known and router.uid in standing:
            return
        for network in self._networks_of(router):
            await self._reserve(network, joints)
        await self._bounded(router, self.routers.ensure(wish))
        self._made[router.uid] = wish
        await self._record(router, None)

    async def _remove(self, router: Router) -> None:
        await self._bounded(router, self.routers.remove(router.uid))
        self._made.pop(router.uid, None)
        transaction = self.objects.transaction()
        transaction.delete(router)
        for port in router.spec.all_ports:
            transaction.release(claim_key("mac", "host", port.mac))
            transaction.release(claim_key("address", port.network_uid, port.address))
        if await committed(transaction):
            self.cache.forget(Router, router.uid)

    async def _bounded(self, router: Router, call: Awaitable[None]) -> None:
        try:
            async with asyncio.timeout(self.settings.hypervisor_timeout_s):
                await call
        except TimeoutError as error:
            reason = f"no answer within {self.settings.hypervisor_timeout_s:g} s"
            raise CorralError("command-timeout", f"make router {router.name}", reason) from error

    def _networks_of(self, router: Router) -> tuple[Network, ...]:
        known = (self.cache.networks.get(port.network_uid) for port in router.spec.all_ports)
        return tuple(network for network in known if network is not None)

    # ---- its networks ----------------------------------------------------------------------------------------------

    async def _reserve(self, network: Network, joints: Joints) -> None:
        """What routers hold there is kept from DHCP. At the start the network's own keeper has told it all."""
        wanted = frozenset(router_reservations(joints, network))
        before = self._reserved.get(network.uid, frozenset())
        for reservation in before - wanted:
            await self.networks.release(network, reservation)
        for reservation in wanted - before:
            await self.networks.reserve(network, reservation)
        self._reserved[network.uid] = wanted

    async def _serve_all(self) -> CorralError | None:
        """Nothing is looked at again before something of it has changed: VMs wake us far more often."""
        kinds = (self.cache.networks, self.cache.routers, self.cache.addresses)
        seen = frozenset((uid, one.revision) for known in kinds for uid, one in known.items())
        if seen == self._served:
            return None
        failed: CorralError | None = None
        joints = joints_of(self.cache.layout)
        for network in list(self.cache.networks.values()):
            if network.spec.ours and not network.being_deleted:
                failed = await self._serve(network, joints) or failed
        self._served = seen if failed is None else frozenset()
        return failed

    async def _serve(self, network: Network, joints: Joints) -> CorralError | None:
        """What guests are told by DHCP, and what it keeps from them."""
        lines = dhcp_lines(network, self.cache.layout, joints)
        try:
            await self._reserve(network, joints)
            if self._told.get(network.uid) != lines:
                if await self.routers.tell_guests(network.uid, lines):
                    await self.networks.refresh(network)
                    await self.routers.guests_told(network.uid, lines)
                self._told[network.uid] = lines
            await self._note_served(network, joints)
        except CorralError as error:  # it is not up yet
            log.info("guests are not told of routers yet", network=network.name, code=error.code, reason=error.reason)
            return error
        return None

    async def _note_served(self, network: Network, joints: Joints) -> None:
        """Where a router is to be the gateway, and none is, guests get no address: the network says so, once it is up."""
        if network.spec.hosted or not network.status.active:
            return
        served = any(port.address == network.spec.router_address for _, port in joints.on(network.uid))
        found = condition("Served", served, *(SERVED if served else UNSERVED), self.clock.now())
        known = next((one for one in network.status.conditions if one.type == found.type), None)
        if known is None or known.status != found.status:
            conditions = with_condition(network.status.conditions, found)
            status = network.status.model_copy(update={"conditions": conditions})
            await self._write([network.model_copy(update={"status": status})])

    # ---- what is written -------------------------------------------------------------------------------------------

    async def _record(self, router: Router, error: CorralError | None) -> None:
        now = self.clock.now()
        ready = condition(
            "Ready", error is None, *(("active", "") if error is None else (error.code, error.reason)), now
        )
        status = RouterStatus(
            active=error is None,
            observed_generation=router.generation if error is None else router.status.observed_generation,
            namespace=namespace_name(router.uid),
            conditions=with_condition(router.status.conditions, ready),
        )
        changed: list[Object] = []
        if status != router.status:
            changed.append(router.model_copy(update={"status": status}))
        for balancer in self.cache.balancers.values():
            if balancer.spec.router_uid == router.uid:
                conditions = with_condition(balancer.status.conditions, ready)
                its = BalancerStatus(active=error is None, conditions=conditions)
                changed += [balancer.model_copy(update={"status": its})] if its != balancer.status else []
        await self._write(changed)

    async def _write(self, changed: Iterable[Object]) -> None:
        """Not durable: the next look finds the same."""
        for one in changed:
            transaction = self.objects.transaction()
            transaction.update(one)
            try:
                committed = await transaction.commit(durable=False)
            except CorralError as error:
                if error.code != "precondition-failed":  # somebody wrote it meanwhile: the change wakes us again
                    raise
            else:
                self.cache.put(one.model_copy(update={"revision": committed.revision}))
