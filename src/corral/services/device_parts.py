"""The parts of changes to a VM's disks and cards: which device is meant, and what becomes of it. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import count
from typing import Final

from corral.errors import CorralError
from corral.hypervisor.targets import disk_targets, slot_of
from corral.model.image import Image
from corral.model.requests import ChangeDiskRequest
from corral.model.vm import DiskSpec, NicSpec, Vm
from corral.model.volume import Volume
from corral.services.changes import Extra
from corral.services.security_group import lost_group
from corral.store.objects import Transaction, claim_key, work_claim

_DISK_KNOBS: Final = ("cache", "aio", "discard", "io_thread", "iops_max", "bytes_per_s_max")


def lost_meaning(key: str, asked: str) -> CorralError | None:
    if key.startswith(Volume.prefix()):
        return CorralError("precondition-failed", asked, "its volume was changed meanwhile", "try again")
    if key.startswith(work_claim("")):
        reason = "its volume is being moved, flattened or resized"
        return CorralError("volume-in-use", asked, reason, "wait for that, or cancel it: corral operation list")
    if key.startswith(claim_key("mac", "host", "")):
        return CorralError("address-taken", asked, f"another VM has the MAC {key[-17:]}", "choose another one, or none")
    return lost_group(key, asked)


def created(volume: Volume) -> Extra:
    return lambda transaction: transaction.create(volume)


def written(volume: Volume) -> Extra:
    """On condition that nobody works on its file."""

    def write(transaction: Transaction) -> None:
        transaction.update(volume)
        transaction.require_unclaimed(work_claim(volume.uid))

    return write


def changed_volume(volume: Volume, **spec: object) -> Volume:
    changed = volume.spec.model_copy(update=spec)
    return volume.model_copy(update={"spec": changed, "generation": volume.generation + 1})


def changed_disk(disk: DiskSpec, request: ChangeDiskRequest, media: Mapping[str, Image], asked: str) -> DiskSpec:
    given: dict[str, object] = {knob: value for knob in _DISK_KNOBS if (value := getattr(request, knob)) is not None}
    if request.image is not None:
        if disk.device != "cdrom":
            raise CorralError("invalid-argument", asked, "it is no drive", "only drives take a medium")
        given["image_uid"] = media[request.image].uid if request.image else None
        given["image"] = request.image or None
    return disk.model_copy(update=given)


def with_slots(disks: Sequence[DiskSpec]) -> tuple[DiskSpec, ...]:
    """Each disk's place written down, so that it stays when another one goes."""
    targets = disk_targets([(disk.bus.value, disk.slot) for disk in disks])
    return tuple(
        disk.model_copy(update={"slot": slot_of(target, disk.bus.value)})
        for disk, target in zip(disks, targets, strict=True)
    )


def disk_of(vm: Vm, name: str, asked: str) -> DiskSpec:
    found = next((disk for disk in vm.spec.disks if disk.name == name), None)
    if found is None:
        known = ", ".join(disk.name for disk in vm.spec.disks) or "none"
        raise CorralError("device-not-found", asked, f"it has no disk {name[:80]!r}", f"its disks: {known}")
    return found


def nic_of(vm: Vm, name: str, asked: str) -> NicSpec:
    found = next((nic for nic in vm.spec.nics if nic.name == name), None)
    if found is None:
        known = ", ".join(nic.name for nic in vm.spec.nics) or "none"
        raise CorralError("device-not-found", asked, f"it has no card {name[:80]!r}", f"its cards: {known}")
    return found


def free_name(stem: str, taken: Iterable[str]) -> str:
    known = set(taken)
    return next(name for number in count() if (name := f"{stem}{number}") not in known)


def used(volume: Volume) -> Extra:
    """Of a volume that stays nobody's own: it is still there, as it was found."""
    return lambda transaction: transaction.require(volume)


def kept_or_made(volume: Volume | None) -> Extra | None:
    """What a disk's volume needs: to be made, to be written, or to be there still."""
    if volume is None:
        return None
    if volume.spec.shared:
        return used(volume)
    return written(volume) if volume.revision else created(volume)


def same_vm(found: Vm, now: Vm, asked: str) -> None:
    """What was looked up for one VM is not given to another one that has got its name since."""
    if found.uid != now.uid:
        raise CorralError("precondition-failed", asked, "another VM has its name since", "look, and ask again")
