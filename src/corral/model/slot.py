"""A slot: a domain of a hot template that waits for its state. The fork that takes it becomes it: its uid is the VM's.

Nobody names or lists slots; they are made and thrown away by the agent. One that is known is somebody's until it is not
ready any more: only who changes or deletes the object, at the revision that was read, may touch what it stands for.
"""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from corral.model import limits
from corral.model.base import Model, Name, Object, Uid
from corral.model.requests import example


class WarmRequest(Model):
    """How many domains of a hot template are to wait for its state."""

    model_config = example({"count": 5}, {"count": 0})

    count: Annotated[int, Field(ge=0, le=limits.WARM_MAX)]
    """0: none any more."""


class SlotDisk(Model):
    """One disk: the volume that it will be, on the template's layer of this name."""

    name: Name
    volume_uid: Uid
    pool: str = "default"


class SlotSpec(Model):
    template_uid: Uid
    digest: str
    """Of the memory that its domain has mapped."""
    disks: Annotated[tuple[SlotDisk, ...], Field(max_length=limits.DISKS_MAX)] = ()
    dac_number: int | None = None
    """Its QEMU's uid, as the claim counts them."""


class SlotStatus(Model):
    ready: bool = False
    """It waits. Before and after that it is rubbish."""


class WarmSlot(Object):
    KIND: ClassVar[str] = "slot"
    PLURAL: ClassVar[str] = "slots"

    kind: Literal["slot"] = "slot"
    spec: SlotSpec
    status: SlotStatus = SlotStatus()

    @property
    def claimed_name(self) -> str | None:
        return None

    @property
    def volumes(self) -> dict[str, str]:
        """Volume uids by the disk's name."""
        return {disk.name: disk.volume_uid for disk in self.spec.disks}
