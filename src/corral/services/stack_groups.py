"""The security groups of a stack: made empty first, since they may speak of each other, then given their rules."""

from collections.abc import Sequence
from dataclasses import dataclass

from corral.errors import CorralError
from corral.model.firewall_requests import CreateSecurityGroupRequest
from corral.model.security_group import PREDEFINED, SecurityGroup
from corral.model.stack import STACK_LABEL
from corral.model.stack_plan import StackVerb
from corral.services.access import authorize
from corral.services.caller import Caller
from corral.services.context import Context
from corral.services.security_group import parse_rules
from corral.services.stack_actions import Sketch
from corral.services.stack_document import Stack, Trouble
from corral.services.stack_state import read_records
from corral.store.objects import decode


@dataclass(frozen=True)
class GroupNeed:
    """A group that the stack declares. `rules`: as they are written in one way."""

    request: CreateSecurityGroupRequest
    rules: tuple[str, ...]
    there: SecurityGroup | None

    @property
    def name(self) -> str:
        return self.request.name


async def declared_groups(
    context: Context, caller: Caller, project: str, stack: Stack, troubles: list[Trouble]
) -> list[GroupNeed]:
    """Those of the document, as they are or will be; and every group that a card or a rule names is there, or will be."""
    if stack.groups:
        await authorize(context, caller, project, "security-group.create", stack.name)
    found: list[GroupNeed] = []
    for name, request in stack.groups.items():
        try:
            found.append(await _find(context, project, request, stack.name))
        except CorralError as error:
            troubles.append(Trouble(f"security_groups.{name}", error))
    declared = {*stack.groups, *PREDEFINED}
    named = [
        (f"{w.place}.nics[{n}]", g) for w in stack.vms for n, nic in enumerate(w.request.nics or ()) for g in nic.groups
    ]
    for need in found:
        peers = (rule.group for rule in parse_rules(need.rules, need.name))
        named += [(f"security_groups.{need.name}", peer) for peer in peers if peer]
    for place, name in named:
        if name not in declared:
            try:
                await context.objects.require(SecurityGroup, project, name)
            except CorralError as error:
                troubles.append(Trouble(place, error))
    return found


async def _find(context: Context, project: str, request: CreateSecurityGroupRequest, stack: str) -> GroupNeed:
    """Raises `name-taken` for a group that is not the stack's, `invalid-rule`."""
    asked = f"security group {request.name!r}"
    rules = tuple(rule.text for rule in parse_rules(request.rules, asked))
    if request.name in PREDEFINED:
        raise CorralError("name-taken", asked, "every project has a group of this name", "give it another name")
    there = await context.objects.find(SecurityGroup, project, request.name)
    if there is not None and there.labels.get(STACK_LABEL) != stack:
        raise CorralError("name-taken", asked, "there is one of this name, and it is not this stack's", "rename it")
    return GroupNeed(request, rules, there)


async def groups_of_stack(context: Context, project: str, stack: str) -> list[SecurityGroup]:
    """The groups that the stack made."""
    groups = [decode(SecurityGroup, record) for record in await read_records(context, SecurityGroup, project)]
    return sorted((one for one in groups if one.labels.get(STACK_LABEL) == stack), key=lambda one: one.name)


def sketch_groups(sketch: Sketch, needs: Sequence[GroupNeed]) -> None:
    """After the networks, which rules may name."""
    for need in needs:
        if need.there is None:
            body = need.request.model_dump(mode="json", exclude={"rules"}, exclude_unset=True)
            sketch.add("security-group", need.name, StackVerb.CREATE, ("new",), path="/security-groups", body=body)
    made = list(sketch.last.values())
    for need in needs:
        now = [] if need.there is None else [rule.text for rule in need.there.spec.rules]
        changes = [f"rule {text}: gone" for text in now if text not in need.rules]
        changes += [f"rule {text}: new" for text in need.rules if text not in now]
        body = {"rules": list(need.rules), "description": need.request.description}
        if need.there is not None and need.there.spec.description != need.request.description:
            changes.append("description: another one")
        if changes:
            basis = f"{need.there.uid}:{need.there.generation}" if need.there is not None else ""
            path = f"/security-groups/{need.name}"
            sketch.add(
                "security-group",
                need.name,
                StackVerb.UPDATE,
                changes,
                method="PATCH",
                path=path,
                body=body,
                after=made,
                basis=basis,
            )


def sketch_groups_gone(sketch: Sketch, groups: Sequence[SecurityGroup]) -> None:
    """Once their VMs are gone, and none of them speaks of another one."""
    after = tuple(sketch.last.values())
    for group in groups:
        if any(rule.group not in ("", group.name) for rule in group.spec.rules):
            path = f"/security-groups/{group.name}"
            sketch.add(
                "security-group",
                group.name,
                StackVerb.UPDATE,
                ("it speaks of others",),
                method="PATCH",
                path=path,
                body={"rules": []},
                after=after,
            )
    after = tuple(sketch.last.values())
    for group in groups:
        path = f"/security-groups/{group.name}"
        sketch.add(
            "security-group",
            group.name,
            StackVerb.DELETE,
            ("the stack's own",),
            method="DELETE",
            path=path,
            after=after,
        )
