"""Volumes and seeds as files: made whole, repeatable, found again, and cleaned of what a crash leaves."""

import asyncio
import json
import os
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from corral import qemu_img
from corral.errors import CorralError
from corral.model.volume import Volume, VolumeSpec
from corral.names import GIB, MIB, new_uid
from corral.storage.dir import DirVolumes


def volume(size_bytes: int = GIB, **spec: object) -> Volume:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    return Volume(name="root", uid=new_uid(), created_at=now, spec=VolumeSpec(size_bytes=size_bytes, **spec))


def header(path: Path) -> dict[str, object]:
    command = ["qemu-img", "info", "-f", "qcow2", "--output=json", str(path)]
    return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)


@pytest.fixture
def store(tmp_path: Path) -> DirVolumes:
    return DirVolumes(tmp_path)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image.qcow2"
    asyncio.run(qemu_img.create_empty(path, 64 * MIB))
    path.chmod(0o444)
    return path


def test_overlay_grows_and_names_its_formats(store: DirVolumes, image: Path) -> None:
    wanted = volume()
    path = asyncio.run(store.create(wanted, image, "qcow2"))
    assert path == store.path(wanted.uid)
    found = header(path)
    assert found["virtual-size"] == GIB
    assert found["backing-filename"] == str(image)
    assert found["backing-filename-format"] == "qcow2"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o711
    assert asyncio.run(store.allocated_bytes(wanted.uid)) < MIB


@pytest.mark.parametrize(
    "size_bytes", [MIB, MIB + 1, 512 * MIB, 512 * MIB + 512, 20 * GIB, 4096 * GIB, 4096 * GIB + MIB, 65536 * GIB]
)
def test_an_empty_disk_is_as_qemu_img_makes_it(tmp_path: Path, size_bytes: int) -> None:
    """But for the names of features, which only tell people what a bit means that their QEMU does not know."""
    ours, theirs = tmp_path / "ours.qcow2", tmp_path / "theirs.qcow2"
    asyncio.run(qemu_img.create_empty(ours, size_bytes))
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(theirs), str(size_bytes)], check=True)
    content, wanted = ours.read_bytes(), theirs.read_bytes()
    header_bytes = 112
    assert content[:header_bytes] == wanted[:header_bytes]
    assert content[2**16 :] == wanted[2**16 :]
    assert not any(content[header_bytes : 2**16])
    subprocess.run(["qemu-img", "check", "-q", "-f", "qcow2", str(ours)], check=True)


@pytest.mark.parametrize("backing_format", ["qcow2", "raw"])
@pytest.mark.parametrize("size_bytes", [MIB + 512, 20 * GIB, 4096 * GIB + MIB])
def test_an_overlay_is_as_qemu_img_makes_it(tmp_path: Path, size_bytes: int, backing_format: str) -> None:
    ours, theirs, below = tmp_path / "ours.qcow2", tmp_path / "theirs.qcow2", tmp_path / f"below.{backing_format}"
    subprocess.run(["qemu-img", "create", "-q", "-f", backing_format, str(below), "1M"], check=True)
    subprocess.run(["qemu-io", "-f", backing_format, "-c", "write -q -P 7 64k 64k", str(below)], check=True)
    asyncio.run(qemu_img.create_overlay(ours, below, backing_format, size_bytes))
    argv = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", backing_format, "-b", str(below), str(theirs)]
    subprocess.run([*argv, str(size_bytes)], check=True)
    content, wanted = ours.read_bytes(), theirs.read_bytes()
    # Its name lies elsewhere, since the names of features are left out.
    assert (content[:8], content[16:112]) == (wanted[:8], wanted[16:112])
    assert content[2**16 :] == wanted[2**16 :]
    infos = [json.loads(_said("qemu-img", "info", "--output=json", "-f", "qcow2", path)) for path in (ours, theirs)]
    assert [infos[0].pop("filename"), infos[1].pop("filename")] == [str(ours), str(theirs)]
    assert all(info.pop("actual-size") < MIB for info in infos)
    assert infos[0] == infos[1]
    assert qemu_img.backing_name(ours) == str(below)
    subprocess.run(["qemu-img", "check", "-q", "-f", "qcow2", str(ours)], check=True)
    subprocess.run(["qemu-io", "-f", "qcow2", "-c", "read -q -P 7 64k 64k", str(ours)], check=True)
    if size_bytes < GIB:  # it reads all of it
        subprocess.run(["qemu-img", "rebase", "-f", "qcow2", "-b", "", str(ours)], check=True)
        subprocess.run(["qemu-io", "-f", "qcow2", "-c", "read -q -P 7 64k 64k", str(ours)], check=True)


def _said(*argv: object) -> str:
    return subprocess.run([str(part) for part in argv], check=True, capture_output=True, text=True).stdout


