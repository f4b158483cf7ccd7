"""What makes the VM that is there the one that a stack's document wishes: requests in order, and what cannot be changed. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from corral.model.base import Model
from corral.model.requests import AttachDiskRequest, DiskRequest, NicRequest
from corral.model.stack import OWN_LABELS, STACK_LABEL
from corral.model.stack_plan import StackVerb
from corral.model.vm import RECOVERED_ANNOTATION, CloudInitSpec, DiskSpec, NicSpec, Power, Vm, VmSpec
from corral.model.volume import Volume
from corral.names import MIB, format_bytes, plain_text
from corral.services.creation import PlannedVm
from corral.services.stack_document import Wish
from corral.services.update import merge_patch

_KNOBS: Final = (
    "description", "protected", "run_policy", "boot", "vcpus", "memory_mib", "firmware", "graphics", "graphics_listen",
)  # fmt: skip
_DISK_KNOBS: Final = ("cache", "aio", "discard", "io_thread", "iops_max", "bytes_per_s_max")
_DISK_FIXED: Final = ("device", "path", "bus", "format", "read_only")
_NIC_KNOBS: Final = ("model", "link_up", "queues", "pxe", "bandwidth_in", "bandwidth_out", "groups")
_VALUE_SHOWN: Final = 60


@dataclass(frozen=True)
class Draft:
    """One request on a VM, before it has its place among those of other VMs."""

    verb: StackVerb
    changes: tuple[str, ...]
    method: Literal["POST", "PATCH", "DELETE"] = "POST"
    path: str = ""
    """Below the VM's own path."""
    body: dict[str, Any] | None = None
    device: str = ""
    machine: bool = True
    """It touches the hardware."""


@dataclass(frozen=True)
class There:
    """A VM as it is, and what it leans on, by uid."""

    vm: Vm
    volumes: Mapping[str, Volume]
    media: Mapping[str, str]
    """Names of the ISO images in its drives."""


@dataclass
class Difference:
    drafts: list[Draft] = field(default_factory=list)
    fixed: list[str] = field(default_factory=list)
    """What only a new VM could have otherwise."""
    freed: list[Volume] = field(default_factory=list)
    """The volumes of disks that are taken out."""


def compare(wish: Wish, planned: PlannedVm, there: There) -> Difference:
    """Changes of the machine first, then what goes, then what changes, then what comes; the start is last."""
    found = Difference()
    _seed(found, wish, planned.spec, there.vm)
    _knobs(found, planned, there.vm)
    _disks(found, planned, there)
    _nics(found, planned, there.vm)
    if wish.request.start and there.vm.spec.power is Power.OFF:
        found.drafts.append(Draft(StackVerb.START, ("it is off",), path="/actions/start", machine=False))
    return found


# ---- the machine ---------------------------------------------------------------------------------------------------


def _knobs(found: Difference, planned: PlannedVm, vm: Vm) -> None:
    wished, now = planned.spec, vm.spec
    body: dict[str, Any] = {}
    lines: list[str] = []
    for knob in _KNOBS:
        before, after = getattr(now, knob), getattr(wished, knob)
        if before != after:
            body[knob] = _plain(after)
            lines += _model_lines(knob, before, after)
    if now.model_copy(update={"vcpus": wished.vcpus}).weight != wished.weight:
        body["cpu_shares"] = wished.weight
        lines += _lines("cpu_shares", now.weight, wished.weight)
    before, after = now.hardware.model_dump(mode="json"), wished.hardware.model_dump(mode="json")
    if patch := merge_patch(before, after):
        body["hardware"] = patch
        lines += [line for name, old, new in _leaves(patch, before, "hardware") for line in _lines(name, old, new)]
    machine = bool(body.keys() - {"description", "protected", "run_policy", "boot"})
    kept = {key: value for key, value in vm.labels.items() if key.startswith(OWN_LABELS) and key != STACK_LABEL}
    labels = {**kept, **planned.request.labels}
    if labels != vm.labels:
        body["labels"] = labels
        for key in sorted(labels.keys() | vm.labels.keys()):
            lines += _lines(f"label {key}", vm.labels.get(key), labels.get(key))
    if body:
        found.drafts.append(Draft(StackVerb.UPDATE, tuple(lines), "PATCH", "", body, machine=machine))


