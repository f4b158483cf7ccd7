"""Media in the library: copied, described, handed over, and made once even when a crash comes in between."""

import asyncio
from pathlib import Path

import pytest

from corral.errors import CorralError
from corral.images.library import DirLibrary
from corral.model.image import ImageFacts, ImageSource, ImageSpec
from corral.storage.seed import build_seed


async def _silent(_phase: str, _part: float | None) -> None: ...


def make(library: DirLibrary, spec: ImageSpec) -> ImageFacts:
    return asyncio.run(library.make("x.iso", spec, _silent))


@pytest.fixture
def library(tmp_path: Path) -> DirLibrary:
    return DirLibrary(tmp_path / "images")


def staged(library: DirLibrary, content: bytes) -> ImageSpec:
    path = asyncio.run(library.staging.keep(content))
    return ImageSpec(catalogue="x.iso", source=ImageSource.IMPORT, format="iso", staged=str(path))


def test_what_was_handed_over_becomes_an_image_and_goes(library: DirLibrary) -> None:
    content = build_seed({"a": b"b"}, "Debian 12.5.0 n")
    spec = staged(library, content)
    facts = make(library, spec)
    assert (facts.kind, facts.os_id, facts.volume_id, facts.disk_format) == ("iso", "debian12", "Debian 12.5.0 n", "")
    disk = library.files(facts).disk
    assert disk is not None
    assert (disk.name, disk.read_bytes(), disk.stat().st_mode & 0o777) == ("medium.iso", content, 0o444)
    assert not Path(spec.staged).exists()
    assert asyncio.run(library.verify(facts))
    # A daemon that died before it could write this down makes it again, of nothing.
    assert make(library, spec) == facts
    (found,) = asyncio.run(library.found())
    assert (found.name, found.spec, found.facts) == ("x.iso", spec, facts)


def test_what_is_no_medium_stays_until_it_is_cleaned_away(library: DirLibrary) -> None:
    spec = staged(library, b"x" * 100_000)
    with pytest.raises(CorralError) as caught:
        make(library, spec)
    assert caught.value.code == "image-invalid"
    assert Path(spec.staged).exists()  # another try says the same thing
    Path(spec.staged).unlink()
    with pytest.raises(CorralError):
        make(library, spec)
    assert asyncio.run(library.found()) == ()


@pytest.mark.parametrize("format_", ["raw", "qcow2"])
def test_an_iso_is_no_disk_only_because_of_its_name(library: DirLibrary, tmp_path: Path, format_: str) -> None:
    """Nothing is probed: who says that it is a disk gets a disk, or an error."""
    path = tmp_path / "x.iso"
    path.write_bytes(build_seed({"a": b"b"}))
    spec = ImageSpec.model_validate({"catalogue": "x", "source": "import", "path": str(path), "format": format_})
    if format_ == "qcow2":
        with pytest.raises(CorralError):
            make(library, spec)
    else:
        assert make(library, spec).kind == "disk"
