"""Routers that are gateways, in the real kernel: DHCP, names and advertisements from the namespace, two with the same addresses
side by side, IPv6 between networks and out, the host's routes to what is behind."""

import asyncio
import contextlib
import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from gateway_site import SUBNET, Tenant, opened
from router_site import port
from wired_guest import WiredGuest, wired_guest
from wires import Wires, eventually, inside, ip, reaches

from corral.model.network import NetworkSpec
from corral.names import new_mac, new_uid
from corral.network.addresses import eui64
from corral.network.base import Lease
from corral.network.dnsmasq import advertised_lines
from corral.network.router import HostRouteWish, RouteWish, ServedWish
from corral.network.router_kernel import KernelRouters
from corral.network.router_served import router_leases

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return opened(tmp_path)


@pytest.fixture
def made(place: Path) -> Iterator["list[Tenant]"]:
    """Whatever is put in is taken away."""
    tenants: list[Tenant] = []
    yield tenants
    for one in tenants:
        asyncio.run(one.driver.remove(one.uid))


@pytest.fixture
def wires() -> Iterator[Wires]:
    found = Wires()
    yield found
    found.close()


def tenant(made: "list[Tenant]", place: Path, wires: Wires, **spec: str) -> Tenant:
    one = Tenant(place, KernelRouters(place / "run", place), wires, **spec)
    made.append(one)
    return one


def test_two_with_the_same_addresses_serve_each_their_own(made: "list[Tenant]", place: Path, wires: Wires) -> None:
    for name in ("red", "blue"):
        tenant(made, place, wires).ensure()
        mac = made[-1].reserve("10.232.1.77", name)
        with wired_guest(made[-1].bridge, mac, place) as guest:
            told = guest.dhcp()
            assert (told["ip"], told["router"], told["dns"]) == ("10.232.1.77", "10.232.1.1", "10.232.1.1")
            assert guest.pings("10.232.1.1")
            assert "10.232.1.77" in guest.resolves(f"{name}.t.test", "10.232.1.1")
            assert Lease(mac, "10.232.1.77", name) in router_leases(made[-1].files)
        stranger = {"red": "blue", "blue": "red"}[name]
        with wired_guest(made[-1].bridge, new_mac(), place) as guest:
            assert guest.dhcp()["ip"] != "10.232.1.77", "it is kept"
            assert "10.232.1.77" not in guest.resolves(f"{stranger}.t.test", "10.232.1.1")
    assert made[0].pid() != made[1].pid()


def test_a_server_that_dies_or_is_to_serve_otherwise_is_started_anew_and_others_go_on(
    made: "list[Tenant]", place: Path, wires: Wires
) -> None:
    one = tenant(made, place, wires)
    one.ensure()
    first = one.pid()
    one.ensure()
    assert one.pid() == first
    os.kill(first, 9)
    assert eventually(lambda: not serves(first))
    one.ensure()
    second = one.pid()
    assert second != first
    one.spec = one.spec.model_copy(update={"domain": "other.test"})
    one.ensure(served=(one.served,))
    assert one.pid() != second
    assert eventually(lambda: not serves(second))
    mac = one.reserve("10.232.1.78", "late")
    with wired_guest(one.bridge, mac, place) as guest:
        assert guest.dhcp()["domain"] == "other.test"
    subprocess.run(["ip", "netns", "del", one.wish.namespace], check=True)
    third = one.pid()
    one.ensure()
    assert one.pid() != third
    assert eventually(lambda: not serves(third)), "it served nobody any more"
    fourth = one.pid()
    one.ensure(served=())
    assert eventually(lambda: not serves(fourth))
    assert not list(place.glob("*.served"))


