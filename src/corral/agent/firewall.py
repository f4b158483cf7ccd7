"""The firewall of this host: follows VMs, networks, groups and routers; and no guest is plugged in before its rules are there."""

import asyncio
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from corral.agent.cache import Cache
from corral.errors import CorralError
from corral.log import logger
from corral.model.vm import Vm
from corral.names import tap_name
from corral.network.bridge_ports import named_otherwise
from corral.network.firewall.absent import NoFirewall
from corral.network.firewall.base import Firewall
from corral.network.firewall.desired import desired_policy, with_ports
from corral.network.firewall.policy import Policy

log: Final = logger("agent.firewall")
NO_FIREWALL: Final = NoFirewall()
BEGIN_S: Final = 2.0
"""A keeper that answers has loaded long before."""
Port: TypeAlias = tuple[str, str, str, tuple[str, ...], tuple[str, ...]]
"""A port's name; the MAC, network, addresses and groups of the card at its other end."""


@dataclass
class FirewallKeeper:
    """A keeper on the wire. What is wished is enough: rules are there before the port is."""

    cache: Cache
    firewall: Firewall
    guarded: frozenset[Port] = frozenset()
    """What rules are loaded for."""
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    _begun: "asyncio.Future[None] | None" = None
    _made: tuple[object, Policy, frozenset[Port]] | None = None
    """What it was made of, the policy, and the ports that it speaks of."""
    _renamed: dict[str, str] = field(default_factory=dict)
    """Ports that are there under another name than theirs, by theirs."""

    @property
    def filters(self) -> bool:
        return not isinstance(self.firewall, NoFirewall)

    @property
    def name(self) -> str:
        return "firewall"

    async def sync(self) -> None:
        """Raises `firewall-unavailable`."""
        async with self._turn:
            vms, networks = tuple(self.cache.vms.values()), dict(self.cache.networks)
            self._renamed = await asyncio.to_thread(named_otherwise, vms, networks)
            policy, ports = self._policy()
            await self.firewall.ensure(policy)
            self.guarded = ports

    async def follow(self, revision: int) -> None:
        """What was wished at that revision is loaded when this returns. Raises `firewall-unavailable`."""
        if self.filters:
            await self.cache.until(revision)
            await self.sync()

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
        """Before it is plugged in, and before it is said that its cards have other groups. Costs nothing where it was guarded
        so before."""
        if not self._ports(vm) <= self.guarded:
            await self.sync()

    def _ports(self, vm: Vm) -> frozenset[Port]:
        networks = self.cache.networks
        return frozenset(
            (tap_name(vm.uid, nic.name), nic.mac, nic.network_uid, nic.addresses, nic.groups)
            for nic in vm.spec.nics
            if nic.network_uid in networks and networks[nic.network_uid].spec.filtered
        )

    def _loaded(self) -> frozenset[Port]:
        """A port that has another name now is not guarded under its own: its next one begins so."""
        ports = (port for vm in self.cache.vms.values() for port in self._ports(vm))
        return frozenset(port for port in ports if port[0] not in self._renamed)

    def _policy(self) -> tuple[Policy, frozenset[Port]]:
        """Made anew where something differs that it is made of: VMs' statuses change all the time, and with a thousand of
        them this takes 10 ms of everybody's."""
        cache = self.cache
        cards = tuple((vm.uid, vm.project, vm.spec.nics) for vm in cache.vms.values())
        others = (cache.networks, cache.security_groups, cache.network_policies, cache.routers)
        outside = (cache.forwards, cache.addresses, cache.balancers)
        wished = (cards, tuple(self._renamed.items()), *(tuple(table.values()) for table in (*others, *outside)))
        if self._made is None or self._made[0] != wished:
            groups, policies = cache.security_groups.values(), cache.network_policies.values()
            policy = with_ports(desired_policy(cache.layout, groups, policies), self._renamed)
            self._made = wished, policy, self._loaded()
        return self._made[1:]
