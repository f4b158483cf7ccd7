"""What a policy means for one connection: the order of the stages, whose rules are asked, and what they match."""

from dataclasses import replace

import pytest

from corral.network.firewall.evaluate import End, Evaluator, Question, Stage, Verdict
from corral.network.firewall.policy import (
    Card,
    Direction,
    Exemption,
    Forward,
    Group,
    Net,
    NetworkPolicy,
    Peer,
    Policy,
    Protocol,
    Rule,
    Traffic,
)

WEB = Rule("web-80", Direction.IN, Traffic(Protocol.TCP, (80, 81)))
ECHO = Rule("web-echo", Direction.IN, Traffic(Protocol.ICMP, None, 8), Peer("network", "n1"))
FROM_WEB = Rule("db-5432", Direction.IN, Traffic(Protocol.TCP, (5432, 5432)), Peer("group", "web"))
OUT = Rule("all-out", Direction.OUT)
GROUPS = (Group("web", (WEB, ECHO, OUT)), Group("db", (FROM_WEB,)), Group("mute", (WEB,)))
NETS = (
    Net("n1", "default", "b1", "nat", ("10.1.0.0/24",), ("10.1.0.1",)),
    Net("n2", "default", "b2", "routed", ("10.2.0.0/24",), ("10.2.0.1",)),
    Net("n3", "other", "b3", "nat", ("10.3.0.0/24",), ("10.3.0.1",)),
    Net("n4", "default", "b4", "isolated", ("10.4.0.0/24",), ("10.4.0.1",), realm="n4"),
)


def card(number: int, net: str, address: str, *groups: str) -> Card:
    return Card(f"crt{number}", net, f"52:54:00:00:00:{number:02x}", (address,), groups)


W1, W2, DB, MUTE, OTHER, LONE = (
    card(1, "n1", "10.1.0.2", "web"),
    card(2, "n2", "10.2.0.2", "web"),
    card(3, "n1", "10.1.0.3", "db"),
    card(4, "n1", "10.1.0.4", "mute"),
    card(5, "n3", "10.3.0.2", "web"),
    card(6, "n4", "10.4.0.2", "web"),
)
POLICY = Policy(NETS, (W1, W2, DB, MUTE, OTHER, LONE), GROUPS)


def ask(
    source: Card | str, target: Card | str, port: int | None = 80, protocol: str = "tcp", policy: Policy = POLICY
) -> Verdict:
    ends = [End(one) if isinstance(one, str) else End(one.addresses[0], one) for one in (source, target)]
    kind = 8 if protocol == "icmp" else None
    question = Question(*ends, Protocol(protocol), None if protocol == "icmp" else port, kind)
    return Evaluator(policy).evaluate(question)


def decided(verdict: Verdict) -> tuple[bool, Stage | None, str]:
    step = verdict.decisive
    return verdict.allowed, step.stage if step else None, step.uid if step else ""


@pytest.mark.parametrize(
    ("source", "target", "port", "outcome"),
    [
        (W1, W2, 80, (True, Stage.IN, "web-80")),
        (W1, W2, 81, (True, Stage.IN, "web-80")),
        (W1, W2, 82, (False, Stage.IN, "")),
        (W1, DB, 5432, (True, Stage.IN, "db-5432")),
        (W2, DB, 5432, (True, Stage.IN, "db-5432")),  # a member on another network of the host's
        (MUTE, W1, 80, (False, Stage.OUT, "")),
        (W1, OTHER, 80, (False, Stage.TRANSIT, "")),  # another project's
        (W1, LONE, 80, (False, Stage.TRANSIT, "")),
        (LONE, "192.0.2.1", 80, (False, Stage.TRANSIT, "")),
        (W1, "192.0.2.1", 80, (True, Stage.OUT, "all-out")),
        ("192.0.2.1", W1, 80, (False, Stage.TRANSIT, "")),  # nobody into a network under NAT
        ("192.0.2.1", W2, 80, (True, Stage.IN, "web-80")),
        ("10.1.0.9", W2, 80, (False, Stage.TRANSIT, "")),  # nobody outside has an address of ours
        (W1, "169.254.169.254", 80, (False, Stage.CLOSED, "")),
        (W1, "10.1.0.1", 53, (True, Stage.HOST, "")),
        (MUTE, "10.1.0.1", 53, (True, Stage.HOST, "")),
        (W1, "10.1.0.1", 22, (False, Stage.HOST, "")),
        (W1, "10.2.0.1", 53, (False, Stage.HOST, "")),
        ("10.1.0.1", MUTE, 22, (True, None, "")),  # the host itself
    ],
)
def test_the_first_stage_that_denies_decides(
    source: Card | str, target: Card | str, port: int, outcome: tuple[bool, Stage | None, str]
) -> None:
    assert decided(ask(source, target, port)) == outcome


