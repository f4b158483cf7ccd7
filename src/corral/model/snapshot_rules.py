"""Which points in time can be: asked before one is requested, and again when it is about to be made. Pure."""

from collections.abc import Iterator, Mapping

from corral.errors import CorralError
from corral.model import limits
from corral.model.layer import Layer, chain_of
from corral.model.snapshot import Snapshot
from corral.model.vm import DiskSpec, Vm
from corral.model.volume import Volume

# Of a VM that goes on from saved memory, these must be what they were: the guest has them in its hands.
_MACHINE = ("vcpus", "memory_mib", "cpu_shares", "firmware", "graphics", "graphics_listen", "hardware")


def disks_in_time(vm: Vm) -> Iterator[DiskSpec]:
    """The disks that change: not drives, nor what is only read."""
    return (disk for disk in vm.spec.disks if disk.device == "disk" and not disk.read_only)


def check_take(
    vm: Vm, volumes: Mapping[str, Volume], layers: Mapping[str, Layer], *, with_memory: bool, active: bool, saved: bool
) -> None:
    """Raise what is in the way of a snapshot: `unsupported`, `wrong-state`, `chain-too-long`."""
    asked = f"take a snapshot of {vm.name}"
    _check_vm(vm, asked, saved=saved)
    if with_memory and not active:
        raise CorralError("wrong-state", asked, "it does not run, so there is no memory", "leave --memory out")
    found = list(disks_in_time(vm))
    if not found:
        raise CorralError("unsupported", asked, "it has no disk that changes")
    for disk in found:
        volume = volumes.get(disk.volume_uid or "")
        if volume is None:
            reason = f"disk {disk.name} is a file of your own, which Corral never writes beside"
            raise CorralError("unsupported", asked, reason, "make it a volume: corral volume upload")
        if volume.spec.shared or volume.spec.format != "qcow2":
            what = "is shared with other VMs" if volume.spec.shared else "is raw"
            hint = "corral volume copy makes a qcow2 volume of it"
            raise CorralError("unsupported", asked, f"disk {disk.name} {what}", hint)
        if len(chain_of(layers, volume.head_uid)) >= limits.CHAIN_LAYERS_MAX:
            reason = f"disk {disk.name} has {limits.CHAIN_LAYERS_MAX} layers already"
            raise CorralError("chain-too-long", asked, reason, "delete snapshots that are no longer needed")


def check_revert(vm: Vm, snapshot: Snapshot, volumes: Mapping[str, Volume], *, saved: bool) -> None:
    """Raise what is in the way of going back: `snapshot-not-found`, `wrong-state`, `unsupported`."""
    asked = f"revert {vm.name} to {snapshot.name}"
    if not snapshot.status.ready:
        raise CorralError("wrong-state", asked, "the snapshot is not taken yet", f"corral snapshot list {vm.name}")
    _check_vm(vm, asked, saved=saved)
    there = {disk.volume_uid: disk.name for disk in disks_in_time(vm)}
    for disk in snapshot.spec.disks:
        if disk.volume_uid not in there or disk.volume_uid not in volumes:
            reason = f"its disk {disk.name} was taken out since"
            raise CorralError("unsupported", asked, reason, f"corral disk add {vm.name} --volume … brings it back")
    was = snapshot.spec.vm_spec
    if not snapshot.spec.with_memory or was is None:
        return
    if len(there) != len(snapshot.spec.disks):
        raise CorralError("unsupported", asked, "it has got other disks since, and its memory knows nothing of them")
    cards = [[(nic.name, nic.mac, nic.model, nic.queues) for nic in spec.nics] for spec in (was, vm.spec)]
    drives = [sorted(d.name for d in spec.disks if d.device != "disk") for spec in (was, vm.spec)]
    for what, (before, now) in (("cards", cards), ("drives", drives)):
        if before != now:
            reason = f"its {what} are others than the memory knows of"
            raise CorralError("unsupported", asked, reason, "put them back as they were")


def reverted_vm(vm: Vm, snapshot: Snapshot) -> Vm:
    """The VM once it is back: with memory, its machine is the one that the memory was in."""
    update: dict[str, object] = {"snapshot_uid": snapshot.uid}
    if snapshot.spec.with_memory and snapshot.spec.vm_spec is not None:
        update |= {name: getattr(snapshot.spec.vm_spec, name) for name in _MACHINE}
        update["power"] = snapshot.spec.vm_spec.power
    return vm.model_copy(update={"spec": vm.spec.model_copy(update=update)})


def _check_vm(vm: Vm, asked: str, *, saved: bool) -> None:
    if vm.being_deleted:
        raise CorralError("vm-being-deleted", asked, "it is being deleted")
    if vm.spec.adopted:
        raise CorralError("unsupported", asked, "its disks are somebody else's: it was adopted")
    if saved:
        raise CorralError(
            "wrong-state", asked, "its memory is saved and belongs to its disks", f"corral start {vm.name}"
        )