def _leaves(patch: Mapping[str, Any], before: Any, name: str) -> Iterator[tuple[str, Any, Any]]:
    for key, value in patch.items():
        old = before.get(key) if isinstance(before, Mapping) else None
        if isinstance(value, Mapping):
            yield from _leaves(value, old, f"{name}.{key}")
        else:
            yield f"{name}.{key}", old, value


def _seed(found: Difference, wish: Wish, wished: VmSpec, vm: Vm) -> None:
    """What a VM is made from. Of the seed, only what the document names: the rest is chosen when it is made."""
    now = vm.spec
    if wished.image != now.image:
        found.fixed += _lines("image", now.image, wished.image)
    if wish.names("os") and wished.os != now.os:
        found.fixed += _lines("os", now.os, wished.os)
    before, after = now.cloud_init, wished.cloud_init
    if before is None or after is None:
        return
    if wish.names("hostname") and before.hostname != after.hostname:
        found.fixed += _lines("hostname", before.hostname, after.hostname)
    if wish.names("user") and _user(before) != _user(after):
        found.fixed += _lines("user", _user(before), _user(after))
    if wish.names("ssh_keys") and _keys(before) != _keys(after):
        found.fixed.append("ssh_keys: other keys")
    if vm.annotations.get(RECOVERED_ANNOTATION) is None:
        for part in ("user_data", "network_config"):
            if wish.names(part) and getattr(before, part) != getattr(after, part):
                found.fixed.append(f"{part}: another document")


def _user(seed: CloudInitSpec) -> str:
    return seed.users[0].name if seed.users else ""


def _keys(seed: CloudInitSpec) -> frozenset[str]:
    return frozenset(key for user in seed.users for key in user.ssh_keys)


# ---- disks ---------------------------------------------------------------------------------------------------------


def wished_disks(planned: PlannedVm) -> tuple[tuple[DiskSpec, DiskRequest], ...]:
    """Each disk as it would be, with its request; the root disk that stands on the image may have none of its own."""
    requests, specs = planned.request.disks, planned.disks.specs
    unsaid = (DiskRequest(),) * (len(specs) - len(requests))
    return tuple(zip(specs, (*unsaid, *requests), strict=True))


def _disks(found: Difference, planned: PlannedVm, there: There) -> None:
    now = {disk.name: disk for disk in there.vm.spec.disks}
    wished = wished_disks(planned)
    sizes = {volume.uid: volume.spec.size_bytes for volume in (*planned.disks.volumes, *planned.disks.kept)}
    for name in sorted(now.keys() - {spec.name for spec, _ in wished}):
        volume = there.volumes.get(now[name].volume_uid or "")
        kept = f"; its volume {volume.name} stays" if volume is not None else ""
        change = f"disk {name}: taken out{kept}"
        found.drafts.append(Draft(StackVerb.DETACH_DISK, (change,), "DELETE", f"/disks/{name}", device=name))
        found.freed += [] if volume is None or STACK_LABEL in volume.labels else [volume]
    new = []
    for spec, request in wished:
        if spec.name in now:
            _changed_disk(found, now[spec.name], spec, request, there)
            continue
        body = request.model_dump(mode="json", exclude_unset=True) | {"name": spec.name}
        if planned.request.force:
            body["force"] = True
        AttachDiskRequest.model_validate(body)
        what = _new_disk(spec, request, sizes)
        change = f"disk {spec.name}: new, {what}"
        new.append(Draft(StackVerb.ATTACH_DISK, (change,), path="/disks", body=body, device=spec.name))
    found.drafts += new


def _new_disk(spec: DiskSpec, request: DiskRequest, sizes: Mapping[str, int]) -> str:
    if spec.device == "cdrom":
        return f"a drive with {request.image}" if request.image else "an empty drive"
    if request.volume is not None:
        return f"volume {request.volume}"
    return spec.path or format_bytes(sizes.get(spec.volume_uid or "", 0))


def _changed_disk(found: Difference, now: DiskSpec, wished: DiskSpec, request: DiskRequest, there: There) -> None:
    name = now.name
    for what in _DISK_FIXED:
        if getattr(now, what) != getattr(wished, what):
            found.fixed += _lines(f"disk {name} {what}", getattr(now, what), getattr(wished, what))
    body: dict[str, Any] = {}
    lines: list[str] = []
    volume = there.volumes.get(now.volume_uid or "")
    if request.volume is not None and now.volume_uid != wished.volume_uid:
        found.fixed += _lines(f"disk {name} volume", volume.name if volume is not None else "none", request.volume)
    elif volume is not None:
        _changed_volume(found, body, lines, name, volume, request)
    for knob in _DISK_KNOBS:
        before, after = getattr(now, knob), getattr(wished, knob)
        if before != after:
            body[knob] = after
            lines += _lines(f"disk {name} {knob}", before, after)
    if wished.device == now.device == "cdrom":
        medium = there.media.get(now.image_uid or "", "")
        if medium != (request.image or ""):
            body["image"] = request.image or ""
            lines += _lines(f"drive {name}", medium, request.image)
    if body:
        found.drafts.append(Draft(StackVerb.CHANGE_DISK, tuple(lines), "PATCH", f"/disks/{name}", body, device=name))


