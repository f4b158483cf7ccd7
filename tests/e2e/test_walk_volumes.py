"""Volumes on real libvirt: a guest writes one, it goes from VM to VM, is copied, moved, saved and shared; nothing is lost."""

import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from walk import Walk

pytestmark = pytest.mark.timeout(900)

MIB = 2**20


def device(walk: Walk, vm: str, serial: str) -> str:
    """The disk's name in the guest, by its serial: disks are not named in their order."""
    found = walk("exec", vm, "--", "sh", "-c", f"grep -l '^{serial}$' /sys/block/vd*/serial").ok()
    return f"/dev/{found.split('/')[3]}"


def disks(walk: Walk, vm: str) -> str:
    return walk("exec", vm, "--", "sh", "-c", "cat /sys/block/vd*/serial").ok()


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory of its own that QEMU can walk to."""
    made = Path(tempfile.mkdtemp(prefix="corral-pool-"))
    made.chmod(0o755)
    yield made
    subprocess.run(["rm", "-rf", str(made)], check=False)


def test_a_volume_goes_from_vm_to_vm_with_what_was_written(walk: Walk, vm: str, place: Path, tmp_path: Path) -> None:
    name = walk.name("v")
    walk("volume", "create", name, "--size", "64M").ok()
    walk("volume", "attach", name, vm, "--name", "data").ok()
    disk = device(walk, vm, "data")
    walk("exec", vm, "--", "sh", "-c", f"echo kept | dd of={disk} bs=512 seek=2000 conv=sync,fsync").ok()
    walk("volume", "resize", name, "96M").ok()
    assert walk("exec", vm, "--", "blockdev", "--getsize64", disk).ok().strip() == str(96 * MIB)
    for verb in (("download", name, str(tmp_path / "x.raw")), ("copy", name, f"{name}-x"), ("delete", name)):
        walk("volume", *verb).ends(4, "volume-in-use")
    walk("volume", "detach", name).ok()
    assert "data" not in disks(walk, vm).split()

    walk("volume", "resize", name, "512K", "--shrink").ends(2)
    walk("volume", "resize", name, "1M", "--shrink").ok()  # what was written lies at 1,000 KiB
    saved = tmp_path / "saved.raw"
    walk("volume", "download", name, str(saved)).ok()
    assert saved.stat().st_size == MIB
    assert saved.read_bytes()[2000 * 512 :][:5] == b"kept\n"

    walk("pool", "create", name, "--path", str(place / "pool")).ok()
    walk("volume", "move", name, name).ok()
    assert walk.json("volume", "show", name)["status"]["path"].startswith(str(place))
    walk("pool", "delete", name).ends(4, "pool-in-use")
    walk("volume", "copy", name, f"{name}-copy", "--pool", "default").ok()
    walk("volume", "upload", str(saved), f"{name}-back").ok()
    for volume in (name, f"{name}-copy", f"{name}-back"):
        walk("volume", "attach", volume, vm, "--name", "again", "--read-only").ok()
        disk = device(walk, vm, "again")
        read = f"dd if={disk} bs=512 skip=2000 count=1 | head -c 4"
        assert walk("exec", vm, "--", "sh", "-c", read).ok() == "kept", volume
        walk("volume", "detach", volume).ok()
    walk("volume", "delete", name, f"{name}-copy", f"{name}-back").ok()
    assert [path.name for path in (place / "pool").iterdir()] == [".corral-pool"]
    walk("pool", "delete", name).ok()


def test_two_guests_write_one_volume(walk: Walk, vm: str) -> None:
    name, other = walk.name("s"), walk.name("o")
    walk("volume", "create", name, "--size", "8M", "--format", "raw", "--shared").ok()
    walk("create", "--name", other, "--image", "micro", "--memory", "128", "--disk", f"volume={name},name=ours").ok()
    walk("volume", "attach", name, vm, "--name", "ours").ok()
    walk("wait", other, "--for", "agent", "--timeout", "240s").ok()
    for writer, reader, text in ((vm, other, "one"), (other, vm, "two")):
        write = f"echo {text} | dd of={device(walk, writer, 'ours')} bs=512 conv=sync,fsync"
        walk("exec", writer, "--", "sh", "-c", write).ok()
        read = f"echo 3 >/proc/sys/vm/drop_caches; head -c 3 {device(walk, reader, 'ours')}"
        assert walk("exec", reader, "--", "sh", "-c", read).ok() == text
    assert walk.json("volume", "show", name)["status"]["path"].endswith(".raw")
    walk("drift", "show", other).ok()
    walk("delete", other, "-y").ok()
    walk("volume", "detach", name, vm).ok()
    walk("volume", "delete", name).ok()
