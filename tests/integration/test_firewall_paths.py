"""Every way that packets go: between guests, through the host and its NAT, on the host's own bridge, over IPv6."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest
from wired_host import DRIVER, Guest, WiredHost, run, soon, wired_host

from corral.network.firewall.policy import (
    Card,
    Direction,
    Exemption,
    Floating,
    Forward,
    Group,
    Net,
    NetworkPolicy,
    Peer,
    Protocol,
    Rule,
    Traffic,
)

SHOP = Net("shop", "default", "", "nat", ("10.81.0.0/24", "fd00:81::/64"), ("10.81.0.1", "fd00:81::1"))
STORE = Net("store", "default", "", "nat", ("10.82.0.0/24",), ("10.82.0.1",))
OTHERS = Net("others", "another", "", "nat", ("10.83.0.0/24",), ("10.83.0.1",))
PUBLIC = Net("public", "default", "", "routed", ("10.84.0.0/24",), ("10.84.0.1",))
LONELY = Net("lonely", "default", "", "isolated", ("10.85.0.0/24",), ("10.85.0.1",), realm="lonely")
LAN = Net("lan", "default", "", "bridge")
HTTP, SQL = Traffic(Protocol.TCP, (80, 80)), Traffic(Protocol.TCP, (5432, 5432))
MEMBERS = Group("members", (Rule("m", Direction.IN, peer=Peer("group", "members")), Rule("mo", Direction.OUT)))
WEB = Group("web", (Rule("w", Direction.IN, HTTP), Rule("wo", Direction.OUT)))
FROM_WEB = Group("from-web", (Rule("f", Direction.IN, SQL, Peer("group", "web")),))
OUTSIDE = "203.0.113.9"
MANY = 400
OFTEN = """
import socket, sys
for _ in range(int(sys.argv[3])):
    socket.create_connection((sys.argv[1], int(sys.argv[2])), 2).close()
"""
# Whoever answers by UDP says as whom it saw the one that asked.
WHO = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(2)
s.sendto(b"?", (sys.argv[1], int(sys.argv[2])))
print(s.recv(64).decode().removeprefix("::ffff:"))
"""
HEAR = """
import signal, sys
from corral.network.firewall.nflog import open_group, parse_packets
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
with open_group(int(sys.argv[1])) as heard:
    heard.setblocking(True)
    print("ready", flush=True)
    while True:
        for one in parse_packets(heard.recv(65536), 0.0):
            print(one.reason, one.source, one.target, one.port, flush=True)
"""


@pytest.fixture(scope="module")
def host() -> Iterator[WiredHost]:
    with wired_host() as made:
        nets = {net.uid: made.network(net) for net in (SHOP, STORE, OTHERS, PUBLIC, LONELY, LAN)}
        _join_lan(made, nets["lan"].bridge)
        made.guest("web", nets["shop"], 11, ["web"])
        made.guest("peer", nets["shop"], 12, ["members"])
        made.guest("other", nets["shop"], 13, ["members"])
        made.guest("sql", nets["store"], 11, ["from-web"])
        made.guest("alien", nets["others"], 11, ["web"])
        made.guest("public", nets["public"], 11, ["web"])
        made.guest("lonely", nets["lonely"], 11, ["web"])
        made.guest("onlan", nets["lan"], 11, ["web"])
        for name in made.guests:
            made.answer(made.guests[name].space, 80, 5432)
        made.answer(made.outside, 80, 5432)
        run("ip", "-n", made.outside, "route", "add", "10.80.0.0/12", "via", "203.0.113.1")
        forwards = (Forward("fw", "tcp", 8080, "10.81.0.12", 5432),)
        made.load(groups=(MEMBERS, WEB, FROM_WEB), forwards=forwards)
        yield made


def _join_lan(host: WiredHost, bridge: str) -> None:
    """Two machines of others on the host's own bridge."""
    for number in (1, 2):
        space = f"cfw-{host.tag}-lan{number}"
        run("ip", "netns", "add", space)
        run(
            "ip",
            "-n",
            host.space,
            "link",
            "add",
            f"lan{number}",
            "type",
            "veth",
            "peer",
            "name",
            "eth0",
            "netns",
            space,
        )
        run("ip", "-n", host.space, "link", "set", f"lan{number}", "master", bridge, "up")
        run("ip", "-n", space, "addr", "add", f"198.18.0.10{number}/24", "dev", "eth0")
        run("ip", "-n", space, "link", "set", "lo", "up")
        run("ip", "-n", space, "link", "set", "eth0", "up")
        card = Card("", "", "")
        host.answer(space, 80, 5432)
        host.neighbours[f"lan{number}"] = Guest(space, card, f"198.18.0.10{number}")


