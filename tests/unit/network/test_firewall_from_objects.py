"""What the firewall gets to do, from the objects that users wrote."""

from datetime import UTC, datetime

from corral.model.firewall_rule import parse_rule
from corral.model.network import Network, NetworkSpec
from corral.model.network_policy import NetworkPolicy, NetworkPolicySpec, parse_exception
from corral.model.security_group import SecurityGroup, SecurityGroupSpec, predefined_group, rule_uid
from corral.model.vm import NicSpec, Vm, VmSpec
from corral.names import new_mac, new_uid, tap_name
from corral.network.firewall.from_objects import Wishes, build_policy
from corral.network.firewall.policy import Direction, Peer, Protocol, Traffic

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def network(name: str, subnet: str = "10.1.0.0/24", mode: str = "nat", project: str = "default") -> Network:
    spec = NetworkSpec.model_validate({"mode": mode, "subnet": subnet, "bridge": f"crl{name}"})
    return Network(name=name, project=project, uid=new_uid(), created_at=NOW, spec=spec)


def vm(name: str, on: Network, address: str, *groups: str, project: str = "default") -> Vm:
    nic = NicSpec(name="net0", network=on.name, network_uid=on.uid, mac=new_mac(), address=address, groups=groups)
    return Vm(name=name, project=project, uid=new_uid(), created_at=NOW, spec=VmSpec(nics=(nic,)))


def group(name: str, *rules: str, project: str = "default") -> SecurityGroup:
    spec = SecurityGroupSpec(rules=tuple(map(parse_rule, rules)))
    return SecurityGroup(name=name, project=project, uid=new_uid(), created_at=NOW, spec=spec)


def test_a_card_without_groups_has_its_projects_default_group() -> None:
    lab = network("lab")
    one, two = vm("one", lab, "10.1.0.2"), vm("two", lab, "10.1.0.3", project="other")
    policy = build_policy(Wishes(vms=[one, two], networks=[lab]))
    cards = {card.tap: card for card in policy.cards}
    mine, others = (cards[tap_name(each.uid, "net0")] for each in (one, two))
    default = predefined_group("default", "default", NOW)
    assert mine.groups == (default.uid,) != others.groups
    assert mine.addresses == ("10.1.0.2",)
    rules = next(found for found in policy.groups if found.uid == default.uid).rules
    assert [(rule.direction, rule.peer) for rule in rules] == [
        (Direction.IN, Peer("group", default.uid)),
        (Direction.OUT, Peer()),
    ]


def test_rules_mean_the_uids_of_what_they_name() -> None:
    lab, web = network("lab"), group("web", "in tcp/80-81 from network:lab", "in icmp/8", "out udp to 10.0.0.0/8")
    policy = build_policy(Wishes(vms=[vm("one", lab, "10.1.0.2", "web")], networks=[lab], groups=[web]))
    rules = next(found for found in policy.groups if found.uid == web.uid).rules
    assert [rule.uid for rule in rules] == [rule_uid(web.uid, rule.id) for rule in web.spec.rules]
    assert [(rule.traffic, rule.peer) for rule in rules] == [
        (Traffic(Protocol.TCP, (80, 81)), Peer("network", lab.uid)),
        (Traffic(Protocol.ICMP, None, 8), Peer()),
        (Traffic(Protocol.UDP), Peer("cidr", "10.0.0.0/8")),
    ]


def test_what_is_gone_lets_nothing_through() -> None:
    lab, web = network("lab"), group("web", "in any from group:gone", "in any from network:gone")
    vms = [vm("one", lab, "10.1.0.2", "web", "gone"), vm("two", lab, "10.1.0.3", "gone")]
    policy = build_policy(Wishes(vms=vms, networks=[lab], groups=[web]))
    assert {found.uid: found.rules for found in policy.groups}[web.uid] == ()
    assert [card.groups for card in policy.cards] == [(web.uid,), ()]


def test_cards_that_pass_by_the_bridge_are_left_out() -> None:
    past, elsewhere = network("past", "", "macvtap"), network("lan", "", "bridge")
    policy = build_policy(Wishes(vms=[vm("one", past, ""), vm("two", elsewhere, "")], networks=[past, elsewhere]))
    assert [net.uid for net in policy.nets] == [elsewhere.uid]
    assert [card.addresses for card in policy.cards] == [()]


def test_a_policy_numbers_its_tiers_and_forgets_those_that_are_gone() -> None:
    web, db = network("web"), network("db", "10.2.0.0/24")
    tiers = ("network:gone", "network:web", "network:db")
    unless = tuple(
        parse_exception(text, tiers) for text in ("network:web to network:db tcp/5432", "network:gone to network:db")
    )
    spec = NetworkPolicySpec(tiers=tiers, unless=unless)
    found = NetworkPolicy(name="tiers", uid=new_uid(), created_at=NOW, spec=spec)
    made = build_policy(Wishes(networks=[web, db], policies=[found])).policies[0]
    assert made.tiers == (Peer("network", web.uid), Peer("network", db.uid))
    assert [(one.source, one.target, one.traffic) for one in made.unless] == [
        (0, 1, Traffic(Protocol.TCP, (5432, 5432)))
    ]
