"""Guests' memory that lies on disk: what is there, whether it is encrypted, and who may read it."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from corral.host.machine import Machine, ok, warning
from corral.host.machine import error as broken
from corral.model.doctor import Finding
from corral.model.template import Template
from corral.names import format_bytes

SHOWN_MAX: Final = 10
OTHERS: Final = 0o077
_ENCRYPTED: Final = "CRYPT-"
"""How device mapper calls what dm-crypt made."""


@dataclass(frozen=True)
class KeptMemory:
    """What a guest had in its memory, with all that it had read and typed."""

    what: str
    """For people: `template base`."""
    files: tuple[Path, ...]
    """As far as they are ours to look after."""
    size_bytes: int = 0


def check_memories(machine: Machine, memories: Sequence[KeptMemory]) -> Iterator[Finding]:
    """Nobody but root may read them; on a disk that is stolen everybody can, unless it is encrypted."""
    if not memories:
        yield ok("memory-at-rest", "no guest's memory lies on disk")
        return
    open_ones = [text for memory in memories for path in memory.files if (text := _is_open(machine, memory, path))]
    if open_ones:
        action = "chown root and chmod 0600 these files, and 0700 the directories that they lie in"
        yield broken("memory-permissions", f"others than root may read guests' memory: {_few(open_ones)}", action)
    else:
        yield ok("memory-permissions", "root alone may read what is kept of guests' memory")
    plain = [memory for memory in memories if not all(_is_encrypted(machine, path) for path in memory.files or (None,))]
    if not plain:
        yield ok("memory-at-rest", f"what is kept of guests' memory is encrypted: {_few([m.what for m in memories])}")
        return
    named = [f"{m.what} ({format_bytes(m.size_bytes)})" if m.size_bytes else m.what for m in plain]
    yield warning(
        "memory-at-rest",
        f"memory of guests, with what secrets were in it, lies unencrypted on disk: {_few(named)}",
        "keep the state directory on an encrypted device (LUKS), delete what is not needed (corral template delete, corral"
        " snapshot delete), and have guests forget their secrets before they are frozen",
    )


def check_stale(templates: Sequence[Template]) -> Finding:
    """Hot templates of which no VM can go on from its memory on this host."""
    stale = sorted(template.name for template in templates if template.status.stale)
    if not stale:
        return ok("stale-templates", "the memory of every hot template can be used on this host")
    return warning(
        "stale-templates",
        f"frozen under another QEMU, libvirt, accelerator or processor: template {_few(stale)}",
        f"corral template refresh {stale[0]}" if len(stale) == 1 else "corral template refresh, one after the other",
    )


def _few(named: Sequence[str]) -> str:
    more = f" and {len(named) - SHOWN_MAX} more" if len(named) > SHOWN_MAX else ""
    return f"{', '.join(named[:SHOWN_MAX])}{more}"


def _is_open(machine: Machine, memory: KeptMemory, path: Path) -> str:
    """Why others may read it; empty: they may not, or it is not there."""
    found = machine.owner_and_mode(str(path))
    if found is None:
        return ""
    owner, _, mode = found
    if owner not in (0, machine.uid):
        return f"{memory.what} ({path} belongs to uid {owner})"
    return f"{memory.what} ({path} has mode {mode:04o})" if mode & OTHERS else ""


def _is_encrypted(machine: Machine, path: Path | None) -> bool:
    """Whether the file system that it lies in is on a device of dm-crypt's, however deep. What cannot be told is not."""
    try:
        device = machine.path(str(path)).stat().st_dev if path is not None else 0
    except OSError:
        return False
    return _is_crypt(machine, f"/sys/dev/block/{os.major(device)}:{os.minor(device)}")


def _is_crypt(machine: Machine, device: str) -> bool:
    if (machine.text(f"{device}/dm/uuid") or "").startswith(_ENCRYPTED):
        return True
    below = machine.names(f"{device}/slaves")
    return bool(below) and all(_is_crypt(machine, f"{device}/slaves/{name}") for name in below)