def test_an_overlay_on_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CorralError) as caught:
        asyncio.run(qemu_img.create_overlay(tmp_path / "x.qcow2", tmp_path / "gone", "qcow2", MIB))
    assert caught.value.code == "storage-error"


def test_an_empty_disk_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CorralError) as caught:
        asyncio.run(qemu_img.create_empty(tmp_path / "gone" / "x.qcow2", MIB))
    assert caught.value.code == "storage-error"


def test_create_twice_leaves_the_first(store: DirVolumes) -> None:
    wanted = volume()
    inode = asyncio.run(store.create(wanted, None, "")).stat().st_ino
    assert asyncio.run(store.create(wanted, None, "")).stat().st_ino == inode


def test_smaller_than_its_image_is_refused(store: DirVolumes, image: Path) -> None:
    wanted = volume(size_bytes=32 * MIB)
    with pytest.raises(CorralError, match="invalid-size"):
        asyncio.run(store.create(wanted, image, "qcow2"))
    assert not store.path(wanted.uid).exists()


def test_missing_image(store: DirVolumes, tmp_path: Path) -> None:
    with pytest.raises(CorralError):
        asyncio.run(store.create(volume(), tmp_path / "gone.qcow2", "qcow2"))
    assert asyncio.run(store.found()) == ()


def test_found_with_its_document_and_without(store: DirVolumes) -> None:
    kept, lost = volume(), volume()
    for each in (kept, lost):
        asyncio.run(store.create(each, None, ""))
    store.sidecar_path(lost.uid).unlink()
    found = {each.uid: each for each in asyncio.run(store.found())}
    document = found[kept.uid].document
    assert document is not None
    assert Volume.model_validate_json(document) == kept
    assert found[lost.uid].document is None


def test_remove_twice(store: DirVolumes) -> None:
    wanted = volume()
    asyncio.run(store.create(wanted, None, ""))
    for _ in range(2):
        asyncio.run(store.remove(wanted.uid))
    assert asyncio.run(store.found()) == ()
    assert asyncio.run(store.allocated_bytes(wanted.uid)) == 0


def test_clean_removes_what_a_crash_leaves(store: DirVolumes) -> None:
    whole, half = volume(), volume()
    asyncio.run(store.create(whole, None, ""))
    asyncio.run(store.create(half, None, ""))
    store.path(half.uid).unlink()  # crashed between the sidecar and the disk
    store.path(whole.uid).with_name(f".{whole.uid}.qcow2.0123.tmp").write_bytes(b"half")
    assert asyncio.run(store.clean()) == 2
    assert asyncio.run(store.clean()) == 0
    assert [each.uid for each in asyncio.run(store.found())] == [whole.uid]


def test_seed_is_replaced_and_removed(store: DirVolumes) -> None:
    uid = new_uid()
    first = asyncio.run(store.write_seed(uid, {"meta-data": b"a"})).read_bytes()
    second = asyncio.run(store.write_seed(uid, {"meta-data": b"b"}))
    assert second.read_bytes() != first
    assert second.stat().st_mode & 0o777 == 0o600
    assert asyncio.run(store.found_seeds()) == (uid,)
    for _ in range(2):
        asyncio.run(store.remove_seed(uid))
    assert asyncio.run(store.found_seeds()) == ()


@pytest.mark.parametrize("uid", ["", "../../etc/passwd", "x" * 300, "A0000000-0000-0000-0000-000000000000"])
def test_no_path_is_made_of_anything_but_a_uid(store: DirVolumes, uid: str) -> None:
    with pytest.raises(CorralError, match="invalid-argument"):
        store.path(uid)
    with pytest.raises(CorralError, match="invalid-argument"):
        store.seed_path(uid)


def test_usage(store: DirVolumes) -> None:
    usage = asyncio.run(store.usage())
    assert 0 < usage.free_bytes <= usage.total_bytes


def test_full_disk(tmp_path: Path) -> None:
    """A file system of 1 MiB: the volume is not there, and the error says why."""
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "small", str(place)], check=True)
    try:
        store = DirVolumes(place)
        (place / "filler").write_bytes(b"x" * (MIB - 3 * os.sysconf("SC_PAGE_SIZE")))
        wanted = volume()
        with pytest.raises(CorralError) as caught:
            asyncio.run(store.create(wanted, None, ""))
        assert caught.value.code == "disk-full"
        assert asyncio.run(store.found()) == ()
        assert not list((place / "volumes").glob(".*.tmp"))
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_grow_and_check(store: DirVolumes) -> None:
    path = asyncio.run(store.create(volume(), None, ""))
    asyncio.run(qemu_img.grow(path, "qcow2", 2 * GIB))
    assert qemu_img.virtual_bytes(path, "qcow2") == 2 * GIB
    assert asyncio.run(qemu_img.check(path, "qcow2"))
