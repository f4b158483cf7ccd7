"""Volumes that stand alone are made, copied, resized and moved: cut at any call, each is whole afterwards, or gone."""

import asyncio

import pytest
from points_in_time import reads, taken, write

from corral.errors import CorralError
from corral.model.identity import Identity, Role
from corral.model.layer import Layer
from corral.model.operation import DeleteVm, Operation, OperationState
from corral.model.pool import Pool, PoolSpec
from corral.model.requests import CloneVmRequest
from corral.model.vm import Vm
from corral.model.volume import Volume
from corral.model.volume_requests import (
    CopyVolumeRequest,
    CreateVolumeRequest,
    FlattenVolumeRequest,
    MoveVolumeRequest,
    ResizeVolumeRequest,
)
from corral.names import GIB, new_uid
from corral.services.caller import Caller
from corral.services.clone import CloneService
from corral.services.volume import VolumeService
from corral.services.volume_create import VolumeMaker
from corral.services.volume_move import VolumeMover
from corral.services.volume_size import VolumeSizer
from corral.simulation import Fault, FaultKind
from corral.store.objects import work_claim

ADMIN = Caller(Identity(name="local:root", roles={"*": Role.ADMIN}), "request")
KINDS = (FaultKind.CRASH_BEFORE, FaultKind.CRASH_AFTER, FaultKind.ERROR, FaultKind.LATE_ERROR)


async def create(w, **request) -> Operation:
    asked = CreateVolumeRequest.model_validate({"name": "data", "size_bytes": GIB, **request})
    return (await VolumeMaker(w.devices._context).create(ADMIN, "default", asked))[1]


async def copy(w) -> Operation:
    return (await VolumeMaker(w.devices._context).copy(ADMIN, "default", "data", CopyVolumeRequest(name="copy")))[1]


async def grow(w) -> Operation:
    return await VolumeSizer(w.devices._context, w.devices).resize(
        ADMIN, "default", "data", ResizeVolumeRequest(size_bytes=2 * GIB)
    )


