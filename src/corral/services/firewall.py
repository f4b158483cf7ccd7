"""The firewall as users see it: would a connection pass and why, what rules count, what was denied lately."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from corral.model.balancer import Balancer
from corral.model.base import DEFAULT_PROJECT
from corral.model.firewall_answers import DeniedPacket, Explanation, FirewallStatus, RuleCount
from corral.model.firewall_requests import ExplainRequest
from corral.model.forward import Forward
from corral.model.network import Network
from corral.model.network_policy import NetworkPolicy
from corral.model.router import Router
from corral.model.security_group import SecurityGroup, rule_uid
from corral.model.vm import NicSpec, Vm
from corral.names import tap_name
from corral.network.firewall.base import Count
from corral.network.firewall.desired import desired_policy
from corral.network.firewall.from_objects import groups_of_projects
from corral.network.firewall.nflog import Denial
from corral.network.paths import Layout
from corral.security import policy as rights
from corral.services.access import authorize
from corral.services.caller import Caller
from corral.services.context import Context
from corral.services.firewall_explain import Explainer, Wished

_POLICY_REASON: Final = "deny-policy"


@dataclass(frozen=True)
class _Cards:
    """Whose port at a bridge is whose."""

    by_tap: Mapping[str, tuple[Vm, NicSpec]]

    def name(self, tap: str, project: str) -> str:
        found = self.by_tap.get(tap)
        return f"{found[0].name}/{found[1].name}" if found is not None and found[0].project == project else ""


class FirewallService:
    def __init__(self, context: Context) -> None:
        self._context = context

    async def explain(self, caller: Caller, project: str, request: ExplainRequest) -> Explanation:
        """Decided by what is wished, not by packets: also of a VM that is off."""
        await authorize(self._context, caller, project, "firewall.read", request.vm)
        vm = await self._context.objects.require(Vm, project, request.vm)
        return Explainer(await self._wished(), project, vm).explain(request)

    async def status(self, caller: Caller) -> FirewallStatus:
        await authorize(self._context, caller, DEFAULT_PROJECT, "host.read")
        state = await self._context.firewall.state()
        policy = (await self._wished()).policy
        used = {uid for card in policy.cards for uid in card.groups}
        return FirewallStatus(
            active=state.active,
            reason=state.reason,
            path=state.path,
            keeper_pid=state.keeper_pid,
            changes=state.epoch,
            log_group=state.log_group,
            log_reason=self._context.denials.reason if state.active else "",
            networks=len(policy.nets),
            cards=len(policy.cards),
            groups=len(used),
            rules=sum(len(group.rules) for group in policy.groups if group.uid in used),
            policies=len(policy.policies),
        )

    async def counters(self, caller: Caller, project: str) -> tuple[RuleCount, ...]:
        """Of the project's groups and policies; and of denials, for those who may look at the host."""
        context = self._context
        await authorize(context, caller, project, "firewall.read")
        counted = await context.firewall.counters()
        groups = groups_of_projects(await context.objects.list(SecurityGroup), (project,))
        found = [
            _count(counted.get(rule_uid(group.uid, rule.id)), group=group.name, rule_id=rule.id, rule=rule.text)
            for group in sorted(groups.values(), key=lambda one: one.name)
            if group.project == project
            for rule in group.spec.rules
        ]
        policies = [one for one in await context.objects.list(NetworkPolicy) if one.project == project]
        found += [_count(counted.get(one.uid), policy=one.name) for one in policies]
        if self._sees_host(caller):
            # Whatever is named by no uid is a reason for which something was denied.
            found += [_count(count, denied=name) for name, count in sorted(counted.items()) if len(name) < 36]
        return tuple(found)

    async def denied(
        self, caller: Caller, project: str, *, after: int = 0, wait_s: float = 0.0
    ) -> tuple[DeniedPacket, ...]:
        """Packets of the project's cards; all of them, for those who may look at the host. Waits for one, if told to."""
        context = self._context
        await authorize(context, caller, project, "firewall.read")
        found = await context.denials.wait_after(after, wait_s) if wait_s else context.denials.after(after)
        if not found:
            return ()
        cards = _Cards({tap_name(vm.uid, nic.name): (vm, nic) for vm in await self._vms() for nic in vm.spec.nics})
        policies = {one.uid: one.name for one in await context.objects.list(NetworkPolicy) if one.project == project}
        shown = [_denied(denial, cards, policies, project) for denial in found]
        everything = self._sees_host(caller) and project == DEFAULT_PROJECT
        return tuple(one for one in shown if everything or one.card_in or one.card_out)

    async def _wished(self) -> Wished:
        objects = self._context.objects
        layout = Layout(
            networks={one.uid: one for one in await objects.list(Network)},
            vms={one.uid: one for one in await self._vms()},
            routers={one.uid: one for one in await objects.list(Router)},
            forwards={one.uid: one for one in await objects.list(Forward)},
            balancers={one.uid: one for one in await objects.list(Balancer)},
        )
        groups, policies = await objects.list(SecurityGroup), await objects.list(NetworkPolicy)
        return Wished(layout, groups, policies, desired_policy(layout, groups, policies))

    async def _vms(self) -> list[Vm]:
        return await self._context.objects.list(Vm)

    def _sees_host(self, caller: Caller) -> bool:
        return rights.allows(caller.identity, DEFAULT_PROJECT, "host.read")


def _count(
    count: Count | None, *, group: str = "", rule_id: str = "", rule: str = "", policy: str = "", denied: str = ""
) -> RuleCount:
    found = count or Count()
    return RuleCount(
        group=group,
        rule_id=rule_id,
        rule=rule,
        policy=policy,
        denied=denied,
        packets=found.packets,
        bytes=found.bytes,
    )


def _denied(denial: Denial, cards: _Cards, policies: Mapping[str, str], project: str) -> DeniedPacket:
    reason, _, uid = denial.reason.partition(" ")
    return DeniedPacket(
        number=denial.number,
        time=datetime.fromtimestamp(denial.time_s, UTC),
        reason=reason,
        policy=policies.get(uid, "") if reason == _POLICY_REASON else "",
        card_in=cards.name(denial.inward, project),
        card_out=cards.name(denial.outward, project),
        interface_in=denial.inward,
        interface_out=denial.outward,
        protocol=denial.protocol,
        source=denial.source,
        source_port=denial.source_port,
        destination=denial.target,
        port=denial.port,
        icmp_type=denial.icmp_type,
    )
