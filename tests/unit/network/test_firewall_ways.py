"""What would happen to a connection that a router translates on its way: under which address it is judged, and by whom."""

from datetime import UTC, datetime
from typing import Any

import pytest

from corral.model.address import AddressSpec, FloatingAddress
from corral.model.firewall_rule import parse_rule
from corral.model.forward import Forward, ForwardSpec
from corral.model.network import Network, NetworkSpec
from corral.model.router import Router, RouterPort, RouterSpec
from corral.model.security_group import SecurityGroup, SecurityGroupSpec
from corral.model.vm import NicSpec, Vm, VmSpec
from corral.names import new_mac, new_uid, tap_name
from corral.network.firewall.desired import desired_policy
from corral.network.firewall.evaluate import End, Evaluator, Question, Stage, Verdict
from corral.network.firewall.policy import Protocol
from corral.network.firewall.ways import Outside, ways_of
from corral.network.paths import Layout

NOW = datetime(2026, 1, 1, tzinfo=UTC)
INSIDE, OUT = "10.7.1.10", "10.7.0.10"
UPLINK, FLOATING = "10.7.0.2", "10.7.0.50"
GROUPS = {"web": ("in tcp/80", "out any"), "near": (f"in any from {UPLINK}/32", "out any"), "mute": ("in any",)}


def named(kind: Any, name: str, spec: Any) -> Any:
    return kind(name=name, uid=new_uid(), created_at=NOW, spec=spec)


class World:
    """`red` behind a router that translates, and `lab`, which the router's way out is on; a guest on each."""

    def __init__(self, uplink: Any = "nat", red: str = "web", lab: str = "near") -> None:
        spec = {"mode": "nat", "subnet": "10.7.0.0/24", "bridge": "brlab"}
        self.lab = named(Network, "lab", NetworkSpec.model_validate(spec))
        spec |= {"mode": "isolated", "subnet": "10.7.1.0/24", "bridge": "brred", "gateway_at": "router"}
        self.red = named(Network, "red", NetworkSpec.model_validate(spec))
        ports = [
            RouterPort(network=one.name, network_uid=one.uid, mac=new_mac(), address=address)
            for one, address in ((self.red, "10.7.1.1"), (self.lab, UPLINK))
        ]
        self.router = named(Router, "edge", RouterSpec(ports=ports[:1], uplink=uplink, uplink_port=ports[1]))
        self.inside, self.near = self.guest("inside", self.red, INSIDE, red), self.guest("near", self.lab, OUT, lab)
        self.addresses: dict[str, FloatingAddress] = {}
        self.forwards: dict[str, Forward] = {}

    @staticmethod
    def guest(name: str, on: Network, address: str, group: str) -> Vm:
        nic = NicSpec(name="net0", network=on.name, network_uid=on.uid, mac=new_mac(), address=address, groups=(group,))
        vm: Vm = named(Vm, name, VmSpec(nics=(nic,)))
        return vm

    def float(self) -> None:
        spec = AddressSpec(address=FLOATING, router="edge", router_uid=self.router.uid, vm_uid=self.inside.uid)
        floating = named(FloatingAddress, "front", spec)
        self.addresses[floating.uid] = floating

    @property
    def layout(self) -> Layout:
        networks, vms = {one.uid: one for one in (self.lab, self.red)}, {one.uid: one for one in self.vms}
        return Layout(networks, vms, {self.router.uid: self.router}, self.forwards, self.addresses)

    @property
    def vms(self) -> tuple[Vm, ...]:
        return self.inside, self.near

    def ask(self, source: Vm | str, target: Vm | str, port: int, protocol: Protocol = Protocol.TCP) -> Verdict:
        groups = [
            named(SecurityGroup, name, SecurityGroupSpec(rules=tuple(map(parse_rule, rules))))
            for name, rules in GROUPS.items()
        ]
        policy = desired_policy(self.layout, groups, ())
        cards = {card.tap: card for card in policy.cards}
        ends = []
        for one in (source, target):
            card = cards[tap_name(one.uid, "net0")] if isinstance(one, Vm) else None
            ends.append(End(one if isinstance(one, str) else card.addresses[0] if card else "", card))
        return Evaluator(policy, ways=ways_of(self.layout)).evaluate(Question(*ends, protocol, port))


def test_who_leaves_under_the_routers_address_is_met_on_the_other_side() -> None:
    world = World()
    assert ways_of(world.layout).masked == {world.red.uid: Outside(world.lab.uid, (UPLINK,))}
    assert ways_of(World("routed").layout).masked == {}
    assert ways_of(World("none").layout).masked == {}
    world = World(red="mute")
    verdict = world.ask(world.inside, world.near, 22).decisive
    assert verdict is not None
    assert (verdict.stage, verdict.allowed) == (Stage.OUT, False), "its own groups come first"


@pytest.mark.parametrize(("lab", "port", "allowed"), [("near", 22, True), ("web", 22, False), ("web", 80, True)])
def test_groups_out_there_see_the_router(lab: str, port: int, *, allowed: bool) -> None:
    world = World(lab=lab)
    for target in (world.near, OUT):
        verdict = world.ask(world.inside, target, port)
        assert verdict.allowed is allowed
        assert verdict.decisive is not None
        assert verdict.decisive.stage is Stage.IN


def test_nobody_comes_in_but_by_a_forward_or_an_address_of_the_routers() -> None:
    world = World()
    assert not world.ask("198.51.100.7", world.inside, 80).allowed
    assert not world.ask(world.near, world.inside, 80).allowed
    world.float()
    assert world.ask(world.near, world.inside, 80).allowed
    denied = world.ask(world.near, world.inside, 22).decisive
    assert denied is not None
    assert (denied.stage, denied.allowed) == (Stage.IN, False)
    assert not world.ask("198.51.100.7", world.inside, 80).allowed, "nobody comes into the network under NAT"


def test_a_forward_lets_in_what_it_is_for() -> None:
    world = World(red="mute")
    spec = ForwardSpec.model_validate({"vm": "inside", "vm_uid": world.inside.uid, "host_port": 8080, "port": 8081})
    forward = named(Forward, "f", spec)
    world.forwards[forward.uid] = forward
    for _ in range(2):
        assert world.ask("198.51.100.7", world.inside, 8081).allowed
        assert not world.ask("198.51.100.7", world.inside, 8082).allowed
        world.float()


def test_the_gateway_of_the_network_that_it_leaves_by_is_the_hosts_door_for_it() -> None:
    for uplink in ("nat", "routed"):
        world = World(uplink)
        assert world.ask(world.inside, "10.7.0.1", 53, Protocol.UDP).allowed
        refused = world.ask(world.inside, "10.7.0.1", 22).decisive
        assert refused is not None
        assert refused.stage is Stage.HOST
