"""Volumes that stand alone, as files: raw ones, copies, what was handed over, shrinking by proof, and pools."""

import asyncio
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from corral import qemu_img
from corral.errors import CorralError
from corral.model.pool import Pool, PoolSpec
from corral.model.volume import Volume, VolumeSpec
from corral.names import GIB, MIB, new_uid
from corral.storage.base import Source
from corral.storage.dir import DirVolumes
from corral.storage.places import MARK

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def volume(size_bytes: int = 64 * MIB, **spec: object) -> Volume:
    return Volume(name="data", uid=new_uid(), created_at=NOW, spec=VolumeSpec(size_bytes=size_bytes, **spec))


def pool(path: Path, name: str = "fast") -> Pool:
    return Pool(name=name, uid=new_uid(), created_at=NOW, spec=PoolSpec(path=str(path)))


def nothing(_share: float) -> None: ...


def write(path: Path, at: int, text: bytes) -> None:
    """As a guest does, through the format."""
    fill = f"write -P {text[0]} {at} {len(text)}"
    kind = path.suffix.removeprefix(".")
    subprocess.run(["qemu-io", "-f", kind, "-c", fill, str(path)], check=True, capture_output=True, timeout=30)


def holds(path: Path, at: int, byte: int, count: int) -> bool:
    kind = path.suffix.removeprefix(".")
    read = f"read -P {byte} {at} {count}"
    ran = subprocess.run(
        ["qemu-io", "-r", "-f", kind, "-c", read, str(path)], check=False, capture_output=True, timeout=30
    )
    return ran.returncode == 0 and b"verification failed" not in ran.stdout


def refused(code: str, call: Any) -> CorralError:
    with pytest.raises(CorralError) as error:
        asyncio.run(call)
    assert error.value.code == code, error.value
    return error.value


