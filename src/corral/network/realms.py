"""Which networks reach one another untranslated: those that routers join, and what the host itself reaches. Pure."""

from collections.abc import Iterable, Mapping

from corral.model.network import Network
from corral.model.router import Router
from corral.network.firewall.policy import HOST_REALM


def realms(networks: Iterable[Network], routers: Iterable[Router]) -> dict[str, str]:
    """Each network's realm: the host's, the uid of the first router that joins it to others, or its own uid."""
    found = {network.uid: network.uid if network.spec.mode == "isolated" else HOST_REALM for network in networks}
    for router in _in_order(routers):
        joined = {found[port.network_uid] for port in router.spec.ports if port.network_uid in found}
        if not joined:
            continue
        hosts = HOST_REALM in joined or _leads(router)
        realm = HOST_REALM if hosts else router.uid
        found = {uid: realm if known in joined else known for uid, known in found.items()}
    return found


def led(networks: Mapping[str, Network], routers: Iterable[Router]) -> dict[str, str]:
    """The networks that the host leads to through a router, each with the network that the router's uplink is on."""
    found: dict[str, str] = {}
    for router in _in_order(routers):
        uplink = router.spec.uplink_port
        if _leads(router) and uplink is not None and uplink.network_uid in networks:
            for port in router.spec.ports:
                found.setdefault(port.network_uid, uplink.network_uid)
    return found


def in_hosts_realm(networks: Iterable[Network], routers: Iterable[Router]) -> tuple[Network, ...]:
    """Those whose subnets the host meets, so that nobody else may have them: it has an address in them, or reaches them."""
    known = tuple(networks)
    realm_of = realms(known, routers)
    return tuple(one for one in known if one.spec.hosted or (one.spec.ours and realm_of[one.uid] == HOST_REALM))


def _leads(router: Router) -> bool:
    return router.spec.uplink == "routed" and router.spec.uplink_port is not None


def _in_order(routers: Iterable[Router]) -> list[Router]:
    return sorted(routers, key=lambda one: (one.created_at, one.uid))