def test_messages_and_protocols_are_told_apart() -> None:
    assert ask(MUTE, W1, protocol="icmp").allowed is False
    assert decided(ask(W1, W1, protocol="icmp")) == (True, Stage.IN, "web-echo")
    assert decided(ask(W2, W1, protocol="icmp")) == (False, Stage.IN, "")
    assert ask(W1, W2, 80, "udp").allowed is False
    question = Question(End("10.1.0.2", W1), End("10.2.0.2", W2), Protocol.ICMP, None, 3)
    assert decided(Evaluator(POLICY).evaluate(question)) == (False, Stage.STATE, "")
    redirect = replace(question, icmp_type=5)
    assert decided(Evaluator(POLICY).evaluate(redirect)) == (False, Stage.ROGUE, "")


def test_a_policy_keeps_tiers_apart_whatever_groups_say() -> None:
    tiers = NetworkPolicy("tiers", (Peer("network", "n1"), Peer("network", "n2")))
    policy = replace(POLICY, policies=(tiers,))
    assert decided(ask(W1, W2, 80, policy=policy)) == (False, Stage.POLICY, "tiers")
    assert decided(ask(W2, DB, 5432, policy=policy)) == (False, Stage.POLICY, "tiers")
    assert ask(W1, DB, 5432, policy=policy).allowed  # within a tier
    excepted = replace(tiers, unless=(Exemption(0, 1, Traffic(Protocol.TCP, (80, 82))),))
    policy = replace(POLICY, policies=(excepted,))
    assert decided(ask(W1, W2, 80, policy=policy)) == (True, Stage.IN, "web-80")
    assert decided(ask(W1, W2, 82, policy=policy)) == (False, Stage.IN, "")  # an exception allows nothing by itself
    assert decided(ask(W2, DB, 5432, policy=policy)) == (False, Stage.POLICY, "tiers")  # nor the way back


def test_who_is_in_both_tiers_is_within_each() -> None:
    tiers = NetworkPolicy("tiers", (Peer("group", "web"), Peer("network", "n1")))
    policy = replace(POLICY, policies=(tiers,))
    assert ask(W1, DB, 5432, policy=policy).allowed
    assert decided(ask(W2, DB, 5432, policy=policy)) == (False, Stage.POLICY, "tiers")


def test_a_port_of_the_hosts_leads_past_nat_and_groups() -> None:
    policy = replace(POLICY, forwards=(Forward("f", "tcp", 8022, "10.1.0.3", 22),))
    assert decided(ask("192.0.2.1", DB, 22, policy=policy)) == (True, Stage.FORWARD, "f")
    assert ask("192.0.2.1", DB, 23, policy=policy).allowed is False
    assert ask(W1, DB, 22, policy=policy).allowed is False


def test_a_card_without_groups_takes_and_sends_nothing() -> None:
    bare = card(7, "n1", "10.1.0.7")
    policy = replace(POLICY, cards=(*POLICY.cards, bare))
    assert decided(ask(bare, W1, policy=policy)) == (False, Stage.OUT, "")
    assert decided(ask(W1, bare, policy=policy)) == (False, Stage.IN, "")
    assert ask(bare, "10.1.0.1", 53, policy=policy).allowed
