"""What becomes of a new connection, and which rule decides: the meaning of a policy, without a kernel. Pure.

Tests ask it and real packets the same questions: it is the compiler's specification, and what `corral firewall explain`
answers with.
"""

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final

from corral.network.addresses import link_local
from corral.network.firewall.guard import NEIGHBOUR_ICMP6, ROGUE_ICMP6
from corral.network.firewall.judge import CLOSED4, CLOSED6
from corral.network.firewall.meaning import is_on, lies_in, matches, realm_of
from corral.network.firewall.policy import (
    HOST_REALM,
    Card,
    Direction,
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
from corral.network.firewall.ways import NO_WAYS, Outside, Ways

_DNS, _DHCP, _DHCP6 = 53, 67, 547
_ECHO: Final = {Protocol.ICMP: 8, Protocol.ICMPV6: 128}
# Messages that begin something (the kernel's nf_conntrack_proto_icmp.c and …_icmpv6.c). Others belong to a connection, or
# to nothing.
_BEGINNINGS: Final = {Protocol.ICMP: (8, 13, 15, 17), Protocol.ICMPV6: (128, 139)}
_ROGUE: Final = {Protocol.ICMP: (5,), Protocol.ICMPV6: ROGUE_ICMP6}


class Stage(StrEnum):
    """What is asked, in this order; the first that denies decides."""

    STATE = "state"  # a message that begins no connection
    ROGUE = "rogue"  # what only routers say
    CLOSED = "closed"  # an address that nobody may reach
    HOST = "host"  # a service of the host's
    FORWARD = "forward"  # a port of the host's that leads to it
    TRANSIT = "transit"  # from one network to another, or out
    POLICY = "policy"  # network policies
    OUT = "out"  # the groups of the card that sends
    IN = "in"  # the groups of the card that is reached


@dataclass(frozen=True)
class End:
    """One side of a connection. Without a card it is somebody outside, or the host, or who is met by a router."""

    address: str
    card: Card | None = None
    network: str = ""
    """Where a router has it met."""


@dataclass(frozen=True)
class Question:
    source: End
    target: End
    protocol: Protocol
    port: int | None = None
    icmp_type: int | None = None
    icmp_code: int | None = None

    def is_of(self, traffic: Traffic) -> bool:
        return matches(traffic, self.protocol, self.port, (self.icmp_type, self.icmp_code))


@dataclass(frozen=True)
class Step:
    """What one stage said. `uid`: of the rule that let it through, or of the policy that did not; empty: none did."""

    stage: Stage
    allowed: bool
    uid: str = ""
    card: Card | None = None
    """Whose groups were asked."""


@dataclass(frozen=True)
class Verdict:
    steps: tuple[Step, ...]

    @property
    def allowed(self) -> bool:
        return all(step.allowed for step in self.steps)

    @property
    def decisive(self) -> Step | None:
        """The step that denied or, where all is well, the last; None: nothing of it passes the firewall."""
        return next((step for step in self.steps if not step.allowed), self.steps[-1] if self.steps else None)


@dataclass
class Evaluator:
    """A policy, ready for many questions."""

    policy: Policy
    host_addresses: frozenset[str] = frozenset()
    """The host's own, besides its gateways."""
    ways: Ways = NO_WAYS
    _nets: dict[str, Net] = field(init=False)
    _groups: dict[str, Group] = field(init=False)
    _members: dict[str, set[tuple[str, str]]] = field(init=False)
    """Of each group: realms and addresses."""
    _owners: dict[tuple[str, str], Card] = field(init=False)
    """By realm and address."""

    def __post_init__(self) -> None:
        self._nets = {net.uid: net for net in self.policy.nets}
        self._groups = {group.uid: group for group in self.policy.groups}
        self._members, self._owners = {}, {}
        for card in self.policy.cards:
            places = [(self._realm(card), address) for address in card.addresses]
            places += [(card.network, link_local(card.mac))] if card.addresses else []
            self._owners.update(dict.fromkeys(places, card))
            for uid in card.groups:
                self._members.setdefault(uid, set()).update(places)

    def net_of(self, card: Card) -> Net:
        return self._nets[card.network]

    def _met_on(self, end: End) -> Net | None:
        """None: it is somebody outside, or the host."""
        return self.net_of(end.card) if end.card is not None else self._nets.get(end.network)

    def _realm(self, card: Card) -> str:
        return realm_of(self.net_of(card))

    def evaluate(self, question: Question) -> Verdict:
        """Steps up to the one that denies."""
        found: list[Step] = []
        for step in self._steps(question):
            found.append(step)
            if not step.allowed:
                break
        return Verdict(tuple(found))

    def card_at(self, address: str, seen_from: Card) -> Card | None:
        """Whose address it is, as far as `seen_from` meets it untranslated."""
        near = self._owners.get((seen_from.network, address))
        return near or self._owners.get((self._realm(seen_from), address))

    def _steps(self, question: Question) -> Iterator[Step]:
        source, target = question.source, question.target
        if source.card is not None and question.icmp_type in _ROGUE.get(question.protocol, ()):
            yield Step(Stage.ROGUE, allowed=False)
        if question.protocol is Protocol.ICMPV6 and question.icmp_type in NEIGHBOUR_ICMP6:
            yield from _led_on(source.card, target.card)
            return  # without it no address is found
        if question.icmp_type not in _BEGINNINGS.get(question.protocol, (None, question.icmp_type)):
            yield Step(Stage.STATE, allowed=False)
        said: set[Step] = set()
        for leg in self._legs(question):
            for step in self._judged(leg):
                if step not in said:
                    yield step
                said.add(step)

    def _judged(self, question: Question) -> Iterator[Step]:
        """As the host meets it, once."""
        source, target = question.source, question.target
        if any(lies_in(target.address, closed) for closed in (*CLOSED4, *CLOSED6)):
            yield Step(Stage.CLOSED, allowed=False)
        if (served := self._at_gateway(question)) is not None:
            yield Step(Stage.HOST, served)
            return
        if self._met_on(source) is None and self._is_reached(target, source.address):
            return  # the host reaches its guests
        if (forward := self._forward(question)) is not None:
            yield Step(Stage.FORWARD, allowed=True, uid=forward.uid)
            return
        yield Step(Stage.TRANSIT, self._passes(question))
        for policy in self.policy.policies:
            if self._denied(policy, question):
                yield Step(Stage.POLICY, allowed=False, uid=policy.uid)
        if source.card is not None:
            rule = self._rule(source.card, Direction.OUT, target, question)
            yield Step(Stage.OUT, rule is not None, rule.uid if rule is not None else "", source.card)
        if target.card is not None:
            rule = self._rule(target.card, Direction.IN, source, question)
            yield Step(Stage.IN, rule is not None, rule.uid if rule is not None else "", target.card)

    # ---- through routers -------------------------------------------------------------------------------------------

    def _legs(self, question: Question) -> Iterator[Question]:
        """The same packet, as the host meets it on each side of a router that leads it out or in."""
        source, target = question.source, question.target
        inner = target if self._floats(question) else None
        if inner is not None and inner.card is not None:
            stands = self.ways.floating[inner.card.tap]
            target = End(stands.addresses[0], network=stands.network)
        way = self._way_out(source, target)
        if source.card is not None and way is not None:
            # Bridged to the router: to the host it is on its way within that network.
            yield replace(question, target=End(target.address, network=source.card.network))
            source = End(way.addresses[0], network=way.network)
            if not target.network and target.card is None:
                target = replace(target, card=self._owners.get((realm_of(self._nets[way.network]), target.address)))
        yield replace(question, source=source, target=target)
        if inner is not None and inner.card is not None:
            # Who has an address of those behind the router is none of them, and is not let in.
            within = (net for net in self.policy.nets if realm_of(net) == self._realm(inner.card))
            near = target.network if any(is_on(net, source.address) for net in within) else inner.card.network
            yield replace(question, source=End(source.address, network=near), target=inner)

    def _floats(self, question: Question) -> bool:
        """It is reached by an address of its router's, from where its own is not known."""
        source, target = self._met_on(question.source), question.target.card
        if target is None or target.tap not in self.ways.floating:
            return False
        if source is None:
            return not self._is_forwarded(question)
        return realm_of(source) != self._realm(target)

    def _way_out(self, source: End, target: End) -> Outside | None:
        """By which router it leaves, and how it is met outside. None: it stays within what its routers join."""
        if source.card is None:
            return None
        net, masked = self.net_of(source.card), self.ways.masked.get(source.card.network)
        if target.card is not None and self._realm(target.card) == realm_of(net):
            return None
        inside = [other for other in self.policy.nets if other is net or (masked and realm_of(other) == realm_of(net))]
        met = masked or Outside(net.led, (source.address,))
        if met.network not in self._nets or any(is_on(one, target.address) for one in inside):
            return None
        version = ipaddress.ip_address(source.address).version
        addresses = tuple(one for one in met.addresses if ipaddress.ip_address(one).version == version)
        return replace(met, addresses=addresses) if addresses else None

    # ---- the host, and ways between networks -----------------------------------------------------------------------

    def _is_host(self, address: str, near: Net | None) -> bool:
        """Where a router is the gateway, the host has no address, whoever else has the same."""
        if near is not None and not near.gateways and is_on(near, address):
            return False
        return address in self.host_addresses or any(address in net.gateways for net in self.policy.nets)

    def _at_gateway(self, question: Question) -> bool | None:
        """Whether a guest is served by the host, or by the router that is its gateway. None: it asks neither."""
        net, target = self._met_on(question.source), question.target
        if net is None:
            return None
        if self._is_served(question, net):
            return True
        asks_host = target.card is None and not target.network and self._is_host(target.address, net)
        return self._served(question, net) if asks_host else None

    def _served(self, question: Question, net: Net) -> bool:
        """The host as the gateway of the guest's own network serves addresses and names, and answers echo requests."""
        if question.protocol is Protocol.UDP and question.port in (_DHCP, _DHCP6):
            return True
        if question.target.address not in net.gateways:
            return False
        opened = {(Protocol(opening.protocol), opening.port) for opening in net.openings}
        return _asks_gateway(question) or (question.protocol, question.port) in opened

    def _is_served(self, question: Question, net: Net) -> bool:
        """The router that is the gateway of the guest's own network serves what the host would."""
        if not any(question.target.address in door.addresses for door in net.doors):
            return False
        return _asks_gateway(question) or (question.protocol is Protocol.UDP and question.port in (_DHCP, _DHCP6))

    def _is_reached(self, target: End, source: str) -> bool:
        """By the host, which is known by its address on the way there where a router leads to it."""
        net = self.net_of(target.card) if target.card is not None else None
        if not self._is_host(source, net):
            return False
        if net is None or net.gateways or net.mode == "bridge":
            return True
        return bool(net.led) and source in self._outward(net).gateways

    def _outward(self, net: Net) -> Net:
        return self._nets.get(net.led, net)

    def _forward(self, question: Question) -> Forward | None:
        """Who comes from outside, and to a port that one of the host's leads to, comes by that."""
        if self._met_on(question.source) is not None or question.target.card is None:
            return None
        wanted = (question.target.address, question.protocol.value, question.port)
        return next((one for one in self.policy.forwards if (one.address, one.protocol, one.to_port) == wanted), None)

    def _passes(self, question: Question) -> bool:
        """Within a network; between networks of one realm and one project; out of and into those that lead out and in."""
        source, target = self._met_on(question.source), self._met_on(question.target)
        if source is not None and target is None and source.realm == HOST_REALM:
            target = next((net for net in self._homes() if is_on(net, question.target.address)), None)
        if source is not None and target is not None:
            return source.uid == target.uid or realm_of(source) == realm_of(target)
        if source is not None:
            near = is_on(source, question.target.address)
            return near or source.mode != "isolated" or self._joined(source)
        return target is None or self._is_entered(target, question)

    def _is_entered(self, net: Net, question: Question) -> bool:
        """From outside: by what leads there, or where it shows its addresses. Nobody out there has one of ours."""
        address = question.source.address
        if net.mode == "bridge" or is_on(net, address):
            return True
        if self._is_forwarded(question):
            return True
        return self._outward(net).mode == "routed" and not any(is_on(home, address) for home in self._homes())

    def _homes(self) -> Iterator[Net]:
        """The networks that the host leads to."""
        return (
            net for net in self.policy.nets if net.realm == HOST_REALM and (net.mode in ("nat", "routed") or net.led)
        )

    def _is_forwarded(self, question: Question) -> bool:
        """A port of the host's leads to it through its router."""
        leading = {forward.uid for forward in self.policy.forwards}
        groups = question.target.card.groups if question.target.card is not None else ()
        rules = (rule for uid in leading.intersection(groups) for rule in self._groups[uid].rules)
        return any(question.is_of(rule.traffic) for rule in rules)

    def _joined(self, net: Net) -> bool:
        """A router leads out of it."""
        if net.mode == "isolated":
            return net.realm != net.uid
        return net.realm != HOST_REALM

    # ---- rules -----------------------------------------------------------------------------------------------------

    def _denied(self, policy: NetworkPolicy, question: Question) -> bool:
        """The ends are in different tiers, and no exemption names this."""
        from_tiers = {
            index for index, tier in enumerate(policy.tiers) if self._is_in(tier, question.source, question.target)
        }
        to_tiers = {
            index for index, tier in enumerate(policy.tiers) if self._is_in(tier, question.target, question.source)
        }
        if not from_tiers or not to_tiers or from_tiers & to_tiers:
            return False
        return not any(
            one.source in from_tiers and one.target in to_tiers and question.is_of(one.traffic) for one in policy.unless
        )

    def _rule(self, card: Card, direction: Direction, other: End, question: Question) -> Rule | None:
        """The first of the card's rules that lets it through."""
        for uid in sorted(card.groups):
            for rule in self._groups[uid].rules:
                if (
                    rule.direction is direction
                    and question.is_of(rule.traffic)
                    and self._meant(rule.peer, other, self.net_of(card))
                ):
                    return rule
        return None

    def _is_in(self, tier: Peer, end: End, other: End) -> bool:
        near = self._met_on(end) or self._met_on(other)
        return near is not None and self._meant(tier, end, near)

    def _meant(self, peer: Peer, end: End, near: Net) -> bool:
        """The end is whom a rule calls its peer that is asked on the network `near`."""
        match peer.kind:
            case "any":
                return True
            case "cidr":
                return lies_in(end.address, peer.value)
            case "network":
                net = self._nets.get(peer.value)
                if net is None or realm_of(net) != realm_of(near):
                    return False
                return net.mode == "bridge" or is_on(net, end.address)
            case "group":
                found = self._members.get(peer.value, set())
                return (realm_of(near), end.address) in found or (near.uid, end.address) in found


def _asks_gateway(question: Question) -> bool:
    if question.protocol in _ECHO:
        return question.icmp_type == _ECHO[question.protocol]
    return (question.protocol, question.port) in ((Protocol.UDP, _DNS), (Protocol.TCP, _DNS))


def _led_on(source: Card | None, target: Card | None) -> Iterator[Step]:
    """No router passes on what neighbours say."""
    if source is not None and target is not None and source.network != target.network:
        yield Step(Stage.TRANSIT, allowed=False)