async def shrink(w) -> Operation:
    return await VolumeSizer(w.devices._context, w.devices).resize(
        ADMIN, "default", "data", ResizeVolumeRequest(size_bytes=GIB // 2, shrink=True)
    )


async def move(w) -> Operation:
    return await VolumeMover(w.devices._context).move(ADMIN, "default", "data", MoveVolumeRequest(pool="fast"))


async def flatten(w) -> Operation:
    return await VolumeMover(w.devices._context).flatten(ADMIN, "default", "data", FlattenVolumeRequest())


VERBS = {"create": create, "copy": copy, "grow": grow, "shrink": shrink, "move": move, "flatten": flatten}
CALLS = {
    "create": ["storage.create"],
    "copy": ["storage.fill"],
    "grow": ["storage.grow"],
    "shrink": ["storage.shrink"],
    "move": ["storage.fill", "storage.grow", "storage.remove"],
    "flatten": ["storage.stand_alone", "storage.grow"],
}
WRITTEN = {7: "seven", 11: "eleven"}


async def prepared(w, verb: str) -> None:
    await w.start()
    fast = Pool(name="fast", uid=new_uid(), created_at=w.clock.now(), spec=PoolSpec(path="/srv/fast"))
    for volumes in (w.volumes, w.devices._context.volumes):  # of the agent, and of the services
        await volumes.open_pool(fast)
    if verb != "create":
        await w.ended(await create(w))
        [data] = await w.objects.list(Volume)
        for block, value in WRITTEN.items():
            w.volumes.layers.disks.write(str(w.volumes.volume_path(data)), block, value)


def content(w, volume: Volume) -> dict[int, str]:
    return w.volumes.layers.disks.content(str(w.volumes.volume_path(volume)))


async def check(w, verb: str, done: Operation) -> None:
    """What its user finds: as asked, or as before; and the files are those that are known."""
    volumes = {volume.name: volume for volume in await w.objects.list(Volume)}
    good = done.status.state is OperationState.SUCCEEDED
    expected = {"create": {"data"} if good else set(), "copy": {"data", "copy"} if good else {"data"}}
    assert volumes.keys() == expected.get(verb, {"data"}), done.status
    assert all(volume.status.ready for volume in volumes.values())
    assert w.volumes.pool.volumes.keys() == {volume.uid for volume in volumes.values()}
    if verb != "create":
        assert all(content(w, volume) == WRITTEN for volume in volumes.values())
        assert await w.objects.owner(work_claim(volumes["data"].uid)) is None
    if verb == "move":
        pool = "fast" if good else "default"
        assert volumes["data"].spec.pool == pool
        assert volumes["data"].status.path == str(w.volumes.volume_path(volumes["data"]))
        assert w.volumes._volumes_in(pool) == [volumes["data"].uid]
        other = w.volumes.path(volumes["data"].uid, "default" if good else "fast")
        assert str(other) not in w.volumes.layers.disks.files
    if verb in ("grow", "shrink"):
        wanted = 2 * GIB if verb == "grow" else GIB // 2
        assert volumes["data"].spec.size_bytes == (wanted if good else GIB)
        assert volumes["data"].status.size_bytes == (wanted if good else GIB)


@pytest.mark.parametrize("verb", VERBS)
def test_each_does_what_was_asked_and_says_so(world, verb):
    async def scene(w):
        await prepared(w, verb)
        done = await w.ended(await VERBS[verb](w))
        assert done.status.state is OperationState.SUCCEEDED, done.status
        await check(w, verb, done)
        said = {"create": "Created", "copy": "Created", "move": "Moved", "flatten": "Flattened"}.get(verb, "Resized")
        assert f"Volume{said}" in await w.events()

    world(scene)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("verb", VERBS)
def test_every_call_may_be_cut(world, kind, verb):
    def scenes(target: str, nth: int):
        async def scene(w):
            await prepared(w, verb)
            crashed = asyncio.Event()
            w.simulation.on_crash = crashed.set
            code = "storage-error" if target.startswith("storage") else "store-unavailable"
            w.simulation.inject(Fault(kind, target, nth=nth, error=CorralError(code, "a call", "injected")))
            operation = await VERBS[verb](w)
            if "crash" in kind:
                async with asyncio.timeout(10):
                    await crashed.wait()
                await w.kill()
                await w.start()
            done = await w.ended(operation)
            assert done.status.state in (OperationState.SUCCEEDED, OperationState.FAILED)
            if "crash" in kind or target in ("store.transact", "storage.remove"):
                assert done.status.state is OperationState.SUCCEEDED, done.status
            await check(w, verb, done)
            again = await w.ended(await VERBS[verb](w)) if done.status.state is OperationState.FAILED else done
            assert again.status.state is OperationState.SUCCEEDED, again.status

        return scene

    for target, nth in (*((call, 1) for call in CALLS[verb]), ("store.transact", 1), ("store.transact", 2)):
        if target == "store.transact" and nth == 2 and verb in ("create", "copy"):
            continue  # one transaction ends it
        world(scenes(target, nth))


def test_what_cannot_be_undone_at_once_is_undone_later(world):
    async def scene(w):
        await w.start()
        for call in ("storage.create", "storage.remove"):
            error = CorralError("storage-error", call, "the disk is read-only")
            w.simulation.inject(Fault(FaultKind.ERROR, call, error=error))
        done = await w.ended(await create(w))
        # Its file could not be removed either, so it was tried again; by then the disk was whole.
        assert done.status.state is OperationState.SUCCEEDED
        await check(w, "create", done)

    world(scene)


def test_a_full_disk_is_waited_for_a_little_and_then_said(world):
    async def scene(w):
        await prepared(w, "copy")
        w.volumes.full = True
        done = await w.ended(await copy(w), timeout_s=30)
        assert (done.status.state, done.status.error.code) == (OperationState.FAILED, "disk-full")
        await check(w, "copy", done)
        w.volumes.full = False
        assert (await w.ended(await copy(w))).status.state is OperationState.SUCCEEDED

    world(scene)


def test_a_copy_that_is_cancelled_leaves_nothing(world):
    async def scene(w):
        await prepared(w, "copy")
        w.simulation.inject(Fault(FaultKind.HANG, "storage.fill"))
        operation = await copy(w)
        await w.until(lambda: _called(w, "storage.fill"))
        await w.cancel(operation)
        done = await w.ended(operation)
        assert done.status.state is OperationState.CANCELLED
        await check(w, "copy", done)

    world(scene)


async def _called(w, call: str) -> bool:
    return call in w.simulation.trace


def test_an_original_is_not_deleted_while_it_is_copied(world):
    async def scene(w):
        await prepared(w, "copy")
        w.simulation.inject(Fault(FaultKind.HANG, "storage.fill"))
        copying = await copy(w)
        await w.until(lambda: _called(w, "storage.fill"))
        deleting = await VolumeService(w.devices._context).delete(ADMIN, "default", "data")
        done = await w.ended(deleting)
        assert (done.status.state, done.status.error.code) == (OperationState.FAILED, "volume-in-use")
        assert "copy" in done.status.error.reason
        await w.cancel(copying)
        await w.ended(copying)
        assert (
            await w.ended(await VolumeService(w.devices._context).delete(ADMIN, "default", "data"))
        ).status.state is OperationState.SUCCEEDED

    world(scene)


def test_what_is_short_does_not_wait_for_copies(world):
    async def scene(w):
        await prepared(w, "copy")
        w.simulation.inject(Fault(FaultKind.HANG, "storage.fill", times=8))
        maker = VolumeMaker(w.devices._context)
        copies = [
            (await maker.copy(ADMIN, "default", "data", CopyVolumeRequest(name=f"copy{number}")))[1]
            for number in range(4)
        ]
        await w.until(lambda: _called(w, "storage.fill"))
        done = await w.ended(await create(w, name="other"))
        assert done.status.state is OperationState.SUCCEEDED
        assert w.simulation.trace.count("storage.fill") == 2
        for copying in copies:
            await w.cancel(copying)
        for copying in copies:
            assert (await w.ended(copying)).status.state is OperationState.CANCELLED

    world(scene)


@pytest.mark.parametrize("verb", ["move", "flatten"])
def test_a_kept_disk_of_a_clone_leaves_what_it_stood_on(world, verb):
    """The layers below stay as long as the origin stands on them, and go with the volume that was the last."""

    async def scene(w):
        await prepared(w, "create")
        origin, made = await w.create("web")
        await w.ended(made)
        await taken(w, origin, "kept")
        request = CloneVmRequest(names=("copy",), from_snapshot="kept")
        operation = (await CloneService(w.devices._context).clone(ADMIN, "default", "web", request))[1][0]
        await w.ended(operation)
        copy = await w.objects.get(Vm, operation.spec.target_uid)
        write(w, copy, 7, "the clone's")
        held = reads(w, copy)
        await w.ended(await w.wish(copy, DeleteVm(keep_disks=True), delete=True))
        [kept] = [found for found in await w.objects.list(Volume) if found.spec.vm_uid is None]
        mover = VolumeMover(w.devices._context)
        if verb == "move":
            asked = await mover.move(ADMIN, "default", kept.uid, MoveVolumeRequest(pool="fast"))
        else:
            asked = await mover.flatten(ADMIN, "default", kept.uid, FlattenVolumeRequest())
        done = await w.ended(asked)
        assert done.status.state is OperationState.SUCCEEDED, done.status
        kept = await w.objects.get(Volume, kept.uid)
        head = await w.objects.get(Layer, kept.head_uid)
        assert (kept.spec.image_uid, head.spec.parent_uid, head.spec.pool) == (None, None, kept.spec.pool)
        path = str(w.volumes.volume_path(kept))
        assert w.volumes.layers.disks.files[path].backing == ""
        assert content(w, kept) == held
        # The origin's own stay.
        assert reads(w, origin) == {}
        w.hypervisor.guest_reads(origin.uid, "root")
        deleted = await w.ended(await VolumeService(w.devices._context).delete(ADMIN, "default", kept.uid))
        assert deleted.status.state is OperationState.SUCCEEDED
        assert path not in w.volumes.layers.disks.files
        assert await w.objects.get(Layer, head.uid) is None

    world(scene)
