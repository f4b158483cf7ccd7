"""An image library in memory, with two images that cost nothing to make."""

import asyncio
import hashlib
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter

from corral import files
from corral.errors import CorralError
from corral.images.base import CatalogueEntry, FoundImage, ImageFiles, Progress
from corral.images.iso_import import iso_facts
from corral.images.staging import Staging
from corral.model.image import ImageFacts, ImageSource, ImageSpec
from corral.simulation import Simulation

CATALOGUE: Final = (
    CatalogueEntry("micro", "", "A pretended micro guest", "micro", "", "", "", "root", 32),
    CatalogueEntry("debian-12", "debian12", "A pretended Debian 12", "debian", "bookworm", "", "", "debian", 256),
)
VIRTUAL_BYTES: Final = 2**30
ISO_MAX_BYTES: Final = 64 * 2**20
_FOUND: Final = TypeAdapter(FoundImage)


class FakeLibrary:
    """The image library's contract over a dictionary, digest to image."""

    def __init__(self, simulation: Simulation, images_dir: Path) -> None:
        self.simulation = simulation
        self.images_dir = images_dir
        images_dir.mkdir(parents=True, exist_ok=True)
        self.staging = Staging(images_dir)
        self._kept = simulation.section("images", _FOUND)
        self.images = self._kept.restore()

    def catalogue(self) -> tuple[CatalogueEntry, ...]:
        return CATALOGUE

    def files(self, facts: ImageFacts) -> ImageFiles:
        directory = self.images_dir / facts.digest
        if facts.kind == "iso":
            return ImageFiles(directory / "medium.iso", None, None)
        return ImageFiles(directory / "disk.qcow2", None, None)

    async def make(self, name: str, spec: ImageSpec, progress: Progress) -> ImageFacts:
        async with self._call("make"):
            if spec.format == "iso" and spec.source is ImageSource.IMPORT:
                return await self._described(name, spec)
            if spec.source is ImageSource.INSTALLER:
                return self._installer(name, spec)
            entry = next((entry for entry in CATALOGUE if entry.name == spec.catalogue), None)
            if entry is None:
                raise CorralError(
                    "image-not-found", f"image {spec.catalogue!r}", "it is not in the catalogue", "corral image list"
                )
            for done in (0.25, 0.5, 0.75, 1.0):
                await progress("making the image", done)
            facts = ImageFacts(
                digest=hashlib.sha256(f"{name}/{spec.catalogue}".encode()).hexdigest(),
                os_id=entry.os_id,
                disk_virtual_bytes=VIRTUAL_BYTES,
                disk_bytes=VIRTUAL_BYTES // 4,
                default_user=entry.default_user,
                memory_min_mib=entry.memory_min_mib,
                description=entry.title,
            )
            self.images[facts.digest] = found = FoundImage(name, spec, facts)
            self._kept.keep(facts.digest, found)
            return facts

    async def _described(self, name: str, spec: ImageSpec) -> ImageFacts:
        """A medium is read for what it is, but not copied."""
        path = Path(spec.staged or spec.path)
        content = await asyncio.to_thread(files.read_limited, path, ISO_MAX_BYTES)
        facts = iso_facts(path, f"imported from {path.name}")
        facts = facts.model_copy(update={"digest": hashlib.sha256(content).hexdigest(), "disk_bytes": len(content)})
        if spec.staged:
            await asyncio.to_thread(files.remove_file, path)
        self.images[facts.digest] = found = FoundImage(name, spec, facts)
        self._kept.keep(facts.digest, found)
        return facts

    def _installer(self, name: str, spec: ImageSpec) -> ImageFacts:
        """A medium that nobody made."""
        digest = hashlib.sha256(spec.model_dump_json().encode()).hexdigest()
        if spec.staged:
            files.remove_file(Path(spec.staged))
        facts = ImageFacts(
            kind="iso", digest=digest, os_id="", disk_format="", disk_bytes=1, disk_virtual_bytes=1, uefi=True
        )
        self.images[digest] = found = FoundImage(name, spec, facts)
        self._kept.keep(digest, found)
        return facts

    async def verify(self, facts: ImageFacts) -> bool:
        async with self._call("verify"):
            return facts.digest in self.images

    async def remove(self, digest: str) -> None:
        async with self._call("remove"):
            self.images.pop(digest, None)
            self._kept.keep(digest, None)

    async def found(self) -> tuple[FoundImage, ...]:
        async with self._call("found"):
            return tuple(self.images.values())

    async def clean(self) -> int:
        async with self._call("clean"):
            return 0

    def _call(self, name: str) -> AbstractAsyncContextManager[None]:
        return self.simulation.call(f"images.{name}")
