"""What other tools changed of a VM's definition: its spec beside the domain as it is, and what of it may become the spec."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, get_args

from corral.errors import CorralError
from corral.hypervisor.base import DirectKernel, DomainDescription, DomainDisk, DomainNic
from corral.hypervisor.targets import disk_targets, slot_of
from corral.model import limits
from corral.model.answers import DriftAnswer, DriftItem
from corral.model.base import DEFAULT_PROJECT, ConditionStatus
from corral.model.image import Image
from corral.model.network import Network
from corral.model.requests import DiskRequest
from corral.model.vm import DiskSpec, NicSpec, Vm
from corral.model.volume import Volume
from corral.services.access import authorize
from corral.services.caller import Caller
from corral.services.context import Context
from corral.services.disks import disk_by_path
from corral.services.rules import HAS_MEMORY

_MODELS: Final = get_args(NicSpec.model_fields["model"].annotation)


@dataclass(frozen=True)
class Surroundings:
    """What a VM's definition is compared with, and what a change of it may refer to."""

    context: Context
    found: DomainDescription
    networks: Mapping[str, Network]
    """By the hypervisor's name for them."""
    volumes: Mapping[str, Volume]
    """By path."""
    kernel: DirectKernel | None
    """The one that the VM's image brings."""

    def path_of(self, disk: DiskSpec) -> str:
        return disk.path or (str(self.context.volumes.path(disk.volume_uid)) if disk.volume_uid else "")

    def network_name(self, nic: NicSpec) -> str:
        """The hypervisor's name for a card's network."""
        names = (name for name, network in self.networks.items() if network.uid == nic.network_uid)
        return next(names, nic.network)


async def find_drift(context: Context, caller: Caller, project: str, name: str) -> DriftAnswer:
    """Asked of the hypervisor now; the condition `Drifted` tells what the agent saw last."""
    await authorize(context, caller, project, "vm.document", name)
    vm = await context.objects.require(Vm, project, name)
    conditions = vm.status.conditions
    drifted = any(found.type == "Drifted" and found.status is ConditionStatus.TRUE for found in conditions)
    if vm.spec.adopted:
        return DriftAnswer(drifted=drifted)
    items = differences(vm, await look_around(context, vm))
    return DriftAnswer(drifted=drifted or bool(items), items=items)


async def look_around(context: Context, vm: Vm) -> Surroundings:
    objects = context.objects
    image = await objects.get(Image, vm.spec.image_uid) if vm.spec.image_uid else None
    return Surroundings(
        context,
        await context.hypervisor.describe(vm.uid),
        {context.networks.driver_name(network): network for network in await objects.list(Network)},
        {str(context.volumes.path(volume.uid)): volume for volume in await objects.list(Volume)},
        _kernel(context, image),
    )


def _kernel(context: Context, image: Image | None) -> DirectKernel | None:
    facts = image.status.facts if image is not None else None
    if facts is None or not facts.has_kernel:
        return None
    files = context.library.files(facts)
    return DirectKernel(str(files.kernel), str(files.initrd), facts.cmdline) if files.kernel else None


def differences(vm: Vm, around: Surroundings) -> tuple[DriftItem, ...]:
    """Everything that is not as the spec has it; `refusal` says what cannot become the spec, and why."""
    return (*_plain(vm, around), *_disks(vm, around), *_cards(vm, around))


def _plain(vm: Vm, around: Surroundings) -> Iterator[DriftItem]:
    spec, found = vm.spec, around.found
    memory, current = found.memory_mib, found.current_memory_mib
    yield from _item("vcpus", spec.vcpus, found.vcpus, _bound(found.vcpus, 1, limits.VCPUS_MAX))
    yield from _item(
        "memory",
        f"{spec.memory_mib} MiB",
        f"{memory} MiB",
        _bound(memory, limits.MEMORY_MIN_MIB, limits.MEMORY_MAX_MIB),
    )
    if current not in (0, memory):
        why = f"a guest of Corral's has all of its memory from the start: virsh setmem {found.name} {memory}M --config"
        yield from _item("memory at the start", f"{memory} MiB", f"{current} MiB", why)
    shares = _bound(found.cpu_shares, 2, limits.CPU_SHARES_MAX)
    yield from _item("cpu shares", spec.weight, found.cpu_shares, shares)
    yield from _item("firmware", spec.firmware.value, found.firmware, "")
    long = len(found.description) > limits.DESCRIPTION_MAX_CHARS
    why = f"it has more than {limits.DESCRIPTION_MAX_CHARS} characters" if long else ""
    yield from _item("description", spec.description.replace("\r\n", "\n"), found.description, why)
    yield from _item("screen", spec.graphics, found.graphics, "")
    seed = str(around.context.volumes.seed_path(vm.uid)) if spec.cloud_init is not None else ""
    yield from _item("cloud-init seed", seed, found.seed_path, "a VM keeps the seed that it was made with")
    yield from _item("kernel", _words(around.kernel), _words(found.kernel), "the kernel is the image's")
    for strange in found.foreign:
        yield from _item(strange, "", "there", "Corral has no word for it")


def _item(field: str, wished: object, found: object, refused: str) -> Iterator[DriftItem]:
    if str(wished) != str(found):
        yield DriftItem(field=field, wished=str(wished), found=str(found), refusal=refused)


def _bound(value: int, least: int, most: int) -> str:
    return "" if least <= value <= most else f"Corral's VMs have {least} to {most}"


