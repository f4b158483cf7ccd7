"""At the bridge: no port says anything in another one's name, nor what only a router or a DHCP server says. Pure."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Final

from corral.network.firewall import expressions as nft
from corral.network.firewall.form import Chain, Hook, Json, Key, NftSet, Table, rule
from corral.network.firewall.layout import (
    BRIDGE_LATE,
    GUARD_MASK,
    LAYOUTS_KEPT,
    POLICY_MASK,
    Ident,
    Layout,
    is4,
    local_address,
    profile,
)
from corral.network.firewall.policy import Card, Net

COUNTERS: Final = ("spoofed", "rogue", "spread")
# The target of a neighbour advertisement: behind IPv6's header and the first 8 bytes of ICMPv6 (RFC 4861, section 4.4).
_ND_TARGET: Final[Json] = {"payload": {"base": "nh", "offset": 384, "len": 128}}
TARGETS_SET: Final = "targets"
_GROUP_BIT: Final = "01:00:00:00:00:00"
_NO_MAC: Final = "00:00:00:00:00:00"
_ETHER_TYPE: Final = nft.field("ether", "type")
_ICMP6_TYPE: Final = nft.field("icmpv6", "type")
_ARP: Final = nft.match(_ETHER_TYPE, "arp")
# Router advertisements and redirects; duplicate address detection and group reports come from no address yet.
ROGUE_ICMP6: Final = (134, 137)
_NAMELESS_ICMP6: Final = (131, 132, 135, 143)
NEIGHBOUR_ICMP6: Final = (130, 131, 132, 133, 134, 135, 136, 143)
DISCOVERY_ICMP6: Final = (133, 134, 135, 136, 137)
DHCP_ANSWERS: Final = ((67, 68), (547, 546))
LOG_PER_S: Final = 10
LOG_BURST: Final = 20


def guard_table(layout: Layout, ident: Ident) -> Table:
    priority = ident.priority
    chains = {
        "in": Chain((rule([nft.among(nft.IIF, "taps"), nft.goto("guard")]),), Hook("filter", "prerouting", priority)),
        "across": Chain(
            (
                rule(
                    [nft.among(nft.OIF, "taps"), nft.masked(nft.TO_MAC, _GROUP_BIT, _NO_MAC, "!="), nft.goto("spread")]
                ),
            ),
            Hook("filter", "forward", priority + BRIDGE_LATE),
        ),
        "guard": Chain((rule([nft.vmap(_ETHER_TYPE, _by_type())]), rule([nft.goto("rogue")]))),
        "guard4": Chain(tuple(_guard4())),
        "checked4": Chain(tuple(_checked4(layout))),
        "guard6": Chain(tuple(_guard6())),
        "checked6": Chain(tuple(_checked6())),
        "guard-arp": Chain(tuple(_guard_arp())),
        "spread": Chain(tuple(_spread(ident))),
        "good": Chain((rule([nft.put(nft.meta("mark"), GUARD_MASK, ident.guarded), nft.ACCEPT]),)),
        **{name: Chain(_dropped(name, ident)) for name in ("spoofed", "rogue")},
    }
    return Table("bridge", ident.table, True, chains, guard_sets(layout), COUNTERS)


def guard_sets(layout: Layout) -> dict[str, NftSet]:
    takers = {name for name, groups in layout.profiles.items() if layout.takes_all(groups)}
    opened = [card.tap for card, _ in layout.cards if profile(card.groups) in takers]
    return {**card_sets(layout.cards), "open": NftSet(("ifname",), {(tap,): "" for tap in opened})}


@lru_cache(maxsize=LAYOUTS_KEPT)
def card_sets(cards: tuple[tuple[Card, Net], ...]) -> Mapping[str, NftSet]:
    """The same for as long as nobody's cards change: rules change more often."""
    own4: dict[Key, str] = {}
    own6: dict[Key, str] = {}
    macs: dict[Key, str] = {}
    targets: dict[Key, str] = {}
    loose: dict[Key, str] = {}
    taken4: dict[Key, str] = {}
    taken6: dict[Key, str] = {}
    for card, net in cards:
        macs[card.tap, card.mac] = ""
        local = local_address(card.mac)
        if not card.addresses:
            loose[card.tap, card.mac] = ""
        for address in (*card.addresses, local):
            if is4(address):
                own4[card.tap, card.mac, address] = ""
            else:
                own6[card.tap, card.mac, address] = targets[card.tap, _number(address)] = ""
            if net.mode == "bridge":
                (taken4 if is4(address) else taken6)[(address,)] = ""
    return {
        "taps": NftSet(("ifname",), {(card.tap,): "" for card, _ in cards}),
        "macs": NftSet(("ifname", "ether_addr"), macs),
        "own4": NftSet(("ifname", "ether_addr", "ipv4_addr"), own4),
        "own6": NftSet(("ifname", "ether_addr", "ipv6_addr"), own6),
        "loose": NftSet(("ifname", "ether_addr"), loose),
        "taken4": NftSet(("ipv4_addr",), taken4),
        "taken6": NftSet(("ipv6_addr",), taken6),
        TARGETS_SET: NftSet(("ifname", "integer"), targets, declared=False),
    }


def _number(address: str) -> str:
    groups = address.split("::")
    head = groups[0].split(":") if groups[0] else []
    tail = groups[1].split(":") if len(groups) > 1 and groups[1] else []
    words = [*head, *["0"] * (8 - len(head) - len(tail)), *tail]
    return "0x" + "".join(word.zfill(4) for word in words)