def _changed_volume(
    found: Difference, body: dict[str, Any], lines: list[str], name: str, volume: Volume, request: DiskRequest
) -> None:
    before, after = volume.spec.size_bytes, request.size_bytes
    if after is not None and after != before:
        change = f"disk {name} size: {format_bytes(before)} → {format_bytes(after)}"
        if after < before:
            found.fixed.append(f"{change} (disks do not shrink)")
        else:
            body["size_bytes"] = after
            lines.append(change)
    keeps = not volume.spec.delete_with_vm
    if "delete_with_vm" in request.model_fields_set and keeps is request.delete_with_vm:
        found.fixed += _lines(f"disk {name} keep", keeps, not keeps)


# ---- cards ---------------------------------------------------------------------------------------------------------


def wished_nics(planned: PlannedVm) -> tuple[NicRequest, ...]:
    return (NicRequest(),) if planned.request.nics is None else planned.request.nics


def _nics(found: Difference, planned: PlannedVm, vm: Vm) -> None:
    now = {nic.name: nic for nic in vm.spec.nics}
    wished = {f"net{number}": request for number, request in enumerate(wished_nics(planned))}
    for name in sorted(now.keys() - wished.keys()):
        change = f"card {name}: taken out of {now[name].network}"
        found.drafts.append(Draft(StackVerb.DETACH_NIC, (change,), "DELETE", f"/nics/{name}", device=name))
    new = []
    for name, request in wished.items():
        if name in now:
            _changed_nic(found, now[name], request)
            continue
        body = request.model_dump(mode="json", exclude_unset=True)
        change = f"card {name}: new, on {request.network}"
        new.append(Draft(StackVerb.ATTACH_NIC, (change,), path="/nics", body=body, device=name))
    found.drafts += new


def _changed_nic(found: Difference, now: NicSpec, request: NicRequest) -> None:
    if request.mac is not None and request.mac != now.mac:
        found.fixed += _lines(f"card {now.name} mac", now.mac, request.mac)
    body: dict[str, Any] = {}
    lines: list[str] = []
    for knob in (*_NIC_KNOBS, "network"):
        before, after = getattr(now, knob), getattr(request, knob)
        if before != after:
            body[knob] = _plain(after)
            lines += _model_lines(f"card {now.name} {knob}", before, after)
    if request.address is not None and (request.address != now.address or "network" in body):
        body["address"] = request.address
        lines += _lines(f"card {now.name} address", now.address, request.address)
    if body:
        path = f"/nics/{now.name}"
        found.drafts.append(Draft(StackVerb.CHANGE_NIC, tuple(lines), "PATCH", path, body, device=now.name))


# ---- for people ----------------------------------------------------------------------------------------------------


def _plain(value: object) -> object:
    """A value of the model as a document has it."""
    return value.model_dump(mode="json") if isinstance(value, Model) else value


def _model_lines(name: str, before: object, after: object) -> list[str]:
    if not (isinstance(before, Model) and isinstance(after, Model)):
        return _lines(name, before, after)
    fields = type(after).model_fields
    return [
        line for field in fields for line in _lines(f"{name}.{field}", getattr(before, field), getattr(after, field))
    ]


def _lines(name: str, before: object, after: object) -> list[str]:
    """`memory: 512 MiB → 1 GiB`; nothing where both read the same."""
    if name == "memory_mib" and isinstance(before, int) and isinstance(after, int):
        return [f"memory: {format_bytes(before * MIB)} → {format_bytes(after * MIB)}"]
    shown = [_shown(before), _shown(after)]
    return [] if shown[0] == shown[1] else [f"{name}: {shown[0]} → {shown[1]}"]


def _shown(value: object) -> str:
    if value is None or value == "":
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return plain_text(str(value), _VALUE_SHOWN)
