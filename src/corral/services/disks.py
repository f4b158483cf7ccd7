"""The disks of a new VM: the root overlay on its image, empty data disks, and files of the user's by path."""

import os
import stat
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from corral import qemu_img
from corral.errors import CorralError
from corral.files import storage_error
from corral.hypervisor.capabilities import Ability, check_together
from corral.model.image import Image, ImageFacts
from corral.model.requests import CreateVmRequest, DiskRequest
from corral.model.vm import Bus, DiskSpec
from corral.model.volume import Volume, VolumeSpec
from corral.names import GIB, NAME_MAX_CHARS, format_bytes, new_uid
from corral.services.context import Context

ROOT: Final = "root"
# QEMU's uid becomes the owner of a disk given by path: what lies here would be lost to the system.
SYSTEM_PLACES: Final = (
    "/bin", "/boot", "/etc", "/lib", "/lib32", "/lib64", "/proc", "/run", "/sbin", "/sys", "/usr", "/var/lib/dpkg",
    "/var/lib/libvirt/qemu", "/var/log",
)  # fmt: skip
# An empty disk that named no size: a data disk, or the root disk of a VM whose image is a kernel alone.
EMPTY_DISK_BYTES: Final = 1 * GIB


@dataclass(frozen=True)
class Disks:
    """What `plan_disks` decided. `new_bytes` is what the new volumes could grow to."""

    vm_uid: str
    specs: tuple[DiskSpec, ...]
    volumes: tuple[Volume, ...]
    new_bytes: int


def plan_disks(context: Context, project: str, request: CreateVmRequest, image: Image | None, asked: str) -> Disks:
    """The VM's disks and the volumes to be made for them. The VM's uid is chosen here, since volumes name it."""
    vm_uid = new_uid()
    wanted = list(request.disks)
    facts = image.status.facts if image is not None else None
    if image is not None and not wanted:
        wanted = [DiskRequest()]
    specs: list[DiskSpec] = []
    volumes: list[Volume] = []
    for index, disk in enumerate(wanted):
        name = disk.name or (ROOT if index == 0 else f"disk{index}")
        if any(spec.name == name for spec in specs):
            raise CorralError(
                "invalid-argument", asked, f"two disks are called {name!r}", "give each disk its own name"
            )
        if disk.read_only and disk.bus is Bus.SATA:
            hint = f"give disk {name!r} bus=virtio or bus=scsi"
            check_together(asked, hint, Ability.READ_ONLY_DISK, Ability.SATA_DISK)
        if disk.path is not None:
            specs.append(disk_by_path(context, disk, disk.path, name, asked))
            continue
        below = image if index == 0 and facts is not None and facts.disk_format else None
        volume = _volume(project, request.name, disk, name, vm_uid, below, asked)
        volumes.append(volume)
        specs.append(DiskSpec(name=name, volume_uid=volume.uid, bus=disk.bus, read_only=disk.read_only))
    return Disks(vm_uid, tuple(specs), tuple(volumes), sum(volume.spec.size_bytes for volume in volumes))


def _volume(
    project: str, vm_name: str, disk: DiskRequest, name: str, vm_uid: str, image: Image | None, asked: str
) -> Volume:
    uid = new_uid()
    facts = image.status.facts if image is not None else None
    return Volume(
        project=project,
        # Volumes outlive their VM (--keep-disks) and their names must not stand in the way of the next `web`.
        name=f"{vm_name[: NAME_MAX_CHARS - 9 - len(name) - 1]}-{name}-{uid[:8]}"[:NAME_MAX_CHARS],
        uid=uid,
        created_at=datetime.fromtimestamp(0, UTC),
        spec=VolumeSpec(
            size_bytes=_size_bytes(disk, facts, name, asked),
            image_uid=image.uid if image is not None else None,
            image_digest=facts.digest if facts is not None else "",
            vm_uid=vm_uid,
            delete_with_vm=disk.delete_with_vm,
        ),
    )


def _size_bytes(disk: DiskRequest, facts: ImageFacts | None, name: str, asked: str) -> int:
    if facts is None:
        return disk.size_bytes or EMPTY_DISK_BYTES
    if disk.size_bytes is not None and disk.size_bytes < facts.disk_virtual_bytes:
        raise CorralError(
            "invalid-size",
            asked,
            f"disk {name!r} of {format_bytes(disk.size_bytes)} is smaller than its image,"
            f" {format_bytes(facts.disk_virtual_bytes)}",
            f"ask for {format_bytes(facts.disk_virtual_bytes)} or more",
            {"wanted_bytes": disk.size_bytes, "image_bytes": facts.disk_virtual_bytes},
        )
    return disk.size_bytes or facts.disk_virtual_bytes


def disk_by_path(context: Context, disk: DiskRequest, path: str, name: str, asked: str) -> DiskSpec:
    """A file or block device of the user's: there, absolute, no symbolic link into our own files."""
    if disk.size_bytes is not None:
        raise CorralError("invalid-argument", asked, f"disk {name!r} has a path and a size", "give one of the two")
    given = Path(path)
    if not given.is_absolute() or "\0" in path:
        raise CorralError("invalid-argument", asked, f"{path[:80]!r} is not an absolute path", "give the whole path")
    try:
        resolved = given.resolve(strict=True)
        mode = os.stat(resolved).st_mode  # noqa: PTH116 -- of the resolved path, one call
    except (OSError, RuntimeError) as error:
        raise CorralError("volume-not-found", asked, f"there is no file {path[:200]}", "check the path") from error
    if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
        raise CorralError(
            "invalid-argument", asked, f"{path[:200]} is no file and no block device", "give a disk's path"
        )
    if resolved.is_relative_to(context.settings.state_dir.resolve()):
        raise CorralError(
            "invalid-argument", asked, f"{path[:200]} is one of Corral's own files", "name a volume instead"
        )
    if any(resolved.is_relative_to(place) for place in SYSTEM_PLACES):
        raise CorralError(
            "invalid-argument",
            asked,
            f"{path[:200]} is one of the system's own files, and a guest's disk is handed over to the guest",
            "copy it to a place for disks, such as /srv",
        )
    if disk.format == "qcow2" and stat.S_ISREG(mode):
        _check_header(resolved, path, asked)
    return DiskSpec(name=name, path=str(resolved), format=disk.format, bus=disk.bus, read_only=disk.read_only)


def _check_header(resolved: Path, path: str, asked: str) -> None:
    """A backing file that a header names is never opened, the domain's document closes the chain; an external data file
    would be."""
    try:
        external = qemu_img.has_external_data(resolved)
    except OSError as error:
        raise storage_error(f"read {path[:200]}", error) from error
    if external:
        raise CorralError(
            "invalid-argument",
            asked,
            f"the data of {path[:200]} lies in another file, which its header names",
            "import it as an image, or convert it with `qemu-img convert -O qcow2`",
        )
