"""What `firewall explain` says and what becomes of real packets, on 1,000 random questions: the same."""

import asyncio
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import pytest
from namespaces import within
from packet_questions import HOST_OUTSIDE, OUTSIDE, OUTSIDE6, Site, end_keeper, site_of

from corral.names import port_name, tap_name
from corral.network.firewall.evaluate import End, Evaluator, Question, Stage
from corral.network.firewall.keeper import KeptFirewall
from corral.network.firewall.policy import (
    Card,
    Direction,
    Door,
    Exemption,
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
from corral.network.firewall.ways import Outside, Ways
from corral.network.router import FloatingWish, HostRouteWish, PortWish, RouterWish, RouteWish

pytestmark = pytest.mark.timeout(180)

SEED: Final = 20261122
VM: Final = "7c0e3a52-5c0c-4b53-9f0e-6f2f0c5d8a11"
ROUNDS: Final = 4
QUESTIONS: Final = 250
PORTS: Final = (22, 53, 67, 80, 81, 443, 5432, 8080)
PROTOCOLS: Final = (Protocol.TCP, Protocol.TCP, Protocol.UDP, Protocol.ICMP, Protocol.SCTP)
MAC: Final = {number: f"52:54:00:71:ff:0{number}" for number in range(1, 8)}
"""Of routers' ports."""
NETS: Final = (
    Net("n1", "shop", "crq1", "nat", ("10.71.1.0/24", "fd71:1::/64"), ("10.71.1.1", "fd71:1::1")),
    Net(
        "n2",
        "shop",
        "crq2",
        "routed",
        ("10.71.2.0/24", "fd71:2::/64"),
        ("10.71.2.1", "fd71:2::1"),
        openings=(Opening("tcp", 80),),
    ),
    Net("n3", "other", "crq3", "routed", ("10.71.3.0/24",), ("10.71.3.1",)),
    Net("n4", "shop", "crq4", "isolated", ("10.71.4.0/24",), ("10.71.4.1",), realm="n4"),
    # Two tenants with the same addresses. One has a second network, and leaves under its router's address, by n1; to the
    # other the host leads, by n2.
    Net("n5", "shop", "crq5", "isolated", ("10.71.5.0/24",), realm="red", doors=(Door(MAC[5], ("10.71.5.1",)),)),
    Net("n6", "shop", "crq6", "isolated", ("10.71.6.0/24",), realm="red", doors=(Door(MAC[6], ("10.71.6.1",)),)),
    Net("n7", "shop", "crq7", "isolated", ("10.71.5.0/24",), led="n2", doors=(Door(MAC[7], ("10.71.5.1",)),)),
)
NEAR: Final = {
    "n1": ("n1", "n2", "n7"),
    "n2": ("n1", "n2", "n7"),
    "n3": ("n3",),
    "n4": ("n4",),
    "n5": ("n5", "n6"),
    "n6": ("n5", "n6"),
    "n7": ("n1", "n2", "n7"),
}
BEHIND: Final = {"n5", "n6", "n7"}
FLOATING: Final = "10.71.1.50"
WAYS: Final = Ways(
    masked=dict.fromkeys(("n5", "n6"), Outside("n1", ("10.71.1.2",))),
    floating={tap_name(VM, "n6-10"): Outside("n1", (FLOATING,))},
)


def port(net: str, address: str, mac: str, floating: tuple[str, ...] = ()) -> PortWish:
    return PortWish(port_name(VM, net + address), f"crq{net[1]}", mac, address, 24, floating)


ROUTERS: Final = (
    RouterWish(
        "5ed00000-0000-4000-8000-000000000001",
        (port("n5", "10.71.5.1", MAC[5]), port("n6", "10.71.6.1", MAC[6])),
        port("n1", "10.71.1.2", MAC[1], (FLOATING,)),
        masquerade=True,
        routes=(RouteWish("default", "10.71.1.1"),),
        floating=(FloatingWish(FLOATING, "10.71.6.10"),),
    ),
    RouterWish(
        "b10e0000-0000-4000-8000-000000000002",
        (port("n7", "10.71.5.1", MAC[7]),),
        port("n2", "10.71.2.2", MAC[2]),
        routes=(RouteWish("default", "10.71.2.1"),),
        host_routes=(HostRouteWish("10.71.5.0/24", "10.71.2.2", "crq2"),),
    ),
)
_SIX: Final = {"n1": "fd71:1::", "n2": "fd71:2::"}


def cards() -> tuple[Card, ...]:
    found = []
    for net, count in (("n1", 3), ("n2", 3), ("n3", 2), ("n4", 2), ("n5", 2), ("n6", 2), ("n7", 2)):
        subnet = next(found.subnets[0] for found in NETS if found.uid == net)
        for number in range(10, 10 + count):
            address = subnet.replace("0/24", str(number))
            six = (f"{_SIX[net]}{number}",) if net in _SIX else ()
            mac = f"52:54:00:71:0{net[1]}:{number:02x}"
            found.append(Card(tap_name(VM, f"{net}-{number}"), net, mac, (address, *six)))
    return tuple(found)


def traffic(lot: random.Random) -> Traffic:
    protocol = lot.choice((*Protocol, Protocol.ANY, Protocol.ANY, Protocol.TCP))
    if protocol in (Protocol.ICMP, Protocol.ICMPV6):
        echo = 8 if protocol is Protocol.ICMP else 128
        return Traffic(protocol, None, lot.choice((None, echo, 13)))
    if protocol is Protocol.ANY or lot.random() < 0.3:
        return Traffic(protocol)
    first = lot.choice(PORTS)
    return Traffic(protocol, (first, lot.choice([port for port in PORTS if port >= first])))


def peer(lot: random.Random, groups: list[str]) -> Peer:
    match lot.randrange(6):
        case 0 | 5:
            return Peer()
        case 1:
            return Peer(
                "cidr",
                lot.choice(
                    (
                        "10.71.0.0/16",
                        "10.71.1.8/29",
                        "10.71.2.11/32",
                        "10.71.5.10/32",
                        "10.71.1.0/28",
                        "0.0.0.0/0",
                        "fd71::/16",
                        "::/0",
                        "198.51.100.0/24",
                    )
                ),
            )
        case 2:
            return Peer("network", lot.choice(NETS).uid)
        case _:
            return Peer("group", lot.choice(groups))


def rules(lot: random.Random, name: str, names: list[str]) -> Iterator[Rule]:
    if lot.random() < 0.6:
        yield Rule(f"{name}-all", Direction.OUT)
    for number in range(lot.randrange(1, 7)):
        yield Rule(f"{name}-{number}", lot.choice((*Direction, Direction.IN)), traffic(lot), peer(lot, names))


def random_policy(lot: random.Random, known: tuple[Card, ...]) -> Policy:
    """Rules, groups of cards and policies by lot; networks and addresses stay."""
    names = [f"g{number}" for number in range(6)]
    groups = tuple(Group(name, tuple(rules(lot, name, names))) for name in names)
    worn = tuple(replace(card, groups=tuple(lot.sample(names, lot.choice((0, 1, 2, 2, 3, 3))))) for card in known)
    tiers = (Peer("group", names[0]), Peer("network", lot.choice(("n1", "n2", "n5", "n7"))), Peer("group", names[1]))
    unless = tuple(Exemption(*lot.sample(range(3), 2), traffic(lot)) for _ in range(3))
    policies = (
        (NetworkPolicy("tiers", tiers[: lot.choice((2, 3))], ()),)
        if lot.random() < 0.3
        else (NetworkPolicy("tiers", tiers, unless),)
    )
    return Policy(NETS, worn, groups, policies if lot.random() < 0.8 else ())


def random_question(lot: random.Random, policy: Policy) -> Question:
    """Mostly between cards; from and to outside, gateways and closed addresses now and then."""
    six = lot.random() < 0.2
    able = [card for card in policy.cards if not six or len(card.addresses) > 1]
    outside = OUTSIDE6 if six else OUTSIDE
    source = End(outside) if lot.random() < 0.12 else End("", lot.choice(able))
    kind = lot.random()
    if source.card is None or kind < 0.75:
        others = [card for card in able if card is not source.card]
        near = [card for card in others if source.card is None or card.network in NEAR[source.card.network]]
        target = End("", lot.choice(near if lot.random() < 0.7 else others))
    elif kind < 0.87:
        target = End(outside)
    elif kind < 0.97 or six:
        gates = [gate for net in NETS for gate in net.gateways if (":" in gate) is six]
        gates += [] if six else [address for net in NETS for door in net.doors for address in door.addresses]
        target = End(lot.choice([*gates, *([] if six else [HOST_OUTSIDE])]))
    else:
        target = End(lot.choice(("169.254.169.254", "100.100.100.200")))
    protocol = lot.choice(PROTOCOLS)
    if protocol is Protocol.ICMP:
        echo = 128 if six else 8
        kinds = (echo, echo, echo, 1 if six else 3, 13 if not six else echo)
        named = Protocol.ICMPV6 if six else Protocol.ICMP
        return Question(addressed(source, six=six), addressed(target, six=six), named, None, lot.choice(kinds))
    return Question(addressed(source, six=six), addressed(target, six=six), protocol, lot.choice(PORTS))


def addressed(end: End, *, six: bool) -> End:
    return end if end.card is None else End(end.card.addresses[1 if six else 0], end.card)


@dataclass
class Answers:
    wrong: list[str] = field(default_factory=list)
    met: Counter[tuple[Stage, bool]] = field(default_factory=Counter)
    allowed: int = 0
    led: Counter[bool] = field(default_factory=Counter)
    """Whether what goes through a router was allowed."""


async def ask_all(site: Site, firewall: KeptFirewall, lot: random.Random) -> Answers:
    found = Answers()
    for _ in range(ROUNDS):
        policy = random_policy(lot, site.policy.cards)
        await firewall.ensure(policy)
        evaluator = Evaluator(policy, frozenset((HOST_OUTSIDE,)), WAYS)
        questions = [random_question(lot, policy) for _ in range(QUESTIONS)]
        arrived = site.ask(questions)
        for question, came in zip(questions, arrived, strict=True):
            verdict = evaluator.evaluate(question)
            step = verdict.decisive
            found.met.update([(step.stage, step.allowed)] if step is not None else [])
            found.allowed += verdict.allowed
            ends = {
                end.card.network if end.card is not None else end.address for end in (question.source, question.target)
            }
            if len(ends) > 1 and ends & BEHIND:
                found.led[verdict.allowed] += 1
            if verdict.allowed is not came:
                found.wrong.append(f"{question}: {verdict}, but it {'came' if came else 'did not come'}")
    return found


def test_explanations_agree_with_packets_on_a_thousand_random_questions(tmp_path: Path) -> None:
    with site_of(Policy(NETS, cards()), tmp_path, ROUTERS, WAYS) as site:

        def questions() -> Answers:
            firewall = KeptFirewall(site.installation, tmp_path)

            async def scene() -> Answers:
                try:
                    return await ask_all(site, firewall, random.Random(SEED))
                finally:
                    end_keeper(firewall, (await firewall.state()).keeper_pid)

            return asyncio.run(scene())

        found = within(site.host, questions)
    assert not found.wrong, "\n".join([f"{len(found.wrong)} of {ROUNDS * QUESTIONS}", *found.wrong[:12]])
    assert found.allowed > ROUNDS * QUESTIONS // 6, "most questions are about denials: they prove little"
    assert min(found.led.values()) > ROUNDS * QUESTIONS // 12, f"too few through routers: {found.led}"
    stages = {Stage.HOST, Stage.TRANSIT, Stage.POLICY, Stage.OUT, Stage.IN, Stage.CLOSED, Stage.STATE}
    assert stages <= {stage for stage, was_allowed in found.met if not was_allowed}
