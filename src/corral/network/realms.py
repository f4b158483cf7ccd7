"""Which networks reach one another untranslated: those that routers join, and what the host itself reaches. Pure."""

import ipaddress
from collections.abc import Iterable, Mapping
from itertools import pairwise

from corral.model.network import Network
from corral.model.router import Router
from corral.network.firewall.policy import HOST_REALM


def realms(networks: Iterable[Network], routers: Iterable[Router]) -> dict[str, str]:
    """Each network's realm: the host's, the uid of the first router that joins it to others, or its own uid."""
    found = {network.uid: network.uid if network.spec.mode == "isolated" else HOST_REALM for network in networks}
    members: dict[str, list[str]] = {}
    for uid, realm in found.items():
        members.setdefault(realm, []).append(uid)
    for router in _in_order(routers):
        joined = {found[port.network_uid] for port in router.spec.ports if port.network_uid in found}
        realm = HOST_REALM if HOST_REALM in joined or _leads(router) else router.uid
        for before in joined - {realm}:
            moved = members.pop(before)
            members.setdefault(realm, []).extend(moved)
            found.update(dict.fromkeys(moved, realm))
    return found


def led(networks: Mapping[str, Network], routers: Iterable[Router]) -> dict[str, str]:
    """The networks that the host leads to through a router, each with the network that the router's uplink is on."""
    found = leaders(networks, routers)
    return {uid: router.spec.uplink_port.network_uid for uid, router in found.items() if router.spec.uplink_port}


def leaders(networks: Mapping[str, Network], routers: Iterable[Router]) -> dict[str, Router]:
    """Those networks, each with that router: of several the first, since the host has one route to each."""
    found: dict[str, Router] = {}
    for router in _in_order(routers):
        uplink = router.spec.uplink_port
        if _leads(router) and uplink is not None and uplink.network_uid in networks:
            for port in router.spec.ports:
                found.setdefault(port.network_uid, router)
    return found


def in_hosts_realm(networks: Iterable[Network], routers: Iterable[Router]) -> tuple[Network, ...]:
    """Those whose subnets the host meets, so that nobody else may have them: it has an address in them, or reaches them."""
    known = tuple(networks)
    realm_of = realms(known, routers)
    return tuple(one for one in known if one.spec.hosted or (one.spec.ours and realm_of[one.uid] == HOST_REALM))


def overlap_behind(
    router: Router, networks: Iterable[Network], routers: Iterable[Router]
) -> tuple[Network, Network] | None:
    """Two networks that `router`, one of `routers`, has reach one another, by others too, or that are on both of its sides,
    with addresses in common: who has one of those is then not known by it. The host's own realm is not looked at."""
    known = tuple(networks)
    realm_of = realms(known, routers)
    inside = {realm_of[port.network_uid] for port in router.spec.ports if port.network_uid in realm_of} - {HOST_REALM}
    near = {port.network_uid for port in router.spec.all_ports}
    met = [one for one in known if one.spec.ours and (one.uid in near or realm_of[one.uid] in inside)]
    return _overlap(met, 4) or _overlap(met, 6)


def _overlap(networks: Iterable[Network], version: int) -> tuple[Network, Network] | None:
    """Side by side, sorted: of a thousand networks not each is compared with each."""
    found = []
    for one in networks:
        cidr = one.spec.subnet if version == 4 else one.spec.subnet6
        if cidr:
            subnet = ipaddress.ip_network(cidr)
            found.append((int(subnet[0]), int(subnet[-1]), one))
    found.sort(key=lambda each: each[:2])
    for (_, last, one), (first, _, other) in pairwise(found):
        if first <= last:
            return one, other
    return None


def _leads(router: Router) -> bool:
    return router.spec.uplink == "routed" and router.spec.uplink_port is not None


def _in_order(routers: Iterable[Router]) -> list[Router]:
    return sorted(routers, key=lambda one: (one.created_at, one.uid))
