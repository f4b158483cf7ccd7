"""The firewall as users see it: would a connection pass and why, what rules count, what was denied lately."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

from corral.errors import CorralError
from corral.model.address import FloatingAddress
from corral.model.balancer import Balancer
from corral.model.base import DEFAULT_PROJECT
from corral.model.firewall_answers import DeniedPacket, Explanation, FirewallStatus, RuleCount
from corral.model.firewall_requests import ExplainRequest
from corral.model.forward import Forward
from corral.model.network import Network
from corral.model.network_policy import NetworkPolicy
from corral.model.router import Router
from corral.model.security_group import SecurityGroup, rule_uid
from corral.model.vm import Vm
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
from corral.services.listing import read_objects

_POLICY_REASON: Final = "deny-policy"
UID_CHARS: Final = 36
# A client waits for 30 s; who holds the firewall is given less, so that it is said who did not answer.
COUNT_S: Final = 20.0
# Packets of others wake whoever waits: looked at together, so often.
LOOK_AGAIN_S: Final = 0.5


class FirewallService:
    def __init__(self, context: Context) -> None:
        self._context = context

    async def explain(self, caller: Caller, project: str, request: ExplainRequest) -> Explanation:
        """Decided by what is wished, not by packets: also of a VM that is off."""
        await authorize(self._context, caller, project, "firewall.read", request.vm)
        vm = await self._context.objects.require(Vm, project, request.vm)
        wished = await self._wished()
        return await asyncio.to_thread(lambda: Explainer(wished, project, vm).explain(request))

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
        counted = await self._counted()
        groups = groups_of_projects(await read_objects(context, SecurityGroup, project), (project,))
        found = [
            _count(counted.get(rule_uid(group.uid, rule.id)), group=group.name, rule_id=rule.id, rule=rule.text)
            for group in sorted(groups.values(), key=lambda one: one.name)
            for rule in group.spec.rules
        ]
        policies = await read_objects(context, NetworkPolicy, project)
        found += [_count(counted.get(one.uid), policy=one.name) for one in policies]
        if self._sees_host(caller):
            # Whatever is named by no uid is a reason for which something was denied.
            found += [_count(count, denied=name) for name, count in sorted(counted.items()) if len(name) < UID_CHARS]
        return tuple(found)

    async def denied(
        self, caller: Caller, project: str, *, after: int = 0, wait_s: float = 0.0
    ) -> tuple[DeniedPacket, ...]:
        """Packets of the project's cards; all of them, for those who may look at the host. Waits for one, if told to."""
        await authorize(self._context, caller, project, "firewall.read")
        everything, now_s = self._sees_host(caller) and project == DEFAULT_PROJECT, asyncio.get_running_loop().time
        deadline = now_s() + wait_s
        while found := await self._context.denials.wait_after(after, max(0.0, deadline - now_s())):
            told = await self._told(found, project)
            shown = tuple(one for one in told if everything or one.card_in or one.card_out)
            if shown or now_s() >= deadline:
                return shown
            after = found[-1].number
            await asyncio.sleep(min(LOOK_AGAIN_S, max(0.0, deadline - now_s())))
        return ()

    async def _told(self, found: Sequence[Denial], project: str) -> list[DeniedPacket]:
        """With the names that the project knows."""
        vms = await read_objects(self._context, Vm, project)
        cards = {tap_name(vm.uid, nic.name): f"{vm.name}/{nic.name}" for vm in vms for nic in vm.spec.nics}
        policies = {one.uid: one.name for one in await read_objects(self._context, NetworkPolicy, project)}
        groups = groups_of_projects(await read_objects(self._context, SecurityGroup, project), (project,)).values()
        rules = {rule_uid(one.uid, rule.id): (one.name, rule.text) for one in groups for rule in one.spec.rules}
        return [_packet(denial, cards, policies, rules) for denial in found]

    async def _counted(self) -> Mapping[str, Count]:
        try:
            async with asyncio.timeout(COUNT_S):
                return await self._context.firewall.counters()
        except TimeoutError as error:
            reason = "whoever holds the firewall does not answer"
            raise CorralError(
                "firewall-unavailable", "read the firewall's counters", reason, "corral doctor"
            ) from error

    async def _wished(self) -> Wished:
        objects = self._context.objects
        layout = Layout(
            networks={one.uid: one for one in await objects.list(Network)},
            vms={one.uid: one for one in await objects.list(Vm)},
            routers={one.uid: one for one in await objects.list(Router)},
            forwards={one.uid: one for one in await objects.list(Forward)},
            addresses={one.uid: one for one in await objects.list(FloatingAddress)},
            balancers={one.uid: one for one in await objects.list(Balancer)},
        )
        groups, policies = await objects.list(SecurityGroup), await objects.list(NetworkPolicy)
        # Of thousands of VMs it takes a while, in which others are to be answered.
        policy = await asyncio.to_thread(desired_policy, layout, groups, policies)
        return Wished(layout, groups, policies, policy)

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


def _packet(
    denial: Denial, cards: Mapping[str, str], policies: Mapping[str, str], rules: Mapping[str, tuple[str, str]]
) -> DeniedPacket:
    """`cards`: by the name of their port at the bridge; `rules`: groups and words, by uid."""
    reason, _, uid = denial.reason.partition(" ")
    allowed = len(reason) >= UID_CHARS
    group, rule = rules.get(reason, ("", "")) if allowed else ("", "")
    return DeniedPacket(
        number=denial.number,
        time=datetime.fromtimestamp(denial.time_s, UTC),
        verdict="allowed" if allowed else "denied",
        reason="rule" if allowed else reason,
        group=group,
        rule=rule,
        policy=policies.get(uid, "") if reason == _POLICY_REASON else "",
        card_in=cards.get(denial.inward, ""),
        card_out=cards.get(denial.outward, ""),
        interface_in=denial.inward,
        interface_out=denial.outward,
        protocol=denial.protocol,
        source=denial.source,
        source_port=denial.source_port,
        destination=denial.target,
        port=denial.port,
        icmp_type=denial.icmp_type,
    )
