"""In the host's stack: every new connection through a bridge of ours, or to the host, is judged; the others follow it. Pure.

Bridged packets come by here through br_netfilter, in and out by their bridge. Which card a packet is from is told by the
bridge and the MAC, which the guard has checked; which card it is for by the bridge and the MAC where it was bridged, by the
bridge and the address where the host leads it there. Nothing calls what calls it, nor two things in a row that both have a
chain for each card: the kernel follows every path once when the rules are loaded.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Final

from corral.network.firewall import expressions as nft
from corral.network.firewall.form import Chain, Hook, Json, Key, NftSet, Table, encode, rule
from corral.network.firewall.groups import group_chains, member_sets, policy_chains
from corral.network.firewall.guard import DHCP_ANSWERS, LOG_BURST, LOG_PER_S, NEIGHBOUR_ICMP6, ROGUE_ICMP6
from corral.network.firewall.layout import (
    DENIED,
    EPOCH_MASK,
    EPOCH_SHIFT,
    LAYOUTS_KEPT,
    POLICY_MASK,
    Ident,
    Layout,
    is4,
    local_address,
    profile,
)
from corral.network.firewall.nat import nat_chains, nat_sets
from corral.network.firewall.policy import Card, Net

# Addresses where clouds tell a guest its secrets: nobody here answers for them, and nobody shall pretend to.
CLOSED4: Final = ("169.254.0.0/16", "100.100.100.200/32", "192.0.0.192/32")
CLOSED6: Final = ("fd00:ec2::254/128", "fd20:ce::254/128")
DENIALS: Final = (
    "deny-in",
    "deny-out",
    "deny-policy",
    "deny-transit",
    "deny-closed",
    "deny-host",
    "deny-rogue",
    "deny-flood",
)
# New connections of one card, so that none fills the host's table of them: /proc/sys/net/netfilter/nf_conntrack_max is
# 65,536 on a host of 4 GB, and an unanswered UDP packet stays in it for 30 s.
NEW_CONNECTIONS_PER_S: Final = 500
NEW_CONNECTIONS_BURST: Final = 2000
# Before defragmentation (NF_IP_PRI_CONNTRACK_DEFRAG, -400): a tenant's fragment shall not complete another's packet.
ZONE_PRIORITY: Final = -450
_ETHER: Final = ("ifname", "ether_addr")
_ICMP6_TYPE: Final = nft.field("icmpv6", "type")
_SOURCE: Final = nft.concat(nft.IIF, nft.FROM_MAC)


def judge_table(layout: Layout, ident: Ident, epoch: int) -> Table:
    chains = {
        "forward": Chain(
            (
                rule([nft.among(nft.IIF, "bridges"), nft.goto("judged")]),
                rule([nft.among(nft.OIF, "bridges"), nft.goto("judged")]),
            ),
            Hook("filter", "forward", ident.priority),
        ),
        "judged": Chain(tuple(_judged())),
        **_epoch_chains(epoch),
        "pass": Chain((rule([nft.put(nft.meta("mark"), POLICY_MASK, ident.judged), nft.ACCEPT]),)),
        "closed": Chain(tuple(_closed())),
        "doors": Chain(tuple(_doors())),
        "transit": Chain(tuple(_transit())),
        "outward": Chain(tuple(_outward())),
        "inward": Chain(tuple(_inward())),
        "input": Chain(tuple(_input()), Hook("filter", "input", ident.priority)),
        "host": Chain(tuple(_host())),
        **_zone_chains(layout),
        **nat_chains(),
        **policy_chains(layout, ident),
        **group_chains(layout, ident),
        **{name: Chain(tuple(_denied(name, ident))) for name in DENIALS},
    }
    sets = {**judge_sets(layout), **nat_sets(layout), **member_sets(layout)}
    return Table("inet", ident.table, True, chains, sets, DENIALS)


@lru_cache(maxsize=LAYOUTS_KEPT)
def _card_maps(cards: tuple[tuple[Card, Net], ...]) -> Mapping[str, NftSet]:
    """The same for as long as nobody's cards change: rules change more often."""
    source: dict[Key, str] = {}
    by_mac: dict[Key, str] = {}
    by4: dict[Key, str] = {}
    by6: dict[Key, str] = {}
    for card, net in cards:
        name = profile(card.groups)
        outward, inward = encode(nft.goto(f"out-{name}")), encode(nft.goto(f"in-{name}"))
        source[net.bridge, card.mac] = outward
        by_mac[net.bridge, card.mac] = inward
        for address in (*card.addresses, local_address(card.mac)):
            (by4 if is4(address) else by6)[net.bridge, address] = inward
    return {
        "known": NftSet(_ETHER, dict.fromkeys(source, "")),
        "from": NftSet(_ETHER, source, ("verdict",)),
        "to": NftSet(_ETHER, by_mac, ("verdict",)),
        "to4": NftSet(("ifname", "ipv4_addr"), by4, ("verdict",)),
        "to6": NftSet(("ifname", "ipv6_addr"), by6, ("verdict",)),
    }


