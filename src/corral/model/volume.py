"""A VM's disk: a qcow2 file in a pool, an overlay on an image or empty."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from corral.model import limits
from corral.model.base import Model, Object, Uid


class VolumeSpec(Model):
    pool: Literal["default"] = "default"
    size_bytes: Annotated[int, Field(ge=limits.DISK_MIN_BYTES, le=limits.DISK_MAX_BYTES)]
    format: Literal["qcow2"] = "qcow2"
    image_uid: Uid | None = None
    """The image below this overlay; None for an empty disk."""
    image_digest: str = ""
    """sha256 of that image's disk: what recovery looks for."""
    vm_uid: Uid | None = None
    delete_with_vm: bool = True


class VolumeStatus(Model):
    ready: bool = False
    path: str = ""
    allocated_bytes: int = 0
    size_bytes: int = 0
    """What it was last grown to; 0: it is as it was made."""


class Volume(Object):
    KIND: ClassVar[str] = "volume"
    PLURAL: ClassVar[str] = "volumes"

    kind: Literal["volume"] = "volume"
    spec: VolumeSpec
    status: VolumeStatus = VolumeStatus()
