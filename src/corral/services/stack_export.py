"""The document that says what is: VMs as a stack that, applied to them, changes nothing."""

from collections.abc import Sequence
from typing import Any, Final

from corral.errors import CorralError
from corral.model.hardware import PLAIN
from corral.model.image import Image
from corral.model.stack import OWN_LABELS, STACK_LABEL, StackDefaults, StackDisk, StackDocument, StackNic
from corral.model.stack_plan import ExportStackRequest, StackExport
from corral.model.vm import BootOrder, DiskSpec, NicSpec, Vm, VmSpec
from corral.model.volume import Volume
from corral.names import GIB, MIB
from corral.services.context import Context
from corral.services.listing import read_objects
from corral.services.selectors import matches, parse_selector
from corral.services.stack_diff import There
from corral.services.stack_export_wires import exported_wires
from corral.services.stack_state import read_there

# What a known system decides where nothing is said (services/os.py): to be said, so that it stays as it is.
_OF_THE_SYSTEM: Final = ("clock", "hyperv", "vmgenid", "tablet", "tpm", "video", "secure_boot")
_ALWAYS: Final = ("os", "vcpus", "firmware")
_UNLESS_DEFAULT: Final = ("description", "protected", "run_policy", "graphics", "graphics_listen")
_BOOT: Final = {
    "autostart": "autostart", "priority": "priority", "delay_s": "delay", "shutdown_deadline_s": "shutdown_deadline",
}  # fmt: skip
_DISK: Final = {"iops_max": "iops", "bytes_per_s_max": "bandwidth"}
_NIC_KNOBS: Final = ("link_up", "queues", "pxe", "groups")
_DISK_KNOBS: Final = ("read_only", "cache", "aio", "discard", "io_thread", "iops_max", "bytes_per_s_max")


async def export_stack(context: Context, project: str, request: ExportStackRequest) -> StackExport:
    """Raises `vm-not-found` for a name that is not there."""
    vms = [await context.objects.require(Vm, project, name) for name in dict.fromkeys(request.vms)]
    if request.selector:
        terms, known = parse_selector(request.selector), {vm.uid for vm in vms}
        found = await read_objects(context, Vm, project)
        vms += [vm for vm in found if vm.uid not in known and matches(terms, vm.labels) and not vm.being_deleted]
    if not vms:
        raise CorralError("vm-not-found", "export", "no VM is meant by this", "corral list --all shows those there are")
    notes: list[str] = []
    documents: dict[str, Any] = {}
    for vm in sorted(vms, key=lambda vm: vm.name):
        documents[vm.name] = document_of(await read_there(context, vm))
        notes += _notes(vm, request.stack)
    images = await _catalogued(context, project, vms)
    wires = await exported_wires(context, project, request.stack, documents.keys())
    document = {"stack": request.stack, **({"images": images} if images else {}), **wires, "vms": documents}
    StackDocument.model_validate(document)
    return StackExport(document=document, notes=tuple(notes))


async def _catalogued(context: Context, project: str, vms: Sequence[Vm]) -> list[str]:
    """The images that another host can make by their name alone."""
    entries = {entry.name for entry in context.library.catalogue()}
    names = sorted({vm.spec.image for vm in vms if vm.spec.image is not None} & entries)
    found = {name: await context.objects.find(Image, project, name) for name in names}
    return [name for name, image in found.items() if image is not None and image.spec.catalogue == name]