def judge_sets(layout: Layout) -> dict[str, NftSet]:
    nets, own = layout.policy.nets, layout.own
    gates = [(net.bridge, address) for net in own for address in net.gateways]
    openings = [(net.bridge, opening.protocol, opening.port) for net in own for opening in net.openings]
    sheltered = [(net.bridge,) for net in own if net.mode == "nat"]
    doors = [(net.bridge, door) for net in own for door in net.doors]
    entered = [(bridge, door.mac, address) for bridge, door in doors for address in door.addresses]
    return {
        "bridges": NftSet(("ifname",), {(net.bridge,): "" for net in nets}),
        "own": NftSet(("ifname",), {(net.bridge,): "" for net in own}),
        "shut": NftSet(("ifname",), {(net.bridge,): "" for net in layout.shut}),
        "sheltered": NftSet(("ifname",), dict.fromkeys(sheltered, "")),
        "paths": NftSet(("ifname", "ifname"), dict.fromkeys(layout.open_paths, "")),
        **_card_maps(layout.cards),
        "doored": NftSet(("ifname",), {(bridge,): "" for bridge, _ in doors}),
        "doors4": NftSet((*_ETHER, "ipv4_addr"), {door: "" for door in entered if is4(door[2])}),
        "doors6": NftSet((*_ETHER, "ipv6_addr"), {door: "" for door in entered if not is4(door[2])}),
        "hosts4": NftSet(("ifname", "ipv4_addr"), {host: "" for host in layout.hosts if is4(host[1])}),
        "hosts6": NftSet(("ifname", "ipv6_addr"), {host: "" for host in layout.hosts if not is4(host[1])}),
        "gates4": NftSet(("ifname", "ipv4_addr"), {gate: "" for gate in gates if is4(gate[1])}),
        "gates6": NftSet(("ifname", "ipv6_addr"), {gate: "" for gate in gates if not is4(gate[1])}),
        "openings": NftSet(("ifname", "inet_proto", "inet_service"), dict.fromkeys(openings, "")),
        "home4": NftSet(("ipv4_addr",), {(net,): "" for net in layout.home_subnets(four=True)}, intervals=True),
        "home6": NftSet(("ipv6_addr",), {(net,): "" for net in layout.home_subnets(four=False)}, intervals=True),
        "closed4": NftSet(("ipv4_addr",), {(net,): "" for net in CLOSED4}, intervals=True),
        "closed6": NftSet(("ipv6_addr",), {(net,): "" for net in CLOSED6}, intervals=True),
    }


def _judged() -> list[str]:
    return [
        rule([nft.state("established"), nft.jump("running")]),
        rule([nft.state("related"), nft.goto("pass")]),
        rule([nft.state("invalid"), nft.DROP]),
        rule([nft.jump("closed")]),
        rule([nft.one_of(_ICMP6_TYPE, ROGUE_ICMP6), nft.among(_SOURCE, "known"), nft.goto("deny-rogue")]),
        *_neighbours(),
        rule([nft.jump("doors")]),
        rule([nft.jump("transit")]),
        rule([nft.jump("policies")]),
        rule([nft.jump("outward")]),
        rule([nft.jump("inward")]),
        rule([nft.goto("admit")]),
    ]


