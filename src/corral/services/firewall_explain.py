"""Whether a connection would pass, in words: the evaluator's verdict with the names that users know."""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from corral.errors import CorralError
from corral.model.firewall_answers import ExplainedStep, Explanation
from corral.model.firewall_requests import ExplainRequest
from corral.model.firewall_rule import PROTOCOLS, WITH_PORTS
from corral.model.network_policy import NetworkPolicy
from corral.model.security_group import SecurityGroup, rule_uid
from corral.model.vm import NicSpec, Vm
from corral.names import plain_text, tap_name
from corral.network.firewall.evaluate import End, Evaluator, Question, Stage, Step, Verdict
from corral.network.firewall.from_objects import effective_groups, groups_of_projects
from corral.network.firewall.meaning import realm_of
from corral.network.firewall.policy import Card, Policy, Protocol
from corral.network.firewall.ways import ways_of
from corral.network.local_address import is_local
from corral.network.paths import Layout

_REASONS: Final = {
    Stage.STATE: "no connection begins with such a message",
    Stage.ROGUE: "only routers say that",
    Stage.CLOSED: "that address is closed to guests",
    Stage.POLICY: "network policy {policy} keeps the two apart",
}
_ECHO: Final = {"icmp": 8, "icmpv6": 128}


@dataclass(frozen=True)
class Wished:
    """What is wished, and the policy that it comes to."""

    layout: Layout
    groups: Sequence[SecurityGroup]
    policies: Sequence[NetworkPolicy]
    policy: Policy


