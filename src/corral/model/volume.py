"""A disk in a pool: a VM's, or one that stands alone until a VM takes it."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from corral.model import limits
from corral.model.base import DEFAULT_POOL, Model, Name, Object, Uid, written_unless


class VolumeSpec(Model):
    pool: Name = DEFAULT_POOL
    size_bytes: Annotated[int, Field(ge=limits.DISK_MIN_BYTES, le=limits.DISK_MAX_BYTES)]
    format: Literal["qcow2", "raw"] = "qcow2"
    read_only: Annotated[bool, written_unless(False)] = False
    """No guest may write it."""
    shared: Annotated[bool, written_unless(False)] = False
    """Several VMs may have it at once; it is nobody's own (`vm_uid` stays empty). One that is written is raw."""
    image_uid: Uid | None = None
    """The image below this overlay; None for an empty disk."""
    image_digest: str = ""
    """sha256 of that image's disk: what recovery looks for."""
    layer_uid: Annotated[Uid | None, written_unless(None)] = None
    """The layer that it is written to; None: its own one file, of which there is no point in time."""
    copy_of_layer: Annotated[Uid | None, written_unless(None)] = None
    """The frozen layer that it is made as a copy of; it stands alone then."""
    vm_uid: Uid | None = None
    """The one VM that has it."""
    delete_with_vm: bool = True


class VolumeStatus(Model):
    ready: bool = False
    path: str = ""
    allocated_bytes: int = 0
    size_bytes: int = 0
    """What it was last grown to; 0: it is as it was made."""
    merging: Annotated[float | None, written_unless(None)] = None
    """A layer of its chain that nobody needs is taken into its neighbour, for as long as that takes: how much of it (0 to 1)."""

    def merged(self, share: float | None) -> "VolumeStatus":
        return self.model_copy(update={"merging": share})


class Volume(Object):
    KIND: ClassVar[str] = "volume"
    PLURAL: ClassVar[str] = "volumes"

    kind: Literal["volume"] = "volume"
    spec: VolumeSpec
    status: VolumeStatus = VolumeStatus()

    @property
    def head_uid(self) -> str:
        """Whose file the guest writes to."""
        return self.spec.layer_uid or self.uid

    def alone_in(self, pool: str, path: str) -> "Volume":
        """As it is where it lies there, in `path`, and leans on no image any more."""
        spec = self.spec.model_copy(update={"pool": pool, "image_uid": None, "image_digest": ""})
        return self.model_copy(update={"spec": spec, "status": self.status.model_copy(update={"path": path})})
