"""Disks from elsewhere: copied to stand alone, and refused when they would reach into the host."""

import asyncio
import json
import os
import subprocess
from pathlib import Path

import pytest

from corral import qemu_img
from corral.errors import CorralError
from corral.images.library import DirLibrary
from corral.model.image import ImageFacts, ImageSource, ImageSpec
from corral.names import MIB


async def silent(_phase: str, _part: float | None) -> None:
    return None


def make(library: DirLibrary, path: Path, disk_format: str = "qcow2") -> ImageFacts:
    spec = ImageSpec(catalogue="mine", source=ImageSource.IMPORT, path=str(path), format=disk_format)
    return asyncio.run(library.make("mine", spec, silent))


def qemu(*arguments: str | Path) -> None:
    subprocess.run(["qemu-img", *map(str, arguments)], check=True, capture_output=True)


@pytest.fixture
def library(tmp_path: Path) -> DirLibrary:
    return DirLibrary(tmp_path / "images")


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "disk.qcow2"
    qemu("create", "-q", "-f", "qcow2", path, "16M")
    subprocess.run(["qemu-io", "-f", "qcow2", "-c", "write -P 7 1M 1M", str(path)], check=True, capture_output=True)
    return path


def assert_nothing_left(library: DirLibrary, tmp_path: Path) -> None:
    assert asyncio.run(library.found()) == ()
    assert list((tmp_path / "images").iterdir()) == []


def test_qcow2(library: DirLibrary, disk: Path) -> None:
    facts = make(library, disk)
    files = library.files(facts)
    assert files.disk is not None
    assert files.kernel is None
    assert facts.disk_virtual_bytes == 16 * MIB
    assert files.disk.stat().st_mode & 0o777 == 0o444
    assert files.disk.parent.name == facts.digest
    assert asyncio.run(library.verify(facts))
    [found] = asyncio.run(library.found())
    assert (found.name, found.facts) == ("mine", facts)
    qemu("compare", "-f", "qcow2", "-F", "qcow2", disk, files.disk)


def test_raw_that_pretends_to_be_qcow2_stays_raw(library: DirLibrary, disk: Path, tmp_path: Path) -> None:
    """CVE-2024-32498: content with a qcow2 header, told to be raw, is bytes and nothing else."""
    trap = tmp_path / "trap.raw"
    secret = tmp_path / "secret"
    secret.write_bytes(b"s" * MIB)
    qemu("create", "-q", "-f", "qcow2", "-b", secret, "-F", "raw", trap)
    content = trap.read_bytes()
    facts = make(library, trap, "raw")
    copied = library.files(facts).disk
    assert copied is not None
    info = asyncio.run(qemu_img.info(copied, "qcow2"))
    assert info.backing == ""
    back = tmp_path / "back.raw"
    qemu("convert", "-f", "qcow2", "-O", "raw", copied, back)
    assert back.read_bytes()[: len(content)] == content


def test_backing_file_is_refused(library: DirLibrary, disk: Path, tmp_path: Path) -> None:
    overlay = tmp_path / "overlay.qcow2"
    qemu("create", "-q", "-f", "qcow2", "-b", disk, "-F", "qcow2", overlay)
    with pytest.raises(CorralError, match="another file below it") as caught:
        make(library, overlay)
    assert caught.value.code == "image-invalid"
    assert_nothing_left(library, tmp_path)


def test_external_data_file_is_refused(library: DirLibrary, tmp_path: Path) -> None:
    path, data = tmp_path / "meta.qcow2", tmp_path / "data.raw"
    qemu("create", "-q", "-f", "qcow2", "-o", f"data_file={data},data_file_raw=on", path, "1M")
    with pytest.raises(CorralError, match="image-invalid"):
        make(library, path)
    assert_nothing_left(library, tmp_path)


def test_excessive_size_is_refused(library: DirLibrary, tmp_path: Path) -> None:
    path = tmp_path / "huge.qcow2"
    qemu("create", "-q", "-f", "qcow2", path, "60T")
    with pytest.raises(CorralError, match="at most") as caught:
        make(library, path)
    assert caught.value.code == "image-invalid"
    assert_nothing_left(library, tmp_path)


@pytest.mark.parametrize("content", [b"", b"not a disk", b"QFI\xfb" + b"\xff" * 512], ids=["empty", "text", "header"])
def test_what_is_no_qcow2(library: DirLibrary, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.qcow2"
    path.write_bytes(content)
    with pytest.raises(CorralError, match="image-invalid"):
        make(library, path)
    assert_nothing_left(library, tmp_path)


def test_what_is_no_regular_file(library: DirLibrary, disk: Path, tmp_path: Path) -> None:
    fifo, link = tmp_path / "fifo", tmp_path / "link"
    os.mkfifo(fifo)
    link.symlink_to(disk)
    for path in (fifo, link, tmp_path, tmp_path / "gone", Path("relative.qcow2"), Path("/dev/zero")):
        with pytest.raises(CorralError, match="image-invalid"):
            make(library, path)
    assert_nothing_left(library, tmp_path)


def test_same_content_twice_is_one_image_and_removing_it_is_repeatable(library: DirLibrary, disk: Path) -> None:
    first, second = make(library, disk), make(library, disk)
    assert first.digest == second.digest
    for _ in range(2):
        asyncio.run(library.remove(first.digest))
    assert asyncio.run(library.found()) == ()
    assert not asyncio.run(library.verify(first))


def test_damage_is_noticed(library: DirLibrary, disk: Path) -> None:
    facts = make(library, disk)
    path = library.files(facts).disk
    assert path is not None
    with path.open("r+b") as stream:
        stream.seek(-1, os.SEEK_END)
        stream.write(b"!")
    assert not asyncio.run(library.verify(facts))


def test_clean_removes_unfinished_builds_and_keeps_images(library: DirLibrary, disk: Path, tmp_path: Path) -> None:
    facts = make(library, disk)
    (tmp_path / "images" / ".partial-x-1234" / "work").mkdir(parents=True)
    assert asyncio.run(library.clean()) == 1
    assert asyncio.run(library.verify(facts))
    manifest = json.loads((tmp_path / "images" / facts.digest / "manifest.json").read_text())
    assert manifest["name"] == "mine"


def test_a_disk_that_unpacks_to_more_than_there_is_room_for_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = tmp_path / "bomb.raw", tmp_path / "disk.qcow2"
    source.write_bytes(os.urandom(8 * 2**20))
    monkeypatch.setattr(qemu_img.files, "free_bytes", lambda _path: qemu_img.KEPT_FREE_BYTES + 4 * 2**20)
    with pytest.raises(CorralError) as refused:
        asyncio.run(qemu_img.convert(source, "raw", target, "qcow2"))
    assert refused.value.code == "disk-full"
    assert target.stat().st_size <= 4 * 2**20
    monkeypatch.undo()
    asyncio.run(qemu_img.convert(source, "raw", target, "qcow2"))
