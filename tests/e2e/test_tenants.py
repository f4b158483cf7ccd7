"""Two tenants with the same subnet and the same addresses, each behind a router that is its network's gateway: real guests
with DHCP, names, a way out and a way in, and none of the one meets the other."""

import os
import subprocess
from collections.abc import Iterator

import pytest
from beyond_host import beyond_host, eventually, fetched, neighbour, served_by, web_beyond
from walk import PATIENCE, Walk
from wires import WHO, Wires

pytestmark = pytest.mark.timeout(900)
SUBNET, GATEWAY, ADDRESS = "10.77.0.0/24", "10.77.0.1", "10.77.0.10"
# Of this run alone, below what the kernel gives to who asks for any.
PORTS = {"red": 20000 + os.getpid() % 5000 * 2, "blue": 20001 + os.getpid() % 5000 * 2}

SAME = """
import socket, sys
opened = []
for port in sys.argv[2:]:
    one = socket.socket()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    one.bind(("", 33333))
    one.settimeout(10)
    one.connect((sys.argv[1], int(port)))
    opened.append(one)
for one in opened:
    one.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
for one in opened:
    print(b"".join(iter(lambda: one.recv(4096), b"")).decode().split()[-1])
"""


@pytest.fixture(scope="module")
def outside() -> Iterator[tuple[str, str]]:
    with beyond_host("e2t", 1) as found:
        yield found


@pytest.fixture(scope="module")
def tenants(walk: Walk) -> Iterator[str]:
    """Networks, routers and guests called `PREFIX-red` and `PREFIX-blue`."""
    prefix = walk.name("ten")
    names = [f"{prefix}-{colour}" for colour in PORTS]
    try:
        for name in names:
            walk("network", "create", name, "--gateway", "router", "--subnet", SUBNET).ok()
            walk("router", "create", name, "--connect", name).ok()
            micro = ("--image", "micro", "--memory", "128", "--network", f"{name},address={ADDRESS}")
            walk("create", "--name", name, *micro).ok()
        for name, port in zip(names, PORTS.values(), strict=True):
            walk("wait", name, "--for", "agent", "--timeout", PATIENCE).ok()
            walk("forward", "add", name, f"{port}:80").ok()
            walk.guest(name, f"mkdir -p /srv && echo {name} > /srv/index.html && httpd -p 80 -h /srv")
        yield prefix
    finally:
        for noun in ("delete", "router delete", "network delete"):
            for name in names:
                walk(*noun.split(), *(["--yes"] if noun == "delete" else []), name)
        assert walk.json("router", "list") == []


def namespace_of(walk: Walk, router: str) -> str:
    return str(walk.json("router", "show", router)["status"]["namespace"])


def test_both_have_the_same_address_and_each_its_own_gateway(walk: Walk, tenants: str) -> None:
    for colour in PORTS:
        name = f"{tenants}-{colour}"
        assert f"inet {ADDRESS}/24" in walk.guest(name, "ip addr show"), "DHCP gave it"
        assert f"via {GATEWAY}" in walk.guest(name, "ip route")
        assert "1 packets received" in walk.guest(name, f"ping -c 1 -W 5 {GATEWAY}; true")
        assert ADDRESS in walk.guest(name, f"nslookup {name}.{name}.internal {GATEWAY}; true")
        bridge = walk.json("network", "show", name)["spec"]["bridge"]
        shown = subprocess.run(["ip", "-o", "addr", "show", "dev", bridge], check=True, capture_output=True, text=True)
        assert shown.stdout == "", "the host has no address there"
    led = subprocess.run(["ip", "route", "get", ADDRESS], check=False, capture_output=True, text=True).stdout
    assert "crl" not in led
    # Who has that address here is somebody else.
    walk("ssh", f"{tenants}-red", "--", "true").ends(4, "wrong-state")
    walk("wait", f"{tenants}-red", "--for", "ssh", "--timeout", "5s").ends(4, "wrong-state")


def test_the_host_and_a_tenant_may_have_the_same_address(walk: Walk, tenants: str) -> None:
    clash = f"{tenants}-clash"
    walk("network", "create", clash, "--mode", "isolated", "--subnet", SUBNET).ok()
    try:
        for colour in PORTS:
            command = f"arp -d {GATEWAY}; ip neigh flush dev eth0; ping -c 1 -W 5 {GATEWAY}; ip neigh; true"
            said = walk.guest(f"{tenants}-{colour}", command)
            mac = walk.json("router", "show", f"{tenants}-{colour}")["spec"]["ports"][0]["mac"]
            assert "1 packets received" in said
            assert mac in said, "who answered was the router"
    finally:
        walk("network", "delete", clash).ok()