def serves(pid: int) -> bool:
    """One that nobody has waited for yet does not; one that ends has its sockets for a moment."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("X", "Z")
    except OSError:
        return False


def slaac(guest: WiredGuest, address: str) -> bool:
    return eventually(lambda: address in guest.addresses("-6"), 20)


def test_guests_make_their_ipv6_address_of_what_the_router_says(
    made: "list[Tenant]", place: Path, wires: Wires
) -> None:
    one = tenant(made, place, wires, ipv6="slaac", subnet6="fd00:232:1::/64")
    out = wires.bridge()
    outside = wires.host(out, "10.232.9.1/24")
    inside(outside, "ip", "addr", "add", "fd00:232:9::1/64", "dev", "eth0", "nodad", check=True)
    uplink = replace(port(one.uid, out, "10.232.9.2"), address6="fd00:232:9::2")
    routes = (RouteWish("default", "10.232.9.1"), RouteWish("default", "fd00:232:9::1"))
    one.ensure(uplink=uplink, routes=routes, masquerade=True)
    mac = new_mac()
    with wired_guest(one.bridge, mac, place, accept_ra=True) as guest:
        address = eui64("fd00:232:1::/64", mac)
        assert slaac(guest, address)
        assert eventually(lambda: guest.pings("fd00:232:9::1", 1)), "translated"
        inside(outside, "ip", "-6", "route", "add", "fd00:232:1::/64", "via", "fd00:232:9::2", check=True)
        assert inside(outside, "busybox", "ping", "-c", "1", "-W", "1", address).returncode != 0, "nobody comes in"
        one.ensure(masquerade=False)
        assert inside(outside, "busybox", "ping", "-c", "1", "-W", "3", address).returncode == 0
        guest.run("ip", "-6", "addr", "add", "fd00:bad::1/128", "dev", "lo")
        spoofed = guest.run("busybox", "ping", "-c", "1", "-W", "1", "-I", "fd00:bad::1", "fd00:232:9::1")
        assert spoofed.returncode != 0


def test_addresses_are_reserved_in_dhcpv6_and_networks_reach_each_other(
    made: "list[Tenant]", place: Path, wires: Wires
) -> None:
    one = tenant(made, place, wires, ipv6="dhcp", subnet6="fd00:232:1::/64")
    back = wires.bridge()
    beside = replace(port(one.uid, back, "10.232.2.2"), address6="fd00:232:2::2")
    # The host serves there, and leads nobody out: the router says that it does.
    spec = NetworkSpec(mode="isolated", subnet="10.232.2.0/24", subnet6="fd00:232:2::/64", ipv6="slaac", bridge=back)
    told = ServedWish(new_uid(), beside.interface, advertised_lines(spec), gateway=False)
    one.ensure(ports=(one.wish.ports[0], beside), served=(*one.wish.served, told))
    mac, other = one.reserve("10.232.1.77", "web", "fd00:232:1::4d"), new_mac()
    with (
        wired_guest(one.bridge, mac, place, accept_ra=True) as guest,
        wired_guest(back, other, place, accept_ra=True) as far,
    ):
        leases = place / "leases6"
        assert eventually(lambda: "fe80" in guest.run("ip", "-6", "addr", "show", "dev", "eth0", "-tentative").stdout)
        ran = guest.run(
            *("dhclient", "-6", "-1", "-v", "-sf", "/bin/true", "-lf", str(leases), "-pf", f"{leases}.pid", "eth0"),
            timeout_s=40,
        )
        with contextlib.suppress(OSError, ValueError):
            os.kill(int(Path(f"{leases}.pid").read_text()), 15)
        assert "fd00:232:1::4d" in leases.read_text(), ran.stderr
        guest.run("ip", "addr", "add", "fd00:232:1::4d/64", "dev", "eth0", "nodad")
        address = eui64("fd00:232:2::/64", other)
        assert slaac(far, address)
        assert eventually(lambda: guest.run("busybox", "ping", "-c", "1", "-W", "2", address).returncode == 0)
        assert "fd00:232:1::4d" in guest.resolves("web.t.test", "fd00:232:1::1")


def test_the_host_leads_to_what_is_behind_as_long_as_it_is_wished(
    made: "list[Tenant]", place: Path, wires: Wires
) -> None:
    one = tenant(made, place, wires)
    out = wires.bridge()
    ip("addr", "add", "10.232.9.1/24", "dev", out)
    uplink = port(one.uid, out, "10.232.9.2")
    led = HostRouteWish(SUBNET, "10.232.9.2", out)
    one.ensure(uplink=uplink, routes=(RouteWish("default", "10.232.9.1"),), host_routes=(led,))
    guest = wires.host(one.bridge, "10.232.1.10/24", "10.232.1.1")
    assert subprocess.run(["busybox", "ping", "-c", "1", "-W", "2", "10.232.1.10"], check=False).returncode == 0
    assert reaches(guest, "10.232.9.1")
    ip("route", "del", SUBNET, "via", "10.232.9.2")

    assert asyncio.run(one.driver.standing([one.wish])) == frozenset()
    one.ensure()
    assert shown() != ""
    one.ensure(host_routes=())
    assert shown() == ""
    one.ensure(host_routes=(led,))
    ip("netns", "del", one.wish.namespace)
    one.ensure(host_routes=())
    assert shown() == "", "what was noted outlives the namespace"
    one.ensure(host_routes=(led,))
    # Another daemon removes it, which knows nothing but its uid.
    asyncio.run(KernelRouters(place / "run", place).remove(one.uid))
    assert shown() == ""
    assert not list(place.glob("*.router"))


def shown() -> str:
    return subprocess.run(["ip", "route", "show", SUBNET], check=True, capture_output=True, text=True).stdout


def test_what_guests_ask_is_passed_on_to_a_server_elsewhere(made: "list[Tenant]", place: Path, wires: Wires) -> None:
    one = tenant(made, place, wires, dhcp_relay="10.232.9.1")
    out = wires.bridge()
    served = replace(one.served, relay="10.232.9.1")
    uplink = port(one.uid, out, "10.232.9.2")
    one.ensure(uplink=uplink, routes=(RouteWish("default", "10.232.9.1"),), served=(served,))
    server = wires.host(out, "10.232.9.1/24")
    ip("-n", server, "route", "add", SUBNET, "via", "10.232.9.2")
    mac = new_mac()
    words = ("--port=0", "--keep-in-foreground", "--conf-file=/dev/null", "--no-ping", "--leasefile-ro")
    words += ("--dhcp-range=10.232.1.0,static,255.255.255.0", f"--dhcp-host={mac},10.232.1.99,web")
    words += ("--dhcp-option=3,10.232.1.1", f"--pid-file={place}/elsewhere.pid")
    wires.servers.append(subprocess.Popen(["ip", "netns", "exec", server, "dnsmasq", *words]))
    with wired_guest(one.bridge, mac, place) as guest:
        told = guest.dhcp()
        assert (told["ip"], told["router"]) == ("10.232.1.99", "10.232.1.1")
        assert guest.pings("10.232.9.1")
    one.reserve("10.232.1.99", "web")
    with wired_guest(one.bridge, mac, place) as guest:
        guest.dhcp()
        assert "10.232.1.99" in guest.resolves("web.t.test", "10.232.1.1"), "names are the router's still"
