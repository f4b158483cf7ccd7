"""Rows of the firewall: what it lets through against a bare bridge, how fast it is loaded and changed, what a packet costs."""

import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from stage import Row, median, say

sys.path.insert(0, str(Path(__file__).parents[1] / "fixtures"))
from wired_host import Guest, WiredHost, run, wired_host

from corral.network.firewall.compiler import compile_policy
from corral.network.firewall.layout import Ident
from corral.network.firewall.policy import (
    Card,
    Direction,
    Group,
    Net,
    Peer,
    Policy,
    Protocol,
    Rule,
    Traffic,
)

VMS, GROUPS, RULES = 1000, 100, 10
ROUNDS = 5
STREAM_S = 1.5
PACKETS = 150_000
DEFAULT = Group("default", (Rule("in", Direction.IN, peer=Peer("group", "default")), Rule("out", Direction.OUT)))
NET = Net("n1", "default", "", "nat", ("10.79.0.0/16",), ("10.79.0.1",))
SINK = """
import socket, sys
s = socket.create_server(("0.0.0.0", 7000)); print("ready", flush=True)
buffer = bytearray(1 << 20)
while True:
    c, _ = s.accept()
    while c.recv_into(buffer): pass
    c.close()
"""
STREAM = """
import socket, sys, time
s = socket.create_connection((sys.argv[1], 7000)); block = memoryview(bytes(1 << 20)); sent = 0
end = time.monotonic() + float(sys.argv[2])
while time.monotonic() < end: sent += s.send(block)
print(sent)
"""
SMALL = """
import socket, sys, time
s = socket.socket(2, 2); s.connect((sys.argv[1], 7001)); block = bytes(64); count = int(sys.argv[2])
began = time.perf_counter()
for _ in range(count):
    try: s.send(block)
    except ConnectionRefusedError: pass
print(time.perf_counter() - began)
"""


def rows() -> Iterator[Row]:
    with wired_host() as host:
        net = host.network(NET)
        one, other = (host.guest(name, net, number, ["default"]) for name, number in (("a", 11), ("b", 12)))
        host.load(groups=(DEFAULT,))
        yield _throughput_row(host, one, other)
        few = host.policy
        few = replace(few, cards=(*few.cards, *_cards(net, 8)), groups=(*few.groups, *_groups(1)))
        many = replace(few, cards=(*host.policy.cards, *_cards(net, VMS)), groups=(DEFAULT, *_groups(GROUPS)))
        yield _packet_row(host, few, many, one, other)
        yield from _load_rows(host, many)


def _throughput_row(host: WiredHost, one: Guest, other: Guest) -> Row:
    say(f"streams of {STREAM_S:g} s through the firewall and over a bare bridge")
    bare = _bare(host)
    sinks = [_sink(other.space), _sink(bare[1])]
    ours, theirs = [], []
    try:
        for _ in range(ROUNDS):
            ours.append(_stream(one.space, other.address))
            theirs.append(_stream(bare[0], "198.18.0.2"))
    finally:
        for sink in sinks:
            sink.kill()
            sink.wait()
        for space in bare:
            run("ip", "netns", "delete", space)
    how = (
        f"TCP between two namespaces, interleaved, median of {ROUNDS} times {STREAM_S:g} s: "
        f"{median(ours) * 8 / STREAM_S / 1e9:.1f} against {median(theirs) * 8 / STREAM_S / 1e9:.1f} Gbit/s"
    )
    promise = "a stream through firewall and anti-spoofing, against a bare bridge"
    return Row(promise, 0.85, median(ours) / median(theirs), "", how, least=True)


