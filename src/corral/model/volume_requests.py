"""What a caller may ask of volumes and pools."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from corral.model import limits
from corral.model.base import ImageName, Model, Name
from corral.model.requests import Labels, example


class CreateVolumeRequest(Model):
    """A volume that stands alone: empty, on an image, or filled with what was uploaded."""

    model_config = example(
        {"name": "data", "size_bytes": 21474836480},
        {"name": "root2", "image": "debian-12"},
        {"name": "cluster", "size_bytes": 10737418240, "format": "raw", "shared": True},
    )

    name: str
    size_bytes: Annotated[int, Field(ge=limits.DISK_MIN_BYTES, le=limits.DISK_MAX_BYTES)] | None = None
    """Virtual size; needed for an empty one, else at least what it is made from."""
    format: Literal["qcow2", "raw"] = "qcow2"
    pool: Name | None = None
    """`default` when it is not given."""
    image: ImageName | None = None
    """Its first content: a copy-on-write overlay of the image."""
    upload: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{0,32}$")] = ""
    """Its first content: what the end of `/volumes/upload` told; checked under limits, and copied."""
    upload_format: Literal["qcow2", "raw"] = "qcow2"
    """Of what was uploaded; told, never probed."""
    read_only: bool = False
    """No guest may ever write it."""
    shared: bool = False
    """Several VMs may have it at once: a raw volume, or one that is read-only."""
    labels: Labels = Field(default_factory=dict)
    force: bool = False
    """Allow a size larger than the free space (thin provisioning)."""


class CopyVolumeRequest(Model):
    """A full copy, which leans on nothing. The original is not written meanwhile: its VM is off, or it has none."""

    model_config = example({"name": "data-2"})

    name: str
    format: Literal["qcow2", "raw"] | None = None
    pool: Name | None = None
    labels: Labels = Field(default_factory=dict)
    force: bool = False


class ResizeVolumeRequest(Model):
    """Growing is always possible, also while a VM runs with it; shrinking where nothing is lost."""

    model_config = example({"size_bytes": 42949672960}, {"size_bytes": 10737418240, "shrink": True})

    size_bytes: Annotated[int, Field(ge=limits.DISK_MIN_BYTES, le=limits.DISK_MAX_BYTES)]
    shrink: bool = False
    """Allow a smaller size, once it is proven that no data lies beyond it. Of a volume that no VM has."""
    force: bool = False


BytesPerSecond = Annotated[int, Field(ge=0, le=limits.IO_LIMIT_MAX)] | None


class MoveVolumeRequest(Model):
    """Into another pool, also while its VM runs. It leans on nothing afterwards."""

    model_config = example({"pool": "fast"}, {"pool": "fast", "bytes_per_s": 52428800})

    pool: Name
    bytes_per_s: BytesPerSecond = None
    """Copied at most so fast; 0: without a limit; not given: as `background_mib_per_s` says."""
    force: bool = False
    """Allow a size larger than the free space there (thin provisioning)."""


class FlattenVolumeRequest(Model):
    """The volume leans on no image and no other disk's layers afterwards; also while its VM runs."""

    model_config = example({}, {"bytes_per_s": 52428800})

    bytes_per_s: BytesPerSecond = None
    """As with a move. Not heeded where the VM is off: `qemu-img rebase` knows no limit."""
    force: bool = False
    """Allow more than the free space."""


class CreatePoolRequest(Model):
    """A pool in a directory of the host's. Administrators only."""

    model_config = example({"name": "fast", "path": "/srv/fast"})

    name: str
    path: Annotated[str, StringConstraints(min_length=1, max_length=4096)]
    labels: Labels = Field(default_factory=dict)
