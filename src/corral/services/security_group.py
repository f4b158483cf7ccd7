"""Security groups: read, made, changed under the eyes of running guests, and deleted while nothing names them."""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from corral.errors import CorralError
from corral.log import logger
from corral.model import limits
from corral.model.base import DEFAULT_PROJECT
from corral.model.firewall_requests import CreateSecurityGroupRequest, UpdateSecurityGroupRequest
from corral.model.firewall_rule import SecurityRule, parse_rule
from corral.model.identity import Identity, Project, Role
from corral.model.network import Network
from corral.model.network_policy import NetworkPolicy
from corral.model.requests import ListRequest
from corral.model.security_group import (
    DEFAULT_GROUP,
    OPEN_GROUP,
    PREDEFINED,
    SecurityGroup,
    SecurityGroupSpec,
    predefined_group,
)
from corral.model.vm import Vm
from corral.names import new_uid
from corral.services import listing, rules
from corral.services.access import audited, authorize, commit, visible
from corral.services.caller import Caller
from corral.services.changes import Mutation, change_at_once, check_name
from corral.services.context import Context
from corral.services.documents import Document, Listing, document_of
from corral.services.listing import read_objects
from corral.store.base import Precondition, Record
from corral.store.objects import Transaction, claim_key, encode, name_claim

HINT: Final = "corral security-group list"
_NOBODY: Final = Caller(Identity(name="daemon", roles={"*": Role.ADMIN}), "start")
_log: Final = logger("security-groups")


