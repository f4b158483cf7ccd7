"""Security groups and network policies as chains: each rule one match or a few, in the order in which they were written. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from corral.network.firewall import expressions as nft
from corral.network.firewall.form import Chain, Json, NftSet, commented, rule
from corral.network.firewall.guard import LOG_BURST, LOG_PER_S
from corral.network.firewall.layout import Ident, Layout, is4, short
from corral.network.firewall.policy import Direction, Group, Net, NetworkPolicy, Peer, Protocol, Traffic

FOUR: Final = frozenset({4})
SIX: Final = frozenset({6})
BOTH: Final = FOUR | SIX
RULES_KEPT: Final = 65536
GROUPS_KEPT: Final = 4096
PORTED: Final = {Protocol.TCP: "tcp", Protocol.UDP: "udp", Protocol.SCTP: "sctp"}
ICMP: Final = {Protocol.ICMP: ("icmp", "icmp"), Protocol.ICMPV6: ("icmpv6", "ipv6-icmp")}
_DENIALS: Final = {direction: rule([nft.goto(f"deny-{direction}")]) for direction in Direction}


def group_chains(layout: Layout, ident: Ident) -> dict[str, Chain]:
    """One for each direction of each distinct choice of groups. What a chain does not return from is denied."""
    made, log_group = {}, ident.log_group
    for name, uids in layout.profiles.items():
        groups = [layout.groups[uid] for uid in sorted(uids) if uid in layout.groups]
        texts = [_group_texts(group, _named(layout, group), log_group) for group in groups]
        for direction in Direction:
            rules = tuple(text for found in texts for text in found[direction])
            unbounded = any(direction in group.unbounded for group in groups)
            made[f"{direction}-{name}"] = Chain(rules if unbounded else (*rules, _DENIALS[direction]))
    return made


def member_sets(layout: Layout) -> dict[str, NftSet]:
    made = {}
    for uid, (four, six) in layout.members.items():
        made[_members4(uid)] = NftSet(("ifname", "ipv4_addr"), dict.fromkeys(four, ""))
        made[_members6(uid)] = NftSet(("ifname", "ipv6_addr"), dict.fromkeys(six, ""))
    return made


def policy_chains(layout: Layout, ident: Ident) -> dict[str, Chain]:
    """A chain for each network policy, and `policies`, which goes through them."""
    made = {
        f"policy-{short(found.uid)}": Chain(tuple(_policy_rules(layout, ident, found)))
        for found in layout.policy.policies
    }
    made["policies"] = Chain(tuple(rule([nft.jump(name)]) for name in sorted(made)))
    return made


def _named(layout: Layout, group: Group) -> tuple["KnownPeer", ...]:
    return tuple(peer_of(layout, peer) for peer in group.named_peers)


@lru_cache(maxsize=GROUPS_KEPT)
def _group_texts(group: Group, named: tuple["KnownPeer", ...], log_group: int) -> Mapping[Direction, tuple[str, ...]]:
    """Most groups are as they were when the policy was compiled last."""
    known = dict(zip(group.named_peers, named, strict=True))
    made: dict[Direction, list[str]] = {direction: [] for direction in Direction}
    for found in group.rules:
        peer = known.get(found.peer) or KnownPeer(found.peer)
        texts = _matching(found.traffic, found.direction, peer, log_group, found.uid if found.log else "")
        made[found.direction].extend(commented(text, found.uid) for text in texts)
    return {direction: tuple(texts) for direction, texts in made.items()}


def _families(traffic: Traffic) -> frozenset[int]:
    """ICMP of the one family never has an address of the other."""
    if traffic.protocol in ICMP:
        return FOUR if traffic.protocol is Protocol.ICMP else SIX
    return BOTH


def traffic_matches(traffic: Traffic) -> list[Json]:
    if traffic.protocol in PORTED:
        name = PORTED[traffic.protocol]
        if traffic.ports is None:
            return [nft.match(nft.L4, name)]
        first, last = traffic.ports
        port: object = first if first == last else {"range": [first, last]}
        return [nft.match(nft.field(name, "dport"), port)]
    if traffic.protocol in ICMP:
        header, name = ICMP[traffic.protocol]
        found = [nft.match(nft.L4, name)]
        if traffic.icmp_type is not None:
            found.append(nft.match(nft.field(header, "type"), traffic.icmp_type))
        if traffic.icmp_code is not None:
            found.append(nft.match(nft.field(header, "code"), traffic.icmp_code))
        return found
    return []


@dataclass(frozen=True)
class KnownPeer:
    """A peer, and what of the layout tells it."""

    peer: Peer
    six: bool = False
    """A group that has members with IPv6 addresses."""
    net: Net | None = None
    reaching: tuple[str, ...] = ()


def peer_of(layout: Layout, peer: Peer) -> KnownPeer:
    if peer.kind == "group":
        return KnownPeer(peer, six=bool(layout.members[peer.value][1]))
    net = layout.nets.get(peer.value) if peer.kind == "network" else None
    return KnownPeer(peer, net=net, reaching=layout.reaching(net) if net is not None else ())


@dataclass(frozen=True)
class PeerMatch:
    """One way to be the other end."""

    families: frozenset[int]
    matches: tuple[Json, ...] = ()


def peer_matches(known: KnownPeer, *, source: bool, at: Json) -> Iterator[PeerMatch]:
    """What tells the other end. `at` is the bridge where that is asked."""
    four, six = (nft.FROM4, nft.FROM6) if source else (nft.TO4, nft.TO6)
    peer, net = known.peer, known.net
    if peer.kind == "any":
        yield PeerMatch(BOTH)
    elif peer.kind == "cidr":
        yield PeerMatch(_family(peer.value), (_in_cidr(four if is4(peer.value) else six, peer.value),))
    elif peer.kind == "group":
        yield PeerMatch(FOUR, (nft.among(nft.concat(at, four), _members4(peer.value)),))
        if known.six:
            yield PeerMatch(SIX, (nft.among(nft.concat(at, six), _members6(peer.value)),))
    elif net is not None:
        if net.mode == "bridge":
            yield PeerMatch(BOTH, (nft.match(nft.IIF if source else nft.OIF, net.bridge),))
        place = nft.one_of(at, known.reaching)
        for subnet in net.subnets:
            yield PeerMatch(_family(subnet), (place, nft.match(four if is4(subnet) else six, nft.prefix(subnet))))


def _family(address: str) -> frozenset[int]:
    return FOUR if is4(address) else SIX


@lru_cache(maxsize=RULES_KEPT)
def _matching(traffic: Traffic, direction: Direction, peer: KnownPeer, log_group: int, logged: str) -> tuple[str, ...]:
    """Rules of other groups are often the same but for their names."""
    kind, families = traffic_matches(traffic), _families(traffic)
    source = direction is Direction.IN
    ways = peer_matches(peer, source=source, at=nft.OIF if source else nft.IIF)
    matches = [[*kind, *way.matches] for way in ways if way.families & families]
    told: list[str] = []
    if logged:  # what ran before, and is judged anew, is no news
        sample = [nft.at_most(LOG_PER_S, LOG_BURST), nft.log(log_group, logged)]
        told = [rule([nft.state("new"), *match, *sample]) for match in matches]
    return (*told, *(rule([*match, nft.COUNTER, nft.RETURN]) for match in matches))


def _in_cidr(address: Json, cidr: str) -> Json:
    if cidr.endswith("/0"):
        return nft.match(nft.meta("nfproto"), "ipv4" if is4(cidr) else "ipv6")
    return nft.match(address, nft.prefix(cidr) if "/" in cidr else cidr)


def _policy_rules(layout: Layout, ident: Ident, found: NetworkPolicy) -> Iterator[str]:
    ends = range(len(found.tiers))
    for number in ends:
        yield from (rule([*both, nft.RETURN]) for both in _between(layout, found, number, number))
    for exempt in found.unless:
        kind = traffic_matches(exempt.traffic)
        for both in _between(layout, found, exempt.source, exempt.target):
            yield rule([*kind, *both, nft.RETURN])
    log = nft.log(ident.log_group, f"deny-policy {found.uid}")
    for one in ends:
        for other in ends:
            for both in _between(layout, found, one, other) if one != other else ():
                yield rule([*both, nft.at_most(LOG_PER_S, LOG_BURST), log])
                yield rule([*both, nft.COUNTER, nft.goto("deny-policy")], found.uid)


def _between(layout: Layout, found: NetworkPolicy, one: int, other: int) -> Iterator[tuple[Json, ...]]:
    for source in peer_matches(peer_of(layout, found.tiers[one]), source=True, at=nft.IIF):
        for target in peer_matches(peer_of(layout, found.tiers[other]), source=False, at=nft.OIF):
            if source.families & target.families:
                yield (*source.matches, *target.matches)


def _members4(uid: str) -> str:
    return f"m4-{short(uid)}"


def _members6(uid: str) -> str:
    return f"m6-{short(uid)}"
