"""The kernel takes whatever the compiler makes: whole, as a difference, and back to nothing."""

from dataclasses import replace

from firewall_policies import some_policy
from wired_host import wired_host

from corral.network.firewall.policy import (
    Exemption,
    Floating,
    Forward,
    Net,
    NetworkPolicy,
    Opening,
    Peer,
    Policy,
    Protocol,
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
