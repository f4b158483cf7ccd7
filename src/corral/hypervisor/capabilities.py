"""The capability matrix: what does not go together, and why. Asked before anything is written; pure.

What is not in it works. A driver that can more, or less, gets a column of its own here.
"""

from collections.abc import Mapping
from enum import StrEnum
from itertools import combinations
from types import MappingProxyType
from typing import Final

from corral.errors import CorralError
from corral.model.vm import VmSpec


class Ability(StrEnum):
    READ_ONLY_DISK = "read-only disk"
    SATA_DISK = "SATA disk"
    ADOPTED_DOMAIN = "adopted domain"
    REDEFINITION = "redefinition"
    SAVED_MEMORY = "saved memory"
    RENAME = "rename"
    PAUSED_GUEST = "paused guest"
    SHUTDOWN = "shutdown by the guest"
    HOST_PCI_DEVICE = "PCI device of the host's"
    SHARED_FOLDER = "shared folder"
    HOT_TEMPLATE = "template with memory"
    TPM = "TPM"
    NUMA = "NUMA cells or pluggable memory"
    SPECIAL_MEMORY = "huge pages or locked memory"


def _pair(one: Ability, other: Ability) -> frozenset[Ability]:
    return frozenset({one, other})


MATRIX: Final[Mapping[frozenset[Ability], str]] = MappingProxyType(
    {
        _pair(Ability.READ_ONLY_DISK, Ability.SATA_DISK): "QEMU's SATA disks cannot be read-only; virtio and SCSI can",
        _pair(Ability.ADOPTED_DOMAIN, Ability.REDEFINITION): "it was adopted: its definition is its maker's",
        _pair(
            Ability.SAVED_MEMORY, Ability.REDEFINITION
        ): "its memory is saved: it resumes with the machine that it had",
        _pair(Ability.SAVED_MEMORY, Ability.RENAME): "its memory is saved under the old name",
        _pair(Ability.PAUSED_GUEST, Ability.SHUTDOWN): "it is paused and cannot be asked",
        _pair(Ability.HOST_PCI_DEVICE, Ability.SAVED_MEMORY): "a device of the host's cannot be saved with the memory",
        _pair(Ability.SHARED_FOLDER, Ability.SAVED_MEMORY): (
            "the server of a shared folder cannot be saved: the guest would lose its open files"
        ),
        _pair(Ability.HOST_PCI_DEVICE, Ability.HOT_TEMPLATE): "a device of the host's cannot be in two guests",
        _pair(Ability.SHARED_FOLDER, Ability.HOT_TEMPLATE): "the guest's open files there cannot be had twice",
        _pair(Ability.TPM, Ability.HOT_TEMPLATE): "what a TPM holds is one machine's alone",
        _pair(Ability.NUMA, Ability.HOT_TEMPLATE): "QEMU shares memory between guests only where it is one piece",
        _pair(Ability.SPECIAL_MEMORY, Ability.HOT_TEMPLATE): "such memory cannot be shared until it is written",
        _pair(Ability.ADOPTED_DOMAIN, Ability.HOT_TEMPLATE): "it was adopted: its devices are its maker's",
    }
)


def abilities_of(spec: VmSpec) -> tuple[Ability, ...]:
    """What of this VM does not go with everything."""
    devices = {device.kind for device in spec.hardware.host_devices}
    found = {
        Ability.ADOPTED_DOMAIN: spec.adopted,
        Ability.HOST_PCI_DEVICE: "pci" in devices,
        Ability.SHARED_FOLDER: bool(spec.hardware.shares),
        Ability.TPM: spec.hardware.tpm,
        Ability.NUMA: bool(spec.hardware.memory.numa) or spec.hardware.memory.max_mib is not None,
        Ability.SPECIAL_MEMORY: bool(spec.hardware.memory.huge_pages) or spec.hardware.memory.locked,
    }
    return tuple(ability for ability, there in found.items() if there)


def refusal(*abilities: Ability) -> str:
    """Why these do not go together; empty if they do."""
    return next((MATRIX[pair] for two in combinations(abilities, 2) if (pair := frozenset(two)) in MATRIX), "")


def check_together(asked: str, hint: str, *abilities: Ability) -> None:
    """Raises `unsupported` with the reason."""
    if why := refusal(*abilities):
        raise CorralError("unsupported", asked, why, hint)
