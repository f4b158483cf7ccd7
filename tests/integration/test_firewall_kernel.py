"""The kernel takes whatever the compiler makes: whole, as a difference, and back to nothing."""

from dataclasses import replace

from firewall_policies import some_policy
from wired_host import wired_host

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


def everything(seed: int) -> Policy:
    """With all that a policy may have besides."""
    found = some_policy(seed)
    nets = tuple(
        replace(net, openings=(Opening("tcp", 80),), subnets=(*net.subnets, f"fd00:{n}::/64"))
        for n, net in enumerate(found.nets)
    )
    kinds = (Peer("network", "n0"), Peer("group", "g1"), Peer("cidr", "2001:db8::/32"), Peer("cidr", "0.0.0.0/0"))
    exempt = (Exemption(0, 1, Traffic(Protocol.ICMP, icmp_type=8)), Exemption(1, 0, Traffic(Protocol.UDP, (53, 53))))
    return replace(
        found,
        nets=(*nets, Net("lan", "a", "br0", "bridge")),
        policies=(NetworkPolicy("p1", kinds, exempt),),
        forwards=(
            Forward("f1", "tcp", 8080, "10.0.0.2", 80),
            Forward("f2", "udp", 5353, "fd00:1::2", 53),
            Forward("f3", "tcp", 81, "10.0.0.3", 80, listen="203.0.113.1"),
        ),
        floating=(Floating("e1", "203.0.113.7", "10.0.0.2"), Floating("e2", "2001:db8::7", "fd00:1::2")),
    )


def test_whatever_is_compiled_is_loaded() -> None:
    with wired_host() as host:
        host.policy = Policy()
        host.load()
        pid = host.keeper_pid()
        for seed in range(12):
            host.policy = everything(seed) if seed % 2 else some_policy(seed)
            host.load()
            listed = host.on_host("nft", "list", "ruleset").stdout
            assert all(card.tap in listed for card in host.policy.cards)
        host.policy = Policy()
        host.load()
        assert host.keeper_pid() == pid, "no difference had to be answered by beginning anew"
        assert "crt" not in host.on_host("nft", "list", "ruleset").stdout


def crowd(count: int) -> Policy:
    """Each with a group of its own, of ten rules; the last one of each lets out."""
    net = Net("n1", "default", "crl1", "nat", ("10.79.0.0/16",), ("10.79.0.1",))
    cards, groups = [], []
    for number in range(count):
        high, low = divmod(number, 256)
        mac, address = f"52:54:01:00:{high:02x}:{low:02x}", f"10.79.{high + 1}.{low}"
        cards.append(Card(f"crt{number:06x}", net.uid, mac, (address,), (f"g{number}",)))
        traffic = [Traffic(Protocol.TCP, (1000 + each, 2000 + number)) for each in range(9)]
        rules = [Rule(f"r{number}-{each}", Direction.IN, found) for each, found in enumerate(traffic)]
        groups.append(Group(f"g{number}", (*rules, Rule(f"r{number}-out", Direction.OUT))))
    return Policy((net,), tuple(cards), tuple(groups))


def test_thousands_of_rules_come_and_one_of_them_goes() -> None:
    with wired_host() as host:
        host.policy = crowd(500)
        host.load()
        pid, counted = host.keeper_pid(), host.counters()
        assert {f"r{number}-{each}" for number in range(500) for each in range(9)} <= set(counted)
        first = host.policy.groups[0]
        host.load(groups=(replace(first, rules=first.rules[1:]), *host.policy.groups[1:]))
        assert set(counted) - set(host.counters()) == {"r0-0"}
        host.load(cards=(), groups=())
        assert host.keeper_pid() == pid
        assert "r1-0" not in host.counters()
