"""What is known of a guest's operating system: the hardware that it runs well on, and how it is installed. Pure."""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from corral.model import limits
from corral.model.base import Model
from corral.model.vm import Bus, Firmware

OsId = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9.-]{0,63}$")]


class OsFamily(StrEnum):
    LINUX = "linux"
    WINDOWS = "windows"
    BSD = "bsd"
    OTHER = "other"


class Unattended(StrEnum):
    """The kind of file that answers an installer's questions."""

    NONE = ""
    PRESEED = "preseed"  # debian-installer
    KICKSTART = "kickstart"  # Anaconda: Fedora, RHEL and its kin
    AUTOINSTALL = "autoinstall"  # Ubuntu's Subiquity, through cloud-init
    ANSWER_FILE = "answer-file"  # Windows Setup


class MediumIds(Model):
    """Regular expressions that the ids of an ISO match from their start; an empty one matches everything."""

    volume: str = ""
    publisher: str = ""
    application: str = ""
    system: str = ""


class OsInfo(Model):
    """One operating system. Its values fill what a request left open."""

    id: OsId
    """libosinfo's short id: `debian12`, `win11`."""
    aliases: tuple[str, ...] = ()
    name: str
    family: OsFamily
    source: Literal["built-in", "osinfo-db"] = "built-in"
    firmware: Firmware = Firmware.BIOS
    secure_boot: bool = False
    tpm: bool = False
    disk_bus: Bus = Bus.VIRTIO
    nic_model: Literal["virtio", "e1000e", "rtl8139"] = "virtio"
    video: Literal["vga", "virtio", "qxl", "bochs"] = "vga"
    clock: Literal["utc", "localtime"] = "utc"
    hyperv: bool = False
    vmgenid: bool = False
    tablet: Literal["virtio", "usb"] = "virtio"
    vcpus_min: Annotated[int, Field(ge=1, le=limits.VCPUS_MAX)] = 1
    memory_min_mib: Annotated[int, Field(ge=0, le=limits.MEMORY_MAX_MIB)] = 0
    """Its makers' own minimum; 0: not known."""
    disk_gib: Annotated[int, Field(ge=1, le=65536)] = 20
    """The size of a disk to install it on, where none is said."""
    unattended: Unattended = Unattended.NONE
    drivers_iso: bool = False
    """It has no virtio drivers of its own: attach the virtio-win ISO before its disks and cards become virtio."""
    media: Annotated[tuple[MediumIds, ...], Field(exclude=True)] = ()
    """How its installation media are known."""
