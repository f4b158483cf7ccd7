"""The network policies of a stack: once the groups and networks that they keep apart are there, and gone before them."""

from collections.abc import Sequence
from dataclasses import dataclass

from corral.errors import CorralError
from corral.model.firewall_requests import CreateNetworkPolicyRequest
from corral.model.firewall_rule import GROUP, NETWORK, named
from corral.model.network_policy import NetworkPolicy
from corral.model.security_group import PREDEFINED, SecurityGroup
from corral.model.stack_plan import StackVerb
from corral.services.access import authorize
from corral.services.caller import Caller
from corral.services.context import Context
from corral.services.network_policy import policy_spec
from corral.services.security_group import require_network
from corral.services.stack_actions import CREATED, Sketch
from corral.services.stack_document import Stack, Trouble
from corral.services.stack_state import check_own, find_of_stack


@dataclass(frozen=True)
class PolicyNeeds:
    """What the stack declares, with what is there of it; and what it declares no more."""

    wished: tuple[tuple[CreateNetworkPolicyRequest, NetworkPolicy | None], ...] = ()
    stale: tuple[NetworkPolicy, ...] = ()


async def declared_policies(
    context: Context, caller: Caller, project: str, stack: Stack, troubles: list[Trouble]
) -> PolicyNeeds:
    if stack.policies:
        await authorize(context, caller, project, "network-policy.create", stack.name)
    wished: list[tuple[CreateNetworkPolicyRequest, NetworkPolicy | None]] = []
    for name, request in stack.policies.items():
        there = await context.objects.find(NetworkPolicy, project, name)
        asked = f"network policy {name!r}"
        try:
            check_own(there, stack.name, asked)
            spec = policy_spec(request.tiers, request.unless, request.description, asked)
            for tier in spec.tiers:
                await _check_tier(context, project, stack, tier)
        except CorralError as error:
            troubles.append(Trouble(f"network_policies.{name}", error))
        wished.append((request, there))
    known = await find_of_stack(context, NetworkPolicy, project, stack.name)
    return PolicyNeeds(tuple(wished), tuple(one for one in known if one.name not in stack.policies))


async def _check_tier(context: Context, project: str, stack: Stack, tier: str) -> None:
    """It is there, or will be."""
    if (group := named(tier, GROUP)) and group not in {*stack.groups, *PREDEFINED}:
        await context.objects.require(SecurityGroup, project, group)
    if (network := named(tier, NETWORK)) and network not in stack.new_networks:
        await require_network(context, project, network)


def sketch_policies(sketch: Sketch, needs: PolicyNeeds, *, prune: bool) -> None:
    """Before the VMs, whose networks and groups they keep apart."""
    for request, there in needs.wished:
        after = [sketch.last[key] for tier in request.tiers if (key := _last_of(tier)) in sketch.last]
        if there is None:
            body = request.model_dump(mode="json", exclude_unset=True)
            change = f"{CREATED}: {', '.join(request.tiers)}"
            sketch.add(
                *("network-policy", request.name, StackVerb.CREATE, (change,)),
                path="/network-policies",
                body=body,
                after=after,
            )
        elif changes := _changes(request, there):
            body = {"tiers": request.tiers, "unless": request.unless, "description": request.description}
            sketch.add(
                *("network-policy", request.name, StackVerb.UPDATE, changes),
                method="PATCH",
                path=f"/network-policies/{request.name}",
                body=body,
                after=after,
                basis=f"{there.uid}:{there.generation}",
            )
    if prune:
        sketch_policies_gone(sketch, needs.stale, "the document does not name it any more")


def _last_of(tier: str) -> str:
    group = named(tier, GROUP)
    return f"security-group/{group}" if group else f"network/{named(tier, NETWORK)}"


def _changes(request: CreateNetworkPolicyRequest, there: NetworkPolicy) -> list[str]:
    spec = policy_spec(request.tiers, request.unless, request.description, f"network policy {request.name!r}")
    found = [f"tier {tier}: gone" for tier in there.spec.tiers if tier not in spec.tiers]
    found += [f"tier {tier}: new" for tier in spec.tiers if tier not in there.spec.tiers]
    now, wished = [one.text for one in there.spec.unless], [one.text for one in spec.unless]
    found += [f"unless {text}: gone" for text in now if text not in wished]
    found += [f"unless {text}: new" for text in wished if text not in now]
    if there.spec.description != spec.description:
        found.append("description: another one")
    return found


def sketch_policies_gone(sketch: Sketch, policies: Sequence[NetworkPolicy], why: str = "the stack's own") -> None:
    """They allow nothing: without them groups decide alone."""
    for policy in policies:
        path = f"/network-policies/{policy.name}"
        sketch.add("network-policy", policy.name, StackVerb.DELETE, (why,), method="DELETE", path=path)
