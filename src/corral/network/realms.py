"""Which networks reach one another untranslated: those that routers join. Pure."""

from collections.abc import Iterable

from corral.model.network import Network
from corral.model.router import Router
from corral.network.firewall.policy import HOST_REALM


def realms(networks: Iterable[Network], routers: Iterable[Router]) -> dict[str, str]:
    """Each network's realm: the host's, the uid of the first router that joins it to others, or its own uid."""
    found = {network.uid: network.uid if network.spec.mode == "isolated" else HOST_REALM for network in networks}
    for router in sorted(routers, key=lambda one: (one.created_at, one.uid)):
        joined = {found[port.network_uid] for port in router.spec.ports if port.network_uid in found}
        if not joined:
            continue
        realm = HOST_REALM if HOST_REALM in joined else router.uid
        found = {uid: realm if known in joined else known for uid, known in found.items()}
    return found
