"""Rules as people write them: what is understood, and what is refused before anything came of it."""

import pytest

from corral.errors import CorralError
from corral.model.firewall_rule import parse_rule
from corral.model.network_policy import check_tiers, parse_exception, parse_tier


@pytest.mark.parametrize(
    ("written", "understood"),
    [
        ("in tcp/443 from any", "in tcp/443 from any"),
        ("in tcp/443", "in tcp/443 from any"),
        ("in tcp/any", "in tcp from any"),
        ("in  tcp/8000-8099   from 10.0.0.0/8", "in tcp/8000-8099 from 10.0.0.0/8"),
        ("in udp/53-53 from 10.0.0.7", "in udp/53 from 10.0.0.7/32"),
        ("in icmp/echo-request", "in icmp/8 from any"),
        ("in icmpv6/echo-request from fd00::/8", "in icmpv6/128 from fd00::/8"),
        ("in tcp/22 from FD00:0::0/8", "in tcp/22 from fd00::/8"),
        ("in sctp/9", "in sctp/9 from any"),
        ("in icmp/destination-unreachable.4", "in icmp/3.4 from any"),
        ("out any to group:web", "out any to group:web"),
        ("out udp/65535 to network:lab", "out udp/65535 to network:lab"),
    ],
)
def test_a_rule_is_understood_and_written_in_one_way(written: str, understood: str) -> None:
    rule = parse_rule(written)
    assert rule.text == understood
    assert parse_rule(rule.text) == rule


@pytest.mark.parametrize(
    "text",
    [
        "",
        "in",
        "between tcp/80",
        "in tcp/70000",
        "in tcp/0",
        "in tcp/-1",
        "in tcp/80-",
        "in tcp/99-80",
        "in tcp/٨٠",
        "in tcp/8e1",
        "in tcp/80 to any",
        "out tcp/80 from any",
        "in tcp/80 from",
        "in tcp/80 from any please",
        "in any/80",
        "in dccp/80",
        "in icmp/256",
        "in icmp/nonsense",
        "in tcp/80 from 10.0.0.0/33",
        "in tcp/80 from 10.0.0.1/8",
        "in tcp/80 from 10.0.0",
        "in tcp/80 from 300.0.0.1",
        "in tcp/80 from fe80::1%eth0",
        "in tcp/80 from fe80::1%a;drop",
        "in tcp/80 from group:",
        "in tcp/80 from group:Web",
        "in tcp/80 from group:web;accept",
        "in tcp/80 from group:$(reboot)",
        "in tcp/80 from network:../x",
        "in tcp/80 from host:web",
        "in icmp from fd00::/8",
        "in icmpv6 from 10.0.0.0/8",
        "in tcp/80; flush ruleset",
        "in tcp/{80,443}",
        'in tcp/80 from "any"',
        "in tcp/80 from any\x00",
    ],
)
def test_what_is_no_rule_is_refused(text: str) -> None:
    with pytest.raises(CorralError) as refused:
        parse_rule(text)
    assert refused.value.code == "invalid-rule"
    assert "\x00" not in str(refused.value)


def test_the_same_rule_has_the_same_id_and_others_do_not() -> None:
    texts = ["in tcp/80", "in tcp/81", "in udp/80", "out tcp/80", "in tcp/80 from 10.0.0.0/8", "in tcp/80 from group:a"]
    assert len({parse_rule(text).id for text in texts}) == len(texts)
    assert parse_rule("in tcp/80").id == parse_rule("in tcp/80-80 from any").id
    told = parse_rule("in tcp/80 log")
    assert (told.id, told.log, told.text) == (parse_rule("in tcp/80").id, True, "in tcp/80 from any log")
    assert parse_rule(told.text) == told


def test_an_exception_is_between_two_tiers_of_the_policy() -> None:
    tiers = ("network:web", "group:db")
    assert parse_exception("network:web to group:db tcp/5432", tiers).text == "network:web to group:db tcp/5432"
    assert parse_exception("network:web to group:db", tiers).protocol == "any"
    for text in (
        "network:web to group:app tcp/1",
        "network:web to network:web",
        "network:web group:db",
        "network:web to group:db tcp/70000",
        "web to db",
    ):
        with pytest.raises(CorralError, match="invalid-rule"):
            parse_exception(text, tiers)


def test_a_tier_that_is_kept_from_itself_is_refused() -> None:
    for tiers in (("network:web",), ("network:web", "network:web"), ()):
        with pytest.raises(CorralError, match="invalid-rule"):
            check_tiers(tiers, "make it")
    for word in ("any", "10.0.0.0/8", "web", "network:"):
        with pytest.raises(CorralError, match="invalid-rule"):
            parse_tier(word)
