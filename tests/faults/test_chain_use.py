"""A chain that is copied while a layer of it is merged: the copy holds what it must, and the merge is done later."""

import asyncio
import os
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from corral import qemu_img
from corral.errors import CorralError
from corral.model.layer import Layer, LayerSpec
from corral.model.volume import Volume, VolumeSpec
from corral.names import MIB, new_uid
from corral.storage.base import Source
from corral.storage.dir import DirVolumes
from corral.storage.layers import Backing

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SIZE = 16 * MIB
# What each layer of the chain was written with: byte, offset, length; the lowest first.
WRITTEN = ((1, 0, 4 * MIB), (2, 0, 65536), (3, 131072, 65536))
EXPECTED = ((2, 0, 65536), (1, 65536, 65536), (3, 131072, 65536), (1, 1 * MIB, 3 * MIB), (0, 4 * MIB, 12 * MIB))


def run(*argv: str) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, (argv, done.stderr)
    return done.stdout


def layer(parent: Layer | None) -> Layer:
    uid = new_uid()
    spec = LayerSpec(pool="default", size_bytes=SIZE, parent_uid=parent.uid if parent else None, volume_uid=uid)
    return Layer(name=uid, uid=uid, created_at=NOW, spec=spec)


class Chain:
    """Three layers, each written to before the next was put on it."""

    def __init__(self, directory: Path) -> None:
        self.volumes = DirVolumes(directory)
        self.store = self.volumes.layers

    async def make(self) -> "Chain":
        self.base = await self._on(None, 0)
        self.middle = await self._on(self.base, 1)
        self.top = await self._on(self.middle, 2)
        return self

    async def _on(self, parent: Layer | None, number: int) -> Layer:
        made = layer(parent)
        await self.store.make(made, Backing(self.path(parent), "qcow2") if parent else None)
        byte, at, count = WRITTEN[number]
        run("qemu-io", "-f", "qcow2", "-c", f"write -P {byte} {at} {count}", str(self.path(made)))
        return made

    def path(self, one: Layer) -> Path:
        return self.volumes.path(one.uid)

    async def merge(self, bytes_per_s: int = 200 * MIB) -> None:
        """The lowest into the one in the middle, which the top lies on."""
        await self.store.merge(self.middle, self.base, None, lambda _share: None, bytes_per_s)

    async def copy(self) -> Path:
        volume = Volume(name="copy", uid=new_uid(), created_at=NOW, spec=VolumeSpec(size_bytes=SIZE))
        await self.volumes.fill(volume, Source(self.path(self.top), "qcow2"), lambda _share: None)
        return self.volumes.volume_path(volume)

    @property
    def is_merged(self) -> bool:
        return not qemu_img.backing_name(self.path(self.middle))


def check(path: Path) -> None:
    reads = [word for byte, at, count in EXPECTED for word in ("-c", f"read -P {byte} {at} {count}")]
    assert "verification failed" not in run("qemu-io", "-r", "-f", "qcow2", *reads, str(path))


def in_use(error: BaseException | None) -> bool:
    return isinstance(error, CorralError) and error.code == "volume-in-use"


def test_a_reader_without_a_lock_that_opened_the_file_before_reads_zeros(tmp_path):
    """Why it is so: a fact of QEMU's, not of ours."""

    async def scene():
        chain = await Chain(tmp_path).make()
        reads = [word for byte, at, count in EXPECTED for word in ("-c", f"read -P {byte} {at} {count}")]
        argv = ["qemu-io", "-r", "-U", "-f", "qcow2", "-c", "sleep 1500", *reads, str(chain.path(chain.top))]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as reader:
            files = Path(f"/proc/{reader.pid}/fd")
            wanted = {chain.path(one) for one in (chain.base, chain.middle, chain.top)}
            end_s = time.monotonic() + 10
            while not wanted <= {path.resolve() for path in files.iterdir()} and time.monotonic() < end_s:
                await asyncio.sleep(0.01)
            await chain.merge()
            said = reader.communicate(timeout=30)[0]
        assert "verification failed" in said
        check(chain.path(chain.top))  # who opens it now reads what is there

    asyncio.run(scene())


def test_nothing_is_merged_below_what_is_being_copied(tmp_path, monkeypatch):
    async def scene():
        chain = await Chain(tmp_path).make()
        began, go_on, convert = asyncio.Event(), asyncio.Event(), qemu_img.convert_ours

        async def slowly(*args: object) -> None:
            began.set()
            await go_on.wait()
            await convert(*args)

        monkeypatch.setattr("corral.qemu_img.convert_ours", slowly)
        copying = asyncio.create_task(chain.copy())
        await began.wait()
        with pytest.raises(CorralError) as refused:
            await chain.merge()
        assert in_use(refused.value)
        assert not chain.is_merged
        go_on.set()
        check(await copying)
        await chain.merge()
        assert chain.is_merged
        check(chain.path(chain.top))

    asyncio.run(scene())