def test_connections_that_look_the_same_reach_each_their_own(
    walk: Walk, tenants: str, outside: tuple[str, str]
) -> None:
    for colour, port in PORTS.items():
        assert eventually(lambda port=port, colour=colour: fetched(*outside, port) == f"{tenants}-{colour}")
    # The same client and port of it, to the same address and port: on both bridges the packets are the same.
    argv = ["ip", "netns", "exec", outside[0], "python3", "-c", SAME, outside[1], *map(str, PORTS.values())]
    both = subprocess.run(argv, check=True, capture_output=True, text=True, timeout=30).stdout.split()
    assert both == [f"{tenants}-red", f"{tenants}-blue"]


def test_they_get_out_and_the_other_is_nowhere(walk: Walk, tenants: str, outside: tuple[str, str]) -> None:
    with web_beyond(outside) as there:
        for colour in PORTS:
            command = f"printf 'GET / HTTP/1.0\\r\\n\\r\\n' | timeout 4 nc -w 3 {there} 8000 | head -n 1; true"
            assert "HTTP/1.0" in walk.guest(f"{tenants}-{colour}", command)
    uplinks = [walk.json("router", "show", f"{tenants}-{one}")["spec"]["uplink_port"]["address"] for one in PORTS]
    for colour, uplink in zip(PORTS, reversed(uplinks), strict=True):
        command = f"printf 'GET / HTTP/1.0\\r\\n\\r\\n' | timeout 4 nc -w 3 {uplink} 80 | tail -n 1; true"
        assert walk.guest(f"{tenants}-{colour}", command).strip() == "", "past the other's router nobody comes"


def test_groups_and_gateway_hold_there_as_elsewhere(walk: Walk, tenants: str, outside: tuple[str, str]) -> None:
    """A guest that may send nothing keeps its address, names and gateway; explain and packets agree."""
    group = f"{tenants}-mute"
    red = f"{tenants}-red"
    beyond = f"ping -c 1 -W 2 {neighbour(outside[1])}; true"
    assert eventually(lambda: "1 packets received" in walk.guest(red, beyond))
    walk("security-group", "create", group, "--rule", "in tcp/80").ok()
    walk("nic", "set", red, "net0", "--groups", group).ok()
    try:
        assert eventually(lambda: "1 packets received" not in walk.guest(red, beyond))
        assert "1 packets received" in walk.guest(red, f"ping -c 1 -W 5 {GATEWAY}; true")
        assert ADDRESS in walk.guest(red, f"nslookup {red} {GATEWAY}; true")
        renewed = walk.guest(red, "udhcpc -i eth0 -n -q -f -t 5 -T 2 2>&1; true")
        assert "obtained" in renewed or "lease of" in renewed, renewed
        walk("firewall", "explain", red, "--to", GATEWAY, "--port", "53", "--protocol", "udp").ok()
        walk("firewall", "explain", red, "--to", GATEWAY, "--port", "80").ends(1)
    finally:
        walk("nic", "set", red, "net0", "--groups", "default").ok()
        walk("security-group", "delete", group).ok()


def test_it_goes_on_without_the_daemon_and_is_mended_by_it(walk: Walk, tenants: str, outside: tuple[str, str]) -> None:
    red = f"{tenants}-red"
    namespace, uid = namespace_of(walk, red), str(walk.json("network", "show", red)["uid"])
    before = served_by(uid)
    assert len(before) == 1
    walk("daemon", "stop").ok()
    assert fetched(*outside, PORTS["red"]) == red
    walk("daemon", "start").ok()
    assert served_by(uid) == before, "it served on"
    os.kill(before[0], 9)
    assert eventually(lambda: bool(served_by(uid)) and served_by(uid) != before, 5.0)
    # The daemon may be quicker with a new one than this is with the name of the old.
    subprocess.run(["ip", "netns", "del", namespace], check=False)
    assert eventually(lambda: fetched(*outside, PORTS["red"]) == red, 5.0)
    assert eventually(lambda: len(served_by(uid)) == 1, 5.0)
    renewed = walk.guest(red, "udhcpc -i eth0 -n -q -f -t 5 -T 2 2>&1; true")
    assert "lease of" in renewed or "obtained" in renewed, renewed


