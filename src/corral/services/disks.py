"""The disks of a new VM: the root overlay on its image, empty data disks, drives for CDs, files of the user's by path."""

import asyncio
import os
import secrets
import stat
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from corral import qemu_img
from corral.errors import CorralError
from corral.files import check_not_others, create_private, free_bytes, remove_file, storage_error
from corral.hypervisor.capabilities import Ability, check_together
from corral.model.base import DEFAULT_POOL
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
class NewFile:
    """A disk of the user's own that is made with the VM, because nothing lay at its path."""

    path: Path
    format: qemu_img.Format
    size_bytes: int


@dataclass(frozen=True)
class Disks:
    """What `plan_disks` decided."""

    vm_uid: str
    specs: tuple[DiskSpec, ...]
    volumes: tuple[Volume, ...]
    files: tuple[NewFile, ...] = ()
    kept: tuple[Volume, ...] = ()
    """Volumes that were there, as they become."""

    @property
    def new_bytes(self) -> dict[str, int]:
        """By pool, what the new volumes could grow to."""
        found: Counter[str] = Counter()
        for volume in self.volumes:
            found[volume.spec.pool] += volume.spec.size_bytes
        return dict(found)


def plan_disks(
    context: Context,
    project: str,
    request: CreateVmRequest,
    image: Image | None,
    media: Mapping[str, Image],
    there: Mapping[str, Volume],
    asked: str,
) -> Disks:
    """The VM's disks and drives, and the volumes to be made for them. `media`: the ISO images that the request names;
    `there`: the volumes that it names. The VM's uid is chosen here, since volumes name it."""
    vm_uid = new_uid()
    wanted = list(request.disks)
    facts = image.status.facts if image is not None else None
    if image is not None and not any(disk.device == "disk" and disk.volume is None for disk in wanted):
        wanted.insert(0, DiskRequest())
    specs: list[DiskSpec] = []
    volumes: list[Volume] = []
    new_files: list[NewFile] = []
    kept: list[Volume] = []
    for disk, name in zip(wanted, _names(wanted, asked), strict=True):
        if disk.device == "cdrom":
            specs.append(plan_drive(disk, name, media, asked))
            continue
        if disk.volume is not None:
            spec, volume = kept_disk(disk, name, there[disk.volume], vm_uid, asked)
            specs.append(spec)
            kept.append(volume)
            continue
        check_disk(disk, name, asked)
        if disk.path is not None:
            spec, new_file = user_disk(context, disk, disk.path, name, request.force, asked)
            specs.append(spec)
            new_files += [new_file] if new_file is not None else []
            continue
        first = not any(spec.device == "disk" for spec in specs)
        first = first or (not volumes and all(spec.volume_uid is not None for spec in specs if spec.device == "disk"))
        below = image if first and facts is not None and facts.disk_format else None
        volume = new_volume(project, request.name, disk, name, vm_uid, below, asked)
        volumes.append(volume)
        specs.append(with_knobs(DiskSpec(name=name, volume_uid=volume.uid), disk))
    for volume in volumes:
        context.volumes.check_pool(volume.spec.pool)
    if len({volume.uid for volume in kept}) < len(kept):
        raise CorralError("invalid-argument", asked, "two disks are one volume", "name each volume once")
    return Disks(vm_uid, tuple(specs), tuple(volumes), tuple(new_files), tuple(kept))


def _names(wanted: Sequence[DiskRequest], asked: str) -> tuple[str, ...]:
    """Each disk's name: what was asked for, else `root`, `disk1` … and `cd0`, `cd1` …"""
    names: list[str] = []
    disks = drives = 0
    for disk in wanted:
        if disk.device == "cdrom":
            names.append(disk.name or f"cd{drives}")
            drives += 1
        else:
            names.append(disk.name or (ROOT if disks == 0 else f"disk{disks}"))
            disks += 1
    for name in names:
        if names.count(name) > 1:
            raise CorralError(
                "invalid-argument", asked, f"two disks are called {name!r}", "give each disk its own name"
            )
    return tuple(names)


