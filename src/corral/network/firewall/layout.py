"""A policy seen from where its packets pass: which bridges there are, who is known at each, how everything is called. Pure."""

import hashlib
import ipaddress
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Final

from corral.network.addresses import link_local
from corral.network.firewall.meaning import realm_of
from corral.network.firewall.policy import HOST_REALM, Card, Direction, Group, Net, Policy

# Marks on packets, four bits each: what the guard at the bridge has checked, and what the policy has let pass. Each
# installation writes a number of its own, so that the floor of one does not take another's word for it.
GUARD_MASK: Final = 0xF0000000
POLICY_MASK: Final = 0x0F000000
SLOTS: Final = 15
# The epoch of the policy that judged a connection, in the upper half of its mark; all ones: denied since.
EPOCH_MASK: Final = 0xFFFF0000
EPOCH_SHIFT: Final = 16
EPOCHS: Final = 0xFFFE
DENIED: Final = EPOCH_MASK
ZONES: Final = 0xFFFF
# Behind connection tracking (-200), before everybody's filters (0); each installation has its own pair of places.
FIRST_PRIORITY: Final = -90
PRIORITY_STEP: Final = 3
# At a bridge br_netfilter sits at 0; what comes behind it has been judged.
BRIDGE_LATE: Final = 100
FIRST_LOG_GROUP: Final = 4096
LOG_GROUPS: Final = 32768
CARDS_KEPT: Final = 65536
LAYOUTS_KEPT: Final = 2


@dataclass(frozen=True)
class Ident:
    """What one installation's tables, marks and places are told apart by."""

    installation_id: str

    @property
    def suffix(self) -> str:
        return self.installation_id.replace("-", "")[:8]

    @property
    def number(self) -> int:
        return int(hashlib.sha256(self.installation_id.encode()).hexdigest()[:8], 16)

    @property
    def table(self) -> str:
        return f"corral-{self.suffix}"

    @property
    def floor(self) -> str:
        return f"corral-floor-{self.suffix}"

    @property
    def slot(self) -> int:
        return self.number % SLOTS

    @property
    def guarded(self) -> int:
        return (self.slot + 1) << 28

    @property
    def judged(self) -> int:
        return (self.slot + 1) << 24

    @property
    def priority(self) -> int:
        return FIRST_PRIORITY + PRIORITY_STEP * self.slot

    @property
    def log_group(self) -> int:
        return FIRST_LOG_GROUP + self.number % LOG_GROUPS