class SecurityGroupService:
    def __init__(self, context: Context) -> None:
        self._context = context

    async def list(self, caller: Caller, project: str, request: ListRequest) -> Listing:
        """With the predefined ones that nobody has changed yet, at the end."""
        context = self._context
        found = await listing.list_objects(context, caller, project, SecurityGroup, request)
        if found.next is not None:
            return found
        projects = await visible(context, caller, project, "security-group.read")
        names = [one.name for one in await context.objects.list(Project) if projects is None or one.name in projects]
        groups = [await self._untouched(one, name) for one in names for name in PREDEFINED]
        further = listing.further_documents((group for group in groups if group is not None), request)
        return Listing((*found.documents, *further), found.revision, None)

    async def get(self, caller: Caller, project: str, name: str) -> Document:
        await authorize(self._context, caller, project, "security-group.read", name)
        group = await self._untouched(project, name) if name in PREDEFINED else None
        if group is not None:
            return _document(group)
        return await listing.get_object(self._context, caller, project, SecurityGroup, name)

    async def create(self, caller: Caller, project: str, request: CreateSecurityGroupRequest) -> SecurityGroup:
        context, name, asked = self._context, request.name, f"make security group {request.name[:64]!r}"

        async def draft(transaction: Transaction) -> SecurityGroup:
            if name in PREDEFINED:
                reason = "every project has a group of this name"
                raise CorralError("name-taken", asked, reason, f"corral security-group show {name}")
            await check_name(context, SecurityGroup, project, name, asked)
            group = SecurityGroup(
                project=project,
                name=name,
                uid=new_uid(),
                created_at=context.clock.now(),
                labels=request.labels,
                spec=SecurityGroupSpec(rules=parse_rules(request.rules, asked), description=request.description),
            )
            (await self._admitted(group, None, asked)).hold(transaction)
            transaction.create(group)
            return group

        mutation = Mutation(caller, project, "security-group.create", name)
        return await change_at_once(context, mutation, draft, counted=SecurityGroup.PLURAL)

    async def update(
        self,
        caller: Caller,
        project: str,
        name: str,
        request: UpdateSecurityGroupRequest,
        *,
        if_revision: int | None = None,
    ) -> SecurityGroup:
        """New connections meet the new rules at once; those that are open stay as long as a rule lets them."""
        context, asked = self._context, f"change security group {name[:64]!r}"

        async def draft(transaction: Transaction) -> SecurityGroup:
            if name == OPEN_GROUP:
                raise CorralError("wrong-state", asked, "it is open by its name", "make a group of your own")
            now = await require_group(context, project, name)
            rules.check_revision(now, if_revision)
            changed = _changed(now, request, asked)
            if changed.spec == now.spec and changed.labels == now.labels:
                return now
            (await self._admitted(changed, now, asked)).hold(transaction)
            if now.revision:
                transaction.update(changed)
            else:
                transaction.create(changed)
            return changed

        mutation = Mutation(caller, project, "security-group.update", name)
        return await change_at_once(context, mutation, draft, counted=SecurityGroup.PLURAL)

    async def delete(self, caller: Caller, project: str, name: str) -> None:
        """While no card, rule or policy names it. From the claim on, nothing new can."""
        asked = f"delete security group {name[:64]!r}"
        revision = await self._deleted(caller, project, name, asked)
        await self._context.followers.until(revision, asked)

    async def _deleted(self, caller: Caller, project: str, name: str, asked: str) -> int:
        context, action = self._context, "security-group.delete"
        await authorize(context, caller, project, action, name)
        async with audited(context, caller, project, action, name):
            if name in PREDEFINED:
                hint = 'its rules can change: corral sg set default --rule "out any"' if name == DEFAULT_GROUP else ""
                raise CorralError("security-group-in-use", asked, "every project has it", hint)
            async with context.ledger.name(f"{project}/security-group", name):
                group = await context.objects.require(SecurityGroup, project, name)
                await self._check_unused(group, asked)
                going, doing = _going(project, name), context.objects.transaction()
                doing.hand_over(going, group.uid)  # what a daemon leaves that is killed now, the next one ends
                await doing.commit()
                is_gone = False
                try:
                    await self._check_unused(group, asked)
                    group = await context.objects.require(SecurityGroup, project, name)
                    transaction = context.objects.transaction()
                    transaction.delete(group)
                    transaction.release(going)
                    revision = (await commit(context, transaction, caller, project, action, name)).revision
                    is_gone = True
                finally:
                    if not is_gone:
                        undo = context.objects.transaction()
                        undo.release(going)
                        await undo.commit()
        return revision

    # ---- what it leans on, and what leans on it --------------------------------------------------------------------

    async def _untouched(self, project: str, name: str) -> SecurityGroup | None:
        """A predefined group that was never changed."""
        if await self._context.objects.owner(name_claim(SecurityGroup.KIND, project, name)) is not None:
            return None
        return await _predefined(self._context, project, name)

    async def _admitted(self, group: SecurityGroup, before: SecurityGroup | None, asked: str) -> "FoundGroups":
        """Not too many of them, and the groups and networks that its rules name are there."""
        context, project = self._context, group.project
        others = [one for one in await read_objects(context, SecurityGroup, project) if one.uid != group.uid]
        if before is None and len(others) >= limits.PROJECT_GROUPS_MAX:
            reason = f"the project has {len(others)} security groups, the most that it can have"
            raise CorralError("wrong-state", asked, reason, "delete some that nothing names")
        total = sum(len(one.spec.rules) for one in others) + len(group.spec.rules)
        if total > limits.PROJECT_RULES_MAX and (before is None or len(group.spec.rules) > len(before.spec.rules)):
            reason = (
                f"the groups of the project would have {total} rules together, {limits.PROJECT_RULES_MAX} are the most"
            )
            raise CorralError("invalid-rule", asked, reason, "rules with a CIDR, or a group, take the place of many")
        known = set() if before is None else {rule.peer for rule in before.spec.rules}
        new = [rule for rule in group.spec.rules if rule.peer not in known]
        for rule in new:
            if rule.network:
                await require_network(context, project, rule.network)
        names = [rule.group for rule in new if rule.group and rule.group != group.name]
        return await find_groups(context, project, names)

    async def _check_unused(self, group: SecurityGroup, asked: str) -> None:
        context, project, name = self._context, group.project, group.name
        users = [
            f"card {nic.name} of VM {vm.name}"
            for vm in await read_objects(context, Vm, project)
            for nic in vm.spec.nics
            if name in nic.groups
        ]
        users += [
            f"a rule of security group {one.name}"
            for one in await read_objects(context, SecurityGroup, project)
            if one.uid != group.uid and any(rule.group == name for rule in one.spec.rules)
        ]
        users += [
            f"network policy {one.name}"
            for one in await read_objects(context, NetworkPolicy, project)
            if f"group:{name}" in one.spec.tiers
        ]
        if users:
            reason = f"named by {', '.join(sorted(users)[:4])}{' …' if len(users) > 4 else ''}"
            hint = "give the cards other groups first: corral nic set VM CARD --groups default"
            raise CorralError("security-group-in-use", asked, reason, hint, {"users": len(users)})


async def finish_deletions(context: Context) -> None:
    """What a daemon that was killed had begun to delete goes; where somebody came to need it, it stays."""
    begun, groups = _going("", "")[:-1], SecurityGroupService(context)
    for record in (await context.objects.store.range(begun)).records:
        project, _, name = record.key.removeprefix(begun).partition("/")
        try:
            await groups._deleted(_NOBODY, project, name, f"finish deleting security group {name!r}")
        except CorralError as error:
            _log.info("a group stays", group=name, code=error.code, reason=error.reason)
            undo = context.objects.transaction()
            undo.release(record.key)
            with suppress(CorralError):  # on a full disk the daemon starts all the same; the next one tries again
                await undo.commit()