def check_disk(disk: DiskRequest, name: str, asked: str) -> None:
    if disk.read_only and disk.bus is Bus.SATA:
        hint = f"give disk {name!r} bus=virtio or bus=scsi"
        check_together(asked, hint, Ability.READ_ONLY_DISK, Ability.SATA_DISK)
    if disk.image is not None:
        raise CorralError(
            "invalid-argument",
            asked,
            f"disk {name!r} names the image {disk.image}, and is no drive",
            "the VM's own image is `image`; for an ISO, write device=cdrom",
        )
    if disk.path is None and disk.format != "qcow2":
        raise CorralError(
            "unsupported",
            asked,
            f"disk {name!r} would be a volume in the format {disk.format}",
            "volumes are qcow2; a raw disk is one of your own: path=/srv/disk.raw,format=raw",
        )
    if disk.pool is not None and disk.path is not None:
        raise CorralError("invalid-argument", asked, f"disk {name!r} has a path and a pool", "give one of the two")
    if disk.create and (disk.path is None or disk.size_bytes is None):
        raise CorralError(
            "invalid-argument", asked, f"disk {name!r} is to be made without a path or a size", "give both"
        )


def with_knobs(spec: DiskSpec, disk: DiskRequest) -> DiskSpec:
    knobs = ("bus", "read_only", "cache", "aio", "discard", "io_thread", "iops_max", "bytes_per_s_max")
    return spec.model_copy(update={knob: getattr(disk, knob) for knob in knobs})


def plan_drive(disk: DiskRequest, name: str, media: Mapping[str, Image], asked: str) -> DiskSpec:
    """A drive for CDs: empty, or with an ISO image in it. SATA, which every firmware and installer reads."""
    if disk.size_bytes is not None or disk.create:
        raise CorralError("invalid-argument", asked, f"drive {name!r} has a size", "a drive has only a medium")
    unmade = media.get(disk.path) if disk.path is not None else None
    if disk.path is not None and unmade is None:
        raise CorralError(
            "invalid-argument",
            asked,
            f"drive {name!r} has a path: media are images, so that no guest gets hold of a file of yours",
            f"corral image import {disk.path[:200]}, then name the image",
        )
    image = media[disk.image] if disk.image is not None else None
    bus = disk.bus if "bus" in disk.model_fields_set else Bus.SATA
    if bus is Bus.VIRTIO:
        raise CorralError(
            "invalid-argument", asked, f"drive {name!r} has bus=virtio, which knows no CDs", "bus=sata or bus=scsi"
        )
    return DiskSpec(
        name=name,
        device="cdrom",
        image_uid=image.uid if image is not None else None,
        image=image.name if image is not None else None,
        path=disk.path,
        format="raw",
        bus=bus,
        read_only=True,
    )


def volume_name(vm_name: str, disk_name: str, uid: str) -> str:
    """Volumes outlive their VM (--keep-disks), and their names must not stand in the way of the next `web`."""
    return f"{vm_name[: NAME_MAX_CHARS - 9 - len(disk_name) - 1]}-{disk_name}-{uid[:8]}"[:NAME_MAX_CHARS]


