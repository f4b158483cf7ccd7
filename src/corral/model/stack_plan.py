"""What stacks are asked for, and the plan that a client carries out: each action is a request of an existing route."""

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, StringConstraints

from corral.model import limits
from corral.model.base import Model, Name
from corral.model.requests import WaitCondition

Names = Annotated[tuple[Name, ...], Field(max_length=limits.STACK_VMS_MAX)]
Overrides = Annotated[
    dict[str, Annotated[str, StringConstraints(max_length=limits.STACK_VARIABLE_MAX_CHARS)]],
    Field(max_length=limits.STACK_VARIABLES_MAX),
]


class PlanStackRequest(Model):
    """What would it take? Nothing is made by planning."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "document": {
                        "stack": "shop",
                        "vms": {"db": {"image": "debian-12"}, "web": {"count": 2, "after": {"db": "agent"}}},
                    }
                }
            ]
        }
    )

    document: dict[str, Any]
    """A stack as `GET /v1/stacks/schema` describes it."""
    variables: Overrides = Field(default_factory=dict)
    """They go over the document's own."""
    ssh_keys: Annotated[tuple[str, ...], Field(max_length=limits.SSH_KEYS_MAX)] = ()
    """For new VMs of an image that name no keys."""
    prune: bool = False
    """Also delete what is in the stack and no longer in the document."""
    replace: Names = ()
    """VMs that may be deleted, with their disks, and made anew where they cannot be changed in place."""
    delete_disks: bool = False
    """Also delete the volumes of disks that are taken out."""


class PlanDownRequest(Model):
    """What would it take to remove a stack?"""

    model_config = ConfigDict(json_schema_extra={"examples": [{"stack": "shop"}]})

    stack: Name
    document: dict[str, Any] | None = None
    """Its document, for the order of its dependencies."""
    variables: Overrides = Field(default_factory=dict)
    keep_disks: bool = False


class ExportStackRequest(Model):
    """The document that says what is: of the VMs named, of those with these labels, or of a stack."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"stack": "shop", "selector": "corral/stack=shop"}]})

    stack: Name
    vms: Names = ()
    selector: Annotated[str, StringConstraints(max_length=1024)] = ""


ActionKind = Literal[
    "address", "balancer", "forward", "image", "network", "network-policy", "router", "security-group", "vm", "volume"
]


class StackVerb(StrEnum):
    """What an action does."""

    BUILD = "build"
    FOLLOW = "follow"  # wait for an operation that is under way already
    CREATE = "create"
    UPDATE = "update"
    ATTACH_DISK = "attach-disk"
    CHANGE_DISK = "change-disk"
    DETACH_DISK = "detach-disk"
    ATTACH_NIC = "attach-nic"
    CHANGE_NIC = "change-nic"
    DETACH_NIC = "detach-nic"
    START = "start"
    SHUTDOWN = "shutdown"
    DELETE = "delete"


class StackWait(Model):
    """What has to be so before an action begins."""

    vm: Name
    condition: WaitCondition


class StackAction(Model):
    """One request, what comes before it, and what it changes, for people."""

    id: str
    kind: ActionKind
    name: str
    verb: StackVerb
    device: str = ""
    method: Literal["", "POST", "PATCH", "DELETE"] = ""
    """Empty: nothing is asked, `operation` is waited for."""
    path: str = ""
    query: dict[str, str] = Field(default_factory=dict)
    body: dict[str, Any] | None = None
    operation: str = ""
    key: str = ""
    """The Idempotency-Key: who plans the same once more gets the same, until it was carried out."""
    after: tuple[str, ...] = ()
    """The ids of the actions that have to succeed first."""
    waits: tuple[StackWait, ...] = ()
    changes: tuple[str, ...] = ()


class StackBlock(Model):
    """A VM that cannot become what the document says; it is left alone."""

    name: str
    changes: tuple[str, ...]
    reason: str
    hint: str = ""


class StackPlan(Model):
    """What is to be done, in an order that works. `blocked`: a client carries nothing out while there are any."""

    stack: str
    actions: tuple[StackAction, ...] = ()
    unchanged: tuple[str, ...] = ()
    blocked: tuple[StackBlock, ...] = ()
    orphans: tuple[str, ...] = ()
    """VMs of the stack that the document does not name; `prune` deletes them."""
    warnings: tuple[str, ...] = ()


class StackExport(Model):
    document: dict[str, Any]
    notes: tuple[str, ...] = ()
    """What the document cannot say, one sentence each."""
