"""The security groups of a stack: made empty first, since they may speak of each other, then given their rules."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from corral.errors import CorralError
from corral.model.firewall_requests import CreateSecurityGroupRequest
from corral.model.firewall_rule import SecurityRule
from corral.model.security_group import PREDEFINED, SecurityGroup
from corral.model.stack_plan import StackVerb
from corral.services.access import authorize
from corral.services.caller import Caller
from corral.services.context import Context
from corral.services.security_group import parse_rules, require_network
from corral.services.stack_actions import Sketch
from corral.services.stack_document import Stack, Trouble
from corral.services.stack_state import check_own


@dataclass(frozen=True)
class GroupNeed:
    """A group that the stack declares."""

    request: CreateSecurityGroupRequest
    rules: tuple[SecurityRule, ...]
    there: SecurityGroup | None

    @property
    def name(self) -> str:
        return self.request.name


async def declared_groups(
    context: Context, caller: Caller, project: str, stack: Stack, troubles: list[Trouble]
) -> list[GroupNeed]:
    """Those of the document, as they are or will be; and what cards and rules name is there, or will be."""
    if stack.groups:
        await authorize(context, caller, project, "security-group.create", stack.name)
    found: list[GroupNeed] = []
    for name, request in stack.groups.items():
        try:
            found.append(await _find(context, project, request, stack.name))
        except CorralError as error:
            troubles.append(Trouble(f"security_groups.{name}", error))
    declared, networks = {*stack.groups, *PREDEFINED}, list[tuple[str, str]]()
    named = [
        (f"{w.place}.nics[{n}]", g) for w in stack.vms for n, nic in enumerate(w.request.nics or ()) for g in nic.groups
    ]
    for need in found:
        named += [(f"security_groups.{need.name}", rule.group) for rule in need.rules if rule.group]
        networks += [(f"security_groups.{need.name}", rule.network) for rule in need.rules if rule.network]
    for place, name in named:
        if name not in declared:
            try:
                await context.objects.require(SecurityGroup, project, name)
            except CorralError as error:
                troubles.append(Trouble(place, error))
    for place, name in networks:
        if name not in stack.new_networks:
            try:
                await require_network(context, project, name)
            except CorralError as error:
                troubles.append(Trouble(place, error))
    return found


async def _find(context: Context, project: str, request: CreateSecurityGroupRequest, stack: str) -> GroupNeed:
    """Raises `name-taken` for a group that is not the stack's, `invalid-rule`."""
    asked = f"security group {request.name!r}"
    rules = parse_rules(request.rules, asked)
    if request.name in PREDEFINED:
        raise CorralError("name-taken", asked, "every project has a group of this name", "give it another name")
    there = await context.objects.find(SecurityGroup, project, request.name)
    check_own(there, stack, asked)
    return GroupNeed(request, rules, there)


def sketch_groups(sketch: Sketch, needs: Sequence[GroupNeed]) -> None:
    """After the networks, which rules may name."""
    for need in needs:
        if need.there is None:
            body = need.request.model_dump(mode="json", exclude={"rules"}, exclude_unset=True)
            sketch.add("security-group", need.name, StackVerb.CREATE, ("new",), path="/security-groups", body=body)
    made = [sketch.last[key] for key in sketch.last if key.startswith(("network/", "security-group/"))]
    for need in needs:
        wished = [rule.text for rule in need.rules]
        now = [] if need.there is None else [rule.text for rule in need.there.spec.rules]
        changes = [f"rule {text}: gone" for text in now if text not in wished]
        changes += [f"rule {text}: new" for text in wished if text not in now]
        body = {"rules": wished, "description": need.request.description}
        if need.there is not None and need.there.spec.description != need.request.description:
            changes.append("description: another one")
        if changes:
            basis = f"{need.there.uid}:{need.there.generation}" if need.there is not None else ""
            _update(sketch, need.name, changes, body, made, basis)


def sketch_groups_gone(sketch: Sketch, groups: Sequence[SecurityGroup]) -> None:
    """Once their VMs are gone, and none of them speaks of another one."""
    after = tuple(sketch.last.values())
    for group in groups:
        if any(rule.group not in ("", group.name) for rule in group.spec.rules):
            _update(sketch, group.name, ("it speaks of others",), {"rules": []}, after)
    after = tuple(sketch.last.values())
    for group in groups:
        path, why = f"/security-groups/{group.name}", ("the stack's own",)
        sketch.add("security-group", group.name, StackVerb.DELETE, why, method="DELETE", path=path, after=after)


def _update(
    sketch: Sketch,
    name: str,
    changes: Sequence[str],
    body: dict[str, Any],
    after: Sequence[str],
    basis: str = "",
) -> None:
    sketch.add(
        *("security-group", name, StackVerb.UPDATE, changes),
        method="PATCH",
        path=f"/security-groups/{name}",
        body=body,
        after=after,
        basis=basis,
    )