def document_of(there: There) -> dict[str, Any]:
    """One VM in the stack's words; what has its default is left out, unless a system could choose otherwise."""
    vm, spec = there.vm, there.vm.spec
    defaults = StackDefaults()
    found: dict[str, Any] = {}
    if spec.image is not None:
        found["image"] = spec.image
    found["memory"] = _size(spec.memory_mib * MIB)
    found |= {field: _plain(getattr(spec, field)) for field in _ALWAYS if getattr(spec, field)}
    if spec.cpu_shares is not None:
        found["cpu_shares"] = spec.cpu_shares
    found["disks"] = [_disk(disk, there) for disk in spec.disks]
    found["nics"] = [_nic(nic, known=bool(spec.os)) for nic in spec.nics]
    for field in _UNLESS_DEFAULT:
        if (value := getattr(spec, field)) != getattr(defaults, field):
            found[field] = _plain(value)
    labels = {key: value for key, value in vm.labels.items() if not key.startswith(OWN_LABELS)}
    if labels:
        found["labels"] = labels
    boot = spec.boot.model_dump(mode="json")
    plain = BootOrder().model_dump(mode="json")
    found |= {_BOOT[field]: value for field, value in boot.items() if value != plain[field]}
    if hardware := _hardware(spec):
        found["hardware"] = hardware
    if spec.power.value != "on":
        found["start"] = False
    return found


def _hardware(spec: VmSpec) -> dict[str, Any]:
    now, plain = spec.hardware.model_dump(mode="json"), PLAIN.model_dump(mode="json")
    said = _OF_THE_SYSTEM if spec.os else ()
    return {field: value for field, value in now.items() if value != plain[field] or field in said}


def _disk(disk: DiskSpec, there: There) -> dict[str, Any]:
    plain = StackDisk()
    found: dict[str, Any] = {"name": disk.name}
    volume: Volume | None = there.volumes.get(disk.volume_uid or "")
    if disk.device == "cdrom":
        found["device"] = "cdrom"
        if disk.image_uid is not None:
            found["image"] = there.media.get(disk.image_uid, "")
    elif disk.path is not None:
        found |= {"path": disk.path, "format": disk.format}
    elif volume is not None and (STACK_LABEL in volume.labels or volume.spec.shared):
        found["volume"] = volume.name
    elif volume is not None:
        found["size"] = _size(volume.spec.size_bytes)
        if not volume.spec.delete_with_vm:
            found["keep"] = True
    if there.vm.spec.os or disk.device == "cdrom" or disk.bus != plain.bus:
        found["bus"] = disk.bus.value
    for knob in _DISK_KNOBS:
        word, value = _DISK.get(knob, knob), getattr(disk, knob)
        if value != getattr(plain, word) and not (disk.device == "cdrom" and knob == "read_only"):
            found[word] = value
    return found


def _nic(nic: NicSpec, *, known: bool) -> dict[str, Any] | str:
    """`known`: its system would choose a model."""
    plain = StackNic()
    found: dict[str, Any] = {"network": nic.network}
    if known or nic.model != plain.model:
        found["model"] = nic.model
    found |= {knob: value for knob in _NIC_KNOBS if (value := getattr(nic, knob)) != getattr(plain, knob)}
    for knob in ("bandwidth_in", "bandwidth_out"):
        if (limit := getattr(nic, knob)) != getattr(plain, knob):
            found[knob] = limit.model_dump(mode="json", exclude_defaults=True)
    return nic.network if len(found) == 1 else found


def _notes(vm: Vm, stack: str) -> list[str]:
    notes = []
    seed = vm.spec.cloud_init
    if seed is not None and (seed.user_data or seed.network_config):
        notes.append(f"{vm.name}: its cloud-init documents are not told; they stay as they are")
    if vm.spec.adopted:
        notes.append(f"{vm.name}: its hardware is its maker's, and cannot be changed by a stack")
    if vm.labels.get(STACK_LABEL) != stack:
        notes.append(f"{vm.name} is not in the stack yet: corral tag {vm.name} {STACK_LABEL}={stack}")
    return notes


def _plain(value: Any) -> Any:
    return getattr(value, "value", value)


def _size(count: int) -> str:
    """The shortest exact text: `2G`, `512M`."""
    for unit, letter in ((GIB, "G"), (MIB, "M"), (1024, "K")):
        if count % unit == 0:
            return f"{count // unit}{letter}"
    return f"{count}b"
