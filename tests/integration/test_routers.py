"""Routers in the real kernel, with namespaces as guests: who reaches whom, and that it goes on after anything is taken away."""

import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from router_site import Site, made_site
from wires import WHO, eventually, fetch, inside, ip, reaches

from corral.errors import CorralError
from corral.network.router import BalancerWish, FloatingWish, ForwardWish, ServerWish

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    yield from made_site(tmp_path)


def test_guests_reach_each_other_and_out_and_nobody_in(site: Site) -> None:
    site.ensure()
    assert reaches(site.web, "10.231.2.10")
    assert reaches(site.app, "10.231.1.10")
    assert reaches(site.web, "10.231.9.1")
    ip("-n", site.outside, "route", "add", "10.231.1.0/24", "via", "10.231.9.2")
    assert not reaches(site.outside, "10.231.1.10")
    site.wires.serve(site.outside, 80, "out")
    assert eventually(lambda: fetch(site.web, "10.231.9.1", 80) == "out")


def test_a_routed_uplink_lets_in_and_hides_nobody(site: Site) -> None:
    site.ensure(masquerade=False)
    ip("-n", site.outside, "route", "add", "10.231.1.0/24", "via", "10.231.9.2")
    assert reaches(site.outside, "10.231.1.10")
    assert not reaches(site.app, "10.231.9.1")  # nobody there knows the way back to it


def test_a_guest_cannot_send_as_if_from_another_network(site: Site) -> None:
    site.ensure()
    ip("-n", site.web, "addr", "add", "10.231.2.99/32", "dev", "lo")
    spoofed = inside(site.web, "busybox", "ping", "-c", "1", "-W", "1", "-I", "10.231.2.99", "10.231.2.10")
    assert spoofed.returncode != 0


def test_a_forward_leads_in_and_its_absence_does_not(site: Site) -> None:
    site.ensure(forwards=(ForwardWish("tcp", 8080, "10.231.1.10", 80),))
    site.wires.serve(site.web, 80, "web")
    assert eventually(lambda: fetch(site.outside, "10.231.9.2", 8080) == "web")
    assert fetch(site.app, "10.231.9.2", 8080) == "web"
    site.ensure(forwards=())
    assert fetch(site.outside, "10.231.9.2", 8080) == ""


def test_a_floating_address_moves_with_its_connections(site: Site) -> None:
    uplink = replace(site.wish.uplink, floating=("10.231.9.50",))  # type: ignore[type-var]
    site.ensure(uplink=uplink, floating=(FloatingWish("10.231.9.50", "10.231.1.10"),))
    site.wires.serve(site.web, 80, "web")
    site.wires.serve(site.app, 80, "app")
    assert eventually(lambda: fetch(site.outside, "10.231.9.50", 80) == "web")
    site.ensure(floating=(FloatingWish("10.231.9.50", "10.231.2.10"),))
    assert eventually(lambda: fetch(site.outside, "10.231.9.50", 80) == "app", 1.0)
    # Who has it goes out under it; the others under the router's own.
    site.wires.serve(site.outside, 81, WHO)
    assert eventually(lambda: fetch(site.app, "10.231.9.1", 81) == "10.231.9.50")
    assert fetch(site.web, "10.231.9.1", 81) == "10.231.9.2"


@pytest.mark.parametrize("what", ["namespace", "outer port", "inner port", "rules", "address", "bridge's port"])
def test_what_is_taken_away_comes_back(site: Site, what: str) -> None:
    wish = site.ensure()
    name, namespace = wish.ports[0].interface, wish.namespace
    taken = {
        "namespace": ("ip", "netns", "del", namespace),
        "outer port": ("ip", "link", "del", name),
        "inner port": ("ip", "-n", namespace, "link", "del", name),
        "rules": ("ip", "netns", "exec", namespace, "nft", "flush", "ruleset"),
        "address": ("ip", "-n", namespace, "addr", "flush", "dev", name),
        "bridge's port": ("ip", "link", "set", name, "nomaster"),
    }
    subprocess.run(taken[what], check=True)
    assert eventually(lambda: _mended(site))
    assert reaches(site.web, "10.231.9.1", 3)


def _mended(site: Site) -> bool:
    """The interfaces of a namespace that was deleted go a moment later."""
    try:
        site.ensure()
    except CorralError as error:
        if error.code != "command-failed":
            raise
        return False
    return reaches(site.web, "10.231.2.10")


def test_what_is_right_is_left_alone(site: Site) -> None:
    wish = site.ensure()
    before = inside(wish.namespace, "nft", "-a", "list", "ruleset").stdout
    links = inside(wish.namespace, "ip", "-o", "link").stdout
    site.ensure()
    assert inside(wish.namespace, "nft", "-a", "list", "ruleset").stdout == before
    assert inside(wish.namespace, "ip", "-o", "link").stdout == links


def test_a_balancer_serves_from_whom_it_can(site: Site) -> None:
    servers = (ServerWish("web", "10.231.1.10"), ServerWish("app", "10.231.2.10"))
    shop = BalancerWish(str(uuid.uuid4()), "shop", 80, 8000, "http", "roundrobin", servers, "/healthz", 1)
    web = site.wires.serve(site.web, 8000, "web")
    site.wires.serve(site.app, 8000, "app")
    wish = site.ensure(balancers=(shop,))
    assert eventually(lambda: fetch(site.outside, "10.231.9.2", 80) == "web")
    assert eventually(lambda: fetch(site.outside, "10.231.9.2", 80) == "app")
    web.kill()
    assert eventually(lambda: {fetch(site.outside, "10.231.9.2", 80) for _ in range(4)} == {"app"}, 15)
    pids = _haproxies(wish.namespace)
    site.ensure()
    assert _haproxies(wish.namespace) == pids
    site.ensure(balancers=(replace(shop, listen=81),))
    assert eventually(lambda: fetch(site.outside, "10.231.9.2", 81) == "app")
    assert eventually(lambda: fetch(site.outside, "10.231.9.2", 80) == "")
    assert eventually(lambda: len(_haproxies(wish.namespace)) == 1)
    subprocess.run(["kill", "-9", *_haproxies(wish.namespace)], check=True)
    site.ensure()
    assert eventually(lambda: fetch(site.outside, "10.231.9.2", 81) == "app")
    site.ensure(balancers=())
    assert eventually(lambda: not _haproxies(wish.namespace))


def _haproxies(namespace: str) -> list[str]:
    return subprocess.run(["ip", "netns", "pids", namespace], check=True, capture_output=True, text=True).stdout.split()
