"""What the firewall is to do: the compiler's typed input, made from the wished state alone. Pure.

Nothing here was observed: rules may be there before the port that they speak of. Every text in it that reaches the kernel
is an address, a number, an interface's name or a name derived from a uid; what people call their groups never does.
"""

from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Final, Literal

from corral.model.network import NetworkMode

HOST_REALM: Final = "host"
"""The realm of networks whose gateway is the host: it forwards between them."""


class Direction(StrEnum):
    IN = "in"
    OUT = "out"


class Protocol(StrEnum):
    ANY = "any"
    TCP = "tcp"
    UDP = "udp"
    SCTP = "sctp"
    ICMP = "icmp"
    ICMPV6 = "icmpv6"


@dataclass(frozen=True)
class Traffic:
    """What kind of packets. `ports` are destination ports, both ends included, of TCP, UDP and SCTP; `icmp_type` and
    `icmp_code` are of both ICMPs."""

    protocol: Protocol = Protocol.ANY
    ports: tuple[int, int] | None = None
    icmp_type: int | None = None
    icmp_code: int | None = None


ANY_TRAFFIC: Final = Traffic()


@dataclass(frozen=True)
class Peer:
    """The other end. A group stands for the cards that have it, as far as their addresses are reachable untranslated; a
    network for its subnets."""

    kind: Literal["any", "cidr", "network", "group"] = "any"
    value: str = ""
    """A CIDR of IPv4 or IPv6, a network's uid, a group's uid."""


ANYBODY: Final = Peer()


@dataclass(frozen=True)
class Rule:
    """Allows. What no rule of any of a card's groups allows is denied, in either direction."""

    uid: str
    """Names its counters and its lines in the log: letters, digits and '-', at most 64."""
    direction: Direction
    traffic: Traffic = ANY_TRAFFIC
    peer: Peer = ANYBODY
    log: bool = False
    """New connections that it allows are logged."""


@dataclass(frozen=True)
class Group:
    """A security group. All of its rules are stateful: answers need none."""

    uid: str
    rules: tuple[Rule, ...] = ()

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        """Asked for by each compilation, of each group; and there may be thousands of rules, which have names."""
        return hash((self.uid, *(rule.uid for rule in self.rules)))

    @cached_property
    def named_peers(self) -> tuple[Peer, ...]:
        """Groups and networks: who that is may change while the rules stay."""
        return tuple(dict.fromkeys(rule.peer for rule in self.rules if rule.peer.kind in ("group", "network")))

    @cached_property
    def unbounded(self) -> frozenset[Direction]:
        """Where some rule lets everything through."""
        every = (rule for rule in self.rules if rule.traffic == ANY_TRAFFIC and rule.peer == ANYBODY)
        return frozenset(rule.direction for rule in every)


@dataclass(frozen=True)
class Card:
    """A network card and its port at the bridge. Without `groups` it is denied everything but DHCP, DNS and neighbours."""

    tap: str
    """`names.tap_name(vm_uid, nic_name)`."""
    network: str
    """The network's uid."""
    mac: str
    addresses: tuple[str, ...] = ()
    """IPv4 and IPv6 addresses that it may use. None at all (on a bridge of the host's, where others give them): any but
    those of other cards, and peers do not find it as a member of its groups."""
    groups: tuple[str, ...] = ()
    """Uids."""


@dataclass(frozen=True)
class Opening:
    """A service of the host that a network's guests may reach at their gateway, besides DHCP, DNS and echo."""

    protocol: Literal["tcp", "udp"]
    port: int


@dataclass(frozen=True)
class Door:
    """A router that is a network's gateway: guests reach DHCP, DNS and echo there, whatever their groups say."""

    mac: str
    addresses: tuple[str, ...]


@dataclass(frozen=True)
class Net:
    """A network as far as the firewall sees it."""

    uid: str
    project: str
    bridge: str
    mode: NetworkMode | Literal["routed"]
    subnets: tuple[str, ...] = ()
    """CIDRs of IPv4 and IPv6."""
    gateways: tuple[str, ...] = ()
    """The host's addresses in it."""
    realm: str = HOST_REALM
    """Networks of one realm reach one another untranslated: `host`, or the uid of the router that connects them. A network
    of mode `isolated` that no router connects: its own uid."""
    openings: tuple[Opening, ...] = ()
    led: str = ""
    """The network over which the host leads to this one's guests, by a router on it: what holds of that network's guests out
    there holds of these. Empty: the host does not."""
    doors: tuple[Door, ...] = ()


@dataclass(frozen=True)
class Exemption:
    """From the tier with the number `source` to the one with `target`."""

    source: int
    target: int
    traffic: Traffic = ANY_TRAFFIC


@dataclass(frozen=True)
class NetworkPolicy:
    """`deny between tiers unless …`: a new connection between different tiers is denied whatever the groups allow, unless
    an exemption names it; then it is for the groups to decide. Ends that share a tier are within it."""

    uid: str
    """Names its counters and its lines in the log, as a rule's."""
    tiers: tuple[Peer, ...]
    """Networks, groups or CIDRs."""
    unless: tuple[Exemption, ...] = ()


@dataclass(frozen=True)
class Forward:
    """A port of the host's that leads to a guest; opens what it forwards. `listen` empty: every address of the host's."""

    uid: str
    protocol: Literal["tcp", "udp"]
    port: int
    address: str
    to_port: int
    listen: str = ""


@dataclass(frozen=True)
class Floating:
    """One of the host's addresses that stands for a guest's, both ways. Opens nothing."""

    uid: str
    outside: str
    inside: str


@dataclass(frozen=True)
class Policy:
    """All of it, for one installation on one host. Order does not matter."""

    nets: tuple[Net, ...] = ()
    cards: tuple[Card, ...] = ()
    groups: tuple[Group, ...] = ()
    policies: tuple[NetworkPolicy, ...] = ()
    forwards: tuple[Forward, ...] = ()
    floating: tuple[Floating, ...] = ()
