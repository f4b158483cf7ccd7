"""What a domain's persistent document says: read once for as long as it reads the same.

A look at a domain happens after each step and at each event; its document changes hardly ever, and to read it takes a
third of the look."""

import hashlib
from dataclasses import dataclass
from typing import Final

from corral.hypervisor.base import DomainMetadata
from corral.hypervisor.libvirt import metadata, owned, reading

KEPT_MAX: Final = 8192
"""Domains of which it is kept, at some 4 KiB each."""


@dataclass(frozen=True)
class Standing:
    """Of one domain. `digest` is that of its owned fields; `files` those of its disks."""

    name: str
    vcpus: int
    memory_mib: int
    digest: str
    metadata: DomainMetadata | None
    files: tuple[tuple[str, str], ...]


_kept: Final[dict[str, tuple[bytes, Standing]]] = {}


def standing_in(document: str, uid: str) -> Standing:
    """May be called by several threads at once: the worst is that one reads it again."""
    print_of = hashlib.blake2b(document.encode(), digest_size=16).digest()
    found = _kept.get(uid)
    if found is not None and found[0] == print_of:
        return found[1]
    parsed = metadata.parse_document(document)
    fields = owned.owned_in(parsed)
    read = Standing(
        name=fields.name,
        vcpus=fields.vcpus,
        memory_mib=fields.memory_mib,
        digest=fields.digest(),
        metadata=metadata.parse_metadata(parsed, uid),
        files=reading.disk_files(parsed),
    )
    if len(_kept) >= KEPT_MAX:
        _kept.clear()
    _kept[uid] = (print_of, read)
    return read
