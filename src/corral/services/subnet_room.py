"""Which subnets are somebody's: those that the host meets belong to one network each; behind routers tenants may overlap."""

from collections.abc import Iterable, Mapping

from corral.errors import CorralError
from corral.model.network import Network
from corral.model.router import Router, RouterSpec
from corral.network.realms import in_hosts_realm, overlap_behind
from corral.network.subnets import choose_subnet, choose_subnet6
from corral.services.context import Context


async def subnets_met(context: Context) -> dict[str, str]:
    """Those that the host has an address in, or a route to, with whose they are."""
    networks, routers = await context.objects.list(Network), await context.objects.list(Router)
    return {**await context.networks.used_subnets(), **_named(in_hosts_realm(networks, routers))}


async def subnets_known(context: Context) -> dict[str, str]:
    """Those of all networks besides: what is chosen unasked is nobody's."""
    return {**await context.networks.used_subnets(), **_named(await context.objects.list(Network))}


async def joins_more(context: Context, router: Router) -> bool:
    """Whether `router` is to reach more than it does by now, and some network's subnet may be another's, too."""
    now = await context.objects.get(Router, router.uid)
    before = now.spec if now is not None else RouterSpec(uplink="none")
    comes = {port.network_uid for port in router.spec.all_ports} - {port.network_uid for port in before.all_ports}
    led = router.spec.uplink == "routed" and before.uplink != "routed"
    if not (comes or led):
        return False
    return any(one.spec.ours and not one.spec.hosted for one in await context.objects.list(Network))


async def check_joined(context: Context, router: Router, asked: str) -> None:
    """No two networks that reach one another once `router` is as it is to be have addresses in common, and none that the
    host then meets has somebody else's. In the turn of subnets: nobody else joins meanwhile. Raises `invalid-argument`,
    `no-free-subnet`."""
    networks, before = await context.objects.list(Network), await context.objects.list(Router)
    after = [*(one for one in before if one.uid != router.uid), router]
    if (both := overlap_behind(router, networks, after)) is not None:
        reason = f"networks {both[0].name!r} and {both[1].name!r} have addresses in common, and would reach one another"
        raise CorralError("invalid-argument", asked, reason, "join them by routers that have no network in common")
    await _check_met(context, _newly(in_hosts_realm(networks, before), in_hosts_realm(networks, after)), asked)


async def check_opened(context: Context, changed: Network, asked: str) -> None:
    """Of a network that gets a way out: none that routers join to it has a subnet of somebody's whom the host meets. In the
    turn of subnets. Raises `no-free-subnet`."""
    networks, routers = await context.objects.list(Network), await context.objects.list(Router)
    after = [changed if one.uid == changed.uid else one for one in networks]
    await _check_met(context, _newly(in_hosts_realm(networks, routers), in_hosts_realm(after, routers)), asked)


def _newly(before: Iterable[Network], after: Iterable[Network]) -> tuple[Network, ...]:
    known = {one.uid for one in before}
    return tuple(one for one in after if one.uid not in known)


async def _check_met(context: Context, coming: Iterable[Network], asked: str) -> None:
    """Nobody else that the host meets has their subnets. Raises `no-free-subnet` with who does."""
    new = tuple(coming)
    used: Mapping[str, str] = await subnets_met(context)
    for number, network in enumerate(new):
        others = {**used, **_named(new[:number])}
        try:
            choose_subnet(others, network.spec.subnet)
            if network.spec.subnet6:
                choose_subnet6(others, network.spec.subnet6)
        except CorralError as error:
            reason = f"the host would have to lead to network {network.name!r}, and {error.reason}"
            raise CorralError(error.code, asked, reason, "join it by a router with --uplink nat or none") from error


async def unreached(context: Context) -> frozenset[str]:
    """The networks whose guests the host does not meet: what has one of their addresses here is somebody else."""
    networks, routers = await context.objects.list(Network), await context.objects.list(Router)
    met = {one.uid for one in in_hosts_realm(networks, routers)}
    return frozenset(one.uid for one in networks if one.spec.ours and one.uid not in met)


def _named(networks: Iterable[Network]) -> dict[str, str]:
    return {cidr: f"network {one.name!r}" for one in networks for cidr in (one.spec.subnet, one.spec.subnet6) if cidr}