def _words(kernel: DirectKernel | None) -> str:
    return "" if kernel is None else f"{kernel.kernel} {kernel.initrd} {kernel.cmdline}".strip()


# ---- disks -------------------------------------------------------------------------------------------------------


def _disks(vm: Vm, around: Surroundings) -> Iterator[DriftItem]:
    wished = {around.path_of(disk): disk for disk in vm.spec.disks}
    there = {disk.path: disk for disk in around.found.disks}
    for path, disk in wished.items():
        words = _disk_words(disk.format, disk.bus.value, disk.read_only)
        known = there.get(path)
        if known is None:
            yield from _item(f"disk {path}", words, "", _why_not_without(vm, disk))
        else:
            why = _why_not_changed(vm, disk, known, around)
            yield from _item(f"disk {path}", words, _disk_words(known.format, known.bus, known.read_only), why)
    places = _places(wished)
    for path, known in there.items():
        if path not in wished:
            words = _disk_words(known.format, known.bus, known.read_only)
            why = _why_not_replaced(known, places, there) or why_not_with(vm, known, around)
            yield from _item(f"disk {path}", "", words, why)
    ordered = disks_in_order(vm, around)
    slots = {path: disk.slot for path, disk in wished.items()}
    targets = disk_targets((disk.bus, slots.get(disk.path)) for disk in ordered)
    for target, known in zip(targets, ordered, strict=True):
        slot = slot_of(known.name, known.bus)
        why = "" if slot is not None and slot < limits.DISK_SLOTS else "Corral has no such place"
        if known.path in wished or why:
            yield from _item(f"place of disk {known.path}", target, known.name, why)


def disks_in_order(vm: Vm, around: Surroundings) -> tuple[DomainDisk, ...]:
    """The domain's disks in the order that they have, or would get, in the spec: new ones come last."""
    known = {around.path_of(disk): index for index, disk in enumerate(vm.spec.disks)}
    found = around.found.disks
    return tuple(sorted(found, key=lambda d: (known.get(d.path, len(known)), len(d.name), d.name)))


def _places(wished: Mapping[str, DiskSpec]) -> dict[str, str]:
    return dict(zip(disk_targets((disk.bus, disk.slot) for disk in wished.values()), wished, strict=True))


def _why_not_without(vm: Vm, disk: DiskSpec) -> str:
    if disk.volume_uid is not None and vm.status.seen_state in HAS_MEMORY:
        return "the guest that runs may still write to it: accept it once the VM is off"
    return ""


def _why_not_changed(vm: Vm, disk: DiskSpec, found: DomainDisk, around: Surroundings) -> str:
    if found.format == disk.format:
        return ""
    return "the format of a volume never changes" if disk.volume_uid is not None else why_not_with(vm, found, around)


def _why_not_replaced(found: DomainDisk, places: Mapping[str, str], there: Mapping[str, DomainDisk]) -> str:
    """An overlay that `virsh snapshot-create` put over a volume must not be taken for another disk."""
    before = places.get(found.name)
    if before is None or before in there:
        return ""
    return (
        f"it lies over {before}, or has taken its place: commit or detach it (virsh blockcommit), or use another target"
    )


def why_not_with(vm: Vm, found: DomainDisk, around: Surroundings) -> str:
    """Why a disk that others attached cannot be the VM's; empty if it can."""
    volume = around.volumes.get(found.path)
    if volume is not None:
        if volume.project != vm.project or volume.spec.vm_uid not in (None, vm.uid):
            return "it is the volume of another VM"
        if volume.being_deleted:
            return "it is being deleted"
        return "" if found.format == volume.spec.format else "the format of a volume never changes"
    if found.path == str(around.context.volumes.seed_path(vm.uid)):
        return "it is the VM's own seed"
    try:
        request = DiskRequest(path=found.path, format=found.format)
        spec = disk_by_path(around.context, request, found.path, "disk", "accept drift")
    except CorralError as error:
        return error.reason
    return "" if spec.path == found.path else f"it is a link: attach {spec.path} itself"


def _disk_words(format_: str, bus: str, read_only: bool) -> str:
    return f"{format_}, {bus}" + (", read-only" if read_only else "")


# ---- network cards -----------------------------------------------------------------------------------------------


def _cards(vm: Vm, around: Surroundings) -> Iterator[DriftItem]:
    wished = {nic.mac: f"{around.network_name(nic)} ({nic.model})" for nic in vm.spec.nics}
    there = {card.mac.lower(): card for card in around.found.nics}
    for mac, words in wished.items():
        if mac not in there:
            yield from _item(f"network card {mac}", words, "", "")
    for mac, card in there.items():
        why = _why_no_card(vm, card, around)
        yield from _item(f"network card {mac}", wished.get(mac, ""), f"{card.network} ({card.model})", why)
    if len(there) != len(around.found.nics):
        yield from _item("network cards", "", "two with one MAC", "each card has a MAC of its own")
    elif set(there) == set(wished):
        yield from _item("order of network cards", ", ".join(wished), ", ".join(there), "")


def _why_no_card(vm: Vm, card: DomainNic, around: Surroundings) -> str:
    network = around.networks.get(card.network)
    if network is None or network.project not in (vm.project, DEFAULT_PROJECT):
        return "its network is not one that this project has"
    return "" if card.model in _MODELS else f"Corral's cards are {', '.join(_MODELS)}"
