"""What other tools changed of a VM's definition: its spec beside the domain as it is, and what of it may become the spec."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, get_args

from pydantic import ValidationError

from corral.errors import CorralError
from corral.hypervisor.base import DirectKernel, DomainDescription, DomainDisk, DomainNic
from corral.hypervisor.targets import disk_targets, slot_of
from corral.model import limits
from corral.model.answers import DriftAnswer, DriftItem
from corral.model.base import DEFAULT_PROJECT, ConditionStatus
from corral.model.image import Image
from corral.model.network import Network
from corral.model.requests import DiskRequest
from corral.model.vm import Bus, DiskSpec, NicSpec, Vm, VmSpec
from corral.model.volume import Volume
from corral.services.access import authorize
from corral.services.caller import Caller
from corral.services.context import Context
from corral.services.disks import disk_by_path
from corral.services.rules import HAS_MEMORY

_OF_DISKS: Final = ("format", "read_only", "cache", "aio", "io_thread", "iops_max", "bytes_per_s_max")
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
    """The VM's own, or the one that its image brings."""

    def path_of(self, disk: DiskSpec) -> str:
        if disk.volume_uid is None:
            return disk.path or ""
        return next((path for path, volume in self.volumes.items() if volume.uid == disk.volume_uid), "")

    def network_name(self, nic: NicSpec) -> str:
        """The hypervisor's name for a card's network."""
        names = (name for name, network in self.networks.items() if network.uid == nic.network_uid)
        return next(names, nic.network)


async def find_drift(context: Context, caller: Caller, project: str, name: str) -> DriftAnswer:
    """Asked of the hypervisor now; the condition `Drifted` tells what the agent saw last."""
    await authorize(context, caller, project, "vm.document", name)
    vm = await context.objects.require(Vm, project, name)
    drifted = is_drifted(vm)
    if vm.spec.adopted:
        return DriftAnswer(drifted=drifted)
    items = differences(vm, await look_around(context, vm))
    return DriftAnswer(drifted=drifted or bool(items), items=items)


def is_drifted(vm: Vm) -> bool:
    """As the agent saw it last."""
    return any(found.type == "Drifted" and found.status is ConditionStatus.TRUE for found in vm.status.conditions)


async def look_around(context: Context, vm: Vm) -> Surroundings:
    objects = context.objects
    image = await objects.get(Image, vm.spec.image_uid) if vm.spec.image_uid else None
    return Surroundings(
        context,
        await context.hypervisor.describe(vm.uid),
        {context.networks.driver_name(network): network for network in await objects.list(Network)},
        {str(context.volumes.volume_path(volume)): volume for volume in await objects.list(Volume)},
        _kernel(context, vm, image),
    )


def _kernel(context: Context, vm: Vm, image: Image | None) -> DirectKernel | None:
    own = vm.spec.hardware.kernel
    if own is not None:
        return DirectKernel(own.kernel, own.initrd, own.cmdline)
    facts = image.status.facts if image is not None else None
    if facts is None or not facts.has_kernel:
        return None
    files = context.library.files(facts)
    return DirectKernel(str(files.kernel), str(files.initrd), facts.cmdline) if files.kernel else None


def differences(vm: Vm, around: Surroundings) -> tuple[DriftItem, ...]:
    """Everything that is not as the spec has it; `refusal` says what cannot become the spec, and why."""
    return (*_plain(vm, around), *_disks(vm, around), *_cards(vm, around), *_boot(vm, around))


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
    most = found.vcpus_max or found.vcpus
    yield from _item(
        "vcpus at most", spec.hardware.cpu.vcpus_max or found.vcpus, most, _bound(most, 1, limits.VCPUS_MAX)
    )
    yield from _item(
        "screen",
        f"{spec.graphics} {spec.graphics_listen}".strip(),
        f"{found.graphics} {found.graphics_listen}".strip(),
        "",
    )
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
    wished = {around.path_of(disk): disk for disk in vm.spec.disks if disk.device == "disk"}
    there = {disk.path: disk for disk in around.found.disks}
    for path, disk in wished.items():
        words = _disk_words(disk)
        known = there.get(path)
        if known is None:
            yield from _item(f"disk {path}", words, "", _why_not_without(vm, disk))
        else:
            why = _why_no_words(known) or _why_not_changed(vm, disk, known, around)
            yield from _item(f"disk {path}", words, _disk_words(known), why)
    places = _places(vm, around)
    for path, known in there.items():
        if path not in wished:
            words = _disk_words(known)
            why = _why_not_replaced(known, places, there) or _why_no_words(known) or why_not_with(vm, known, around)
            yield from _item(f"disk {path}", "", words, why)
    entries = disks_in_order(vm, around)
    targets = disk_targets((entry.bus, entry.slot) for entry in entries)
    for target, entry in zip(targets, entries, strict=True):
        known = entry.found
        if known is None:
            continue
        slot = slot_of(known.name, known.bus)
        why = "" if slot is not None and slot < limits.DISK_SLOTS else "Corral has no such place"
        if known.path in wished or why:
            yield from _item(f"place of disk {known.path}", target, known.name, why)


@dataclass(frozen=True)
class DiskEntry:
    """One disk that the VM has, or would have: `found` None for a drive for CDs, `wished` None for a new one."""

    wished: DiskSpec | None
    found: DomainDisk | None

    @property
    def bus(self) -> str:
        return self.found.bus if self.found is not None else self.wished.bus.value if self.wished is not None else ""

    @property
    def slot(self) -> int | None:
        return self.wished.slot if self.wished is not None else None