@lru_cache(maxsize=CARDS_KEPT)
def short(text: str) -> str:
    """A name's part that nft takes, of a text of any length."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@lru_cache(maxsize=CARDS_KEPT)
def local_address(mac: str) -> str:
    """The IPv6 address that a card has at its own wire."""
    return link_local(mac)


def is4(address: str) -> bool:
    return ":" not in address


@lru_cache(maxsize=CARDS_KEPT)
def profile(groups: tuple[str, ...]) -> str:
    """Cards of the same groups share their chains."""
    return short(",".join(sorted(groups)))


@dataclass
class Layout:
    """Looked at once for each policy that is compiled."""

    policy: Policy
    nets: dict[str, Net] = field(init=False)
    groups: dict[str, Group] = field(init=False)

    def __post_init__(self) -> None:
        self.nets = {net.uid: net for net in self.policy.nets}
        self.groups = {group.uid: group for group in self.policy.groups}

    @cached_property
    def cards(self) -> tuple[tuple[Card, Net], ...]:
        """Those that are on a network that there is."""
        return tuple((card, self.nets[card.network]) for card in self.policy.cards if card.network in self.nets)

    @cached_property
    def own(self) -> tuple[Net, ...]:
        """Networks on bridges of ours; on the host's own bridges others are, too."""
        return tuple(net for net in self.policy.nets if net.mode != "bridge")

    @cached_property
    def realm_bridges(self) -> dict[str, tuple[str, ...]]:
        found: defaultdict[str, list[str]] = defaultdict(list)
        for net in self.policy.nets:
            found[realm_of(net)].append(net.bridge)
        return {realm: tuple(bridges) for realm, bridges in found.items()}

    def reaching(self, net: Net) -> tuple[str, ...]:
        """The bridges at which packets of this network's guests pass with their own addresses."""
        return self.realm_bridges[realm_of(net)]

    @cached_property
    def profiles(self) -> dict[str, tuple[str, ...]]:
        return {profile(card.groups): card.groups for card, _ in self.cards}

    @cached_property
    def peer_groups(self) -> frozenset[str]:
        """Those that somebody speaks of."""
        rules = (peer for group in self.policy.groups for peer in group.named_peers)
        tiers = (peer for found in self.policy.policies for peer in found.tiers)
        return frozenset(peer.value for peer in (*rules, *tiers) if peer.kind == "group")

    @cached_property
    def members(self) -> dict[str, tuple[list[tuple[str, str]], list[tuple[str, str]]]]:
        """Of each group that somebody speaks of: bridge and address, IPv4 and IPv6."""
        found: dict[str, tuple[list[tuple[str, str]], list[tuple[str, str]]]]
        found = {uid: ([], []) for uid in self.peer_groups}
        for card, net in self.cards:
            mine = [uid for uid in card.groups if uid in found]
            if not mine:
                continue
            places = [(bridge, address) for bridge in self.reaching(net) for address in card.addresses]
            for uid in mine:
                four, six = found[uid]
                four.extend(place for place in places if is4(place[1]))
                six.extend(place for place in places if not is4(place[1]))
                if card.addresses:
                    six.append((net.bridge, local_address(card.mac)))
        return found

    def takes_all(self, groups: Iterable[str]) -> bool:
        """Some rule lets everything in: broadcasts, too."""
        return any(Direction.IN in self.groups[uid].unbounded for uid in groups if uid in self.groups)

    @cached_property
    def shut(self) -> tuple[Net, ...]:
        """The host leads nobody in or out of these."""
        return tuple(net for net in self.own if net.mode == "isolated" or net.realm != HOST_REALM)

    @cached_property
    def open_paths(self) -> tuple[tuple[str, str], ...]:
        """Pairs of bridges that the host may forward between."""
        same = [(net.bridge, net.bridge) for net in self.policy.nets]
        led: defaultdict[str, list[str]] = defaultdict(list)
        for net in self.own:
            if net not in self.shut:
                led[net.project].append(net.bridge)
        across = [(one, other) for bridges in led.values() for one in bridges for other in bridges if one != other]
        return (*same, *across)

    @cached_property
    def zones(self) -> dict[str, int]:
        """Connections of networks that may use the same addresses are told apart: a number for each realm behind a router."""
        taken: dict[str, int] = {}
        for realm in sorted({net.realm for net in self.shut}):
            number = int(short(realm), 16) % ZONES + 1
            while number in taken.values():
                number = number % ZONES + 1
            taken[realm] = number
        return {net.bridge: taken[net.realm] for net in self.shut}

    def outward(self, net: Net) -> Net:
        """The network by which its guests leave, or itself."""
        return self.nets.get(net.led, net)

    @cached_property
    def hosts(self) -> tuple[tuple[str, str], ...]:
        """Bridge and address by which the host comes to guests that it reaches through a router."""
        led = [net for net in self.own if net.led]
        return tuple((net.bridge, address) for net in led for address in self.outward(net).gateways)

    def translated_subnets(self, *, four: bool) -> list[str]:
        """Of networks whose guests leave under the host's address."""
        nat = [net for net in self.own if self.outward(net).mode == "nat" and net.realm == HOST_REALM]
        return [subnet for net in nat for subnet in net.subnets if is4(subnet) == four]

    def home_subnets(self, *, four: bool) -> list[str]:
        """Addresses that come from bridges of ours alone."""
        home = [net for net in self.own if net.realm == HOST_REALM and (net.mode != "isolated" or net.led)]
        return [subnet for net in home for subnet in net.subnets if is4(subnet) == four]

    @cached_property
    def broadcasts(self) -> tuple[str, ...]:
        """Addresses that a frame for everybody may be for."""
        subnets = [ipaddress.IPv4Network(subnet) for net in self.own for subnet in net.subnets if is4(subnet)]
        found = dict.fromkeys(str(subnet.broadcast_address) for subnet in subnets)
        return ("224.0.0.0/4", "255.255.255.255", *found)