@dataclass
class Explainer:
    """One VM's view of the firewall."""

    wished: Wished
    project: str
    vm: Vm
    groups: dict[tuple[str, str], SecurityGroup] = field(init=False)
    cards: dict[str, Card] = field(init=False)
    """By the name of the host's end."""
    owners: dict[str, tuple[Vm, NicSpec]] = field(init=False)

    def __post_init__(self) -> None:
        vms = self.wished.layout.vms.values()
        self.groups = groups_of_projects(self.wished.groups, {vm.project for vm in vms} | {self.project})
        self.cards = {card.tap: card for card in self.wished.policy.cards}
        self.owners = {tap_name(vm.uid, nic.name): (vm, nic) for vm in vms for nic in vm.spec.nics}

    def explain(self, request: ExplainRequest) -> Explanation:
        """Raises `invalid-argument`, `vm-not-found`, `device-not-found`, `unsupported`."""
        asked = f"explain a connection of VM {self.vm.name!r}"
        if bool(request.source) == bool(request.destination):
            reason = "one end is the VM, the other is where it comes from or where it goes"
            raise CorralError("invalid-argument", asked, reason, "--from ADDRESS, or --to ADDRESS")
        ways = ways_of(self.wished.layout)
        evaluator = Evaluator(self.wished.policy, ways=ways)
        own, other = self._ends(request, evaluator, asked)
        if other.card is None and is_local(other.address):
            evaluator = Evaluator(self.wished.policy, frozenset((other.address,)), ways)
        source, target = (own, other) if request.destination else (other, own)
        question = _question(request, source, target, asked)
        return self._told(question, evaluator.evaluate(question), evaluator)

    # ---- who is meant ----------------------------------------------------------------------------------------------

    def _ends(self, request: ExplainRequest, evaluator: Evaluator, asked: str) -> tuple[End, End]:
        """The VM's, and the other one."""
        text = request.source or request.destination
        own = self._own_cards(request.nic, asked)
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            return self._between(own, self._cards_of(self._named(text, asked), asked), evaluator, asked)
        if address.version == 6 and address.scope_id is not None:
            raise CorralError("invalid-argument", asked, f"{plain_text(text, 64)} has a zone", "leave it out")
        near = min(own, key=lambda card: not self._meets(card, str(address), evaluator))
        there = evaluator.card_at(str(address), near)
        return self._end(near, address.version, asked), End(str(address), None if there == near else there)

    def _named(self, name: str, asked: str) -> Vm:
        found = next(
            (vm for vm in self.wished.layout.vms.values() if (vm.project, vm.name) == (self.project, name)), None
        )
        if found is None:
            reason = f"{plain_text(name, 64)!r} is no address, and no VM of the project"
            raise CorralError("vm-not-found", asked, reason, "corral list --all shows the VMs there are")
        return found

    def _own_cards(self, name: str | None, asked: str) -> list[Card]:
        nics = [nic for nic in self.vm.spec.nics if name in (None, nic.name)]
        if name is not None and not nics:
            known = ", ".join(nic.name for nic in self.vm.spec.nics) or "none"
            raise CorralError("device-not-found", asked, f"it has no card {name!r}", f"its cards: {known}")
        return self._cards_of(self.vm, asked, nics)

    def _cards_of(self, vm: Vm, asked: str, nics: Sequence[NicSpec] | None = None) -> list[Card]:
        """Those that are filtered."""
        wanted = [tap_name(vm.uid, nic.name) for nic in (vm.spec.nics if nics is None else nics)]
        found = [self.cards[tap] for tap in wanted if tap in self.cards]
        if not found:
            reason = f"{vm.name} has no card" if not wanted else f"what {vm.name}'s cards send and get is not filtered"
            raise CorralError("unsupported", asked, reason, "cards on macvtap pass by the host's filters")
        return found

    def _between(
        self, own: Sequence[Card], others: Sequence[Card], evaluator: Evaluator, asked: str
    ) -> tuple[End, End]:
        """On one network where they share one, else where one leads to the other."""

        def distance(pair: tuple[Card, Card]) -> int:
            one, other = (evaluator.net_of(card) for card in pair)
            return 0 if one.uid == other.uid else 1 if realm_of(one) == realm_of(other) else 2

        one, other = min(((mine, theirs) for mine in own for theirs in others), key=distance)
        version = 4 if _of_version(one, 4) and _of_version(other, 4) else 6
        return self._end(one, version, asked), self._end(other, version, asked)

    def _end(self, card: Card, version: int, asked: str) -> End:
        """With an address of the same family: reserved, or seen where others give them."""
        vm, nic = self.owners[card.tap]
        known = [*card.addresses, *([] if card.addresses else vm.status.addresses)]
        address = next((found for found in known if ipaddress.ip_address(found).version == version), None)
        if address is None:
            reason = f"no IPv{version} address of {vm.name}/{nic.name} is known"
            raise CorralError("invalid-argument", asked, reason, "name an address of the other family")
        return End(address, card)

    def _meets(self, card: Card, address: str, evaluator: Evaluator) -> bool:
        found = ipaddress.ip_address(address)
        subnets = (ipaddress.ip_network(subnet) for subnet in evaluator.net_of(card).subnets)
        near = any(found.version == subnet.version and found in subnet for subnet in subnets)
        return near or evaluator.card_at(address, card) is not None

    # ---- in words --------------------------------------------------------------------------------------------------

    def _told(self, question: Question, verdict: Verdict, evaluator: Evaluator) -> Explanation:
        steps = tuple(self._step(step, question, evaluator) for step in verdict.steps)
        last = next((step for step in steps if not step.allowed), steps[-1] if steps else None)
        return Explanation(
            allowed=verdict.allowed,
            source=question.source.address,
            source_card=self._name(question.source.card),
            destination=question.target.address,
            destination_card=self._name(question.target.card),
            protocol=question.protocol.value,
            port=question.port,
            icmp_type=question.icmp_type,
            decided_by=last.reason
            if last is not None
            else "the host reaches its guests, and neighbours find each other",
            steps=steps,
        )

    def _step(self, step: Step, question: Question, evaluator: Evaluator) -> ExplainedStep:
        if step.stage in (Stage.OUT, Stage.IN):
            return self._of_groups(step)
        policy = next((one.name for one in self.wished.policies if one.uid == step.uid), "")
        reason = _REASONS.get(step.stage, "").format(policy=policy)
        if step.stage is Stage.HOST:
            served = "the gateway of a network serves that to its guests"
            reason = (
                served
                if step.allowed
                else "guests reach DHCP, DNS and echo of their gateway alone, no other of the host"
            )
        elif step.stage is Stage.FORWARD:
            reason = "a port of the host's leads to it"
        elif step.stage is Stage.TRANSIT:
            reason = self._way(step, question, evaluator)
        return ExplainedStep(stage=step.stage.value, allowed=step.allowed, policy=policy, reason=reason)

    def _of_groups(self, step: Step) -> ExplainedStep:
        assert step.card is not None
        vm, nic = self.owners[step.card.tap]
        if vm.project != self.project:
            verb = "lets it through" if step.allowed else "denies it"
            return ExplainedStep(
                stage=step.stage.value, allowed=step.allowed, reason=f"a guest of another project {verb}"
            )
        groups = effective_groups(nic)
        way = "send it" if step.stage is Stage.OUT else "take it"
        name = f"{vm.name}/{nic.name}"
        for group in (self.groups.get((vm.project, name)) for name in groups):
            for rule in group.spec.rules if group is not None else ():
                if group is not None and rule_uid(group.uid, rule.id) == step.uid:
                    return ExplainedStep(
                        stage=step.stage.value,
                        allowed=True,
                        card=name,
                        groups=groups,
                        group=group.name,
                        rule=rule.text,
                        rule_id=rule.id,
                        reason=f"group {group.name} lets {name} {way}: {rule.text}",
                    )
        reason = f"no rule of {', '.join(groups)} lets {name} {way}"
        if step.allowed:
            reason = f"a port that is forwarded to {name} is open"
        return ExplainedStep(stage=step.stage.value, allowed=step.allowed, card=name, groups=groups, reason=reason)

    def _way(self, step: Step, question: Question, evaluator: Evaluator) -> str:
        source, target = question.source.card, question.target.card
        if source is not None and target is not None:
            one, other = evaluator.net_of(source), evaluator.net_of(target)
            if one.uid == other.uid:
                return f"both are on network {self._network(one.uid)}"
            led = "lead to each other" if step.allowed else "do not lead to each other"
            return f"networks {self._network(one.uid)} and {self._network(other.uid)} {led}"
        card, way = (source, "out of") if source is not None else (target, "into")
        assert card is not None
        net = evaluator.net_of(card)
        if source is not None and not step.allowed:
            return f"network {self._network(net.uid)} ({net.mode}) does not lead there"
        return f"network {self._network(net.uid)} ({net.mode}) leads {'' if step.allowed else 'nobody '}{way} it"

    def _network(self, uid: str) -> str:
        network = self.wished.layout.networks[uid]
        return network.name if network.project in (self.project, "default") else "of another project"

    def _name(self, card: Card | None) -> str:
        if card is None:
            return ""
        vm, nic = self.owners[card.tap]
        return f"{vm.name}/{nic.name}" if vm.project == self.project else "a guest of another project"


def _of_version(card: Card, version: int) -> bool:
    return any(ipaddress.ip_address(address).version == version for address in card.addresses)


def _question(request: ExplainRequest, source: End, target: End, asked: str) -> Question:
    name = request.protocol.lower()
    if name == "icmp" and ":" in target.address:
        name = "icmpv6"
    if name not in PROTOCOLS or name == "any":
        known = ", ".join(PROTOCOLS[1:])
        raise CorralError(
            "invalid-argument", asked, f"{plain_text(name, 16)!r} is no protocol of: {known}", "--protocol tcp"
        )
    if (request.port is None) is (name in WITH_PORTS):
        reason = f"{name} goes to a port" if name in WITH_PORTS else f"{name} has no ports"
        raise CorralError("invalid-argument", asked, reason, "--protocol tcp --port 443, or --protocol icmp")
    if request.icmp_type is not None and name not in _ECHO:
        raise CorralError("invalid-argument", asked, f"{name} has no message types", "--protocol icmp")
    kind = _ECHO.get(name) if request.icmp_type is None else request.icmp_type
    return Question(source, target, Protocol(name), request.port, kind)
