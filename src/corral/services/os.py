"""Operating systems: listed, found by name, and what they say about a new VM that its request left open."""

import asyncio
from typing import Any, Final

from corral.errors import CorralError
from corral.images.os_table import OsTable
from corral.model import limits
from corral.model.base import DEFAULT_PROJECT
from corral.model.os import OsFamily, OsInfo
from corral.model.requests import CreateVmRequest, DiskRequest, NicRequest
from corral.model.vm import Bus, Firmware, VmSpec
from corral.names import GIB
from corral.services.access import authorize
from corral.services.caller import Caller
from corral.services.context import Context

# What the table says of the machine itself, field by field of HardwareSpec.
_HARDWARE: Final = ("clock", "hyperv", "vmgenid", "tablet", "tpm")
OPEN_TO_ALL: Final = ("0.0.0.0", "::")


class OsService:
    def __init__(self, context: Context) -> None:
        self._context = context

    async def list(self, caller: Caller, *, everything: bool) -> tuple[OsInfo, ...]:
        """The built-in systems, or also those of osinfo-db."""
        await authorize(self._context, caller, DEFAULT_PROJECT, "image.read")
        table = self._context.systems
        return await asyncio.to_thread(table.all) if everything else table.builtin

    async def get(self, caller: Caller, name: str) -> OsInfo:
        await authorize(self._context, caller, DEFAULT_PROJECT, "image.read")
        return await find_os(self._context.systems, name, f"show system {name[:64]!r}")


async def find_os(table: OsTable, name: str, asked: str) -> OsInfo:
    """The system of that id or alias; `invalid-argument` names what is spelt like it."""
    found = await asyncio.to_thread(table.find, name)
    if found is None:
        similar = await asyncio.to_thread(table.similar, name)
        hint = f"did you mean {', '.join(similar)}? " if similar else ""
        raise CorralError(
            "invalid-argument",
            asked,
            f"no system is called {name[:64]!r}",
            f"{hint}corral os list --all shows them; `generic` fits most",
        )
    return found


def apply_os(request: CreateVmRequest, system: OsInfo, *, installed: bool) -> CreateVmRequest:
    """The request with what it left open chosen for `system`. `installed`: it starts from an image, whose makers
    decided on firmware and memory."""
    disks = request.disks
    if installed and not any(disk.device == "disk" and disk.volume is None for disk in disks):
        disks = (DiskRequest(), *disks)  # the one that stands on the image
    update: dict[str, Any] = {
        "hardware": _hardware(request, system, installed=installed),
        "disks": tuple(_disk(disk, system, installed=installed) for disk in disks),
    }
    if request.nics is not None:
        update["nics"] = tuple(_nic(nic, system) for nic in request.nics)
    elif system.nic_model != "virtio":
        update["nics"] = (NicRequest(model=system.nic_model),)
    if not installed:
        if request.firmware is None:
            update["firmware"] = system.firmware
        if "memory_mib" not in request.model_fields_set:
            update["memory_mib"] = max(limits.MEMORY_DEFAULT_MIB, system.memory_min_mib)
        if "vcpus" not in request.model_fields_set:
            update["vcpus"] = max(limits.VCPUS_DEFAULT, system.vcpus_min)
    return request.model_copy(update=update)


def _hardware(request: CreateVmRequest, system: OsInfo, *, installed: bool) -> Any:
    given = request.hardware.model_fields_set
    update = {name: getattr(system, name) for name in _HARDWARE if name not in given}
    if "video" not in given and request.graphics != "none":
        update["video"] = system.video
    firmware = request.firmware or (None if installed else system.firmware)
    if "secure_boot" not in given and firmware is Firmware.UEFI:
        update["secure_boot"] = system.secure_boot
    return request.hardware.model_copy(update=update)


def _disk(disk: DiskRequest, system: OsInfo, *, installed: bool) -> DiskRequest:
    if disk.device == "cdrom":
        return disk
    update: dict[str, Any] = {}
    if "bus" not in disk.model_fields_set:
        update["bus"] = system.disk_bus
    if not installed and disk.size_bytes is None and (disk.path is None or disk.create):
        update["size_bytes"] = system.disk_gib * GIB
    return disk.model_copy(update=update)


def _nic(nic: NicRequest, system: OsInfo) -> NicRequest:
    return nic if "model" in nic.model_fields_set else nic.model_copy(update={"model": system.nic_model})


def warnings_of(spec: VmSpec, system: OsInfo | None) -> tuple[str, ...]:
    """What a user should know of a VM that is made all the same."""
    found = []
    if spec.graphics_listen:
        where = "every address of this host" if spec.graphics_listen in OPEN_TO_ALL else spec.graphics_listen
        found.append(
            f"the graphical console is open on {where}: who reaches it, sees and controls the VM without a password"
        )
    if system is not None and spec.memory_mib < system.memory_min_mib:
        found.append(f"{system.name} needs at least {system.memory_min_mib} MiB of memory, not {spec.memory_mib}")
    if system is not None and system.family is OsFamily.WINDOWS and system.drivers_iso and _has_virtio(spec):
        found.append(f"{system.name} has no virtio drivers of its own: put the virtio-win ISO into a second drive")
    return tuple(found)


def _has_virtio(spec: VmSpec) -> bool:
    disks = any(disk.device == "disk" and disk.bus is not Bus.SATA for disk in spec.disks)
    return disks or any(nic.model == "virtio" for nic in spec.nics)
