"""Networks whose gateway is a router: what the host has of them, who serves them, and when the host gets to know them."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from corral.model.network import Network, NetworkSpec
from corral.model.router import Router, RouterPort, RouterSpec
from corral.model.vm import NicSpec, Vm, VmSpec
from corral.names import new_mac, new_uid, port_name
from corral.network import router_host_routes
from corral.network.dnsmasq import served_lines
from corral.network.firewall.evaluate import End, Evaluator, Question, Stage
from corral.network.firewall.from_objects import Wishes, build_policy
from corral.network.firewall.layout import Layout as Compiled
from corral.network.firewall.policy import HOST_REALM, Door, Protocol
from corral.network.paths import Layout
from corral.network.realms import in_hosts_realm, led, overlap_behind, realms
from corral.network.router import HostRouteWish, RouteWish
from corral.network.router_wish import build_wish, dhcp_lines, router_address6

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SUBNET = "10.7.1.0/24"


def network(name: str, subnet: str = SUBNET, mode: str = "isolated", **more: Any) -> Network:
    fields = {"mode": mode, "subnet": subnet, "domain": f"{name}.test", "bridge": f"br{name}", **more}
    return Network(name=name, uid=new_uid(), created_at=NOW, spec=NetworkSpec.model_validate(fields))


def tenant(name: str, subnet: str = SUBNET, **more: Any) -> Network:
    return network(name, subnet, gateway_at="router", **more)


def on(one: Network, address: str = "") -> RouterPort:
    found = address or one.spec.router_address
    return RouterPort(network=one.name, network_uid=one.uid, mac=new_mac(), address=found)


def router(
    name: str, *ports: RouterPort, uplink: Any = "none", out: RouterPort | None = None, later: int = 0
) -> Router:
    spec = RouterSpec(ports=ports, uplink=uplink, uplink_port=out)
    return Router(name=name, uid=new_uid(), created_at=NOW + timedelta(seconds=later), spec=spec)


def guest(name: str, one: Network, address: str) -> Vm:
    nic = NicSpec(name="net0", network=one.name, network_uid=one.uid, mac=new_mac(), address=address)
    return Vm(name=name, uid=new_uid(), created_at=NOW, spec=VmSpec(nics=(nic,)))


class Site:
    """Two tenants with the same subnet, each behind a router whose uplink is on `default`."""

    def __init__(self, uplink: str = "nat") -> None:
        self.default = network("default", "10.7.0.0/24", "nat")
        self.red, self.blue = tenant("red"), tenant("blue")
        self.a = router("a", on(self.red), uplink=uplink, out=on(self.default, "10.7.0.2"))
        self.b = router("b", on(self.blue), uplink="nat", out=on(self.default, "10.7.0.3"), later=1)
        self.routers: tuple[Router, ...] = (self.a, self.b)
        self.one, self.other = guest("one", self.red, "10.7.1.10"), guest("other", self.blue, "10.7.1.10")

    @property
    def networks(self) -> tuple[Network, ...]:
        return self.default, self.red, self.blue

    @property
    def layout(self) -> Layout:
        return Layout(
            {one.uid: one for one in self.networks},
            {one.uid: one for one in (self.one, self.other)},
            {one.uid: one for one in self.routers},
        )

    def policy(self) -> Any:
        return build_policy(Wishes((self.one, self.other), self.networks, routers=(self.a, self.b)))


@pytest.fixture
def site() -> Site:
    return Site()


def test_the_host_has_no_address_there() -> None:
    spec = tenant("red", ipv6="dhcp", subnet6="fd00:1::/64").spec
    assert (spec.gateway, spec.gateway6, spec.hosted) == ("", "", False)
    assert (spec.router_address, spec.first_address6) == ("10.7.1.1", "fd00:1::1")
    hosted = network("red").spec
    assert (hosted.gateway, hosted.router_address, hosted.hosted) == ("10.7.1.1", "", True)
    assert '"gateway_at"' not in hosted.model_dump_json(), "written where it is not the host"
    assert not network("lan", "", "bridge").spec.hosted


def test_who_has_the_gateways_address_serves_and_nobody_else(site: Site) -> None:
    wish = build_wish(site.a, site.layout)
    (served,) = wish.served
    assert (served.network_uid, served.interface) == (site.red.uid, port_name(site.a.uid, site.red.uid))
    assert {"dhcp-range=10.7.1.2,10.7.1.254,255.255.255.0", "server=10.7.0.1", "no-resolv"} <= set(served.lines)
    assert wish.host_routes == ()
    second = router("c", on(site.red, "10.7.1.9"), later=2)
    assert build_wish(second, site.layout).served == ()
    assert dhcp_lines(site.red, site.layout) == ("option:router,10.7.1.1",)


def test_names_from_elsewhere_are_asked_of_whom_the_network_says() -> None:
    own = served_lines(tenant("red", dns=("9.9.9.9",)).spec, "10.7.0.1")
    assert "server=9.9.9.9" in own
    assert "server=10.7.0.1" not in own
    assert [line for line in served_lines(tenant("red").spec, "") if line.startswith("server")] == []


def test_ipv6_of_a_gateway_is_the_first_and_of_another_its_own() -> None:
    red = tenant("red", ipv6="dhcp", subnet6="fd00:1::/64")
    assert router_address6(red.spec, on(red)) == "fd00:1::1"
    assert router_address6(red.spec, on(red, "10.7.1.9")) == "fd00:1::9"
    slaac = network("s", ipv6="slaac", subnet6="fd00:2::/64")
    assert router_address6(slaac.spec, on(slaac, "10.7.1.9")).startswith("fd00:2::5054:ff:fe")
    assert router_address6(network("four").spec, on(network("four"), "10.7.1.9")) == ""


def test_on_a_network_of_the_hosts_the_router_that_leads_out_says_so_by_ipv6() -> None:
    front = network("front", ipv6="slaac", subnet6="fd00:1::/64")
    out = network("default", "10.7.0.0/24", "nat", ipv6="dhcp", subnet6="fd00:9::/64")
    first = router("out", on(front, "10.7.1.2"), uplink="nat", out=on(out, "10.7.0.2"), later=1)
    second = router("aside", on(front, "10.7.1.3"))
    layout = Layout({one.uid: one for one in (front, out)}, {}, {one.uid: one for one in (first, second)})
    wish = build_wish(first, layout)
    (told,) = wish.served
    assert not told.gateway
    assert {"port=0", "enable-ra"} <= set(told.lines)
    assert build_wish(second, layout).served == ()
    assert RouteWish("default", "fd00:9::1") in wish.routes
    assert wish.uplink is not None
    assert wish.uplink.address6 == "fd00:9::2"


def test_a_routed_uplink_makes_its_networks_the_hosts_business(site: Site) -> None:
    assert realms(site.networks, (site.a, site.b)) == {
        site.default.uid: HOST_REALM,
        site.red.uid: site.a.uid,
        site.blue.uid: site.b.uid,
    }
    assert in_hosts_realm(site.networks, (site.a, site.b)) == (site.default,)
    routed = Site("routed")
    assert realms(routed.networks, (routed.a, routed.b))[routed.red.uid] == HOST_REALM
    assert led({one.uid: one for one in routed.networks}, (routed.a, routed.b)) == {routed.red.uid: routed.default.uid}
    assert in_hosts_realm(routed.networks, (routed.a, routed.b)) == (routed.default, routed.red)
    wish = build_wish(routed.a, routed.layout)
    assert wish.host_routes == (HostRouteWish(SUBNET, "10.7.0.2", "brdefault"),)
    assert not wish.masquerade


def test_tenants_are_told_apart_by_zone_and_bridge(site: Site) -> None:
    policy = site.policy()
    compiled = Compiled(policy)
    assert compiled.zones["brred"] != compiled.zones["brblue"]
    assert "brdefault" not in compiled.zones
    nets = {net.bridge: net for net in policy.nets}
    assert nets["brred"].gateways == ()
    assert nets["brred"].doors == (Door(site.a.spec.ports[0].mac, ("10.7.1.1",)),)
    assert compiled.translated_subnets(four=True) == ["10.7.0.0/24"]


def test_what_is_led_to_is_translated_and_guarded_as_the_network_that_it_is_led_by() -> None:
    routed = Site("routed")
    compiled = Compiled(routed.policy())
    assert sorted(compiled.translated_subnets(four=True)) == ["10.7.0.0/24", SUBNET]
    assert sorted(compiled.home_subnets(four=True)) == ["10.7.0.0/24", SUBNET]
    assert compiled.hosts == (("brred", "10.7.0.1"),)


def ask(site: Site, source: Vm | str, target: str, port: int, protocol: str = "tcp") -> Any:
    evaluator = Evaluator(site.policy())
    cards = {card.addresses[0]: card for card in evaluator.policy.cards if card.network == site.red.uid}
    end = End(source) if isinstance(source, str) else End("10.7.1.10", cards["10.7.1.10"])
    kind = 8 if protocol == "icmp" else None
    question = Question(end, End(target, cards.get(target)), Protocol(protocol), None if kind else port, kind)
    return evaluator.evaluate(question)


def test_the_gateway_serves_whatever_groups_say_and_the_rest_is_theirs(site: Site) -> None:
    for port, protocol in ((53, "udp"), (53, "tcp"), (67, "udp"), (0, "icmp")):
        verdict = ask(site, site.one, "10.7.1.1", port, protocol)
        assert verdict.allowed
        assert verdict.decisive is not None
        assert verdict.decisive.stage is Stage.HOST
    other = ask(site, site.one, "10.7.1.1", 80)
    assert other.decisive is not None
    assert other.decisive.stage is Stage.OUT, "the default group lets it out; nobody of the host's is asked"


def test_the_host_reaches_whom_it_leads_to(site: Site) -> None:
    assert not ask(site, "10.7.0.1", "10.7.1.10", 22).allowed, "from there the host does not come"
    routed = Site("routed")
    assert ask(routed, "10.7.0.1", "10.7.1.10", 22).allowed
    assert not ask(routed, "198.51.100.7", "10.7.1.10", 22).allowed, "as into the network under NAT that leads to it"


def test_networks_that_reach_one_another_by_several_routers_have_no_addresses_in_common() -> None:
    """Groups and connections of a realm know guests by their addresses."""
    red, blue = tenant("red"), tenant("blue", subnet6="fd00:7::/64", ipv6="slaac")
    between = tenant("between", "10.7.2.0/24", subnet6="fd00:7::/64", ipv6="slaac")
    narrow, wide = tenant("narrow", "10.8.5.0/29"), tenant("wide", "10.8.0.0/16")
    known = (red, blue, between, narrow, wide)
    first, last = router("first", on(red), on(between)), router("last", on(wide), on(narrow), later=1)
    second = router("second", on(between, "10.7.2.2"), on(blue), later=2)
    assert overlap_behind(first, known, (first,)) is None
    assert overlap_behind(second, known, (first, second)) == (red, blue)
    assert overlap_behind(second, (blue, between), (second,)) == (blue, between), "by IPv6"
    assert overlap_behind(last, known, (first, last)) == (wide, narrow), "by an address that is neither's first"
    home = network("home", "10.7.0.0/16", "nat")
    out = router("out", on(red), uplink="nat", out=on(home, "10.7.0.2"))
    assert overlap_behind(out, (red, home), (out,)) == (home, red), "on both sides"


def test_of_two_routers_that_lead_to_one_network_the_host_asks_the_first() -> None:
    """It has one route to each: two would take it from each other for ever."""
    site = Site("routed")
    third = router("c", on(site.red, "10.7.1.2"), uplink="routed", out=on(site.default, "10.7.0.4"), later=2)
    site.routers = (*site.routers, third)
    assert [one.via for one in build_wish(site.a, site.layout).host_routes] == ["10.7.0.2"]
    assert build_wish(third, site.layout).host_routes == ()


def test_of_the_hosts_routes_those_by_the_wished_bridges_alone_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    four, six = tmp_path / "route", tmp_path / "ipv6_route"
    four.write_text(
        "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT   \n"
        "eth0\tnothing of ours is taken apart\t-\t-\t-\t-\t-\t-\n"
        "brout\t0001070A\t0200070A\t0003\t0\t0\t0\t00FFFFFF\t0\t0\t0   \n"
    )
    zeros, rest = "0" * 32, "00000400 00000001 00000000 00000003"
    six.write_text(
        f"fd000001{'0' * 24} 40 {zeros} 00 fd000009{'0' * 22}02 {rest}    brout\n"
        f"fd000002{'0' * 24} 40 {zeros} 00 fd000009{'0' * 22}02 {rest}     eth0\n"
    )
    monkeypatch.setattr(router_host_routes, "_TABLE4", four)
    monkeypatch.setattr(router_host_routes, "_TABLE6", six)
    there = [HostRouteWish("10.7.1.0/24", "10.7.0.2", "brout"), HostRouteWish("fd00:1::/64", "fd00:9::2", "brout")]
    lost = [HostRouteWish("10.7.1.0/24", "10.7.0.3", "brout"), HostRouteWish("fd00:2::/64", "fd00:9::2", "brout")]
    assert router_host_routes.missing([*there, *lost]) == lost
    assert router_host_routes.missing(()) == []