def new_volume(
    project: str, vm_name: str, disk: DiskRequest, name: str, vm_uid: str, image: Image | None, asked: str
) -> Volume:
    uid = new_uid()
    facts = image.status.facts if image is not None else None
    return Volume(
        project=project,
        name=volume_name(vm_name, name, uid),
        uid=uid,
        created_at=datetime.fromtimestamp(0, UTC),
        spec=VolumeSpec(
            size_bytes=_size_bytes(disk, facts, name, asked),
            image_uid=image.uid if image is not None else None,
            image_digest=facts.digest if facts is not None else "",
            pool=disk.pool or DEFAULT_POOL,
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


def kept_disk(disk: DiskRequest, name: str, volume: Volume, vm_uid: str, asked: str) -> tuple[DiskSpec, Volume]:
    """A volume that is there already, and what it becomes: this VM's own, which unless that is said does not go with it;
    one that may be shared stays nobody's."""
    about_new = {"size_bytes", "path", "create", "image", "format", "device", "pool"} & disk.model_fields_set
    if about_new - ({"device"} if disk.device == "disk" else set()):
        reason = f"it is to have volume {volume.name}, which is there as it is"
        raise CorralError("invalid-argument", asked, reason, f"leave {', '.join(sorted(about_new))} out")
    gone = disk.delete_with_vm and "delete_with_vm" in disk.model_fields_set
    if gone and volume.spec.shared:
        reason = f"volume {volume.name} may be other VMs' too, and goes with none of them"
        raise CorralError("invalid-argument", asked, reason, "leave delete_with_vm out")
    spec = with_knobs(DiskSpec(name=name, volume_uid=volume.uid, format=volume.spec.format), disk)
    spec = spec.model_copy(update={"read_only": disk.read_only or volume.spec.read_only})
    if spec.read_only and spec.bus is Bus.SATA:
        check_together(asked, f"give disk {name!r} bus=virtio or bus=scsi", Ability.READ_ONLY_DISK, Ability.SATA_DISK)
    if volume.spec.shared:
        return spec, volume
    own = volume.spec.model_copy(update={"vm_uid": vm_uid, "delete_with_vm": gone})
    return spec, volume.model_copy(update={"spec": own, "generation": volume.generation + 1})


def user_disk(
    context: Context, disk: DiskRequest, path: str, name: str, force: bool, asked: str
) -> tuple[DiskSpec, NewFile | None]:
    """A disk by path: what lies there is used as it is, whatever size was said (as virt-install does); where nothing
    lies, it is made if the request says so."""
    if not disk.create or os.path.lexists(path):
        there = disk.model_copy(update={"size_bytes": None}) if disk.create else disk
        return with_knobs(disk_by_path(context, there, path, name, asked), disk), None
    target = _new_place(context, path, asked)
    size_bytes = disk.size_bytes or EMPTY_DISK_BYTES
    free = free_bytes(target.parent)
    if size_bytes > free and not force:
        raise CorralError(
            "insufficient-disk",
            asked,
            f"disk {name!r} can grow to {format_bytes(size_bytes)}, {target.parent} has {format_bytes(free)} free",
            "make it smaller, or --force: it takes space only as the guest writes",
        )
    spec = DiskSpec(name=name, path=str(target), format=disk.format)
    return with_knobs(spec, disk), NewFile(target, disk.format, size_bytes)


def _new_place(context: Context, path: str, asked: str) -> Path:
    """Where a disk of the user's may be made: in a directory that is there, and that nobody else can change."""
    given = Path(path)
    if not given.is_absolute() or "\0" in path:
        raise CorralError("invalid-argument", asked, f"{path[:80]!r} is not an absolute path", "give the whole path")
    try:
        directory = given.parent.resolve(strict=True)
        check_not_others(directory, asked)
    except OSError as error:
        raise CorralError(
            "invalid-argument", asked, f"{given.parent}: {error.strerror}", f"mkdir -p {given.parent}"
        ) from error
    target = directory / given.name
    _check_place(context, target, path, asked)
    return target


@asynccontextmanager
async def new_files(files: Sequence[NewFile], asked: str) -> AsyncIterator[None]:
    """Make the user's disks; they go again if the block fails. Nothing that lies at a path is ever overwritten."""
    made: list[Path] = []
    try:
        for file in files:
            await _make_file(file, asked)
            made.append(file.path)
        yield
    except BaseException:
        for path in made:
            await asyncio.to_thread(remove_file, path)
        raise


async def _make_file(file: NewFile, asked: str) -> None:
    temporary = file.path.with_name(f".{file.path.name}.{secrets.token_hex(4)}.tmp")
    try:
        if file.format == "qcow2":
            await qemu_img.create_empty(temporary, file.size_bytes)
        else:
            await asyncio.to_thread(_make_sparse, temporary, file.size_bytes)
        temporary.chmod(0o600)
        await asyncio.to_thread(os.link, temporary, file.path)  # unlike a rename, it fails where something lies
    except FileExistsError as error:
        reason = f"{file.path} was made by somebody else in this instant"
        raise CorralError("storage-error", asked, reason, "try again: it is used as it is") from error
    except OSError as error:
        raise storage_error(f"make {file.path}", error) from error
    finally:
        temporary.unlink(missing_ok=True)


def _make_sparse(path: Path, size_bytes: int) -> None:
    with create_private(path) as stream:
        stream.truncate(size_bytes)


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
    _check_place(context, resolved, path, asked)
    if stat.S_ISBLK(mode) and "format" not in disk.model_fields_set:
        disk = disk.model_copy(update={"format": "raw"})
    if disk.format == "qcow2" and stat.S_ISREG(mode):
        _check_header(resolved, path, asked)
    return DiskSpec(name=name, path=str(resolved), format=disk.format, bus=disk.bus, read_only=disk.read_only)


def _check_place(context: Context, resolved: Path, path: str, asked: str) -> None:
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
