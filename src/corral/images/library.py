"""The image library: `images/<digest>/{disk.qcow2,kernel,initrd,manifest.json}`, immutable and never half there."""

import asyncio
import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ValidationError

from corral import files, log
from corral.errors import CorralError
from corral.images.base import CatalogueEntry, FoundImage, ImageFiles, Progress
from corral.images.build_debian import DebianRelease, build_debian
from corral.images.build_micro import build_micro
from corral.images.catalogue import load_catalogue
from corral.images.download import Download, fetch, file_digest
from corral.images.importer import make_standalone, take_copy
from corral.images.installer import build_installer
from corral.images.iso_import import import_iso
from corral.images.recipes import recipe_version
from corral.images.staging import Staging
from corral.model.image import ImageFacts, ImageSource, ImageSpec

MANIFEST_MAX_BYTES: Final = 64 * 1024
# Part files of downloads are kept so that they can go on; after this long nobody will.
DOWNLOAD_KEPT_S: Final = 7 * 86400.0

_PARTIAL: Final = ".partial-"
_DOWNLOAD: Final = ".download-"
_DIGEST_CHARS: Final = 64
_FILES: Final = ("disk.qcow2", "kernel", "initrd")
_ISO: Final = "medium.iso"

_log = log.logger(__name__)


class Manifest(BaseModel):
    """What lies beside an image's files, so that the directory alone tells what it is."""

    name: str
    spec: ImageSpec
    facts: ImageFacts


@dataclass(frozen=True)
class _Scratch:
    """Where an image is made: `made` becomes the image, `work` is thrown away."""

    top: Path
    made: Path
    work: Path