def _neighbours() -> list[str]:
    """Passed without asking, as long as no router has passed it on: that takes one from the hop limit, and what is from an
    address of the wire's own never gets so far."""
    unrouted = nft.one_of(nft.FROM6, (nft.prefix("fe80::/10"), "::"))
    return [
        rule(
            [nft.match(nft.field("ip6", "hoplimit"), 255), nft.one_of(_ICMP6_TYPE, NEIGHBOUR_ICMP6), nft.goto("pass")]
        ),
        rule([unrouted, nft.one_of(_ICMP6_TYPE, NEIGHBOUR_ICMP6), nft.goto("pass")]),
        rule([nft.one_of(_ICMP6_TYPE, NEIGHBOUR_ICMP6), nft.goto("deny-transit")]),
    ]


def _epoch_chains(epoch: int) -> dict[str, Chain]:
    """A connection is judged again by its next packet from who began it, once the policy has changed; answers follow the
    last judgement."""
    now, mark = epoch << EPOCH_SHIFT, nft.ct("mark")
    answers = nft.match(nft.ct("direction"), "reply")
    running = (
        rule([answers, nft.masked(mark, EPOCH_MASK, DENIED), nft.DROP]),
        rule([answers, nft.goto("pass")]),
        rule([nft.masked(mark, EPOCH_MASK, now), nft.goto("pass")]),
    )
    return {
        "running": Chain(running),
        "admit": Chain((rule([nft.put(mark, EPOCH_MASK, now)]), rule([nft.goto("pass")]))),
    }


def _closed() -> list[str]:
    return [
        rule([nft.among(nft.TO4, "closed4"), nft.goto("deny-closed")]),
        rule([nft.among(nft.TO6, "closed6"), nft.goto("deny-closed")]),
    ]


def _doors() -> list[str]:
    """What is always let through: a guest to the router that is its gateway, as to a host that is it, and the host to its
    guests, as it comes through a router."""
    found = []
    dns = (nft.one_of(nft.L4, ("tcp", "udp")), nft.match(nft.DPORT, 53))
    echoes = (nft.match(nft.field("icmp", "type"), "echo-request"), nft.match(_ICMP6_TYPE, 128))
    asked_of_all = (nft.match(nft.TO4, "255.255.255.255"), nft.match(nft.TO6, "ff02::1:2"))
    families = ((nft.TO4, nft.FROM4, "4"), (nft.TO6, nft.FROM6, "6"))
    for (to, source, number), ports, echo, all_of_them in zip(
        families, DHCP_ANSWERS, echoes, asked_of_all, strict=True
    ):
        server, client = ports
        asks = (nft.match(nft.field("udp", "sport"), client), nft.match(nft.field("udp", "dport"), server))
        found.append(rule([nft.among(nft.IIF, "doored"), nft.TO_MANY, all_of_them, *asks, nft.goto("admit")]))
        door = nft.among(nft.concat(nft.IIF, nft.TO_MAC, to), f"doors{number}")
        found += [rule([door, *what, nft.goto("admit")]) for what in (asks, dns, (echo,))]
        found.append(rule([nft.among(nft.concat(nft.IIF, source), f"hosts{number}"), nft.goto("admit")]))
    return found


def _transit() -> list[str]:
    """Which networks the host leads to which."""
    deny = nft.goto("deny-transit")
    return [
        rule([nft.among(nft.concat(nft.IIF, nft.OIF), "paths"), nft.RETURN]),
        rule([nft.among(nft.IIF, "shut"), deny]),
        rule([nft.among(nft.OIF, "shut"), deny]),
        rule([nft.among(nft.IIF, "own"), nft.among(nft.OIF, "own"), deny]),
        # From elsewhere nobody has an address of ours.
        rule([nft.among(nft.IIF, "own", "!="), nft.among(nft.FROM4, "home4"), deny]),
        rule([nft.among(nft.IIF, "own", "!="), nft.among(nft.FROM6, "home6"), deny]),
        rule([nft.translated(), nft.RETURN]),
        rule([nft.among(nft.OIF, "sheltered"), deny]),
    ]


def _outward() -> list[str]:
    """Returns where the card that it is from may send it, or where it is from no card."""
    flood: Json = {
        "set": {
            "op": "update",
            "elem": _SOURCE,
            "set": "@flood",
            "stmt": [
                {"limit": {"rate": NEW_CONNECTIONS_PER_S, "per": "second", "burst": NEW_CONNECTIONS_BURST, "inv": True}}
            ],
        }
    }
    return [
        rule([nft.among(_SOURCE, "known"), nft.state("new"), flood, nft.goto("deny-flood")]),
        rule([_dhcp_answer(), nft.among(_SOURCE, "known"), nft.goto("deny-rogue")]),
        rule([nft.vmap(_SOURCE, "@from")]),
    ]