# ---- for others ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FoundGroups:
    """Groups that are there, as long as these conditions hold."""

    conditions: tuple[Precondition, ...] = ()

    def hold(self, transaction: Transaction) -> None:
        for condition in self.conditions:
            transaction.preconditions.setdefault(condition.key, condition)


NO_GROUPS: Final = FoundGroups()


async def find_groups(context: Context, project: str, names: Iterable[str]) -> FoundGroups:
    """Raises `security-group-not-found`. Changes of their rules meanwhile are nobody's business."""
    conditions: list[Precondition] = []
    for name in dict.fromkeys(names):
        if name in PREDEFINED:
            continue
        claim = name_claim(SecurityGroup.KIND, project, name)
        record = await context.objects.store.get(claim)
        if record is None:
            await context.objects.require(SecurityGroup, project, name)
            raise _busy(f"security group {name!r}")
        going = _going(project, name)
        conditions += [Precondition(claim, record.revision), Precondition(going, 0)]
    return FoundGroups(tuple(conditions))


def lost_group(key: str, asked: str) -> CorralError | None:
    """What it means that one of those conditions did not hold."""
    if key.startswith((name_claim(SecurityGroup.KIND, "", "")[:-1], claim_key("group-going", "", "")[:-1])):
        reason = f"security group {key.rpartition('/')[2]!r} is being deleted"
        return CorralError("security-group-in-use", asked, reason, HINT)
    return None


async def require_group(context: Context, project: str, name: str) -> SecurityGroup:
    """A predefined one also where nobody has changed it yet."""
    found = await context.objects.find(SecurityGroup, project, name)
    if found is None and name in PREDEFINED:
        return await _predefined(context, project, name)
    return found or await context.objects.require(SecurityGroup, project, name)


async def require_network(context: Context, project: str, name: str) -> Network:
    """Of the project, or the default one's."""
    found = await context.objects.find(Network, project, name)
    if found is None and project != DEFAULT_PROJECT:
        found = await context.objects.find(Network, DEFAULT_PROJECT, name)
    found = found or await context.objects.require(Network, project, name)
    if not found.spec.subnet and not found.spec.subnet6:
        reason = "its addresses are given by others: Corral does not know them"
        raise CorralError("invalid-rule", f"network:{name}", reason, "name the addresses: 10.0.0.0/24")
    return found


def parse_rules(texts: Sequence[str], asked: str) -> tuple[SecurityRule, ...]:
    """Each once; in the order in which they were said."""
    found = {rule.id: rule for rule in map(parse_rule, texts)}
    return _bounded(tuple(found.values()), asked)


def _bounded(found: tuple[SecurityRule, ...], asked: str) -> tuple[SecurityRule, ...]:
    if len(found) > limits.GROUP_RULES_MAX:
        reason = f"it would have {len(found)} rules, {limits.GROUP_RULES_MAX} are the most"
        raise CorralError("invalid-rule", asked, reason, "rules with a CIDR, or a group, take the place of many")
    return found


def _changed(now: SecurityGroup, request: UpdateSecurityGroupRequest, asked: str) -> SecurityGroup:
    found = {rule.id: rule for rule in now.spec.rules}
    if request.rules is not None:
        found = {rule.id: rule for rule in parse_rules(request.rules, asked)}
    for text in request.remove_rules:
        identifier = text if text in found else _id_of(text)
        if identifier not in found:
            known = ", ".join(f"{rule.id} ({rule.text})" for rule in now.spec.rules[:5]) or "none"
            raise CorralError("invalid-rule", asked, f"it has no rule {text[:64]!r}", f"its rules: {known}")
        del found[identifier]
    for rule in parse_rules(request.add_rules, asked):
        found[rule.id] = rule
    description = now.spec.description if request.description is None else request.description
    spec = SecurityGroupSpec(rules=_bounded(tuple(found.values()), asked), description=description)
    labels = now.labels if request.labels is None else request.labels
    generation = now.generation + (spec != now.spec)
    return now.model_copy(update={"spec": spec, "labels": labels, "generation": generation})


def _id_of(text: str) -> str:
    """Of a rule that is named by its words; text that is no rule names none."""
    return parse_rule(text).id if " " in text else ""


async def _predefined(context: Context, project: str, name: str) -> SecurityGroup:
    owner = await context.objects.find(Project, DEFAULT_PROJECT, project)
    return predefined_group(project, name, owner.created_at if owner is not None else context.clock.now())


def _document(group: SecurityGroup) -> Document:
    return document_of(Record(group.key, encode(group), 0, 0))


def _going(project: str, name: str) -> str:
    return claim_key("group-going", project, name)


def _busy(asked: str) -> CorralError:
    return CorralError("precondition-failed", asked, "it changed while this was tried", "try again")
