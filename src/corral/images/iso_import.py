"""An ISO of the user's as an image: copied once, then read for what it is."""

import asyncio
from pathlib import Path
from typing import Final

from corral.errors import CorralError
from corral.images.base import Progress
from corral.images.importer import take_copy
from corral.images.iso import describe_iso
from corral.images.os_table import OsTable, host_table
from corral.model.image import ImageFacts, ImageSpec
from corral.names import format_bytes

ISO_MAX_BYTES: Final = 64 * 2**30


async def import_iso(spec: ImageSpec, target: Path, progress: Progress) -> ImageFacts:
    """Copy the file to `target` and describe it. Raises `image-invalid` if it is not a CD's or DVD's image."""
    await progress("copying the medium", None)
    source = Path(spec.staged or spec.path)
    await take_copy(source, target)
    await progress("reading the medium", None)
    origin = "handed over" if spec.staged else f"imported from {source.name}"
    return await asyncio.to_thread(iso_facts, target, origin)


def iso_facts(path: Path, origin: str, table: OsTable | None = None) -> ImageFacts:
    """What is known of a medium that is ours, but for its digest."""
    length = path.stat().st_size
    if length > ISO_MAX_BYTES:
        reason = f"it has {format_bytes(length)}, at most {format_bytes(ISO_MAX_BYTES)}"
        raise CorralError("image-invalid", f"use {path.name} as a medium", reason)
    iso = describe_iso(path)
    system = (table or host_table()).of_iso(iso)
    label = f"{iso.volume_id or 'a medium without a label'}, {origin}"
    return ImageFacts(
        kind="iso",
        volume_id=iso.volume_id,
        digest="",
        os_id=system.id if system is not None else "",
        disk_format="",
        disk_virtual_bytes=length,
        bios=iso.bios,
        uefi=iso.uefi,
        cloud_init=False,
        guest_agent=False,
        memory_min_mib=0,
        description=label,
    )
