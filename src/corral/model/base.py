"""What every object has: who it is, which revision it is, what is wished (spec) and what was seen (status)."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Final, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from corral.model import limits
from corral.names import IMAGE_NAME_PATTERN, LABEL_KEY_PATTERN, LABEL_VALUE_MAX_CHARS, NAME_PATTERN

Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
ImageName = Annotated[str, StringConstraints(pattern=IMAGE_NAME_PATTERN)]
LabelKey = Annotated[str, StringConstraints(pattern=LABEL_KEY_PATTERN)]
LabelValue = Annotated[str, StringConstraints(max_length=LABEL_VALUE_MAX_CHARS)]
Uid = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]
Mac = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{2}(:[0-9a-f]{2}){5}$")]

DEFAULT_PROJECT: Final = "default"
DEFAULT_POOL: Final = "default"


class Model(BaseModel):
    """Frozen, and strict about what it does not know: a misspelt field is an error, not a wish ignored."""

    # An error of validation must not quote what it refused: that may be a password, and tracebacks are logged.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


def written_unless(default: object) -> Any:
    """For `Annotated`: a field that its document leaves out while it has this value. Keeps documents of plain VMs short."""
    return Field(exclude_if=lambda value: value == default)


class ConditionStatus(StrEnum):
    TRUE = "true"
    FALSE = "false"
    UNKNOWN = "unknown"


class Condition(Model):
    """One statement about an object, with the reason, in the manner of Kubernetes."""

    type: str
    """CamelCase: `Ready`, `Drifted`, `GuestAgentConnected`, `Degraded`."""
    status: ConditionStatus
    reason: str
    """A kebab-case word a program can compare, often an error code."""
    message: str = ""
    since: datetime
    """When `status` last changed."""


def with_condition(conditions: tuple[Condition, ...], new: Condition) -> tuple[Condition, ...]:
    """`conditions` with `new` in its place; an unchanged status keeps its `since`."""
    old = next((c for c in conditions if c.type == new.type), None)
    if old is not None and old.status == new.status:
        new = new.model_copy(update={"since": old.since})
    return (*(c for c in conditions if c.type != new.type), new)


class Object(Model):
    """The envelope. `revision` is the store's, set at each write; `generation` counts changes of the spec."""

    KIND: ClassVar[str]
    PLURAL: ClassVar[str]

    kind: str
    project: Name = DEFAULT_PROJECT
    name: ImageName
    uid: Uid
    revision: int = 0
    generation: int = 1
    labels: Annotated[dict[LabelKey, LabelValue], Field(max_length=limits.LABELS_MAX)] = {}
    annotations: Annotated[dict[LabelKey, LabelValue], Field(max_length=limits.LABELS_MAX)] = {}
    created_at: datetime
    deletion_requested_at: datetime | None = None

    @classmethod
    def prefix(cls) -> str:
        """The store's key prefix of all objects of this kind."""
        return f"/{cls.PLURAL}/"

    @property
    def key(self) -> str:
        return f"{self.prefix()}{self.uid}"

    @property
    def claimed_name(self) -> str | None:
        """What of it is unique among its kind in its project; None: it is found by its uid alone."""
        return self.name

    @property
    def being_deleted(self) -> bool:
        return self.deletion_requested_at is not None

    def changed(self, **update: object) -> Self:
        """A copy with `update`, validated. The only `**` of the model: it mirrors pydantic's own `model_copy`."""
        return self.__class__.model_validate({**dict(self), **update})