def _by_type() -> Json:
    chains = (("ip", "guard4"), ("ip6", "guard6"), ("arp", "guard-arp"))
    return {"set": [[name, nft.goto(chain)] for name, chain in chains]}


def _guard4() -> list[str]:
    return [
        rule([nft.among(nft.concat(nft.IIF, nft.FROM_MAC, nft.FROM4), "own4"), nft.goto("checked4")]),
        rule(
            [
                *(nft.match(nft.FROM4, "0.0.0.0"), nft.match(nft.field("udp", "sport"), 68)),
                *(nft.match(nft.field("udp", "dport"), 67), _known_mac(), nft.goto("good")),
            ]
        ),
        rule([_loose(), nft.among(nft.FROM4, "taken4", "!="), nft.goto("checked4")]),
        rule([nft.goto("spoofed")]),
    ]


def _checked4(layout: Layout) -> list[str]:
    spread_to = {"set": [nft.prefix(found) if "/" in found else found for found in layout.broadcasts]}
    everybody = nft.masked(nft.TO_MAC, _GROUP_BIT, _NO_MAC, "!=")
    return [
        rule([nft.match(nft.field("udp", "sport"), 67), nft.goto("rogue")]),
        rule([nft.match(nft.field("icmp", "type"), "redirect"), nft.goto("rogue")]),
        # A guest takes what comes to everybody's MAC for its own; so it is for everybody, or it is a trick.
        rule([everybody, nft.match(nft.TO4, spread_to, "!="), _loose("!="), nft.goto("rogue")]),
        rule([nft.goto("good")]),
    ]


def _guard6() -> list[str]:
    return [
        rule([nft.among(nft.concat(nft.IIF, nft.FROM_MAC, nft.FROM6), "own6"), nft.goto("checked6")]),
        rule(
            [
                *(nft.match(nft.FROM6, "::"), nft.one_of(_ICMP6_TYPE, _NAMELESS_ICMP6)),
                *(_known_mac(), nft.goto("checked6")),
            ]
        ),
        rule([_loose(), nft.among(nft.FROM6, "taken6", "!="), nft.goto("checked6")]),
        rule([nft.goto("spoofed")]),
    ]


def _checked6() -> list[str]:
    target = nft.among(nft.concat(nft.IIF, _ND_TARGET), TARGETS_SET, "!=")
    next_header = nft.field("ip6", "nexthdr")
    return [
        rule([nft.one_of(_ICMP6_TYPE, ROGUE_ICMP6), nft.goto("rogue")]),
        # Nothing stands before a neighbour's word but IPv6's header, or its target is not where it is looked for. (Before
        # reports of groups a router alert does; a first fragment without all headers is nobody's, RFC 8200 section 4.5.)
        rule([nft.match(next_header, "ipv6-icmp", "!="), nft.one_of(_ICMP6_TYPE, DISCOVERY_ICMP6), nft.goto("rogue")]),
        rule([nft.match(nft.field("udp", "sport"), 547), nft.goto("rogue")]),
        rule([nft.match(_ICMP6_TYPE, 136), _loose("!="), target, nft.goto("rogue")]),
        rule([nft.goto("good")]),
    ]


def _guard_arp() -> list[str]:
    from_mac, from4 = nft.field("arp", "saddr ether"), nft.field("arp", "saddr ip")
    return [
        rule([_known_mac("!="), nft.goto("spoofed")]),
        rule([_ARP, nft.among(nft.concat(nft.IIF, from_mac, from4), "own4"), nft.goto("good")]),
        rule([_ARP, nft.match(from4, "0.0.0.0"), nft.among(nft.concat(nft.IIF, from_mac), "macs"), nft.goto("good")]),
        rule([_loose(), _ARP, nft.among(from4, "taken4", "!="), nft.goto("good")]),
        rule([nft.goto("spoofed")]),
    ]


def _spread(ident: Ident) -> list[str]:
    """What is for everybody reaches a guest if it lets everything in, or cannot do without it."""
    mark = nft.put(nft.meta("mark"), POLICY_MASK, ident.judged)
    answers = {"set": [{"concat": list(pair)} for pair in DHCP_ANSWERS]}
    return [
        rule([_ARP, mark, nft.ACCEPT]),
        rule([nft.among(nft.OIF, "open"), mark, nft.ACCEPT]),
        rule([nft.one_of(_ICMP6_TYPE, NEIGHBOUR_ICMP6), mark, nft.ACCEPT]),
        rule([nft.match(nft.L4, "udp"), nft.match(nft.concat(nft.SPORT, nft.DPORT), answers), mark, nft.ACCEPT]),
        rule([nft.match(nft.field("ip", "protocol"), "igmp"), mark, nft.ACCEPT]),
        rule([nft.counted("spread"), nft.DROP]),
    ]


def _known_mac(op: str = "==") -> Json:
    return nft.among(nft.concat(nft.IIF, nft.FROM_MAC), "macs", op)


def _loose(op: str = "==") -> Json:
    return nft.among(nft.concat(nft.IIF, nft.FROM_MAC), "loose", op)


def _dropped(name: str, ident: Ident) -> tuple[str, ...]:
    return (
        rule([nft.counted(name)]),
        rule([nft.at_most(LOG_PER_S, LOG_BURST), nft.log(ident.log_group, name)]),
        rule([nft.DROP]),
    )
