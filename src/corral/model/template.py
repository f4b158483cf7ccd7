"""A template: a VM as it was at one instant, its disks and, if it is hot, its memory; others go on from there."""

from datetime import datetime
from typing import Annotated, ClassVar, Final, Literal

from pydantic import Field, StringConstraints

from corral.model import limits
from corral.model.base import Model, Name, Object, Uid, written_unless
from corral.model.vm import CloudInitSpec, VmSpec

# What of a template's spec is of the instant at which it was frozen. All else is wished of it.
_FROZEN: Final = ("source_uid", "snapshot_uid", "disks", "vm_spec", "hostname", "cloud_init")


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
    published_to: Annotated[tuple[Name, ...], Field(max_length=limits.PUBLICATIONS_MAX), written_unless(())] = ()
    """Other projects that may make VMs of it. They get all that its memory and its disks hold."""
    warm: Annotated[int, Field(ge=0, le=limits.WARM_MAX), written_unless(0)] = 0
    """So many domains wait for its memory's state, so that VMs of it are there at once."""
    passing: Annotated[bool, written_unless(False)] = False
    """Frozen for live forks of a running VM: it goes when they are there."""


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
    stale: Annotated[str, written_unless("")] = ""
    """Why its memory cannot be used on this host any more; empty: it can, as far as is known. Its disks always can."""
    pause_ms: Annotated[float | None, written_unless(None)] = None
    """How long the guest that it was frozen of stood still, at most; null: it was off, or the daemon died meanwhile."""
    waiting: Annotated[int, written_unless(0)] = 0
    """Of the domains that are to wait for its state, those that do."""


class Template(Object):
    KIND: ClassVar[str] = "template"
    PLURAL: ClassVar[str] = "templates"

    kind: Literal["template"] = "template"
    name: Name
    spec: TemplateSpec
    status: TemplateStatus = TemplateStatus()


def successor_of(old: Template, fresh: Template) -> Template:
    """`fresh`, which was frozen to refresh `old`, in its place: what was wished of the one holds for the other."""
    frozen = {name: getattr(fresh.spec, name) for name in _FROZEN}
    spec = old.spec.model_copy(update=frozen)
    return fresh.model_copy(
        update={"name": old.name, "labels": old.labels, "annotations": old.annotations, "spec": spec}
    )
