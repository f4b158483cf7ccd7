"""Security groups: which new connections the cards that carry them may take part in."""

import uuid
from collections.abc import Iterable, Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Annotated, ClassVar, Final, Literal

from pydantic import Field, StringConstraints

from corral.model import limits
from corral.model.base import Model, Name, Object
from corral.model.firewall_rule import SecurityRule, parse_rule

DEFAULT_GROUP: Final = "default"
"""What a card carries that was given no group."""
OPEN_GROUP: Final = "open"
_BEGINNINGS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {DEFAULT_GROUP: ("in any from group:default", "out any"), OPEN_GROUP: ("in any", "out any")}
)
_MEANINGS: Final[Mapping[str, str]] = MappingProxyType(
    {DEFAULT_GROUP: "cards without a group: in from each other, out to everybody", OPEN_GROUP: "everything, both ways"}
)
PREDEFINED: Final = tuple(_BEGINNINGS)
_NAMESPACE: Final = uuid.UUID("7c0e3a52-5c0c-4b53-9f0e-6f2f0c5d8a11")


class SecurityGroupSpec(Model):
    rules: Annotated[tuple[SecurityRule, ...], Field(max_length=limits.GROUP_RULES_MAX)] = ()
    """What is let through. Whatever no rule of a card's groups lets through is denied, in both directions."""
    description: Annotated[str, StringConstraints(max_length=limits.DESCRIPTION_MAX_CHARS)] = ""


class SecurityGroup(Object):
    KIND: ClassVar[str] = "security-group"
    PLURAL: ClassVar[str] = "security-groups"

    kind: Literal["security-group"] = "security-group"
    name: Name
    spec: SecurityGroupSpec = SecurityGroupSpec()


def rule_uid(group_uid: str, rule_id: str) -> str:
    """What names one rule of one group among all: in counters and in the log."""
    return f"{group_uid}-{rule_id}"


def predefined_group(project: str, name: str, created_at: datetime) -> SecurityGroup:
    """As every project has it before it was changed for the first time (revision 0). Its uid stays the same then."""
    rules = tuple(parse_rule(text) for text in _BEGINNINGS[name])
    spec = SecurityGroupSpec(rules=rules, description=_MEANINGS[name])
    uid = str(uuid.uuid5(_NAMESPACE, f"{project}/{name}"))
    return SecurityGroup(project=project, name=name, uid=uid, created_at=created_at, spec=spec)


def groups_in_force(
    groups: Iterable[SecurityGroup], projects: Iterable[str], created_at: datetime
) -> dict[tuple[str, str], SecurityGroup]:
    """Every group by project and name; the predefined ones as they were changed, or as they are from the beginning."""
    found = {
        (project, name): predefined_group(project, name, created_at) for project in projects for name in PREDEFINED
    }
    return found | {(group.project, group.name): group for group in groups}
