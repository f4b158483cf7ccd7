"""The firewall of this host: follows VMs, networks, groups and routers; and no guest is plugged in before its rules are there."""

import asyncio
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from corral.agent.cache import Cache
from corral.errors import CorralError
from corral.log import logger
from corral.model.vm import Vm
from corral.names import tap_name
from corral.network.firewall.absent import NoFirewall
from corral.network.firewall.base import Firewall
from corral.network.firewall.desired import desired_policy
from corral.network.firewall.policy import Policy

log: Final = logger("agent.firewall")
NO_FIREWALL: Final = NoFirewall()
BEGIN_S: Final = 2.0
"""A keeper that answers has loaded long before."""
Port: TypeAlias = tuple[str, str, str, tuple[str, ...]]
"""A port's name; the MAC, network and addresses of the card at its other end."""


@dataclass
class FirewallKeeper:
    """A keeper on the wire. What is wished is enough: rules are there before the port is."""

    cache: Cache
    firewall: Firewall
    guarded: frozenset[Port] = frozenset()
    """What rules are loaded for."""
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    _begun: "asyncio.Future[None] | None" = None
    _made: tuple[object, Policy] | None = None
    """The policy, and what it was made of."""

    @property
    def filters(self) -> bool:
        return not isinstance(self.firewall, NoFirewall)

    @property
    def name(self) -> str:
        return "firewall"

    async def sync(self) -> None:
        """Raises `firewall-unavailable`."""
        async with self._turn:
            policy = self._policy()
            await self.firewall.ensure(policy)
            self.guarded = frozenset((card.tap, card.mac, card.network, card.addresses) for card in policy.cards)

    async def begin(self) -> None:
        """Once. Whoever is slow to load it keeps nobody: each guest that is plugged in waits for itself, and what fails is
        tried again by the wire."""
        if self._begun is None:
            self._begun = asyncio.ensure_future(self._begin())
            await asyncio.wait({self._begun}, timeout=BEGIN_S)

    async def _begin(self) -> None:
        try:
            await self.sync()
        except CorralError as error:
            log.warning("the firewall is not loaded", code=error.code, reason=error.reason)

    async def guard(self, vm: Vm) -> None:
        """Before it is plugged in. Costs nothing where it was guarded before."""
        networks = self.cache.networks
        wished = {
            (tap_name(vm.uid, nic.name), nic.mac, nic.network_uid, nic.addresses)
            for nic in vm.spec.nics
            if nic.network_uid in networks and networks[nic.network_uid].spec.filtered
        }
        if not wished <= self.guarded:
            await self.sync()

    def _policy(self) -> Policy:
        """Made anew where something differs that it is made of: VMs' statuses change all the time, and with a thousand of
        them this takes 10 ms of everybody's."""
        cache = self.cache
        cards = tuple((vm.uid, vm.project, vm.spec.nics) for vm in cache.vms.values())
        others = (cache.networks, cache.security_groups, cache.network_policies, cache.routers)
        outside = (cache.forwards, cache.addresses, cache.balancers)
        wished = (cards, *(tuple(table.values()) for table in (*others, *outside)))
        if self._made is None or self._made[0] != wished:
            groups, policies = cache.security_groups.values(), cache.network_policies.values()
            self._made = wished, desired_policy(cache.layout, groups, policies)
        return self._made[1]