class DirLibrary:
    """`ImageLibrary` in a directory. Every QEMU may read it, nobody but its owner may write."""

    def __init__(self, images_dir: Path, catalogue: tuple[CatalogueEntry, ...] | None = None) -> None:
        self._dir = images_dir
        self.staging = Staging(images_dir)
        self._catalogue = load_catalogue() if catalogue is None else catalogue
        self._in_use: set[Path] = set()
        try:
            images_dir.mkdir(parents=True, exist_ok=True)
            images_dir.chmod(0o711)  # each QEMU passes through; nobody looks around
        except OSError as error:
            raise files.storage_error(f"make {images_dir}", error) from error

    def catalogue(self) -> tuple[CatalogueEntry, ...]:
        return self._catalogue

    def files(self, facts: ImageFacts) -> ImageFiles:
        directory = self._dir / _checked(facts.digest)
        if facts.kind == "iso":
            return ImageFiles(directory / _ISO, None, None)
        disk = directory / "disk.qcow2" if facts.disk_format else None
        kernel, initrd = (directory / "kernel", directory / "initrd") if facts.has_kernel else (None, None)
        return ImageFiles(disk, kernel, initrd)

    async def make(self, name: str, spec: ImageSpec, progress: Progress) -> ImageFacts:
        if spec.staged and not await asyncio.to_thread(Path(spec.staged).exists):
            # A crash came between the end of this and the record of it: what it was made of is gone, but it is made.
            made = next((found.facts for found in await self.found() if found.spec == spec), None)
            if made is not None:
                return made
        top = self._dir / f"{_PARTIAL}{name}-{secrets.token_hex(4)}"
        scratch = _Scratch(top, top / "made", top / "work")
        self._in_use.add(top)
        try:
            await asyncio.to_thread(_make_scratch, scratch)
            facts = await self._make(spec, scratch, progress)
            await progress("publishing the image", None)
            facts = await asyncio.to_thread(self._publish, name, spec, facts, scratch.made)
        except OSError as error:
            raise files.storage_error(f"make image {name}", error) from error
        finally:
            await asyncio.to_thread(remove_tree, top)
            self._in_use.discard(top)
        await asyncio.to_thread(remove_tree, self._dir / f"{_DOWNLOAD}{spec.catalogue}")
        if spec.staged:
            await asyncio.to_thread(files.remove_file, Path(spec.staged))
        return facts

    async def verify(self, facts: ImageFacts) -> bool:
        directory = self._dir / _checked(facts.digest)
        try:
            return await asyncio.to_thread(_digest_of, directory) == facts.digest
        except CorralError:
            return False

    async def remove(self, digest: str) -> None:
        await asyncio.to_thread(self._remove, _checked(digest))

    async def found(self) -> tuple[FoundImage, ...]:
        return await asyncio.to_thread(self._found)

    async def clean(self) -> int:
        return await asyncio.to_thread(self._clean)

    # ---- making ----

    async def _make(self, spec: ImageSpec, scratch: _Scratch, progress: Progress) -> ImageFacts:
        match spec.source:
            case ImageSource.BUILD:
                return await self._build(self._entry(spec), scratch, progress)
            case ImageSource.DOWNLOAD:
                return await self._download(self._entry(spec), spec, scratch, progress)
            case ImageSource.IMPORT:
                return await self._import(spec, scratch, progress)
            case ImageSource.INSTALLER:
                return await build_installer(spec, scratch.made / _ISO, scratch.work, progress)

    def _entry(self, spec: ImageSpec) -> CatalogueEntry:
        for entry in self._catalogue:
            if entry.name == spec.catalogue:
                return entry
        known = ", ".join(entry.name for entry in self._catalogue)
        raise CorralError("image-not-found", f"image {spec.catalogue}", "the catalogue has none", f"it has: {known}")

    async def _build(self, entry: CatalogueEntry, scratch: _Scratch, progress: Progress) -> ImageFacts:
        version = recipe_version(entry.build)
        if entry.build == "micro":
            facts = await build_micro(scratch.made, scratch.work, progress)
            return facts.model_copy(update={"recipe": version})
        if entry.build == "debian":
            release = DebianRelease(entry.name, entry.release, entry.os_id, entry.title, entry.memory_min_mib)
            facts = await build_debian(release, scratch.made, scratch.work, progress)
            return facts.model_copy(update={"recipe": version})
        raise CorralError(
            "unsupported", f"build {entry.name}", "it has no recipe", "make it with --source download instead"
        )

    async def _download(
        self, entry: CatalogueEntry, spec: ImageSpec, scratch: _Scratch, progress: Progress
    ) -> ImageFacts:
        if not entry.url:
            raise CorralError("unsupported", f"download {entry.name}", "no vendor offers it", "build it instead")
        kept = self._dir / f"{_DOWNLOAD}{entry.name}"
        await asyncio.to_thread(kept.mkdir, mode=0o700, exist_ok=True)
        target = kept / "disk"
        self._in_use.add(kept)
        try:
            await fetch(Download(entry.url, entry.checksum_url, target), progress)
            await progress("copying the disk", None)
            assert spec.format != "iso"  # of files of the user's alone
            virtual_bytes = await make_standalone(target, spec.format, scratch.made / "disk.qcow2")
        finally:
            self._in_use.discard(kept)
        return _disk_facts(entry, virtual_bytes, f"{entry.title}, the vendor's cloud image")

    async def _import(self, spec: ImageSpec, scratch: _Scratch, progress: Progress) -> ImageFacts:
        if spec.format == "iso":
            return await import_iso(spec, scratch.made / _ISO, progress)
        copy = scratch.work / "disk"
        await progress("copying the file", None)
        await take_copy(Path(spec.staged or spec.path), copy)
        await progress("checking and converting the disk", None)
        virtual_bytes = await make_standalone(copy, spec.format, scratch.made / "disk.qcow2")
        entry = next((entry for entry in self._catalogue if entry.name == spec.catalogue), None)
        return _disk_facts(
            entry, virtual_bytes, "handed over" if spec.staged else f"imported from {Path(spec.path).name}"
        )

    def _publish(self, name: str, spec: ImageSpec, facts: ImageFacts, made: Path) -> ImageFacts:
        """Seal the files and give their directory the name of their content."""
        disk = made / (_ISO if facts.kind == "iso" else "disk.qcow2")
        facts = facts.model_copy(
            update={
                "digest": _digest_of(made),
                "disk_bytes": files.allocated_bytes(disk) if disk.exists() else 0,
            }
        )
        (made / "manifest.json").write_text(Manifest(name=name, spec=spec, facts=facts).model_dump_json(indent=2))
        for path in made.iterdir():
            path.chmod(0o444)
            _fsync(path)
        made.chmod(0o755)
        files.fsync_dir(made)
        target = self._dir / facts.digest
        if not target.exists():  # the same content was made before: it is the same image
            made.rename(target)
            files.fsync_dir(self._dir)
        return facts

    # ---- keeping ----

    def _remove(self, digest: str) -> None:
        doomed = self._dir / f"{_PARTIAL}removed-{digest}"
        try:
            (self._dir / digest).rename(doomed)
        except FileNotFoundError:
            return
        except OSError as error:
            raise files.storage_error(f"remove image {digest[:12]}", error) from error
        files.fsync_dir(self._dir)
        remove_tree(doomed)

    def _found(self) -> tuple[FoundImage, ...]:
        found = []
        for directory in sorted(self._dir.iterdir()):
            if not _is_digest(directory.name):
                continue
            try:
                content = files.read_limited(directory / "manifest.json", MANIFEST_MAX_BYTES)
                manifest = Manifest.model_validate_json(content)
            except (OSError, CorralError, ValidationError) as error:
                _log.warning("image without a readable manifest", directory=str(directory), error=str(error)[:300])
                continue
            found.append(FoundImage(manifest.name, manifest.spec, manifest.facts))
        return tuple(found)

    def _clean(self) -> int:
        count = self.staging.clean()
        for path in self._dir.iterdir():
            old = time.time() - path.stat().st_mtime > DOWNLOAD_KEPT_S
            if path.name.startswith(_PARTIAL) or (path.name.startswith(_DOWNLOAD) and old):
                count += path not in self._in_use and remove_tree(path)
        return count