def test_what_the_host_would_have_to_know_is_refused(walk: Walk, tenants: str) -> None:
    red, out = f"{tenants}-red", f"{tenants}-out"
    walk("router", "set", red, "--uplink", "routed").ok()
    try:
        walk("router", "set", f"{tenants}-blue", "--uplink", "routed").ends(4, "no-free-subnet")
        walk("network", "create", out, "--mode", "routed", "--subnet", SUBNET).ends(4, "no-free-subnet")
        # The host leads to it now, and is let in by its groups whatever they are.
        argv = ["curl", "-s", "-m", "3", f"http://{ADDRESS}/"]
        assert eventually(
            lambda: subprocess.run(argv, check=False, capture_output=True, text=True).stdout.strip() == red
        )
        led = host_route()
        for mistake in ("del", "replace unreachable"):
            subprocess.run(["ip", "route", *mistake.split(), SUBNET], check=True)
            assert eventually(lambda: host_route() == led, 5.0), f"brought back after {mistake}"
    finally:
        walk("router", "set", red, "--uplink", "nat").ok()
    assert host_route() == ""


def host_route() -> str:
    return subprocess.run(["ip", "route", "show", SUBNET], check=True, capture_output=True, text=True).stdout


def test_without_translation_guests_are_seen_as_the_uplinks_network_is(
    walk: Walk, tenants: str, outside: tuple[str, str]
) -> None:
    red, out, group = f"{tenants}-red", f"{tenants}-out", f"{tenants}-in"
    wires = Wires()
    wires.serve(outside[0], 8001, WHO)
    there = neighbour(outside[1])

    def seen() -> str:
        command = f"printf 'GET / HTTP/1.0\\r\\n\\r\\n' | timeout 4 nc -w 3 {there} 8001 | tail -n 1; true"
        return walk.guest(red, command).strip()

    try:
        walk("network", "create", out, "--mode", "routed").ok()
        walk("security-group", "create", group, "--rule", "in tcp/80-81", "--rule", "out any").ok()
        walk("nic", "set", red, "net0", "--groups", group).ok()
        walk("router", "set", red, "--uplink", "routed", "--uplink-network", out).ok()
        assert eventually(lambda: fetched(outside[0], ADDRESS, 80) == red), "seen, and let in by its group"
        assert eventually(lambda: seen() == ADDRESS)
        assert fetched(outside[0], ADDRESS, 22) == ""
        walk("firewall", "explain", red, "--from", there, "--port", "81").ok()
        walk("firewall", "explain", red, "--from", there, "--port", "22").ends(1)
        walk("router", "set", red, "--uplink-network", "default").ok()
        assert eventually(lambda: seen() == outside[1]), "under the host's address"
        assert fetched(outside[0], ADDRESS, 80) == "", "nobody comes into a network under NAT"
        walk("firewall", "explain", red, "--from", there, "--port", "81").ends(1)
        walk("firewall", "explain", red, "--from", there, "--port", "80").ok()  # by the port of the host's
    finally:
        wires.close()
        walk("router", "set", red, "--uplink", "nat", "--uplink-network", "default").ok()
        walk("nic", "set", red, "net0", "--groups", "default").ok()
        walk("security-group", "delete", group).ok()
        walk("network", "delete", out).ok()


def test_ipv6_goes_through_the_router_and_out(walk: Walk, tenants: str) -> None:
    """A network of IPv6 behind a router whose uplink's network has it, too; the guest makes its address itself."""
    blue, six, out = f"{tenants}-blue", f"{tenants}-six", f"{tenants}-out6"
    try:
        walk("network", "create", out, "--mode", "routed", "--ipv6", "slaac").ok()
        walk("network", "create", six, "--gateway", "router", "--ipv6", "slaac").ok()
        walk("router", "create", six, "--connect", six, "--uplink", "routed", "--uplink-network", out).ok()
        walk("nic", "set", blue, "net0", "--network", six).ok()
        walk.guest(blue, "ip -6 addr flush dev eth0 scope global; udhcpc -i eth0 -n -q -f -t 5 -T 2 2>&1; true")
        address = str(walk.info(blue)["spec"]["nics"][0]["address6"])
        assert eventually(lambda: address in walk.guest(blue, "ip -6 addr show dev eth0"), 40)
        gateway = walk.json("network", "show", out)["spec"]["subnet6"].partition("/")[0] + "1"
        assert eventually(lambda: "1 packets received" in walk.guest(blue, f"ping -c 1 -W 3 {gateway}; true"))
        # The host comes by the router, whatever the guest's groups are.
        argv = ["busybox", "ping", "-c", "1", "-W", "3", address]
        assert eventually(lambda: subprocess.run(argv, check=False, capture_output=True).returncode == 0)
    finally:
        walk("nic", "set", blue, "net0", "--network", blue)
        for noun, name in (("router", six), ("network", six), ("network", out)):
            walk(noun, "delete", name)
