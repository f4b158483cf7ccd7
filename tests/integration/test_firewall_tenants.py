"""Two tenants with the same subnet, addresses and ports on one host, each with a router of its own: no packet, fragment or
translation of the one becomes the other's."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest
from wired_host import Guest, WiredHost, run, wired_host

from corral.network.firewall.evaluate import End, Evaluator, Question
from corral.network.firewall.policy import Card, Direction, Door, Forward, Group, Net, Protocol, Rule, Traffic

SUBNET, GATEWAY = "10.86.0.0/24", "10.86.0.1"
HTTP = Traffic(Protocol.TCP, (80, 80))
GROUPS = (
    Group(
        "web",
        (Rule("w", Direction.IN, HTTP), Rule("u", Direction.IN, Traffic(Protocol.UDP)), Rule("wo", Direction.OUT)),
    ),
    Group("mute", (Rule("m", Direction.IN, HTTP),)),
)


@pytest.fixture(scope="module")
def host() -> Iterator[WiredHost]:
    """`red` and `blue` are isolated, without the host; `near` is the host's own, with a forward to it."""
    with wired_host() as made:
        near = made.network(Net("near", "default", "", "nat", ("10.87.0.0/24",), ("10.87.0.1",)))
        made.guest("near", near, 11, ["web"])
        doors = {}
        for number, colour in enumerate(("red", "blue")):
            net = made.network(Net(colour, "default", "", "isolated", (SUBNET,), realm=colour))
            for name, last, group in (("web", 11, "web"), ("peer", 12, "web"), ("mute", 13, "mute")):
                guest = made.guest(f"{name}{number}", net, last, [group])
                made.answer(guest.space, 80, 5432)
            doors[colour] = gateway(made, net, number)
            # As the network's driver does it: the host answers for none of its addresses there.
            made.on_host("sysctl", "-qw", f"net.ipv4.conf.{net.bridge}.arp_ignore=8")
        nets = tuple(replace(net, doors=(doors[net.uid],)) if net.uid in doors else net for net in made.policy.nets)
        # The host's own address there is one that a tenant's router may have, too.
        run("ip", "-n", made.space, "addr", "add", f"{GATEWAY}/32", "dev", "lo")
        made.load(nets=nets, groups=GROUPS, forwards=(Forward("f", "tcp", 80, "10.87.0.11", 80),))
        yield made