def outside(host: WiredHost) -> Guest:
    return Guest(host.outside, Card("", "", ""), OUTSIDE)


@pytest.mark.parametrize(
    ("source", "target", "port", "passes"),
    [
        pytest.param("peer", "10.81.0.11", 80, True, id="a rule lets it in"),
        pytest.param("peer", "10.81.0.11", 5432, False, id="no rule lets it in"),
        pytest.param("peer", "10.81.0.13", 5432, True, id="members of one group"),
        pytest.param("web", "10.81.0.13", 5432, False, id="no member"),
        pytest.param("web", "10.82.0.11", 5432, True, id="a group on another network of the project"),
        pytest.param("peer", "10.82.0.11", 5432, False, id="not of the group"),
        pytest.param("sql", "10.81.0.11", 80, False, id="nothing lets it out"),
        pytest.param("peer", "10.83.0.11", 80, False, id="another project's network"),
        pytest.param("alien", "10.81.0.11", 80, False, id="from another project's network"),
        pytest.param("peer", "10.85.0.11", 80, False, id="into an isolated network"),
        pytest.param("lonely", "10.81.0.11", 80, False, id="out of an isolated network"),
        pytest.param("lonely", OUTSIDE, 80, False, id="from an isolated network to the world"),
        pytest.param("peer", OUTSIDE, 80, True, id="to the world, translated"),
        pytest.param("public", OUTSIDE, 80, True, id="to the world, as itself"),
        pytest.param("sql", OUTSIDE, 80, False, id="to the world, without a rule"),
        pytest.param("peer", "fd00:81::b", 80, True, id="IPv6"),
        pytest.param("peer", "fd00:81::b", 5432, False, id="IPv6 without a rule"),
        pytest.param("other", "203.0.113.1", 8080, True, id="a neighbour through the host's forwarded port"),
    ],
)
def test_between_guests(host: WiredHost, source: str, target: str, port: int, passes: bool) -> None:
    assert host.guests[source].reaches(target, port, timeout_s=2.0 if passes else 0.3) is passes


@pytest.mark.parametrize(
    ("target", "port", "passes"),
    [
        pytest.param("203.0.113.1", 8080, True, id="a forwarded port, and by that alone"),
        pytest.param("10.81.0.12", 5432, False, id="past the forward"),
        pytest.param("10.81.0.11", 80, False, id="into a network under NAT"),
        pytest.param("10.84.0.11", 80, True, id="into a routed network, by a rule"),
        pytest.param("10.84.0.11", 5432, False, id="into a routed network, without one"),
    ],
)
def test_from_outside(host: WiredHost, target: str, port: int, passes: bool) -> None:
    assert outside(host).reaches(target, port, timeout_s=2.0 if passes else 0.3) is passes


def test_the_host_reaches_everybody(host: WiredHost) -> None:
    on_host = Guest(host.space, Card("", "", ""), "")
    for address in ("10.81.0.12", "10.82.0.11", "10.84.0.11", "10.85.0.11", "fd00:81::b"):
        assert on_host.reaches(address, 5432 if "." in address else 80)
    assert on_host.reaches("203.0.113.1", 8080), "by a port that it forwards itself"
    assert not on_host.reaches("127.0.0.1", 8080, timeout_s=0.3)


def test_outside_nobody_takes_an_inner_address(host: WiredHost) -> None:
    before = host.counters()["deny-transit"]["packets"]
    said = "import socket; s=socket.socket(2,2); s.bind(('10.84.0.99',0)); s.sendto(b'x', ('10.84.0.11', 80))"
    run("ip", "-n", host.outside, "addr", "add", "10.84.0.99/32", "dev", "eth0")
    try:
        outside(host).send(said)
        soon(lambda: host.counters()["deny-transit"]["packets"] > before, "counted")
    finally:
        run("ip", "-n", host.outside, "addr", "del", "10.84.0.99/32", "dev", "eth0")


def test_on_the_hosts_own_bridge_groups_hold_and_others_are_left_alone(host: WiredHost) -> None:
    one, guest = host.neighbours["lan1"], host.guests["onlan"]
    assert one.reaches(guest.address, 80)
    assert not one.reaches(guest.address, 5432, timeout_s=0.3)
    assert guest.reaches(one.address, 5432)
    assert one.reaches("198.18.0.102", 5432)


