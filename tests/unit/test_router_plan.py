"""What is wished of a router: from objects to addresses and rules, and from what there is to commands."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from corral.cli.balancer import parse_check
from corral.cli.forward import parse_ports
from corral.cli.router import parse_routes
from corral.errors import CorralError
from corral.model.address import AddressSpec, FloatingAddress
from corral.model.balancer import Balancer, BalancerCheck, BalancerSpec, BalancerTarget
from corral.model.forward import Forward, ForwardSpec
from corral.model.network import Network, NetworkSpec
from corral.model.router import Router, RouterPort, RouterRoute, RouterSpec
from corral.model.vm import NicSpec, Vm, VmSpec
from corral.names import namespace_name, new_mac, new_uid, port_name
from corral.network.firewall.policy import HOST_REALM
from corral.network.haproxy_config import build_config
from corral.network.paths import Layout, forward_openings, host_forwards, path_to
from corral.network.realms import realms
from corral.network.router import FloatingWish, ForwardWish, RouteWish
from corral.network.router_plan import Commands, ObservedPort, ObservedRouter, plan_links, plan_routes
from corral.network.router_rules import build_rules, mark_of
from corral.network.router_wish import build_wish, dhcp_lines

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def network(name: str, number: int, mode: Any = "isolated") -> Network:
    spec = NetworkSpec(mode=mode, subnet=f"10.9.{number}.0/24", domain=f"{name}.test", bridge=f"br{name}")
    return Network(name=name, uid=new_uid(), created_at=NOW, spec=spec)


def on(one: Network, last: int) -> RouterPort:
    address = f"{one.spec.subnet.rsplit('.', 1)[0]}.{last}"
    return RouterPort(network=one.name, network_uid=one.uid, mac=new_mac(), address=address)


def guest(name: str, *cards: tuple[Network, int]) -> Vm:
    nics = tuple(
        NicSpec(name=f"net{n}", network=one.name, network_uid=one.uid, mac=new_mac(), address=on(one, last).address)
        for n, (one, last) in enumerate(cards)
    )
    return Vm(name=name, uid=new_uid(), created_at=NOW, spec=VmSpec(nics=nics))


class Site:
    """front and back behind edge, whose uplink is on default; a guest on each."""

    def __init__(self) -> None:
        self.default, self.front, self.back = network("default", 0, "nat"), network("front", 1), network("back", 2)
        self.web, self.db, self.lone = guest("web", (self.front, 10)), guest("db", (self.back, 10)), guest("lone")
        spec = RouterSpec(ports=(on(self.front, 2), on(self.back, 2)), uplink="nat", uplink_port=on(self.default, 2))
        self.edge = Router(name="edge", uid=new_uid(), created_at=NOW, spec=spec)
        self.core = Router(name="core", uid=new_uid(), created_at=NOW, spec=RouterSpec(uplink="none"))

    def layout(self, *others: Any) -> Layout:
        kinds: dict[type, dict[str, Any]] = {}
        for one in (self.default, self.front, self.back, self.web, self.db, self.lone, self.edge, *others):
            kinds.setdefault(type(one), {})[one.uid] = one
        return Layout(
            kinds[Network],
            kinds[Vm],
            kinds[Router],
            kinds.get(Forward, {}),
            kinds.get(FloatingAddress, {}),
            kinds.get(Balancer, {}),
        )

    def forward(self, vm: Vm, host_port: int, port: int) -> Forward:
        spec = ForwardSpec(protocol="tcp", host_port=host_port, vm=vm.name, vm_uid=vm.uid, port=port)
        return Forward(name=f"tcp-{host_port}", uid=new_uid(), created_at=NOW, spec=spec)


@pytest.fixture
def site() -> Site:
    return Site()


def test_names_are_of_the_kernels_length_and_of_their_uids() -> None:
    router, one, two = new_uid(), new_uid(), new_uid()
    assert len(port_name(router, one)) == len(namespace_name(router)) == 15
    assert port_name(router, one) == port_name(router, one) != port_name(router, two)


def test_a_wish_leads_where_the_objects_say(site: Site) -> None:
    spec = AddressSpec(address="10.9.0.50", router="edge", router_uid=site.edge.uid, vm="db", vm_uid=site.db.uid)
    address = FloatingAddress(name="float", uid=new_uid(), created_at=NOW, spec=spec)
    nobody = replace_vm(address, None)
    wish = build_wish(site.edge, site.layout(site.forward(site.web, 8080, 80), address, nobody))
    assert wish.routes == (RouteWish("default", "10.9.0.1"),)
    assert wish.forwards == (ForwardWish("tcp", 8080, "10.9.1.10", 80),)
    assert wish.floating == (FloatingWish("10.9.0.50", "10.9.2.10"),)
    assert wish.uplink is not None
    assert sorted(wish.uplink.floating) == ["10.9.0.50", "10.9.0.51"]
    assert wish.masquerade


def replace_vm(address: FloatingAddress, vm: str | None) -> FloatingAddress:
    spec = address.spec.model_copy(update={"vm": vm, "vm_uid": vm, "address": "10.9.0.51"})
    return address.model_copy(update={"uid": new_uid(), "name": "other", "spec": spec})


def test_ports_are_as_wide_as_their_networks(site: Site) -> None:
    narrow = site.front.model_copy(update={"spec": site.front.spec.model_copy(update={"mtu": 1400})})
    wish = build_wish(site.edge, site.layout(narrow))
    assert [port.mtu for port in wish.all_ports] == [1400, 1500, 1500]
    name = wish.ports[0].interface
    commands = plan_links(wish, ObservedRouter(exists=True))
    assert f"link set {name} mtu 1400" in commands.outer
    assert f"link set {name} mtu 1400" in commands.inner
    assert not any("1500" in line for line in (*commands.outer, *commands.inner))


def test_a_route_of_ones_own_goes_before_the_way_out(site: Site) -> None:
    routes = (
        RouterRoute(to="0.0.0.0/0", via="10.9.1.9"),
        RouterRoute(to="10.20.0.0/16", via="10.9.2.9"),
        RouterRoute(to="10.30.0.7/32", via="10.9.2.9"),
    )
    router = site.edge.model_copy(update={"spec": site.edge.spec.model_copy(update={"routes": routes})})
    assert build_wish(router, site.layout()).routes == (
        RouteWish("default", "10.9.1.9"),
        RouteWish("10.20.0.0/16", "10.9.2.9"),
        RouteWish("10.30.0.7", "10.9.2.9"),
    )


def test_the_host_forwards_to_the_guest_or_to_its_router(site: Site) -> None:
    straight = guest("straight", (site.default, 20))
    found = host_forwards(
        site.layout(
            straight, site.forward(straight, 22022, 22), site.forward(site.web, 8080, 80), site.forward(site.lone, 1, 1)
        )
    )
    assert {(one.port, one.address, one.to_port) for one in found} == {
        (22022, "10.9.0.20", 22),
        (8080, "10.9.0.2", 8080),
    }
    assert path_to(site.lone, site.layout().networks, [site.edge]) is None
    openings = forward_openings(
        site.layout(straight, site.forward(straight, 22022, 22), site.forward(site.web, 8080, 80))
    )
    assert set(openings) == {(site.web.uid, "net0")}


def test_guests_are_told_of_the_way_out_and_of_the_ways_to_others(site: Site) -> None:
    assert dhcp_lines(site.front, site.layout()) == ("option:router,10.9.1.2",)
    assert dhcp_lines(site.default, site.layout()) == ()
    third, fourth = network("third", 3), network("fourth", 4, "nat")
    ports = (on(site.front, 3), on(third, 3), on(fourth, 3))
    core = site.core.model_copy(update={"spec": RouterSpec(ports=ports, uplink="none")})
    layout = site.layout(third, fourth, core)
    assert dhcp_lines(site.front, layout) == (
        "option:router,10.9.1.2",
        "option:classless-static-route,10.9.3.0/24,10.9.1.3,10.9.4.0/24,10.9.1.3,0.0.0.0/0,10.9.1.2",
    )
    assert dhcp_lines(third, layout) == ("option:router,10.9.3.3",)
    assert dhcp_lines(fourth, layout)[0] == "option:router,10.9.4.1"  # the host stays its gateway


def test_networks_that_routers_join_are_one_realm(site: Site) -> None:
    other = network("other", 7)
    networks = [site.default, site.front, site.back, other]
    found = realms(networks, [site.edge])
    assert found[site.front.uid] == found[site.back.uid] == site.edge.uid
    assert found[site.default.uid] == HOST_REALM
    assert found[other.uid] == other.uid
    core = site.core.model_copy(update={"spec": RouterSpec(ports=(on(site.back, 3), on(other, 3)))})
    joined = realms(networks, [site.edge, core])
    assert joined[site.front.uid] == joined[site.back.uid] == joined[other.uid]


def test_only_what_differs_is_commanded(site: Site) -> None:
    wish = build_wish(site.edge, site.layout())
    fresh = plan_links(wish, ObservedRouter())
    assert [line for line in fresh.outer if "link add" in line] == [
        f"link add {p.interface} type veth peer name {p.interface} address {p.mac} netns {wish.namespace}"
        for p in wish.all_ports
    ]
    outer = {p.interface: ObservedPort(True, p.bridge) for p in wish.all_ports}
    inner = {p.interface: ObservedPort(True, "", p.mac, frozenset(p.cidrs)) for p in wish.all_ports}
    there = ObservedRouter(True, outer, {**inner, "lo": ObservedPort(True)})
    assert plan_links(wish, there) == Commands((), ())
    first = wish.ports[0]
    lost = replace(there, outer={**outer, first.interface: ObservedPort(True, "")})
    assert plan_links(wish, lost) == Commands((f"link set {first.interface} master {first.bridge}",), ())
    left = replace(there, inner={**there.inner, "crr0123456789ab": ObservedPort(True)})
    assert plan_links(wish, left).inner == ("link del crr0123456789ab",)


def test_routes_whose_next_hop_is_nowhere_wait(site: Site) -> None:
    wish = replace(build_wish(site.edge, site.layout()), routes=(RouteWish("10.20.0.0/16", "172.16.0.1"),))
    assert plan_routes(wish, frozenset({("default", "10.9.0.1")})) == ("route del default via 10.9.0.1",)


def test_rules_are_known_by_their_mark(site: Site) -> None:
    wish = build_wish(site.edge, site.layout())
    assert mark_of(wish) == mark_of(build_wish(site.edge, site.layout()))
    other = replace(wish, masquerade=False)
    assert mark_of(wish) != mark_of(other)
    commands = json.loads(build_rules(wish))["nftables"]
    assert [next(iter(one)) for one in commands[:3]] == ["add", "delete", "add"]  # one transaction, whatever was there
    assert not any("v" + mark_of(wish)[1:] in json.dumps(one) for one in commands)


def test_haproxy_is_told_values_alone(site: Site) -> None:
    spec = BalancerSpec(
        router="edge",
        router_uid=site.edge.uid,
        listen=80,
        port=8000,
        targets=(BalancerTarget(vm="web", vm_uid=site.web.uid), BalancerTarget(vm="gone", vm_uid=new_uid())),
        check=BalancerCheck(kind="http", path="/healthz"),
    )
    shop = Balancer(name="shop", uid=new_uid(), created_at=NOW, spec=spec)
    text = build_config(build_wish(site.edge, site.layout(shop)), "/run/x.sock").decode()
    assert "    bind :80\n" in text
    assert "    server web 10.9.1.10:8000 check inter 2s\n" in text
    assert "gone" not in text
    assert "uri /healthz ver" in text


@pytest.mark.parametrize("path", ["healthz", "/a b", "/a\nbackend x", "/a;b", "/ä", '/"', "/%0a"])
def test_a_path_that_could_say_more_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="path"):
        BalancerCheck(kind="http", path=path)


def test_words_of_the_command_line() -> None:
    assert parse_ports("8080:80") == {"host_port": 8080, "protocol": "tcp", "port": 80}
    assert parse_ports("53/udp") == {"host_port": 53, "protocol": "udp"}
    assert parse_check("http:/healthz") == {"kind": "http", "path": "/healthz"}
    assert parse_routes(("10.0.0.0/8=10.1.0.1",)) == [{"to": "10.0.0.0/8", "via": "10.1.0.1"}]


@pytest.mark.parametrize(
    "call", [lambda: parse_ports("80:x"), lambda: parse_ports("80/sctp"), lambda: parse_ports("-1:2")]
)
def test_words_that_mean_nothing_are_refused(call: Any) -> None:
    with pytest.raises(CorralError, match="invalid-argument"):
        call()
    for text in ("ftp", "http:healthz", "tcp:/x"):
        with pytest.raises(CorralError, match="invalid-argument"):
            parse_check(text)