def gateway(host: WiredHost, net: Net, number: int) -> Door:
    """A namespace that plays the router: on no tap, as a router's port."""
    space, mac = f"cfw-{host.tag}-gw{number}", f"52:54:00:86:00:0{number}"
    port = f"crr{host.tag}{number}"
    run("ip", "netns", "add", space)
    run("ip", "-n", host.space, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", space)
    run("ip", "-n", space, "link", "set", "eth0", "address", mac)
    run("ip", "-n", space, "addr", "add", f"{GATEWAY}/24", "dev", "eth0")
    for device in ("lo", "eth0"):
        run("ip", "-n", space, "link", "set", device, "up")
    run("ip", "-n", host.space, "link", "set", port, "master", net.bridge, "up")
    host.neighbours[f"gw{number}"] = Guest(space, Card("", "", ""), GATEWAY)
    host.answer(space, 53, 67, 80)
    return Door(mac, (GATEWAY,))


def test_each_reaches_its_own(host: WiredHost) -> None:
    for number in (0, 1):
        assert host.guests[f"peer{number}"].reaches("10.86.0.11", 80)
        assert not host.guests[f"peer{number}"].reaches("10.86.0.11", 5432, timeout_s=0.3)


def test_connections_that_look_the_same_are_told_apart(host: WiredHost) -> None:
    """The one's is open; the other's packets are of the same addresses and ports, and begin nothing there."""
    talk = (
        "import socket,sys,time\n"
        "s=socket.socket();s.setsockopt(socket.SOL_SOCKET,socket.SO_REUSEADDR,1)\n"
        "s.bind(('',40000));s.settimeout(3);s.connect(('10.86.0.11',80))\n"
        "for _ in range(3):\n"
        "    s.send(b'?'); assert s.recv(16); time.sleep(0.3)\n"
    )
    first = host.guests["peer0"].do(sys.executable, "-I", "-c", talk, check=False)
    second = host.guests["peer1"].do(sys.executable, "-I", "-c", talk, check=False)
    assert (first.returncode, second.returncode) == (0, 0), second.stderr
    table = host.on_host("cat", "/proc/net/nf_conntrack").stdout.splitlines()
    zones = {word for line in table if "sport=40000" in line for word in line.split() if word.startswith("zone=")}
    assert len(zones) == 2


def test_the_gateway_answers_whatever_groups_say_and_nothing_else_of_it(host: WiredHost) -> None:
    for number in (0, 1):
        mute = host.guests[f"mute{number}"]
        assert mute.reaches(GATEWAY, 53, kind="udp")
        assert mute.reaches(GATEWAY, 53)
        assert mute.pings(GATEWAY)
        assert not mute.reaches(GATEWAY, 80, timeout_s=0.3)
        assert not mute.reaches("10.86.0.11", 80, timeout_s=0.3)
        assert not mute.pings("10.86.0.12")
        net = next(net for net in host.policy.nets if net.uid == mute.card.network)
        for port, protocol in ((53, Protocol.UDP), (53, Protocol.TCP), (80, Protocol.TCP)):
            question = Question(End(mute.address, mute.card), End(GATEWAY), protocol, port)
            assert Evaluator(host.policy, frozenset({GATEWAY})).evaluate(question).allowed is (port == 53), net


def test_a_neighbour_does_not_pass_for_the_gateway(host: WiredHost) -> None:
    """A packet to the gateway's address that goes to a neighbour's MAC is judged as any other."""
    mute, peer = host.guests["mute0"], host.guests["peer0"]
    mute.do("ip", "neigh", "replace", GATEWAY, "lladdr", peer.card.mac, "dev", "eth0", "nud", "permanent")
    peer.do("ip", "addr", "add", f"{GATEWAY}/32", "dev", "lo")
    try:
        host.answer(peer.space, 53)
        assert not mute.reaches(GATEWAY, 53, kind="udp", timeout_s=0.5)
    finally:
        peer.do("ip", "addr", "del", f"{GATEWAY}/32", "dev", "lo")
        mute.do("ip", "neigh", "del", GATEWAY, "dev", "eth0")


def test_the_hosts_forwards_take_nothing_that_is_a_tenants(host: WiredHost) -> None:
    """The tenant's router has an address that the host has, too, at a port that the host forwards elsewhere."""
    answered = (
        "import socket\n"
        "s=socket.socket();s.settimeout(3);s.connect(('10.86.0.1',80));s.send(b'?');s.recv(16)\n"
        "print(s.getpeername()[0])\n"
    )
    told = host.guests["peer0"].do(sys.executable, "-I", "-c", answered)
    assert told.stdout.strip() == GATEWAY
    table = host.on_host("cat", "/proc/net/nf_conntrack").stdout
    assert "10.87.0.11" not in table, "nothing was led to whom the host forwards to"


FRAGMENT = """
import socket, struct, sys
source, target, number, part = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16: total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
payload = (struct.pack("!HHHH", 5000, 7000, 8 + 24, 0) + b"A" * 24)
piece, offset = (payload[:16], 0x2000) if part == "first" else (b"B" * 16, 2)
head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(piece), number, offset, 64, 17, 0,
                   socket.inet_aton(source), socket.inet_aton(target))
head = head[:10] + struct.pack("!H", checksum(head)) + head[12:]
s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
s.sendto(head + piece, (target, 0))
"""


def test_a_fragment_completes_no_packet_of_the_others(host: WiredHost) -> None:
    hears = (
        "import socket,sys\n"
        "s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM);s.bind(('',7000));s.settimeout(2)\n"
        "print('ready',flush=True)\n"
        "try: print(s.recv(64).decode(),flush=True)\n"
        "except TimeoutError: print('nothing',flush=True)\n"
    )
    for second, heard in (("peer1", "nothing"), ("peer0", "A" * 8 + "B" * 16)):
        listener = host.guests["web0"]
        argv = ["ip", "netns", "exec", listener.space, sys.executable, "-I", "-c", hears]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            number = "4711" if heard == "nothing" else "4712"
            for who, part in (("peer0", "first"), (second, "last")):
                host.guests[who].send(FRAGMENT, host.guests[who].address, "10.86.0.11", number, part)
            assert process.stdout.readline().strip() == heard