def _inward() -> list[str]:
    """Returns where the card that it is for takes it, or where it is for no card."""
    forwarded4 = nft.among(nft.concat(nft.TO4, nft.L4, nft.DPORT), "forwarded4")
    forwarded6 = nft.among(nft.concat(nft.TO6, nft.L4, nft.DPORT), "forwarded6")
    return [
        rule([nft.translated(), forwarded4, nft.RETURN]),
        rule([nft.translated(), forwarded6, nft.RETURN]),
        rule([_dhcp_answer(), nft.RETURN]),
        rule([nft.vmap(nft.concat(nft.OIF, nft.TO_MAC), "@to")]),
        rule([nft.vmap(nft.concat(nft.OIF, nft.TO4), "@to4")]),
        rule([nft.vmap(nft.concat(nft.OIF, nft.TO6), "@to6")]),
    ]


def _dhcp_answer() -> Json:
    pairs = {"set": [{"concat": list(pair)} for pair in DHCP_ANSWERS]}
    return nft.match(nft.concat(nft.field("udp", "sport"), nft.field("udp", "dport")), pairs)


def _input() -> list[str]:
    return [
        rule([nft.among(nft.IIF, "own"), nft.goto("host")]),
        rule([nft.among(nft.IIF, "bridges"), nft.among(_SOURCE, "known"), nft.goto("host")]),
    ]


def _host() -> list[str]:
    """What of the host a guest reaches."""
    gate4, gate6 = nft.among(nft.concat(nft.IIF, nft.TO4), "gates4"), nft.among(nft.concat(nft.IIF, nft.TO6), "gates6")
    local6 = nft.match(nft.TO6, nft.prefix("fe80::/10"))
    opened = nft.among(nft.concat(nft.IIF, nft.L4, nft.DPORT), "openings")
    found = [
        rule([nft.state("established", "related"), nft.ACCEPT]),
        rule([nft.one_of(_ICMP6_TYPE, NEIGHBOUR_ICMP6), nft.ACCEPT]),
        rule([nft.one_of(nft.field("udp", "dport"), (67, 547)), nft.ACCEPT]),
        rule([nft.match(nft.field("ip", "protocol"), "igmp"), nft.ACCEPT]),
    ]
    for gate in (gate4, gate6, local6):
        found.append(rule([gate, nft.one_of(nft.L4, ("tcp", "udp")), nft.match(nft.DPORT, 53), nft.ACCEPT]))
        echo = nft.match(nft.field("icmp", "type"), "echo-request") if gate is gate4 else nft.match(_ICMP6_TYPE, 128)
        found.append(rule([gate, echo, nft.ACCEPT]))
    found += [rule([gate, opened, nft.ACCEPT]) for gate in (gate4, gate6)]
    return [*found, rule([nft.goto("deny-host")])]


def _zone_chains(layout: Layout) -> dict[str, Chain]:
    """Before fragments are put together, which is told by the zone, too, and connections are looked up."""
    made = {}
    for hook, bridge in (("prerouting", nft.IIF), ("output", nft.OIF)):
        numbers: list[object] = [[name, zone] for name, zone in sorted(layout.zones.items())]
        put: Json = {"mangle": {"key": nft.ct("zone"), "value": nft.lookup(bridge, {"set": numbers})}}
        made[f"zone-{hook}"] = Chain((rule([put]),) if numbers else (), Hook("filter", hook, ZONE_PRIORITY))
    return made


def _denied(name: str, ident: Ident) -> list[str]:
    cut = (
        []
        if name in ("deny-host", "deny-flood")
        else [rule([nft.state("established"), nft.put(nft.ct("mark"), EPOCH_MASK, DENIED)])]
    )
    return [
        *cut,
        rule([nft.counted(name)]),
        rule([nft.at_most(LOG_PER_S, LOG_BURST), nft.log(ident.log_group, name)]),
        rule([nft.DROP]),
    ]
