"""Who asks, and what they may: projects, identities, roles and API tokens."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from corral.model.base import Model, Object, written_unless


class Role(StrEnum):
    """Each role may do what the ones before it may."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"


class Right(StrEnum):
    """What a role smaller than admin may do only if it was given by name."""

    FORK = "template.fork"
    CAPTURE = "vm.capture"


class Project(Object):
    """A tenant. The foundation has one, `default`."""

    KIND: ClassVar[str] = "project"
    PLURAL: ClassVar[str] = "projects"

    kind: Literal["project"] = "project"


class TokenSpec(Model):
    role: Role
    rights: Annotated[tuple[Right, ...], written_unless(())] = ()
    """Beyond its role, in its project."""
    secret_hash: str
    """argon2id of the secret half; the secret itself is shown once and kept nowhere."""
    expires_at: datetime | None = None


class Token(Object):
    """An API token: `corral_<uid>_<secret>`; it acts in its own project."""

    KIND: ClassVar[str] = "token"
    PLURAL: ClassVar[str] = "tokens"

    kind: Literal["token"] = "token"
    spec: TokenSpec


class Identity(Model):
    """An authenticated caller, for one request."""

    name: str
    """`local:root`, `local:1000`, `token:ci`."""
    roles: dict[str, Role]
    """Project name to role; `*` is every project."""
    rights: dict[str, tuple[Right, ...]] = Field(default_factory=dict)
    """Project name to what may be done there beyond the role."""
