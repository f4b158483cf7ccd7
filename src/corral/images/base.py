"""The image library's contract: files named by their content, immutable, never half there."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from corral.images.staging import Staging
from corral.model.image import ImageFacts, ImageSpec

Progress = Callable[[str, float | None], Awaitable[None]]
"""Called with the phase for people and the part done (0 to 1, or None), at most a few times a second."""


@dataclass(frozen=True)
class ImageFiles:
    """Where an image's files lie; None where it has no such file."""

    disk: Path | None
    kernel: Path | None
    initrd: Path | None


@dataclass(frozen=True)
class FoundImage:
    """An image as it lies on disk; `name` and `facts` come from its manifest."""

    name: str
    spec: ImageSpec
    facts: ImageFacts


@dataclass(frozen=True)
class CatalogueEntry:
    """What can be made or downloaded, from `images/catalogue.toml`."""

    name: str
    os_id: str
    title: str
    build: str
    """The recipe that makes it from packages (`debian`, `micro`), or empty."""
    release: str
    url: str
    checksum_url: str
    default_user: str
    memory_min_mib: int


class ImageLibrary(Protocol):
    """Raises CorralError: `image-not-found`, `download-failed`, `checksum-mismatch`, `image-build-failed`,
    `image-invalid`, `disk-full`, `command-missing`."""

    def catalogue(self) -> tuple[CatalogueEntry, ...]: ...

    def files(self, facts: ImageFacts) -> ImageFiles: ...

    async def make(self, name: str, spec: ImageSpec, progress: Progress) -> ImageFacts:
        """Build, download or import it; repeatable: a download goes on where it stopped, a build starts anew."""
        ...

    @property
    def staging(self) -> Staging:
        """Files that were handed over, for `make` (`ImageSpec.staged`), which removes them when it has succeeded;
        `clean` removes what is left after a day."""
        ...

    async def verify(self, facts: ImageFacts) -> bool:
        """The files are there and of the recorded digest."""
        ...

    async def remove(self, digest: str) -> None: ...

    async def found(self) -> tuple[FoundImage, ...]:
        """All that lies in the library, for recovery."""
        ...

    async def clean(self) -> int:
        """Remove what unfinished builds left; how many directories."""
        ...
