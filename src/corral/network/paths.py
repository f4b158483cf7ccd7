"""How a guest is reached from outside: at its own address, or through the router that it is behind. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from corral.model.address import FloatingAddress
from corral.model.balancer import Balancer
from corral.model.forward import Forward
from corral.model.network import Network
from corral.model.router import Router
from corral.model.vm import Vm
from corral.network.firewall import policy


@dataclass(frozen=True)
class Layout:
    """The wished state as far as it concerns routers, each kind by uid."""

    networks: Mapping[str, Network] = field(default_factory=dict)
    vms: Mapping[str, Vm] = field(default_factory=dict)
    routers: Mapping[str, Router] = field(default_factory=dict)
    forwards: Mapping[str, Forward] = field(default_factory=dict)
    addresses: Mapping[str, FloatingAddress] = field(default_factory=dict)
    balancers: Mapping[str, Balancer] = field(default_factory=dict)


@dataclass(frozen=True)
class Path:
    """The guest's address, and the router that leads to it; None: the host itself does."""

    address: str
    nic: str
    router: Router | None = None


def address_behind(vm: Vm, router: Router) -> tuple[str, str] | None:
    """The card and address of the guest's that the router reaches without its uplink."""
    joined = {port.network_uid for port in router.spec.ports}
    return next(((nic.name, nic.address) for nic in vm.spec.nics if nic.address and nic.network_uid in joined), None)


def path_to(vm: Vm, networks: Mapping[str, Network], routers: Iterable[Router]) -> Path | None:
    """From the host: straight, where a card of it is on a network whose gateway is the host, else through a router with
    an uplink. None: there is no way."""
    for nic in vm.spec.nics:
        network = networks.get(nic.network_uid)
        if nic.address and network is not None and network.spec.mode in ("nat", "routed"):
            return Path(nic.address, nic.name)
    for router in sorted(routers, key=lambda one: (one.created_at, one.uid)):
        found = address_behind(vm, router)
        if found is not None and router.spec.uplink_port is not None and not router.being_deleted:
            return Path(found[1], found[0], router)
    return None


def host_forwards(layout: Layout) -> tuple[policy.Forward, ...]:
    """What the host's own table does for the forwards: to the guest, or to the router that passes it on under the same
    number."""
    found = []
    for forward in layout.forwards.values():
        spec = forward.spec
        balancer = layout.balancers.get(spec.balancer_uid or "")
        router = layout.routers.get(balancer.spec.router_uid) if balancer is not None else None
        vm = layout.vms.get(spec.vm_uid or "")
        if balancer is not None and router is not None and router.spec.uplink_port is not None:
            target = (router.spec.uplink_port.address, balancer.spec.listen)
        elif vm is not None and (path := path_to(vm, layout.networks, layout.routers.values())) is not None:
            uplink = path.router.spec.uplink_port if path.router is not None else None
            target = (path.address, spec.port) if uplink is None else (uplink.address, spec.host_port)
        else:
            continue
        found.append(policy.Forward(forward.uid, spec.protocol, spec.host_port, target[0], target[1]))
    return tuple(found)


def host_floating(layout: Layout) -> tuple[policy.Floating, ...]:
    """The host's own addresses that stand for guests, both ways."""
    found = []
    for address in layout.addresses.values():
        vm = layout.vms.get(address.spec.vm_uid or "")
        path = path_to(vm, layout.networks, ()) if vm is not None and address.spec.router_uid is None else None
        if path is not None:
            found.append(policy.Floating(address.uid, address.spec.address, path.address))
    return tuple(found)


def forward_openings(layout: Layout) -> dict[tuple[str, str], tuple[policy.Group, ...]]:
    """By VM and card: what forwards through a router open there, as groups that the card has besides its own. (The host's
    own forwards are opened by its table.)"""
    found: dict[tuple[str, str], tuple[policy.Group, ...]] = {}
    for forward in layout.forwards.values():
        vm = layout.vms.get(forward.spec.vm_uid or "")
        path = path_to(vm, layout.networks, layout.routers.values()) if vm is not None else None
        if vm is None or path is None or path.router is None:
            continue
        traffic = policy.Traffic(policy.Protocol(forward.spec.protocol), (forward.spec.port, forward.spec.port))
        rule = policy.Rule(forward.uid, policy.Direction.IN, traffic)
        key = (vm.uid, path.nic)
        found[key] = (*found.get(key, ()), policy.Group(forward.uid, (rule,)))
    return found