def test_a_merge_keeps_to_its_limit(tmp_path):
    """What it writes at once is not counted twice: a part of the first second is free."""

    async def scene():
        chain = await Chain(tmp_path / "a directory, with a comma").make()
        began_s = time.monotonic()
        await chain.merge(bytes_per_s=2 * MIB)
        assert time.monotonic() - began_s > 1
        assert chain.is_merged
        check(chain.path(chain.top))

    asyncio.run(scene())


@pytest.mark.parametrize("comes", ["a copy", "another disk"])
def test_a_merge_gives_way_to_who_comes(tmp_path, monkeypatch, comes):
    async def scene():
        chain = await Chain(tmp_path).make()
        began, rebase = asyncio.Event(), qemu_img.rebase

        async def endless(*_args: object) -> None:
            began.set()
            await asyncio.get_running_loop().create_future()

        monkeypatch.setattr("corral.qemu_img.rebase", endless)
        merging = asyncio.create_task(chain.merge())
        await began.wait()
        if comes == "a copy":
            check(await chain.copy())
        else:
            other = layer(chain.top)
            await chain.store.make(other, Backing(chain.path(chain.top), "qcow2"))
            check(chain.path(other))
        await asyncio.wait([merging])
        assert in_use(merging.exception())
        monkeypatch.setattr("corral.qemu_img.rebase", rebase)
        await chain.merge()
        assert chain.is_merged

    asyncio.run(scene())


def test_a_merge_that_its_own_caller_ends_is_cancelled(tmp_path, monkeypatch):
    async def scene():
        chain = await Chain(tmp_path).make()
        began = asyncio.Event()

        async def endless(*_args: object) -> None:
            began.set()
            await asyncio.get_running_loop().create_future()

        monkeypatch.setattr("corral.qemu_img.rebase", endless)
        merging = asyncio.create_task(chain.merge())
        await began.wait()
        merging.cancel()
        await asyncio.wait([merging])
        assert merging.cancelled()
        monkeypatch.undo()
        await chain.merge()
        check(chain.path(chain.top))

    asyncio.run(scene())


def test_who_has_a_lock_is_not_merged_under(tmp_path):
    """A guest's QEMU, or one that stands on the same layer, is never misled: qemu-img cannot open the file to write."""

    async def scene():
        chain = await Chain(tmp_path).make()
        argv = ["qemu-io", "-r", "-f", "qcow2", "-c", "sleep 1500", str(chain.path(chain.top))]
        with subprocess.Popen(argv, stdout=subprocess.DEVNULL) as reader:
            files = Path(f"/proc/{reader.pid}/fd")
            end_s = time.monotonic() + 10
            while chain.path(chain.middle) not in {p.resolve() for p in files.iterdir()} and time.monotonic() < end_s:
                await asyncio.sleep(0.01)
            with pytest.raises(CorralError) as refused:
                await chain.merge()
            assert refused.value.code == "command-failed"
            assert not chain.is_merged
            reader.wait(30)
        await chain.merge()
        check(chain.path(chain.top))

    asyncio.run(scene())


MERGES = """
import asyncio, sys
from pathlib import Path
from corral import qemu_img
asyncio.run(qemu_img.rebase(Path(sys.argv[1]), Path(sys.argv[2]), None, "qcow2", bytes_per_s=2**20))
"""


def test_a_merge_dies_with_its_daemon(tmp_path):
    """Its lock would keep the VM from starting for as long as it takes."""

    async def scene():
        chain = await Chain(tmp_path / "state").make()
        slow = tmp_path / "bin" / "qemu-img"
        slow.parent.mkdir()
        slow.write_text(
            f"#!/bin/sh\necho $$ >{tmp_path}/pid.new && mv {tmp_path}/pid.new {tmp_path}/pid\nexec sleep 600\n"
        )
        slow.chmod(0o755)
        environ = {**os.environ, "PATH": f"{slow.parent}:{os.environ['PATH']}"}
        files = [str(chain.path(one)) for one in (chain.middle, chain.base)]
        with subprocess.Popen([sys.executable, "-c", MERGES, *files], env=environ) as daemon:
            while not (tmp_path / "pid").exists():
                await asyncio.sleep(0.02)
            daemon.kill()
        status = Path("/proc", (tmp_path / "pid").read_text().strip(), "stat")
        end_s = time.monotonic() + 20
        while status.exists() and status.read_text().split()[2] != "Z":
            assert time.monotonic() < end_s, "it goes on"
            await asyncio.sleep(0.02)

    asyncio.run(scene())