def _disk_facts(entry: CatalogueEntry | None, virtual_bytes: int, description: str) -> ImageFacts:
    """Facts of a disk that others made. Whether it boots with UEFI is not known, so it is not promised."""
    return ImageFacts(
        digest="",
        os_id=entry.os_id if entry else "",
        disk_virtual_bytes=virtual_bytes,
        guest_agent=False,
        default_user=entry.default_user if entry else "",
        memory_min_mib=entry.memory_min_mib if entry else 128,
        description=description,
    )


def _make_scratch(scratch: _Scratch) -> None:
    # Others may pass through: mmdebstrap lets apt's own user read below.
    for directory in (scratch.top, scratch.made, scratch.work):
        directory.mkdir(mode=0o711)


def _digest_of(directory: Path) -> str:
    """sha256 of the disk or medium; without one, of the kernel followed by the initrd."""
    disk, kernel, initrd = (directory / name for name in _FILES)
    for whole in (disk, directory / _ISO):
        if whole.exists():
            return file_digest(whole, "sha256")
    digest = hashlib.sha256()
    try:
        for path in (kernel, initrd):
            digest.update(path.read_bytes())
    except OSError as error:
        raise files.storage_error(f"read {directory}", error) from error
    return digest.hexdigest()


def _fsync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _is_digest(name: str) -> bool:
    return len(name) == _DIGEST_CHARS and set(name) <= set("0123456789abcdef")


def _checked(digest: str) -> str:
    if not _is_digest(digest):
        raise CorralError("invalid-argument", f"image digest {digest[:80]!r}", "not a sha256 in hex")
    return digest


def remove_tree(path: Path, mounted: Callable[[Path], bool] | None = None) -> bool:
    """Remove a scratch tree; not one that something is mounted in, where removing would reach the host's own files."""
    if not path.exists():
        return False
    if (mounted or has_mounts)(path):
        _log.error("a file system is still mounted in a scratch directory; it is left alone", directory=str(path))
        return False
    shutil.rmtree(path, ignore_errors=True)
    return True


def has_mounts(path: Path) -> bool:
    """Whether any file system is mounted below `path` (proc(5), mountinfo: the fifth field, octal escapes)."""
    prefix = f"{path.resolve()}/"
    for line in Path("/proc/self/mountinfo").read_bytes().splitlines():
        place = line.split()[4].decode("unicode_escape")
        if f"{place}/".startswith(prefix):
            return True
    return False