@pytest.fixture
def root() -> Iterator[Path]:
    """A place that QEMU could walk through."""
    made = Path(tempfile.mkdtemp(prefix="corral-vol-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@pytest.fixture
def store(tmp_path: Path) -> DirVolumes:
    return DirVolumes(tmp_path / "state")


@pytest.fixture
def mounted(root: Path) -> Iterator[Callable[[str, int], Path]]:
    """File systems of their own: `tmpfs`, or one of mkfs on a loop device."""
    made: list[Path] = []

    def mount(kind: str, mib: int) -> Path:
        place = root / f"{kind}{len(made)}"
        place.mkdir()
        if kind == "tmpfs":
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={mib}m,mode=755", "none", place], check=True)
        else:
            image = root / f"{place.name}.img"
            with image.open("wb") as stream:
                stream.truncate(mib << 20)
            subprocess.run([f"mkfs.{kind}", "-q", str(image)], check=True, capture_output=True, timeout=60)
            subprocess.run(["mount", "-o", "loop", str(image), str(place)], check=True, timeout=30)
        made.append(place)
        return place

    yield mount
    for place in made:
        subprocess.run(["umount", "-l", place], check=False)


def test_a_raw_volume_is_sparse_grows_and_is_found(store: DirVolumes) -> None:
    wanted = volume(GIB, format="raw")
    path = asyncio.run(store.create(wanted, None, ""))
    assert (path.suffix, path.stat().st_size, path.stat().st_mode & 0o777) == (".raw", GIB, 0o600)
    assert asyncio.run(store.allocations()) == {wanted.uid: 0}
    grown = wanted.model_copy(update={"spec": wanted.spec.model_copy(update={"size_bytes": 2 * GIB})})
    asyncio.run(store.grow(grown, in_use=False))
    assert path.stat().st_size == 2 * GIB
    [found] = asyncio.run(store.found())
    assert (found.uid, found.path) == (wanted.uid, path)
    asyncio.run(store.remove(wanted.uid))
    assert asyncio.run(store.found()) == ()
    assert not path.exists()


@pytest.mark.parametrize("kind", ["qcow2", "raw"])
def test_a_copy_of_an_overlay_leans_on_nothing(store: DirVolumes, tmp_path: Path, kind: str) -> None:
    image = tmp_path / "image.qcow2"
    asyncio.run(qemu_img.create_empty(image, 32 * MIB))
    write(image, 0, b"\x11" * MIB)
    original, copy = volume(), volume(128 * MIB, format=kind)
    path = asyncio.run(store.create(original, image, "qcow2"))
    write(path, 40 * MIB, b"\x22" * MIB)
    shares: list[float] = []
    asyncio.run(store.fill(copy, Source(path, "qcow2"), shares.append))
    made = store.volume_path(copy)
    assert holds(made, 0, 0x11, MIB)
    assert holds(made, 40 * MIB, 0x22, MIB)
    assert holds(made, 100 * MIB, 0, MIB)
    assert qemu_img.virtual_bytes(made, copy.spec.format) == 128 * MIB
    assert kind == "raw" or not qemu_img.has_backing(made)
    assert shares[-1] == 1.0
    assert shares == sorted(shares)
    assert list(made.parent.glob(".*")) == []


def test_a_copy_shares_blocks_where_the_file_system_can(mounted: Callable[[str, int], Path]) -> None:
    store = DirVolumes(mounted("xfs", 400) / "state")
    original, copy = volume(64 * MIB, format="raw"), volume(64 * MIB, format="raw")
    path = asyncio.run(store.create(original, None, ""))
    path.write_bytes(os.urandom(48 * MIB))
    os.truncate(path, 64 * MIB)
    os.sync()
    before = asyncio.run(store.usage()).free_bytes
    asyncio.run(store.fill(copy, Source(path, "raw"), nothing))
    os.sync()
    assert before - asyncio.run(store.usage()).free_bytes < 8 * MIB
    assert store.volume_path(copy).read_bytes() == path.read_bytes()


def test_a_copy_that_somebody_wrote_meanwhile_is_refused(store: DirVolumes, monkeypatch: pytest.MonkeyPatch) -> None:
    original, copy = volume(), volume()
    path = asyncio.run(store.create(original, None, ""))
    write(path, 0, b"\x33" * MIB)

    def guest_writes(_share: float) -> None:
        write(path, 2 * MIB, b"\x44" * 4096)

    refused("volume-in-use", store.fill(copy, Source(path, "qcow2"), guest_writes))
    assert not store.volume_path(copy).exists()
    assert asyncio.run(store.clean()) == 1  # its sidecar


def test_what_is_handed_over_is_what_it_was_told_to_be(store: DirVolumes, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret" * 100_000)
    leaning, liar, external = tmp_path / "leaning.qcow2", tmp_path / "liar", tmp_path / "external.qcow2"
    asyncio.run(qemu_img.create_overlay(leaning, secret, "raw", 64 * MIB))
    refused("image-invalid", store.fill(volume(), Source(leaning, "qcow2", foreign=True), nothing))
    options = ["-o", f"data_file={secret},data_file_raw=on"]
    subprocess.run(
        ["qemu-img", "create", "-q", "-f", "qcow2", *options, str(external), "600000"], check=True, capture_output=True
    )
    refused("image-invalid", store.fill(volume(), Source(external, "qcow2", foreign=True), nothing))
    liar.write_bytes(b"\0" * MIB)
    refused("image-invalid", store.fill(volume(), Source(liar, "qcow2", foreign=True), nothing))
    # Told raw, a qcow2 header is data, whatever it names.
    told_raw = volume(format="raw")
    asyncio.run(store.fill(told_raw, Source(leaning, "raw", foreign=True), nothing))
    content = store.volume_path(told_raw).read_bytes()
    assert content.startswith(b"QFI\xfb")
    assert b"secretsecret" not in content


def test_shrinking_is_proven(store: DirVolumes) -> None:
    for kind in ("qcow2", "raw"):
        data = volume(256 * MIB, format=kind)
        path = asyncio.run(store.create(data, None, ""))
        write(path, 100 * MIB, b"\x55" * MIB)
        smaller = data.model_copy(update={"spec": data.spec.model_copy(update={"size_bytes": 100 * MIB})})
        error = refused("invalid-size", store.check_shrink(data, 100 * MIB))
        assert error.context["data_end_bytes"] == 101 * MIB
        refused("invalid-size", store.shrink(smaller))
        assert qemu_img.virtual_bytes(path, data.spec.format) == 256 * MIB
        fits = data.model_copy(update={"spec": data.spec.model_copy(update={"size_bytes": 101 * MIB})})
        for _ in range(2):  # again does nothing
            asyncio.run(store.shrink(fits))
        assert qemu_img.virtual_bytes(path, data.spec.format) == 101 * MIB
        assert holds(path, 100 * MIB, 0x55, MIB)


def test_data_of_the_image_below_is_not_cut_off_either(store: DirVolumes, tmp_path: Path) -> None:
    image = tmp_path / "image.qcow2"
    asyncio.run(qemu_img.create_empty(image, 64 * MIB))
    write(image, 50 * MIB, b"\x66" * MIB)
    data = volume(128 * MIB, image_uid=new_uid())
    asyncio.run(store.create(data, image, "qcow2"))
    refused("invalid-size", store.check_shrink(data, 50 * MIB))
    asyncio.run(store.check_shrink(data, 51 * MIB))


def test_a_full_disk_leaves_nothing_of_a_copy(store: DirVolumes, mounted: Callable[[str, int], Path]) -> None:
    original = volume()
    path = asyncio.run(store.create(original, None, ""))
    write(path, 0, b"\x77" * (40 * MIB))
    place = mounted("tmpfs", 280) / "pool"  # 256 MiB are left to running guests
    small = pool(place)
    asyncio.run(store.open_pool(small))
    copy = volume(pool="fast")
    for kind in ("qcow2", "raw"):
        wanted = copy.model_copy(update={"spec": copy.spec.model_copy(update={"format": kind})})
        if kind == "raw":
            (place / "ballast").write_bytes(b"\1" * (260 * MIB))
        refused("disk-full", store.fill(wanted, Source(path, "qcow2"), nothing))
    assert [found.name for found in place.iterdir() if found.suffix in (".qcow2", ".raw", ".tmp")] == []


def test_a_disk_is_flattened_for_its_user(store: DirVolumes, tmp_path: Path) -> None:
    image = tmp_path / "image.qcow2"
    asyncio.run(qemu_img.create_empty(image, 32 * MIB))
    write(image, 0, b"\x11" * MIB)
    path = asyncio.run(store.create(volume(), image, "qcow2"))
    flat = asyncio.run(store.flatten(Source(path, "qcow2"), "qcow2", nothing))
    assert not qemu_img.has_backing(flat)
    assert asyncio.run(store.clean()) == 1  # whoever asked for it died


def test_pools_are_marked_found_again_and_kept_while_something_lies_in_them(root: Path) -> None:
    place, state = root / "fast", root / "state"
    store, fast = DirVolumes(state), pool(place)
    asyncio.run(store.open_pool(fast))
    asyncio.run(store.open_pool(fast))
    data = volume(pool="fast")
    path = asyncio.run(store.create(data, None, ""))
    assert path.parent == place
    assert place.stat().st_mode & 0o777 == 0o711
    again = DirVolumes(state)  # with the database lost, too
    assert again.pools() == {"default": state / "volumes", "fast": place}
    assert [(found.uid, found.pool) for found in asyncio.run(again.found())] == [(data.uid, "fast")]
    refused("pool-in-use", again.close_pool("fast"))
    asyncio.run(again.remove(data.uid, "fast"))
    asyncio.run(again.close_pool("fast"))
    asyncio.run(again.close_pool("fast"))
    assert list(place.iterdir()) == []
    refused("pool-not-found", again.usage("fast"))


def test_a_pool_that_is_away_is_not_taken_for_an_empty_one(
    store: DirVolumes, mounted: Callable[[str, int], Path]
) -> None:
    place = mounted("tmpfs", 16)
    asyncio.run(store.open_pool(pool(place / "pool")))
    shutil.move(place / "pool", place / "elsewhere")
    for call in (
        store.create(volume(pool="fast"), None, ""),
        store.usage("fast"),
        store.allocations("fast"),
        store.remove(new_uid(), "fast"),
    ):
        refused("pool-unavailable", call)
    assert asyncio.run(store.found()) == ()


def test_places_of_others_are_not_taken(store: DirVolumes, root: Path) -> None:
    full = root / "full"
    full.mkdir()
    (full / "letters.txt").write_text("dear")
    assert "letters.txt" in refused("storage-error", store.open_pool(pool(full))).reason
    theirs = root / "theirs"
    theirs.mkdir()
    (theirs / MARK).write_text(new_uid())
    refused("storage-error", store.open_pool(pool(theirs)))
    open_to_all = root / "open"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    refused("storage-error", store.open_pool(pool(open_to_all)))
    closed = root / "closed"
    closed.mkdir(mode=0o700)
    assert "chmod o+x" in refused("storage-error", store.open_pool(pool(closed / "pool"))).hint
    assert store.pools().keys() == {"default"}
