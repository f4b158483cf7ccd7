"""The firewall's transactions against golden files, readable: a command a line. CORRAL_UPDATE_GOLDEN=1 writes them anew."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from corral.network.firewall.compiler import compile_policy, preamble
from corral.network.firewall.form import batch, changes
from corral.network.firewall.layout import Ident
from corral.network.firewall.policy import (
    Card,
    Direction,
    Exemption,
    Floating,
    Forward,
    Group,
    Net,
    NetworkPolicy,
    Opening,
    Peer,
    Policy,
    Protocol,
    Rule,
    Traffic,
)

GOLDEN = Path(__file__).parent / "firewall"
IDENT = Ident("0badc0de-0000-4000-8000-000000000000")
NETS = (
    Net("shop", "default", "crl1", "nat", ("10.1.0.0/24", "fd00:1::/64"), ("10.1.0.1", "fd00:1::1")),
    Net("back", "default", "crl2", "isolated", ("10.2.0.0/24",), ("10.2.0.1",), realm="router"),
    Net("lan", "default", "br0", "bridge"),
    Net("public", "other", "crl3", "routed", ("192.0.2.0/24",), ("192.0.2.1",), openings=(Opening("tcp", 8080),)),
)
DEFAULT = Group("default", (Rule("d-in", Direction.IN, peer=Peer("group", "default")), Rule("d-out", Direction.OUT)))
WEB = Group(
    "web",
    (
        Rule("w-http", Direction.IN, Traffic(Protocol.TCP, (80, 80))),
        Rule("w-high", Direction.IN, Traffic(Protocol.UDP, (6000, 6100)), Peer("cidr", "198.51.100.0/24"), log=True),
        Rule("w-ping", Direction.IN, Traffic(Protocol.ICMP, icmp_type=8), Peer("network", "shop")),
        Rule("w-ping6", Direction.IN, Traffic(Protocol.ICMPV6, icmp_type=128, icmp_code=0)),
        Rule("w-v6", Direction.OUT, peer=Peer("cidr", "::/0")),
    ),
)
CARDS = (
    Card("crt000000000001", "shop", "52:54:00:00:00:01", ("10.1.0.2", "fd00:1::2"), ("default",)),
    Card("crt000000000002", "shop", "52:54:00:00:00:02", ("10.1.0.3",), ("web", "default")),
    Card("crt000000000003", "back", "52:54:00:00:00:03", ("10.2.0.2",), ("web",)),
    Card("crt000000000004", "lan", "52:54:00:00:00:04", (), ("default",)),
)
TIERS = NetworkPolicy(
    "tiers", (Peer("network", "shop"), Peer("network", "back")), (Exemption(0, 1, Traffic(Protocol.TCP, (5432, 5432))),)
)
POLICY = Policy(
    NETS,
    CARDS,
    (DEFAULT, WEB),
    (TIERS,),
    (Forward("f1", "tcp", 8080, "10.1.0.3", 80), Forward("f2", "udp", 53, "10.1.0.2", 53, listen="203.0.113.1")),
    (Floating("e1", "203.0.113.7", "10.1.0.2"),),
)
FEWER = replace(POLICY, cards=CARDS[1:], groups=(DEFAULT, replace(WEB, rules=WEB.rules[1:])), policies=(), forwards=())


@pytest.mark.parametrize(
    ("name", "before", "after"), [("whole", None, POLICY), ("fewer", POLICY, FEWER), ("undone", FEWER, POLICY)]
)
def test_transaction(name: str, before: Policy | None, after: Policy) -> None:
    old = compile_policy(before, IDENT, 1) if before is not None else ()
    commands = json.loads(batch(changes(old, compile_policy(after, IDENT, 2))))["nftables"]
    text = "".join(f"{json.dumps(command)}\n" for command in commands)
    path = GOLDEN / f"{name}.jsonl"
    if os.environ.get("CORRAL_UPDATE_GOLDEN"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert text == path.read_text()


def test_what_is_made_in_nfts_own_language() -> None:
    path = GOLDEN / "preamble.nft"
    if os.environ.get("CORRAL_UPDATE_GOLDEN"):
        path.write_text(preamble(IDENT))
    assert preamble(IDENT) == path.read_text()


def test_nothing_changes_where_nothing_differs() -> None:
    assert not list(changes(compile_policy(POLICY, IDENT, 7), compile_policy(replace(POLICY), IDENT, 7)))
