"""What each router shall be in the kernel, and what DHCP tells its guests, from the wished state. Pure."""

import ipaddress
from collections.abc import Iterator
from typing import Final

from corral.model.network import Network, NetworkSpec
from corral.model.router import Router, RouterPort
from corral.names import port_name
from corral.network.addresses import address6_of
from corral.network.dnsmasq import advertised_lines, served_lines
from corral.network.joints import Joint, Joints, joints_of
from corral.network.paths import Layout, address_behind, path_to
from corral.network.router import (
    BalancerWish,
    FloatingWish,
    ForwardWish,
    HostRouteWish,
    PortWish,
    RouterWish,
    RouteWish,
    ServedWish,
    ServerWish,
)

MTU: Final = 1500
"""The kernel's, of what says nothing else."""


def build_wish(router: Router, layout: Layout, joints: Joints | None = None) -> RouterWish:
    """What hangs on VMs or networks that are gone is left out. `joints`: the layout's, where there are several to build."""
    spec, joints = router.spec, joints or joints_of(layout)
    floating = tuple(_floating(router, layout))
    held = tuple(sorted(one.spec.address for one in layout.addresses.values() if one.spec.router_uid == router.uid))
    uplink = None if spec.uplink_port is None else _port(router, spec.uplink_port, layout, held)
    return RouterWish(
        uid=router.uid,
        ports=tuple(port for one in spec.ports if (port := _port(router, one, layout)) is not None),
        uplink=uplink,
        masquerade=spec.uplink == "nat" and uplink is not None,
        routes=tuple(_routes(router, layout)),
        forwards=tuple(_forwards(router, layout)),
        floating=floating,
        balancers=tuple(_balancers(router, layout)),
        served=tuple(_served(router, layout, joints)),
        host_routes=tuple(_host_routes(router, layout, joints)),
    )


def _port(router: Router, port: RouterPort, layout: Layout, floating: tuple[str, ...] = ()) -> PortWish | None:
    network = layout.networks.get(port.network_uid)
    if network is None:
        return None
    length = ipaddress.IPv4Network(network.spec.subnet).prefixlen
    name = port_name(router.uid, network.uid)
    six = router_address6(network.spec, port)
    return PortWish(name, network.spec.bridge, port.mac, port.address, length, floating, six, network.spec.mtu or MTU)


def router_address6(spec: NetworkSpec, port: RouterPort) -> str:
    """A gateway's is the first of its subnet, as in IPv4; another's follows from what it has, as a card's."""
    if port.address == spec.router_address:
        return spec.first_address6
    return address6_of(spec, port.address, port.mac)


def _routes(router: Router, layout: Layout) -> Iterator[RouteWish]:
    named = {route.to for route in router.spec.routes}
    uplink = router.spec.uplink_port
    network = layout.networks.get(uplink.network_uid) if uplink is not None else None
    if network is not None and network.spec.gateway and "0.0.0.0/0" not in named:
        yield RouteWish("default", network.spec.gateway)
    if network is not None and network.spec.gateway6:
        yield RouteWish("default", network.spec.gateway6)
    for route in router.spec.routes:
        # As ip(8) says them: one host's has no length.
        yield RouteWish("default" if route.to == "0.0.0.0/0" else route.to.removesuffix("/32"), route.via)


def _served(router: Router, layout: Layout, joints: Joints) -> Iterator[ServedWish]:
    """The networks whose gateway it is, and those that the host serves addresses on, but leads nobody out of by IPv6: there
    the router says that it does."""
    uplink = router.spec.uplink_port
    outer = layout.networks.get(uplink.network_uid) if uplink is not None else None
    for port in router.spec.ports:
        network = layout.networks.get(port.network_uid)
        if network is None:
            continue
        spec, interface = network.spec, port_name(router.uid, network.uid)
        if port.address == spec.router_address:
            upstream = outer.spec.gateway if outer is not None else ""
            yield ServedWish(network.uid, interface, served_lines(spec, upstream), spec.dhcp_relay)
        elif spec.hosted and spec.mode == "isolated" and spec.subnet6 and _is_way_out(router, joints.on(network.uid)):
            yield ServedWish(network.uid, interface, advertised_lines(spec), gateway=False)


