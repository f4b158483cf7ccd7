"""The capability matrix: what does not go together, and why. Asked before anything is written; pure.

What is not in it works. A driver that can more, or less, gets a column of its own here.
"""

from collections.abc import Mapping
from enum import StrEnum
from itertools import combinations
from types import MappingProxyType
from typing import Final

from corral.errors import CorralError


class Ability(StrEnum):
    READ_ONLY_DISK = "read-only disk"
    SATA_DISK = "SATA disk"
    ADOPTED_DOMAIN = "adopted domain"
    REDEFINITION = "redefinition"
    SAVED_MEMORY = "saved memory"
    RENAME = "rename"
    PAUSED_GUEST = "paused guest"
    SHUTDOWN = "shutdown by the guest"


def _pair(one: Ability, other: Ability) -> frozenset[Ability]:
    return frozenset({one, other})


MATRIX: Final[Mapping[frozenset[Ability], str]] = MappingProxyType(
    {
        _pair(Ability.READ_ONLY_DISK, Ability.SATA_DISK): "QEMU's SATA disks cannot be read-only; virtio and SCSI can",
        _pair(Ability.ADOPTED_DOMAIN, Ability.REDEFINITION): "it was adopted: its definition is its maker's",
        _pair(Ability.SAVED_MEMORY, Ability.RENAME): "its memory is saved under the old name",
        _pair(Ability.PAUSED_GUEST, Ability.SHUTDOWN): "it is paused and cannot be asked",
    }
)


def refusal(*abilities: Ability) -> str:
    """Why these do not go together; empty if they do."""
    return next((MATRIX[pair] for two in combinations(abilities, 2) if (pair := frozenset(two)) in MATRIX), "")


def check_together(asked: str, hint: str, *abilities: Ability) -> None:
    """Raises `unsupported` with the reason."""
    if why := refusal(*abilities):
        raise CorralError("unsupported", asked, why, hint)
