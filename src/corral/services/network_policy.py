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
from corral.names import new_uid, parse_name
from corral.services import listing, rules
from corral.services.access import audited, authorize, commit
from corral.services.caller import Caller
from corral.services.changes import ATTEMPTS_MAX
from corral.services.context import Context
from corral.services.documents import Document, Listing
from corral.services.security_group import FoundGroups, find_groups, require_network
from corral.store.objects import Transaction, name_claim


class NetworkPolicyService:
    def __init__(self, context: Context) -> None:
        self._context = context

    async def list(self, caller: Caller, project: str, request: ListRequest) -> Listing:
        return await listing.list_objects(self._context, caller, project, NetworkPolicy, request)

    async def get(self, caller: Caller, project: str, name: str) -> Document:
        return await listing.get_object(self._context, caller, project, NetworkPolicy, name)

    async def create(self, caller: Caller, project: str, request: CreateNetworkPolicyRequest) -> NetworkPolicy:
        """New connections meet it at once."""
        context, action, asked = self._context, "network-policy.create", f"make network policy {request.name[:64]!r}"
        await authorize(context, caller, project, action, request.name)
        async with audited(context, caller, project, action, request.name):
            parse_name(request.name, "network policy name")
            spec = _spec(request.tiers, request.unless, request.description, asked)
            await self._check_number(project, asked)
            for _ in range(ATTEMPTS_MAX):
                if await context.objects.owner(name_claim(NetworkPolicy.KIND, project, request.name)) is not None:
                    raise CorralError(
                        "name-taken", asked, "there is a network policy of this name", "choose another name"
                    )
                policy = NetworkPolicy(
                    project=project,
                    name=request.name,
                    uid=new_uid(),
                    created_at=context.clock.now(),
                    labels=request.labels,
                    spec=spec,
                )
                transaction = context.objects.transaction()
                (await self._tiers(project, spec.tiers)).hold(transaction)
                transaction.create(policy)
                if (revision := await self._commit(caller, transaction, action, policy)) is not None:
                    return policy.model_copy(update={"revision": revision})
        raise _busy(asked)

    async def update(
        self,
        caller: Caller,
        project: str,
        name: str,
        request: UpdateNetworkPolicyRequest,
        *,
        if_revision: int | None = None,
    ) -> NetworkPolicy:
        context, action, asked = self._context, "network-policy.update", f"change network policy {name[:64]!r}"
        await authorize(context, caller, project, action, name)
        async with audited(context, caller, project, action, name):
            for _ in range(ATTEMPTS_MAX):
                now = await context.objects.require(NetworkPolicy, project, name)
                rules.check_revision(now, if_revision)
                tiers = now.spec.tiers if request.tiers is None else request.tiers
                unless = [one.text for one in now.spec.unless] if request.unless is None else request.unless
                described = now.spec.description if request.description is None else request.description
                spec = _spec(tiers, unless, described, asked)
                labels = now.labels if request.labels is None else request.labels
                if (spec, labels) == (now.spec, now.labels):
                    return now
                generation = now.generation + (spec != now.spec)
                changed = now.model_copy(update={"spec": spec, "labels": labels, "generation": generation})
                transaction = context.objects.transaction()
                (await self._tiers(project, [tier for tier in spec.tiers if tier not in now.spec.tiers])).hold(
                    transaction
                )
                transaction.update(changed)
                if (revision := await self._commit(caller, transaction, action, changed)) is not None:
                    return changed.model_copy(update={"revision": revision})
        raise _busy(asked)

    async def delete(self, caller: Caller, project: str, name: str) -> None:
        context, action, asked = self._context, "network-policy.delete", f"delete network policy {name[:64]!r}"
        await authorize(context, caller, project, action, name)
        async with audited(context, caller, project, action, name):
            for _ in range(ATTEMPTS_MAX):
                policy = await context.objects.require(NetworkPolicy, project, name)
                transaction = context.objects.transaction()
                transaction.delete(policy)
                if await self._commit(caller, transaction, action, policy) is not None:
                    return
        raise _busy(asked)

    async def _tiers(self, project: str, tiers: Sequence[str]) -> FoundGroups:
        """The groups and networks are there."""
        for tier in tiers:
            if network := named(tier, NETWORK):
                await require_network(self._context, project, network)
        return await find_groups(self._context, project, [name for tier in tiers if (name := named(tier, GROUP))])

    async def _check_number(self, project: str, asked: str) -> None:
        known = [one for one in await self._context.objects.list(NetworkPolicy) if one.project == project]
        if len(known) >= limits.PROJECT_POLICIES_MAX:
            reason = f"the project has {len(known)} network policies, the most that it can have"
            raise CorralError("wrong-state", asked, reason, "one policy can keep many tiers apart")

    async def _commit(self, caller: Caller, transaction: Transaction, action: str, policy: NetworkPolicy) -> int | None:
        """The revision; None after a lost race."""
        try:
            return (await commit(self._context, transaction, caller, policy.project, action, policy.name)).revision
        except CorralError as error:
            if error.code != "precondition-failed":
                raise
            return None


def _spec(tiers: Sequence[str], unless: Sequence[str], description: str, asked: str) -> NetworkPolicySpec:
    parsed = tuple(parse_tier(tier) for tier in tiers)
    check_tiers(parsed, asked)
    exceptions: dict[str, PolicyException] = {}
    for text in unless:
        found = parse_exception(text, parsed)
        exceptions[found.text] = found
    return NetworkPolicySpec(tiers=parsed, unless=tuple(exceptions.values()), description=description)


def _busy(asked: str) -> CorralError:
    return CorralError("precondition-failed", asked, "it changed while this was tried", "try again")