def _bare(host: WiredHost) -> tuple[str, str]:
    """The same host, a bridge that nobody filters."""
    bridge = f"bare{host.tag}"
    run("ip", "-n", host.space, "link", "add", bridge, "type", "bridge", "stp_state", "0", "mcast_snooping", "0")
    run("ip", "-n", host.space, "link", "set", bridge, "up")
    spaces = (f"cfw-{host.tag}-x", f"cfw-{host.tag}-y")
    for number, space in enumerate(spaces, 1):
        port = f"x{host.tag}{number}"
        run("ip", "netns", "add", space)
        run("ip", "-n", host.space, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", space)
        run("ip", "-n", host.space, "link", "set", port, "master", bridge, "up")
        run("ip", "-n", space, "addr", "add", f"198.18.0.{number}/24", "dev", "eth0")
        run("ip", "-n", space, "link", "set", "eth0", "up")
    return spaces


def _sink(space: str) -> "subprocess.Popen[str]":
    argv = ["ip", "netns", "exec", space, sys.executable, "-I", "-c", SINK]
    sink = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    assert sink.stdout is not None
    assert sink.stdout.readline() == "ready\n"
    return sink


def _stream(space: str, address: str) -> float:
    argv = ("ip", "netns", "exec", space, sys.executable, "-I", "-c", STREAM, address, str(STREAM_S))
    return float(run(*argv).stdout)


def _packet_row(host: WiredHost, few: Policy, many: Policy, one: Guest, other: Guest) -> Row:
    say(f"{PACKETS} packets of 64 bytes at 10 and at {VMS} VMs")
    sink = "import socket\ns = socket.socket(2, 2); s.bind(('0.0.0.0', 7001)); print('ready', flush=True)\nwhile s.recv(99): pass"
    argv = ["ip", "netns", "exec", other.space, sys.executable, "-I", "-c", sink]
    taking = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    assert taking.stdout is not None
    assert taking.stdout.readline() == "ready\n"
    times: dict[bool, list[float]] = {False: [], True: []}
    try:
        for _ in range(ROUNDS):
            for crowded, policy in ((False, few), (True, many)):
                host.load(cards=policy.cards, groups=policy.groups)
                sent = one.do(sys.executable, "-I", "-c", SMALL, other.address, str(PACKETS))
                times[crowded].append(float(sent.stdout))
    finally:
        taking.kill()
        taking.wait()
    mean = {crowded: min(found) / PACKETS * 1e6 for crowded, found in times.items()}
    how = f"UDP between two of them, best of {ROUNDS}, interleaved: {mean[True]:.2f} µs against {mean[False]:.2f} µs"
    return Row(f"a packet at {VMS} VMs, against 10", 1.1, mean[True] / mean[False], "", how)


def _load_rows(host: WiredHost, many: Policy) -> Iterator[Row]:
    own = replace(many, groups=(DEFAULT, *_groups(VMS)), cards=tuple(_each_its_own(many.cards)))
    for policy, shape in (
        (many, f"{GROUPS} groups of {RULES}"),
        (own, f"{VMS * RULES} rules, a group of each VM's own"),
    ):
        say(f"rules of {VMS} VMs, {shape}")
        whole, changed, compiled = [], [], []
        for lap in range(1, ROUNDS + 1):
            groups = (DEFAULT, *_groups(len(policy.groups) - 1, lap))  # never compiled before
            host.load(cards=(), groups=())
            compiled.append(_compiled(replace(policy, groups=groups)))
            whole.append(host.load(cards=policy.cards, groups=groups))
            rule = Rule("changed", Direction.IN, Traffic(Protocol.TCP, (9000 + lap, 9000 + lap)))
            first = replace(groups[1], rules=(*groups[1].rules[:-1], rule))
            changed.append(host.load(groups=(DEFAULT, first, *groups[2:])) * 1000)
        how = f"compiled ({median(compiled):.2f} s of it) and in the kernel, median of {ROUNDS}, the best {min(whole):.2f} s"
        yield Row(f"rules of {VMS} VMs, {RULES} each, loaded: {shape}", 0.5, median(whole), "s", how)
        how = f"median of {ROUNDS}, the best {min(changed):.0f} ms"
        yield Row(f"one rule changed at {VMS} VMs: {shape}", 50, median(changed), "ms", how)


def _compiled(policy: Policy) -> float:
    """How long the compiler takes, the first time that it sees it, in seconds."""
    began = time.perf_counter()
    compile_policy(policy, Ident("00000000-0000-4000-8000-000000000000"), 1)
    return time.perf_counter() - began


def _each_its_own(cards: Iterable[Card]) -> Iterator[Card]:
    for number, card in enumerate(cards):
        yield replace(card, groups=(f"g{number % VMS}",))


def _groups(count: int, lap: int = 0) -> tuple[Group, ...]:
    return tuple(Group(f"g{number}", tuple(_rules(lap << 24 | number))) for number in range(count))


def _rules(group: int) -> Iterator[Rule]:
    peers = (Peer(), Peer("cidr", "10.1.0.0/16"), Peer("group", "default"))
    for number in range(RULES - 1):
        ports = (1000 + number, 1000 + number + (number % 2) * 9)
        protocol = Protocol.UDP if number % 4 == 0 else Protocol.TCP
        yield Rule(f"{group:08x}{number:08x}", Direction.IN, Traffic(protocol, ports), peers[number % 3])
    yield Rule(f"{group:08x}out", Direction.OUT)


def _cards(net: Net, count: int) -> Iterator[Card]:
    for number in range(count):
        high, low = divmod(number, 256)
        address, mac = f"10.79.{high + 1}.{low}", f"52:54:01:00:{high:02x}:{low:02x}"
        yield Card(f"crt{number:012x}", net.uid, mac, (address,), (f"g{number % (GROUPS if count >= GROUPS else 1)}",))
