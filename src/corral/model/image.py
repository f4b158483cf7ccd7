"""An image: read-only files that VMs start from, immutable and named by their content."""

from enum import StrEnum
from typing import Annotated, ClassVar, Literal

from corral.model.base import ImageName, Model, Object, written_unless


class ImageSource(StrEnum):
    BUILD = "build"  # made on this host from the distribution's packages
    DOWNLOAD = "download"  # the vendor's own cloud image
    IMPORT = "import"  # a file of the user's
    INSTALLER = "installer"  # a medium made of an installer's kernel and initrd


class ImageState(StrEnum):
    PENDING = "pending"
    PREPARING = "preparing"
    READY = "ready"
    FAILED = "failed"


class ImageSpec(Model):
    catalogue: ImageName
    """The catalogue entry it is made from."""
    source: ImageSource
    path: str = ""
    """For `import`: the user's file; read once, copied."""
    format: Literal["qcow2", "raw", "iso"] = "qcow2"
    """For `download` and `import`: the file's format, told and never probed."""
    kernel: Annotated[str, written_unless("")] = ""
    """For `installer`: where the kernel and the initrd lie below `path`, which is a directory, an ISO or a URL; empty:
    where distributions put them."""
    initrd: Annotated[str, written_unless("")] = ""
    cmdline: Annotated[str, written_unless("")] = ""
    staged: Annotated[str, written_unless("")] = ""
    """A file that the service put into the library's own directory: the medium itself, or what the initrd grows by."""


class ImageFacts(Model):
    """What is known once the files are there. Files live in `images/<digest>/`, root-owned, read-only."""

    kind: Annotated[Literal["disk", "iso"], written_unless("disk")] = "disk"
    """`iso`: the image of a CD or DVD, put into drives and never written."""
    volume_id: Annotated[str, written_unless("")] = ""
    """An ISO's label."""
    digest: str
    """sha256 of the disk (or of the kernel and initrd where there is no disk), in hex; the directory's name."""
    os_id: str
    """libosinfo's short id (`debian12`), or empty."""
    arch: str = "x86_64"
    disk_format: Literal["qcow2", "raw", ""] = "qcow2"
    """Empty: no disk, the VM gets an empty one and boots the kernel. An ISO has none either."""
    disk_virtual_bytes: int = 0
    disk_bytes: int = 0
    has_kernel: bool = False
    """`kernel` and `initrd` lie beside the disk and are booted directly."""
    cmdline: str = ""
    bios: bool = True
    uefi: bool = False
    cloud_init: bool = True
    guest_agent: bool = True
    ssh: Annotated[bool, written_unless(True)] = True
    """False: no SSH server runs in it, one logs in on the console alone."""
    default_user: str = ""
    memory_min_mib: int = 128
    description: str = ""
    recipe: Annotated[str, written_unless("")] = ""
    """The version of the recipe of ours that built it; empty for a vendor's or a user's image."""


class ImageStatus(Model):
    state: ImageState = ImageState.PENDING
    facts: ImageFacts | None = None
    last_error_code: str = ""
    last_error: str = ""


class Image(Object):
    KIND: ClassVar[str] = "image"
    PLURAL: ClassVar[str] = "images"

    kind: Literal["image"] = "image"
    name: ImageName
    spec: ImageSpec
    status: ImageStatus = ImageStatus()
