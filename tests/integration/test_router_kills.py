"""A process that makes a router is killed before each of its commands: the next one makes it whole, and removes it whole."""

import asyncio
import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from beyond_host import served_by
from gateway_site import SUBNET, Tenant, opened
from router_site import Site, made_site, port
from wired_guest import wired_guest
from wires import Wires, fetch, ip, reaches

from corral import proc
from corral.network.router import BalancerWish, FloatingWish, ForwardWish, HostRouteWish, RouteWish, ServerWish
from corral.network.router_kernel import KernelRouters

pytestmark = pytest.mark.timeout(300)
COMMANDS_MAX = 60


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    yield from made_site(tmp_path)


def killed_before(number: int, work: Any) -> bool:
    """Run `work` in a process that dies by SIGKILL before its command of this number. False: it came to its end."""
    child = os.fork()
    if child == 0:
        real, seen = proc.run, 0

        async def run(*args: Any, **kwargs: Any) -> Any:
            nonlocal seen
            seen += 1
            if seen == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return await real(*args, **kwargs)

        proc.run = run  # type: ignore[assignment]
        asyncio.run(work())
        os._exit(0)
    return os.waitpid(child, 0)[1] != 0


def test_made_and_removed_whole(site: Site) -> None:
    server = BalancerWish("b", "shop", 81, 80, "tcp", "roundrobin", (ServerWish("web", "10.231.1.10"),), "", 1)
    site.wires.serve(site.web, 80, "web")
    site.change(
        forwards=(ForwardWish("tcp", 8080, "10.231.1.10", 80),),
        floating=(FloatingWish("10.231.9.50", "10.231.1.10"),),
        outer=("10.231.9.50",),
        balancers=(server,),
    )
    for number in range(1, COMMANDS_MAX):
        cut = killed_before(number, lambda: site.driver.ensure(site.wish))
        site.ensure()
        assert reaches(site.web, "10.231.2.10", 3), number
        assert fetch(site.outside, "10.231.9.2", 8080) == "web", number
        assert fetch(site.outside, "10.231.9.50", 80) == "web", number
        if not cut:
            break
        # Cut on the way out, too: what is left of it is made again or removed, as is wished then.
        killed_before(number, lambda: site.driver.remove(site.wish.uid))
        asyncio.run(site.driver.remove(site.wish.uid))
        names = subprocess.run(["ip", "netns", "list"], check=True, capture_output=True, text=True).stdout
        assert site.wish.namespace not in names
        assert not any(Path("/sys/class/net", port.interface).exists() for port in site.wish.all_ports)
    else:
        pytest.fail("it never came to its end")


def test_a_gateway_serves_and_is_led_to_wherever_it_was_cut(tmp_path: Path) -> None:
    wires, place = Wires(), opened(tmp_path)
    tenant = Tenant(place, KernelRouters(place / "run", place), wires)
    try:
        out = wires.bridge()
        ip("addr", "add", "10.232.9.1/24", "dev", out)
        uplink, led = port(tenant.uid, out, "10.232.9.2"), HostRouteWish(SUBNET, "10.232.9.2", out)
        wished = {"uplink": uplink, "routes": (RouteWish("default", "10.232.9.1"),), "host_routes": (led,)}
        tenant.wish = replace(tenant.wish, **wished)
        mac = tenant.reserve("10.232.1.77", "web")
        with wired_guest(tenant.bridge, mac, place) as guest:
            for number in range(1, COMMANDS_MAX):
                cut = killed_before(number, lambda: tenant.driver.ensure(tenant.wish))
                tenant.ensure()
                assert guest.dhcp()["ip"] == "10.232.1.77", number
                assert guest.pings("10.232.9.1"), number
                assert len(served_by(tenant.network_uid)) == 1, number
                if not cut:
                    break
                killed_before(number, lambda: tenant.driver.remove(tenant.uid))
                asyncio.run(KernelRouters(place / "run", place).remove(tenant.uid))
                assert served_by(tenant.network_uid) == [], number
                left = subprocess.run(["ip", "route", "show", SUBNET], check=True, capture_output=True, text=True)
                assert left.stdout == "", number
            else:
                pytest.fail("it never came to its end")
    finally:
        asyncio.run(tenant.driver.remove(tenant.uid))
        wires.close()
