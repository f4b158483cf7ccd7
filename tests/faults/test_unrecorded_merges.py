"""Merges as they are seen: one that QEMU has done before anybody recorded it, below a new head; how far one is that takes a
while, and that this is no longer said once it has ended, whoever died meanwhile."""

import asyncio
from collections.abc import Callable

import pytest
from points_in_time import check_layers, forget, holds, reads, take, taken, write

from corral.errors import CorralError
from corral.hypervisor.base import StopCause
from corral.model.layer import Layer
from corral.model.operation import OperationState
from corral.model.vm import Vm
from corral.model.volume import Volume


@pytest.fixture(autouse=True)
def hurried(monkeypatch):
    monkeypatch.setattr("corral.agent.vm.TIDY_AGAIN_S", 0.05)
    monkeypatch.setattr("corral.agent.vm.CUT_AGAIN_S", 0.05)


async def written(w, *names: str) -> Vm:
    """A guest that writes a block of each name, a snapshot after each, and one more."""
    await w.start()
    vm, create = await w.create()
    await w.ended(create)
    for number, name in enumerate(names):
        write(w, vm, number, name)
        await taken(w, vm, name)
    write(w, vm, len(names), "since")
    return vm


async def forget_unrecorded(w, vm: Vm, name: str, monkeypatch: pytest.MonkeyPatch, verb: str) -> Callable[[], None]:
    """QEMU has done by `verb` what forgetting takes, and nobody recorded it; what is returned lets it be recorded again."""
    points, do, done = w.hypervisor.points, getattr(w.hypervisor.points, verb), asyncio.Event()

    async def do_and_say_nothing(*given: object) -> None:
        await do(*given)
        done.set()
        raise CorralError("wrong-state", "merging a layer", "something else is wished of its VM")

    monkeypatch.setattr(points, verb, do_and_say_nothing)
    await forget(w, vm, name)
    async with asyncio.timeout(10):
        await done.wait()
    return lambda: monkeypatch.setattr(points, verb, do)


async def tidy(w) -> None:
    """What is left are a's layer, c's, and the head."""

    async def is_tidy() -> bool:
        return len(await w.objects.list(Layer)) == 3

    await w.until(is_tidy, 10)
    await w.quiet()
    await check_layers(w)


@pytest.mark.parametrize("killed", [False, True], ids=["the daemon goes on", "the daemon is killed"])
def test_a_pull_that_nobody_recorded_before_the_next_snapshot(world, monkeypatch, killed):
    async def scene(w):
        vm = await written(w, "a", "b")
        record = await forget_unrecorded(w, vm, "b", monkeypatch, "pull")
        asked = await take(w, vm, "c")
        if killed:
            await w.kill()
            await w.start()
        assert (await w.ended(asked)).status.state is OperationState.SUCCEEDED
        record()
        await tidy(w)
        assert w.hypervisor.domains[vm.uid].active
        assert reads(w, vm) == {0: "a", 1: "b", 2: "since"} == await holds(w, "c")
        assert await holds(w, "a") == {0: "a"}

    world(scene)


@pytest.mark.parametrize("off", [False, True], ids=["it runs on", "its guest goes off"])
@pytest.mark.parametrize("killed", [False, True], ids=["the daemon goes on", "the daemon is killed"])
def test_a_sink_that_nobody_recorded(world, monkeypatch, killed, off):
    """Off, the lower layer goes into the upper one after all: what lies on that says that it lies on the lower one."""

    async def scene(w):
        vm = await written(w, "a", "b", "c")
        record = await forget_unrecorded(w, vm, "b", monkeypatch, "sink")
        if killed:
            await w.kill()
        if off:
            w.hypervisor.stop(vm.uid, StopCause.GUEST)
        record()
        if killed:
            await w.start()
        await tidy(w)
        assert reads(w, vm) == {0: "a", 1: "b", 2: "c", 3: "since"}
        assert await holds(w, "c") == {0: "a", 1: "b", 2: "c"}
        assert await holds(w, "a") == {0: "a"}

    world(scene)


@pytest.mark.parametrize("killed", [False, True], ids=["to its end", "the daemon is killed meanwhile"])
def test_how_far_a_merge_is_stands_with_the_volume(world, monkeypatch, killed):
    async def scene(w):
        await w.start()
        vm, create = await w.create()
        await w.ended(create)
        for name in ("a", "b"):
            await taken(w, vm, name)
        points, pull, go_on = w.hypervisor.points, w.hypervisor.points.pull, asyncio.Event()

        async def slow_pull(uid: str, disk: str, base: str, on_share: Callable[[float], None], *limit: int) -> None:
            on_share(0.42)
            await go_on.wait()
            await pull(uid, disk, base, lambda _share: None, *limit)

        monkeypatch.setattr(points, "pull", slow_pull)

        async def says(share: float | None) -> bool:
            return [volume.status.merging for volume in await w.objects.list(Volume)] == [share]

        await forget(w, vm, "b")
        await w.until(lambda: says(0.4), 10)
        if killed:
            await w.kill()
            assert await says(0.4)
            await w.start(wait=False)
        go_on.set()
        await w.until(lambda: says(None), 10)
        await w.quiet()
        await check_layers(w)

    world(scene)