def test_what_a_network_policy_denies_no_group_allows(host: WiredHost) -> None:
    web = host.guests["web"]
    tiers = NetworkPolicy("t", (Peer("group", "web"), Peer("network", "store")))
    host.load(policies=(tiers,))
    assert not web.reaches("10.82.0.11", 5432, timeout_s=0.3)
    assert host.guests["peer"].reaches("10.81.0.11", 80)
    host.load(policies=(replace(tiers, unless=(Exemption(0, 1, SQL),)),))
    assert web.reaches("10.82.0.11", 5432)
    host.load(policies=())


def test_an_address_of_the_hosts_stands_for_a_guest_both_ways(host: WiredHost) -> None:
    face, guest, world = "203.0.113.7", host.guests["web"], outside(host)
    host.on_host("ip", "addr", "add", f"{face}/24", "dev", "up0")
    try:
        host.load(floating=(Floating("f", face, guest.address),))
        assert world.reaches(face, 80)
        assert not world.reaches(face, 5432, timeout_s=0.3), "it opens nothing"
        seen = guest.do(sys.executable, "-I", "-c", WHO, OUTSIDE, "5432").stdout.strip()
        assert seen == face, "out, too"
        other = host.guests["peer"].do(sys.executable, "-I", "-c", WHO, OUTSIDE, "5432").stdout.strip()
        assert other == "203.0.113.1"
        assert host.guests["other"].reaches(face, 80), "for its neighbours, too"
    finally:
        host.load(floating=())
        host.on_host("ip", "addr", "del", f"{face}/24", "dev", "up0")


def test_what_was_not_judged_leaves_no_guests_port(host: WiredHost) -> None:
    """Neither to a neighbour nor to whoever is on the host's own bridge."""
    guest, one, pid = host.guests["onlan"], host.neighbours["lan1"], host.keeper_pid()
    bridge = next(net.bridge for net in host.policy.nets if net.uid == "lan")
    switch = ("tee", f"/sys/class/net/{bridge}/bridge/nf_call_iptables")
    os.kill(pid, signal.SIGSTOP)  # it would switch it on again
    try:
        host.on_host("sh", "-c", f"echo 0 | {' '.join(switch)}")
        assert not guest.reaches(one.address, 5432, timeout_s=0.3)
        assert not one.reaches(guest.address, 80, timeout_s=0.3)
        assert one.reaches("198.18.0.102", 5432), "what others say each other is not our business"
    finally:
        os.kill(pid, signal.SIGCONT)
    soon(lambda: guest.reaches(one.address, 5432), "it is judged again")


def test_rules_that_log_tell_of_new_connections(host: WiredHost) -> None:
    told = replace(WEB, rules=tuple(replace(one, log=True) for one in WEB.rules))
    peer, denied = host.guests["peer"], "deny-in 10.81.0.12 10.81.0.11 5432"
    host.load(groups=(MEMBERS, told, FROM_WEB))
    try:
        group = str(host.ask("state")["log_group"])
        environment = f"PYTHONPATH={DRIVER.parents[2] / 'src'}"
        argv = ["ip", "netns", "exec", host.space, "env", environment, sys.executable, "-c", HEAR, group]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as hearing:
            assert hearing.stdout is not None
            assert hearing.stdout.readline() == "ready\n"
            peer.do(sys.executable, "-I", "-c", OFTEN, "10.81.0.11", "80", str(MANY))
            peer.reaches("10.81.0.11", 5432, timeout_s=0.2)
            heard: list[str] = []
            while denied not in heard:  # it comes last
                heard.append(hearing.stdout.readline().strip())
            hearing.terminate()
        allowed = [line for line in heard if line == "w 10.81.0.12 10.81.0.11 80"]
        assert 1 <= len(allowed) < MANY, "a sample"
        assert host.counters()["w"]["packets"] >= MANY
    finally:
        host.load(groups=(MEMBERS, WEB, FROM_WEB))


def test_without_the_keeper_others_on_the_hosts_bridge_go_on(host: WiredHost) -> None:
    """Last: what it breaks is made anew."""
    one, pid = host.neighbours["lan1"], host.keeper_pid()
    host.kill_daemon()
    os.kill(pid, signal.SIGKILL)
    guest = host.guests["onlan"]
    soon(lambda: not one.reaches(guest.address, 80, timeout_s=0.2), "the guest is shut off")
    assert not guest.reaches(one.address, 5432, timeout_s=0.2)
    assert one.reaches("198.18.0.102", 5432)
    host.load()
    assert one.reaches(guest.address, 80)
