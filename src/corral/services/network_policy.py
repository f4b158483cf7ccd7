"""Network policies of a project: read, made, changed and deleted."""

from collections.abc import Sequence

from corral.errors import CorralError
from corral.model import limits
from corral.model.firewall_requests import CreateNetworkPolicyRequest, UpdateNetworkPolicyRequest
from corral.model.firewall_rule import GROUP, NETWORK, named
from corral.model.network_policy import (
    NetworkPolicy,
    NetworkPolicySpec,
    PolicyException,
    check_tiers,
    parse_exception,
    parse_tier,
)
from corral.model.requests import ListRequest
from corral.names import new_uid
from corral.services import listing, rules
from corral.services.caller import Caller
from corral.services.changes import Mutation, change_at_once, check_name
from corral.services.context import Context
from corral.services.documents import Document, Listing
from corral.services.listing import read_records
from corral.services.security_group import FoundGroups, find_groups, require_network
from corral.store.objects import Transaction


class NetworkPolicyService:
    def __init__(self, context: Context) -> None:
        self._context = context

    async def list(self, caller: Caller, project: str, request: ListRequest) -> Listing:
        return await listing.list_objects(self._context, caller, project, NetworkPolicy, request)

    async def get(self, caller: Caller, project: str, name: str) -> Document:
        return await listing.get_object(self._context, caller, project, NetworkPolicy, name)

    async def create(self, caller: Caller, project: str, request: CreateNetworkPolicyRequest) -> NetworkPolicy:
        """New connections meet it at once."""
        context, name, asked = self._context, request.name, f"make network policy {request.name[:64]!r}"

        async def draft(transaction: Transaction) -> NetworkPolicy:
            await check_name(context, NetworkPolicy, project, name, asked)
            policy = NetworkPolicy(
                project=project,
                name=name,
                uid=new_uid(),
                created_at=context.clock.now(),
                labels=request.labels,
                spec=policy_spec(request.tiers, request.unless, request.description, asked),
            )
            await self._check_number(project, asked)
            (await self._tiers(project, policy.spec.tiers)).hold(transaction)
            transaction.create(policy)
            return policy

        mutation = Mutation(caller, project, "network-policy.create", name)
        return await change_at_once(context, mutation, draft, counted=NetworkPolicy.PLURAL)

    async def update(
        self,
        caller: Caller,
        project: str,
        name: str,
        request: UpdateNetworkPolicyRequest,
        *,
        if_revision: int | None = None,
    ) -> NetworkPolicy:
        context, asked = self._context, f"change network policy {name[:64]!r}"

        async def draft(transaction: Transaction) -> NetworkPolicy:
            now = await context.objects.require(NetworkPolicy, project, name)
            rules.check_revision(now, if_revision)
            tiers = now.spec.tiers if request.tiers is None else request.tiers
            unless = [one.text for one in now.spec.unless] if request.unless is None else request.unless
            described = now.spec.description if request.description is None else request.description
            spec = policy_spec(tiers, unless, described, asked)
            labels = now.labels if request.labels is None else request.labels
            if (spec, labels) == (now.spec, now.labels):
                return now
            (await self._tiers(project, [tier for tier in spec.tiers if tier not in now.spec.tiers])).hold(transaction)
            generation = now.generation + (spec != now.spec)
            changed = now.model_copy(update={"spec": spec, "labels": labels, "generation": generation})
            transaction.update(changed)
            return changed

        return await change_at_once(context, Mutation(caller, project, "network-policy.update", name), draft)

    async def delete(self, caller: Caller, project: str, name: str) -> None:
        async def draft(transaction: Transaction) -> NetworkPolicy:
            policy = await self._context.objects.require(NetworkPolicy, project, name)
            transaction.delete(policy)
            return policy

        await change_at_once(self._context, Mutation(caller, project, "network-policy.delete", name), draft)

    async def _tiers(self, project: str, tiers: Sequence[str]) -> FoundGroups:
        """The groups and networks are there."""
        for tier in tiers:
            if network := named(tier, NETWORK):
                await require_network(self._context, project, network)
        return await find_groups(self._context, project, [name for tier in tiers if (name := named(tier, GROUP))])

    async def _check_number(self, project: str, asked: str) -> None:
        known = await read_records(self._context, NetworkPolicy, project)
        if len(known) >= limits.PROJECT_POLICIES_MAX:
            reason = f"the project has {len(known)} network policies, the most that it can have"
            raise CorralError("wrong-state", asked, reason, "one policy can keep many tiers apart")


def policy_spec(tiers: Sequence[str], unless: Sequence[str], description: str, asked: str) -> NetworkPolicySpec:
    """Raises `invalid-rule`."""
    parsed = tuple(parse_tier(tier) for tier in tiers)
    check_tiers(parsed, asked)
    exceptions: dict[str, PolicyException] = {}
    for text in unless:
        found = parse_exception(text, parsed)
        exceptions[found.text] = found
    return NetworkPolicySpec(tiers=parsed, unless=tuple(exceptions.values()), description=description)
