"""A template: a VM as it was at one instant, its disks and, if it is hot, its memory; others go on from there."""

from datetime import datetime
from typing import Annotated, ClassVar, Literal

from pydantic import Field, StringConstraints

from corral.model import limits
from corral.model.base import Model, Name, Object, Uid
from corral.model.vm import CloudInitSpec, VmSpec


class TemplateDisk(Model):
    """One disk: the frozen layer that the disks of its VMs lie on."""

    name: Name
    layer_uid: Uid
    size_bytes: int


class TemplateSpec(Model):
    """Immutable, but for what is filled in while it is made."""

    description: Annotated[str, StringConstraints(max_length=limits.DESCRIPTION_MAX_CHARS)] = ""
    hot: bool = False
    """The memory belongs to it: its VMs go on from a running guest. Else they boot."""
    source: Name
    """The VM that it was made from, as it was called then."""
    source_uid: Uid
    snapshot_uid: Uid
    """The hidden point in time that it is made from; gone when it is ready."""
    disks: Annotated[tuple[TemplateDisk, ...], Field(max_length=limits.DISKS_MAX)] = ()
    vm_spec: VmSpec | None = None
    """The VM at that moment, without its cloud-init."""
    hostname: str = ""
    """Its guest's, for all that is known of it."""
    cloud_init: CloudInitSpec | None = None
    """What its VMs' seeds are like: the guest's own, without documents and passwords."""


class TemplateStatus(Model):
    ready: bool = False
    taken_at: datetime | None = None
    agent: bool = False
    """The guest's agent answered: VMs that go on from its memory can be told who they are."""
    key: str = ""
    """What hosts that its memory runs on have in common: hypervisor and its version, accelerator, processor."""
    digest: str = ""
    """Of the memory."""
    memory_bytes: int = 0
    stored_bytes: int = 0
    """What memory and state take on disk."""


class Template(Object):
    KIND: ClassVar[str] = "template"
    PLURAL: ClassVar[str] = "templates"

    kind: Literal["template"] = "template"
    name: Name
    spec: TemplateSpec
    status: TemplateStatus = TemplateStatus()
