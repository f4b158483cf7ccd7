"""From what is wished (VMs, networks, groups, policies, routers) to the firewall's policy. Pure.

What names something that is not there is left out: no rule is then made of it, and what no rule lets through is denied.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

from corral.model.base import DEFAULT_PROJECT
from corral.model.firewall_rule import ANY, GROUP, NETWORK, SecurityRule, named
from corral.model.firewall_rule import Traffic as ModelTraffic
from corral.model.network import Network
from corral.model.network_policy import NetworkPolicy
from corral.model.router import Router
from corral.model.security_group import DEFAULT_GROUP, SecurityGroup, groups_in_force, rule_uid
from corral.model.vm import NicSpec, Vm
from corral.names import tap_name
from corral.network.addresses import link_local
from corral.network.firewall import policy as wall
from corral.network.firewall.groups import GROUPS_KEPT
from corral.network.realms import led, realms

_ALWAYS: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NAMED: Final = (f"{GROUP}:", f"{NETWORK}:")


@dataclass(frozen=True)
class Wishes:
    """The objects that the firewall follows from, all of them."""

    vms: Iterable[Vm] = ()
    networks: Iterable[Network] = ()
    groups: Iterable[SecurityGroup] = ()
    policies: Iterable[NetworkPolicy] = ()
    routers: Iterable[Router] = ()
    forwards: tuple[wall.Forward, ...] = ()
    floating: tuple[wall.Floating, ...] = ()


def build_policy(wishes: Wishes) -> wall.Policy:
    """All of it. What is on its way out counts until it is gone."""
    networks = {network.uid: network for network in wishes.networks if network.spec.filtered}
    vms, policies = tuple(wishes.vms), tuple(wishes.policies)
    projects = {vm.project for vm in vms} | {policy.project for policy in policies}
    groups = groups_of_projects(wishes.groups, projects)
    names = _Names(groups, {(network.project, network.name): network.uid for network in networks.values()})
    routers = tuple(wishes.routers)
    realm_of, led_by = realms(networks.values(), routers), led(networks, routers)
    doors = _doors(networks, routers)
    return wall.Policy(
        nets=tuple(
            replace(
                _net(network, realm_of[network.uid]), led=led_by.get(network.uid, ""), doors=doors.get(network.uid, ())
            )
            for network in networks.values()
        ),
        cards=tuple(_card(vm, nic, names) for vm in vms for nic in vm.spec.nics if nic.network_uid in networks),
        groups=tuple(_group(group, names) for group in groups.values()),
        policies=tuple(_policy(policy, names) for policy in policies),
        forwards=wishes.forwards,
        floating=wishes.floating,
    )


def groups_of_projects(
    groups: Iterable[SecurityGroup], projects: Iterable[str]
) -> dict[tuple[str, str], SecurityGroup]:
    """By project and name, with those that every project has."""
    return groups_in_force(groups, projects, _ALWAYS)


@dataclass(frozen=True)
class _Names:
    """What names mean, by project and name."""

    groups: Mapping[tuple[str, str], SecurityGroup]
    networks: Mapping[tuple[str, str], str]

    def peer(self, project: str, text: str) -> wall.Peer | None:
        """None: there is nothing of that name."""
        if name := named(text, GROUP):
            group = self.groups.get((project, name))
            return wall.Peer("group", group.uid) if group is not None else None
        if name := named(text, NETWORK):
            uid = self.networks.get((project, name)) or self.networks.get((DEFAULT_PROJECT, name))
            return wall.Peer("network", uid) if uid is not None else None
        return _nameless(text)


def _nameless(text: str) -> wall.Peer:
    return wall.ANYBODY if text == ANY else wall.Peer("cidr", text)


def effective_groups(nic: NicSpec) -> tuple[str, ...]:
    """By name."""
    return nic.groups or (DEFAULT_GROUP,)


def _net(network: Network, realm: str) -> wall.Net:
    spec = network.spec
    return wall.Net(
        uid=network.uid,
        project=network.project,
        bridge=spec.bridge,
        mode=spec.mode,
        subnets=tuple(cidr for cidr in (spec.subnet, spec.subnet6) if cidr),
        gateways=tuple(address for address in (spec.gateway, spec.gateway6) if address),
        realm=realm,
    )


def _doors(networks: Mapping[str, Network], routers: Iterable[Router]) -> dict[str, tuple[wall.Door, ...]]:
    found: dict[str, tuple[wall.Door, ...]] = {}
    for router in routers:
        for port in router.spec.ports:
            network = networks.get(port.network_uid)
            if network is not None and port.address == network.spec.router_address:
                found[network.uid] = (wall.Door(port.mac, _door_addresses(network, port.mac)),)
    return found


def _door_addresses(network: Network, mac: str) -> tuple[str, ...]:
    six = (network.spec.first_address6, link_local(mac)) if network.spec.subnet6 else ()
    return network.spec.router_address, *six


def _card(vm: Vm, nic: NicSpec, names: _Names) -> wall.Card:
    found = (names.groups.get((vm.project, name)) for name in effective_groups(nic))
    return wall.Card(
        tap=tap_name(vm.uid, nic.name),
        network=nic.network_uid,
        mac=nic.mac,
        addresses=nic.addresses,
        groups=tuple(group.uid for group in found if group is not None),
    )


def _group(group: SecurityGroup, names: _Names) -> wall.Group:
    texts = dict.fromkeys(rule.peer for rule in group.spec.rules if rule.peer.startswith(_NAMED))
    known = {text: names.peer(group.project, text) for text in texts}
    return _group_of(group.uid, group.spec.rules, tuple(known.items()))


@lru_cache(maxsize=GROUPS_KEPT)
def _group_of(uid: str, rules: tuple[SecurityRule, ...], known: tuple[tuple[str, wall.Peer | None], ...]) -> wall.Group:
    """Most groups are as they were the last time. `known`: whom the names in it mean."""
    return wall.Group(uid, tuple(_rules(uid, rules, dict(known))))


def _rules(uid: str, rules: Iterable[SecurityRule], known: Mapping[str, wall.Peer | None]) -> Iterator[wall.Rule]:
    for rule in rules:
        peer = known[rule.peer] if rule.peer in known else _nameless(rule.peer)
        if peer is not None:
            yield wall.Rule(rule_uid(uid, rule.id), _direction(rule), _traffic(rule), peer, rule.log)


def _direction(rule: SecurityRule) -> wall.Direction:
    return wall.Direction.IN if rule.direction == "in" else wall.Direction.OUT


def _traffic(found: ModelTraffic) -> wall.Traffic:
    ports = None if found.port_min is None else (found.port_min, found.port_max or found.port_min)
    return wall.Traffic(wall.Protocol(found.protocol), ports, found.icmp_type, found.icmp_code)


def _policy(found: NetworkPolicy, names: _Names) -> wall.NetworkPolicy:
    """A tier that is gone has nobody in it."""
    peers = {tier: peer for tier in found.spec.tiers if (peer := names.peer(found.project, tier)) is not None}
    number = {tier: index for index, tier in enumerate(peers)}
    unless = tuple(
        wall.Exemption(number[one.from_tier], number[one.to_tier], _traffic(one))
        for one in found.spec.unless
        if one.from_tier in number and one.to_tier in number
    )
    return wall.NetworkPolicy(found.uid, tuple(peers.values()), unless)
