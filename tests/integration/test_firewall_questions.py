"""What `firewall explain` says and what becomes of real packets, on 1,000 random questions: the same."""

import asyncio
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest
from packet_questions import HOST_OUTSIDE, OUTSIDE, OUTSIDE6, Site, end_keeper, site_of, within

from corral.names import tap_name
from corral.network.firewall.evaluate import End, Evaluator, Question, Stage
from corral.network.firewall.keeper import KeptFirewall
from corral.network.firewall.policy import (
    Card,
    Direction,
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

pytestmark = pytest.mark.timeout(180)

SEED: Final = 20261122
VM: Final = "7c0e3a52-5c0c-4b53-9f0e-6f2f0c5d8a11"
ROUNDS: Final = 4
QUESTIONS: Final = 250
PORTS: Final = (22, 53, 67, 80, 81, 443, 5432, 8080)
PROTOCOLS: Final = (Protocol.TCP, Protocol.TCP, Protocol.UDP, Protocol.ICMP, Protocol.SCTP)
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
)
NEAR: Final = {"n1": ("n1", "n2"), "n2": ("n1", "n2"), "n3": ("n3",), "n4": ("n4",)}
_SIX: Final = {"n1": "fd71:1::", "n2": "fd71:2::"}


def cards() -> tuple[Card, ...]:
    found = []
    for net, count in (("n1", 3), ("n2", 3), ("n3", 2), ("n4", 2)):
        for number in range(10, 10 + count):
            address = f"10.71.{net[1]}.{number}"
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
    tiers = (Peer("group", names[0]), Peer("network", lot.choice(("n1", "n2"))), Peer("group", names[1]))
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


async def ask_all(
    site: Site, firewall: KeptFirewall, lot: random.Random
) -> tuple[list[str], Counter[tuple[Stage, bool]], int]:
    wrong: list[str] = []
    met: Counter[tuple[Stage, bool]] = Counter()
    allowed = 0
    for _ in range(ROUNDS):
        policy = random_policy(lot, site.policy.cards)
        await firewall.ensure(policy)
        evaluator = Evaluator(policy, frozenset((HOST_OUTSIDE,)))
        questions = [random_question(lot, policy) for _ in range(QUESTIONS)]
        arrived = site.ask(questions)
        for question, came in zip(questions, arrived, strict=True):
            verdict = evaluator.evaluate(question)
            step = verdict.decisive
            met.update([(step.stage, step.allowed)] if step is not None else [])
            allowed += verdict.allowed
            if verdict.allowed is not came:
                wrong.append(f"{question}: {verdict}, but it {'came' if came else 'did not come'}")
    return wrong, met, allowed


def test_explanations_agree_with_packets_on_a_thousand_random_questions(tmp_path: Path) -> None:
    with site_of(Policy(NETS, cards()), tmp_path) as site:

        def questions() -> tuple[list[str], Counter[tuple[Stage, bool]], int]:
            firewall = KeptFirewall(site.installation, tmp_path)

            async def scene() -> tuple[list[str], Counter[tuple[Stage, bool]], int]:
                try:
                    return await ask_all(site, firewall, random.Random(SEED))
                finally:
                    end_keeper(firewall, (await firewall.state()).keeper_pid)

            return asyncio.run(scene())

        wrong, met, allowed = within(site.host, questions)
    assert not wrong, "\n".join([f"{len(wrong)} of {ROUNDS * QUESTIONS}", *wrong[:12]])
    assert allowed > ROUNDS * QUESTIONS // 6, "most questions are about denials: they prove little"
    stages = {Stage.HOST, Stage.TRANSIT, Stage.POLICY, Stage.OUT, Stage.IN, Stage.CLOSED, Stage.STATE}
    assert stages <= {stage for stage, was_allowed in met if not was_allowed}
