"""Two layers that nobody needs, one above the other, and a daemon that dies between a merge and its record: whatever is merged
next, what a header names is there, so that whoever reads through the files themselves can."""

import asyncio
import subprocess
from pathlib import Path
from typing import Any

import pytest
from points_in_time import forget, found, taken

from corral import qemu_img
from corral.model.layer import Layer
from corral.model.operation import OperationState
from corral.model.vm import Power
from corral.storage.dir import DirVolumes

BLOCK = 65536


@pytest.fixture(autouse=True)
def hurried(monkeypatch):
    monkeypatch.setattr("corral.agent.vm.TIDY_AGAIN_S", 0.05)


async def prepared(w, directory: Path):
    """A VM that is off, with a point in time on each of three layers; each was written to."""
    w.volumes = DirVolumes(directory)
    image = w.library.files(w.image.status.facts).disk
    image.parent.mkdir(parents=True, exist_ok=True)
    run("qemu-img", "create", "-q", "-f", "qcow2", str(image), "1M")
    await w.start()
    vm, create = await w.create(power=Power.OFF)
    assert (await w.ended(create)).status.state is OperationState.SUCCEEDED
    for number, name in enumerate(("a", "b", "c")):
        path = w.hypervisor.domains[vm.uid].disks[0].path
        run("qemu-io", "-f", "qcow2", "-c", f"write -P {number + 1} {number * BLOCK} {BLOCK}", path)
        await taken(w, vm, name)
    return vm


def run(*argv: str) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, (argv, done.stderr)
    return done.stdout


@pytest.mark.parametrize("again", ["the upper one", "the lower one"])
def test_what_a_header_names_is_there(world, tmp_path, monkeypatch, again):
    """The upper one is merged first; `again`: which of the two is looked at first once the daemon is back."""

    async def scene(w):
        vm = await prepared(w, tmp_path / "state")
        points = {name: await found(w, name) for name in ("a", "b", "c")}
        lower, upper, kept = (points[name].spec.disks[0].layer_uid for name in ("a", "b", "c"))
        order = {upper: 0, lower: 1}
        monkeypatch.setattr("corral.agent.layer_tree.sorted", lambda layers: _by(order, layers), raising=False)
        cut = asyncio.Event()
        merge = w.volumes.layers.merge

        async def merge_and_die(layer: Layer, *rest: Any) -> None:
            await merge(layer, *rest)
            if layer.uid == kept and not cut.is_set():
                cut.set()
                w.simulation.crashed = True  # nothing of it is recorded any more

        monkeypatch.setattr(w.volumes.layers, "merge", merge_and_die)
        removed: list[str] = []
        remove = w.volumes.layers.remove

        async def look_and_remove(uid: str, pool: str) -> None:
            named = {qemu_img.backing_name(path) for path in (tmp_path / "state" / "volumes").glob("*.qcow2")}
            assert str(w.volumes.path(uid)) not in named, "a header would name what is gone"
            removed.append(uid)
            await remove(uid, pool)

        monkeypatch.setattr(w.volumes.layers, "remove", look_and_remove)
        await w.kill()
        for name in ("a", "b"):
            await forget(w, vm, name)
        await w.start(wait=False)
        async with asyncio.timeout(20):
            await cut.wait()
        await w.kill()
        order.update({upper: 0, lower: 1} if again == "the upper one" else {lower: 0, upper: 1})
        await w.start()
        await w.until(lambda: {lower, upper} <= set(removed), 20)
        await w.quiet()
        reads = [word for n in range(3) for word in ("-c", f"read -P {n + 1} {n * BLOCK} {BLOCK}")]
        head = w.hypervisor.domains[vm.uid].disks[0].path
        assert "failed" not in run("qemu-io", "-r", "-f", "qcow2", *reads, head)

    world(scene)


def test_what_a_running_guest_sank_unrecorded_is_named_again(world, tmp_path):
    """QEMU took the upper one into the lower, and what lies above says so; off, the lower one is taken into the upper."""

    async def scene(w):
        vm = await prepared(w, tmp_path / "state")
        points = {name: await found(w, name) for name in ("a", "b", "c")}
        lower, upper = (str(w.volumes.path(points[name].spec.disks[0].layer_uid)) for name in ("b", "c"))
        head = w.hypervisor.domains[vm.uid].disks[0].path
        run("qemu-img", "commit", "-q", "-d", "-f", "qcow2", "-b", lower, upper)
        run("qemu-img", "rebase", "-u", "-f", "qcow2", "-b", lower, "-F", "qcow2", head)
        await forget(w, vm, "b")

        async def is_gone() -> bool:
            return not Path(lower).exists()

        await w.until(is_gone, 20)
        await w.quiet()
        assert qemu_img.backing_name(Path(head)) == upper
        for number in range(3):
            run("qemu-io", "-r", "-f", "qcow2", "-c", f"read -P {number + 1} {number * BLOCK} {BLOCK}", head)

    world(scene)


def _by(order: dict[str, int], layers):
    """Layers as `sorted` would give them, were those two called so."""
    return sorted(layers, key=lambda item: (order.get(item[0] if isinstance(item, tuple) else item, 2), str(item)))
