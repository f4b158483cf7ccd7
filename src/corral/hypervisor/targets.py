"""The names by which a guest's disks are told apart in the domain's document. Pure."""

import re
from collections.abc import Iterable
from typing import Final

_NAME: Final = re.compile(r"(vd|sd)([a-z])")


def disk_targets(places: Iterable[tuple[str, int | None]]) -> tuple[str, ...]:
    """The target name of each disk, by its bus and slot: `vda`, `vdb` for virtio; `sda`, `sdb` for SCSI and SATA, which
    share a name space.

    A disk with a slot of its own keeps its name when another one goes; the others are counted."""
    names, counted = [], {"vd": 0, "sd": 0}
    for bus, own_slot in places:
        family = _family(bus)
        slot = counted[family] if own_slot is None else own_slot
        names.append(f"{family}{chr(ord('a') + slot)}")
        counted[family] = max(counted[family], slot) + 1
    return tuple(names)


def slot_of(target: str, bus: str) -> int | None:
    """The slot that gives a disk on `bus` this name; None where none does."""
    known = _NAME.fullmatch(target)
    return ord(known[2]) - ord("a") if known is not None and known[1] == _family(bus) else None


def _family(bus: str) -> str:
    return "vd" if bus == "virtio" else "sd"
