"""What a VM that comes from another one begins with besides disks: kept until it is made, by no crash lost or left over."""

import asyncio
import stat
from pathlib import Path

import pytest

from corral.errors import CorralError
from corral.names import new_uid
from corral.storage.dir import DirVolumes


@pytest.fixture
def point(tmp_path: Path) -> Path:
    """A point in time's directory."""
    directory = tmp_path / "point"
    (directory / "tpm").mkdir(parents=True)
    (directory / "nvram.fd").write_bytes(b"boot entries")
    (directory / "tpm" / "tpm2-00.permall").write_bytes(b"keys")
    return directory


def test_it_is_whole_and_nobody_elses_to_read(tmp_path, point):
    async def scene():
        layers, uid = DirVolumes(tmp_path / "state").layers, new_uid()
        assert layers.inheritance(uid) is None
        await layers.inherit(uid, point, ("nvram.fd", "tpm"))
        found = layers.inheritance(uid)
        assert (found / "nvram.fd").read_bytes() == b"boot entries"
        assert (found / "tpm" / "tpm2-00.permall").read_bytes() == b"keys"
        assert stat.S_IMODE(found.parent.stat().st_mode) == 0o700
        await layers.inherit(uid, point, ("nvram.fd", "none-such"))  # asked once more
        assert [path.name for path in layers.inheritance(uid).iterdir()] == ["nvram.fd"]
        await layers.forget_inheritance(uid)
        await layers.forget_inheritance(uid)
        assert list(found.parent.iterdir()) == []

    asyncio.run(scene())


def test_what_a_former_process_kept_for_nobody_goes_and_what_this_one_keeps_stays(tmp_path, point):
    async def scene():
        wanted, unwanted, new = new_uid(), new_uid(), new_uid()
        layers = DirVolumes(tmp_path).layers
        for uid in (wanted, unwanted):
            await layers.inherit(uid, point, ("nvram.fd",))
        (tmp_path / "inherited" / f".{new_uid()}.tmp").mkdir()  # cut in the middle
        layers = DirVolumes(tmp_path).layers
        await layers.inherit(new, point, ("nvram.fd",))  # its VM is about to be written
        await layers.forget_heirs({wanted: None}.keys())
        assert {path.name for path in (tmp_path / "inherited").iterdir()} == {wanted, new}

    asyncio.run(scene())


def test_what_cannot_be_kept_is_told_and_leaves_nothing(tmp_path, point, monkeypatch):
    async def scene():
        layers, uid = DirVolumes(tmp_path / "state").layers, new_uid()

        def refuse(*_args: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("corral.storage.heirs.shutil.copyfile", refuse)
        with pytest.raises(CorralError) as refused:
            await layers.inherit(uid, point, ("nvram.fd",))
        assert refused.value.code == "disk-full"
        assert layers.inheritance(uid) is None
        assert list((tmp_path / "state" / "inherited").iterdir()) == []

    asyncio.run(scene())


def test_it_goes_with_the_next_daemon_where_one_died_after_the_vm_was_defined(world):
    async def scene(w):
        await w.start()
        vm, create = await w.create()
        await w.ended(create)
        await w.volumes.layers.inherit(vm.uid, Path("point"), ("nvram.fd",))
        await w.kill()
        await w.start()
        await w.quiet()
        assert w.volumes.layers.inheritance(vm.uid) is None

    world(scene)