def _host_routes(router: Router, layout: Layout, joints: Joints) -> Iterator[HostRouteWish]:
    uplink = router.spec.uplink_port
    outer = layout.networks.get(uplink.network_uid) if uplink is not None else None
    if router.spec.uplink != "routed" or uplink is None or outer is None:
        return
    for port in router.spec.ports:
        network = layout.networks.get(port.network_uid)
        if network is not None and joints.leaders.get(network.uid, router).uid == router.uid:
            yield HostRouteWish(network.spec.subnet, uplink.address, outer.spec.bridge)
            if network.spec.subnet6 and outer.spec.subnet6:
                yield HostRouteWish(network.spec.subnet6, router_address6(outer.spec, uplink), outer.spec.bridge)


def _forwards(router: Router, layout: Layout) -> Iterator[ForwardWish]:
    for forward in sorted(layout.forwards.values(), key=lambda one: one.uid):
        vm = layout.vms.get(forward.spec.vm_uid or "")
        path = path_to(vm, layout.networks, layout.routers.values()) if vm is not None else None
        if path is not None and path.router is not None and path.router.uid == router.uid:
            spec = forward.spec
            yield ForwardWish(spec.protocol, spec.host_port, path.address, spec.port)


def _floating(router: Router, layout: Layout) -> Iterator[FloatingWish]:
    for one in sorted(layout.addresses.values(), key=lambda one: one.uid):
        vm = layout.vms.get(one.spec.vm_uid or "")
        if one.spec.router_uid == router.uid and vm is not None and (found := address_behind(vm, router)) is not None:
            yield FloatingWish(one.spec.address, found[1])


def _balancers(router: Router, layout: Layout) -> Iterator[BalancerWish]:
    for one in sorted(layout.balancers.values(), key=lambda one: one.uid):
        spec = one.spec
        if spec.router_uid != router.uid:
            continue
        targets = [(target, layout.vms.get(target.vm_uid)) for target in spec.targets]
        servers = tuple(
            ServerWish(vm.name, found[1])
            for _, vm in targets
            if vm is not None and (found := address_behind(vm, router)) is not None
        )
        check = spec.check
        yield BalancerWish(
            uid=one.uid,
            name=f"{one.name}-{one.uid[:8]}",
            listen=spec.listen,
            port=spec.port,
            mode=spec.mode,
            algorithm=spec.algorithm,
            servers=servers,
            check_path=check.path if check.kind == "http" else "",
            check_interval_s=check.interval_s,
        )


def _is_way_out(router: Router, on_it: list[Joint]) -> bool:
    return bool(on_it) and on_it[0][0].uid == router.uid


# ---- what guests are told ------------------------------------------------------------------------------------------


def dhcp_lines(network: Network, layout: Layout, joints: Joints | None = None) -> tuple[str, ...]:
    """dnsmasq's `dhcp-optsfile` lines: which way out, and which routers lead where else. None: no router is on it."""
    on_it = (joints or joints_of(layout)).on(network.uid)
    if not on_it or not network.spec.ours:
        return ()
    gateway = network.spec.router_address
    if not gateway:
        gateway = on_it[0][1].address if network.spec.mode == "isolated" else network.spec.gateway
    lines = [f"option:router,{gateway}"]
    ways = {
        layout.networks[other.network_uid].spec.subnet: port.address
        for router, port in on_it
        for other in router.spec.ports
        if other.network_uid != network.uid and other.network_uid in layout.networks and port.address != gateway
    }
    if ways:
        # Who understands this one passes the first over (RFC 3442), so that it names the way out, too.
        words = [word for to, via in sorted(ways.items()) for word in (to, via)]
        lines.append(f"option:classless-static-route,{','.join([*words, '0.0.0.0/0', gateway])}")
    return tuple(lines)
