"""What a router's namespace has, and the commands of ip(8) that make it what is wished. Pure."""

import ipaddress
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from corral.names import PORT_PREFIX
from corral.network.router import PortWish, RouterWish


@dataclass(frozen=True)
class ObservedPort:
    """One side of an interface."""

    up: bool
    master: str = ""
    """The bridge that it is a port of; the host's side alone."""
    mac: str = ""
    cidrs: frozenset[str] = frozenset()
    mtu: int = 1500


@dataclass(frozen=True)
class ObservedRouter:
    """As the kernel has it. `outer` are its wished interfaces on the host's side."""

    exists: bool = False
    outer: Mapping[str, ObservedPort] = field(default_factory=dict)
    inner: Mapping[str, ObservedPort] = field(default_factory=dict)
    routes: frozenset[tuple[str, str]] = frozenset()
    """Of those with a next hop: destination and via, of both families."""
    mark: str = ""
    """Of the packet filter's rules."""
    forwarding: bool = False


@dataclass(frozen=True)
class Commands:
    """Lines of `ip -batch`, on the host and then inside the namespace."""

    outer: tuple[str, ...]
    inner: tuple[str, ...]


def plan_links(wish: RouterWish, observed: ObservedRouter) -> Commands:
    """Interfaces and addresses. One that has lost its other side is made anew; others are taken away."""
    wanted = {port.interface: port for port in wish.all_ports}
    gone = sorted(name for name in observed.inner.keys() - wanted.keys() if name.startswith(PORT_PREFIX))
    outer: list[str] = []
    inner = [f"link del {name}" for name in gone]
    for name, port in wanted.items():
        out, within = observed.outer.get(name), observed.inner.get(name)
        if out is None or within is None:
            if out is not None:
                outer.append(f"link del {name}")
            elif within is not None:
                inner.append(f"link del {name}")
            outer.append(f"link add {name} type veth peer name {name} address {port.mac} netns {wish.namespace}")
            out, within = ObservedPort(up=False), ObservedPort(up=False, mac=port.mac)
        if out.mtu != port.mtu:
            outer.append(f"link set {name} mtu {port.mtu}")
        if out.master != port.bridge:
            outer.append(f"link set {name} master {port.bridge}")
        inner += _inner(port, within)
        if not out.up:
            outer.append(f"link set {name} up")
    if "lo" not in observed.inner or not observed.inner["lo"].up:
        inner.append("link set lo up")
    return Commands(tuple(outer), tuple(inner))


def _inner(port: PortWish, found: ObservedPort) -> Iterator[str]:
    if found.mtu != port.mtu:
        yield f"link set {port.interface} mtu {port.mtu}"
    if found.mac != port.mac:
        yield f"link set {port.interface} address {port.mac}"
    for cidr in sorted(found.cidrs - set(port.cidrs)):
        yield f"addr del {cidr} dev {port.interface}"
    for cidr in port.cidrs:
        if cidr not in found.cidrs:
            # Nobody else has it, by construction: it need not be asked for first.
            yield f"addr add {cidr} dev {port.interface}{' nodad' if ':' in cidr else ''}"
    if not found.up:
        yield f"link set {port.interface} up"


def plan_routes(wish: RouterWish, routes: frozenset[tuple[str, str]]) -> tuple[str, ...]:
    """Those with a next hop; the kernel makes the others with the addresses. One that leads nowhere yet is left for later:
    its network is not there."""
    wanted = {(route.to, route.via) for route in wish.routes}
    near = [ipaddress.ip_interface(cidr).network for port in wish.all_ports for cidr in port.cidrs]
    wanted = {(to, via) for to, via in wanted if any(ipaddress.ip_address(via) in one for one in near)}
    gone = [f"route del {to} via {via}" for to, via in sorted(routes - wanted)]
    return (*gone, *(f"route add {to} via {via}" for to, via in sorted(wanted - routes)))


def arriving_addresses(wish: RouterWish, observed: ObservedRouter) -> tuple[tuple[str, str], ...]:
    """Interface and address of what is to be added to it: neighbours may know another place for them."""
    return tuple(
        (port.interface, cidr.partition("/")[0])
        for port in wish.all_ports
        for cidr in port.cidrs
        if ":" not in cidr
        if port.interface not in observed.inner or cidr not in observed.inner[port.interface].cidrs
    )