def disks_in_order(vm: Vm, around: Surroundings) -> tuple[DiskEntry, ...]:
    """The disks in the order that they have, or would get, in the spec: new ones come last. CD drives stay as they are."""
    left = {disk.path: disk for disk in around.found.disks}
    entries = []
    for disk in vm.spec.disks:
        found = left.pop(around.path_of(disk), None) if disk.device == "disk" else None
        if found is not None or disk.device == "cdrom":
            entries.append(DiskEntry(disk, found))
    new = sorted(left.values(), key=lambda disk: (len(disk.name), disk.name))
    return (*entries, *(DiskEntry(None, disk) for disk in new))


def _places(vm: Vm, around: Surroundings) -> dict[str, str]:
    targets = disk_targets((disk.bus.value, disk.slot) for disk in vm.spec.disks)
    return dict(zip(targets, map(around.path_of, vm.spec.disks), strict=True))


def boot_order(spec: VmSpec) -> tuple[str, ...]:
    """Names of disks, media and cards, in the order in which the firmware tries them."""
    disks = [disk.name for disk in spec.disks if disk.device == "disk"]
    media = [disk.name for disk in spec.disks if disk.device == "cdrom"]
    known = {*disks, *media, *(nic.name for nic in spec.nics)}
    if spec.hardware.boot_devices:
        return tuple(name for name in spec.hardware.boot_devices if name in known)
    return (*disks, *media, *(nic.name for nic in spec.nics if nic.pxe))


def boot_names(spec: VmSpec) -> dict[str, str]:
    """Targets of the disks and MACs of the cards, to their names."""
    targets = disk_targets((disk.bus.value, disk.slot) for disk in spec.disks)
    names = dict(zip(targets, (disk.name for disk in spec.disks), strict=True))
    return names | {nic.mac: nic.name for nic in spec.nics}


def _boot(vm: Vm, around: Surroundings) -> Iterator[DriftItem]:
    """Of what is still there; what came is tried where the domain says, or not at all."""
    found = around.found.boot
    if found is None:
        return
    devices = {name: device for device, name in boot_names(vm.spec).items()}
    there = {disk.name for disk in around.found.disks} | {card.mac.lower() for card in around.found.nics}
    drives = {devices[disk.name] for disk in vm.spec.disks if disk.device == "cdrom"}
    wished = [device for name in boot_order(vm.spec) if (device := devices[name]) in there | drives]
    why = "" if found or not wished else "a VM of Corral's tries at least one device"
    yield from _item("boot order", ", ".join(wished), ", ".join(found), why)


def as_found(disk: DiskSpec, found: DomainDisk) -> DiskSpec:
    """The disk with what the domain says of it. Raises pydantic's ValidationError for what has no word."""
    update: dict[str, object] = {name: getattr(found, name) for name in _OF_DISKS}
    discard = disk.discard if found.read_only else found.discard
    return DiskSpec.model_validate({**dict(disk), **update, "bus": Bus(found.bus), "discard": discard})


def _why_no_words(found: DomainDisk) -> str:
    try:
        as_found(DiskSpec(name="disk", path=found.path), found)
    except ValidationError as error:
        return f"{error.errors()[0]['loc'][0]}: Corral has no word for it"
    return ""


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


def _disk_words(disk: DiskSpec | DomainDisk) -> str:
    words = [disk.format, str(disk.bus), "read-only" if disk.read_only else "", disk.aio and f"aio={disk.aio}"]
    words += [f"cache={disk.cache}" if disk.cache != "writeback" else ""]
    words += [f"discard={disk.discard}" if disk.discard != "unmap" and not disk.read_only else ""]
    limits_ = (("io_thread", disk.io_thread), ("iops", disk.iops_max), ("bytes/s", disk.bytes_per_s_max))
    return ", ".join(word for word in (*words, *(f"{name}={value}" for name, value in limits_ if value)) if word)


# ---- network cards -----------------------------------------------------------------------------------------------


def _cards(vm: Vm, around: Surroundings) -> Iterator[DriftItem]:
    wished = {nic.mac: _card_words(around.network_name(nic), nic) for nic in vm.spec.nics}
    there = {card.mac.lower(): card for card in around.found.nics}
    for mac, words in wished.items():
        if mac not in there:
            yield from _item(f"network card {mac}", words, "", "")
    for mac, card in there.items():
        why = _why_no_card(vm, card, around)
        yield from _item(f"network card {mac}", wished.get(mac, ""), _card_words(card.network, card), why)
    if len(there) != len(around.found.nics):
        yield from _item("network cards", "", "two with one MAC", "each card has a MAC of its own")
    elif set(there) == set(wished):
        yield from _item("order of network cards", ", ".join(wished), ", ".join(there), "")


def _card_words(network: str, card: NicSpec | DomainNic) -> str:
    words = [card.model, "" if card.link_up else "link down", f"{card.queues} queues" if card.queues > 1 else ""]
    return f"{network} ({', '.join(word for word in words if word)})"


def _why_no_card(vm: Vm, card: DomainNic, around: Surroundings) -> str:
    network = around.networks.get(card.network)
    if network is None or network.project not in (vm.project, DEFAULT_PROJECT):
        return "its network is not one that this project has"
    if card.model not in _MODELS:
        return f"Corral's cards are {', '.join(_MODELS)}"
    return _bound(card.queues, 1, limits.QUEUES_MAX)
