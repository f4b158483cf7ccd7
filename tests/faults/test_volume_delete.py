"""A kept volume is deleted: whatever is cut at whichever call, its file and what is known of it go together, or stay."""

import asyncio

import pytest

from corral.errors import CorralError
from corral.model.operation import DeleteVm, DeleteVolume, Operation, OperationSpec, OperationState
from corral.model.volume import Volume
from corral.names import new_uid
from corral.simulation import Fault, FaultKind


async def kept(w) -> Volume:
    """A volume whose VM is gone."""
    vm, create = await w.create()
    await w.ended(create)
    await w.ended(await w.wish(vm, DeleteVm(keep_disks=True), delete=True))
    await w.quiet()
    [volume] = await w.objects.list(Volume)
    assert volume.spec.vm_uid is None
    return volume


async def ask(w, volume: Volume) -> Operation:
    """As the service writes it."""
    uid = new_uid()
    operation = Operation(
        name=uid,
        uid=uid,
        created_at=w.clock.now(),
        spec=OperationSpec(
            intent=DeleteVolume(),
            target_kind="volume",
            target_uid=volume.uid,
            target_name=volume.name,
            tracks_generation=volume.generation + 1,
            requested_by="local:root",
            request_id="r",
        ),
    )
    transaction = w.objects.transaction()
    update = {"deletion_requested_at": w.clock.now(), "generation": volume.generation + 1}
    transaction.update(volume.model_copy(update=update))
    transaction.create(operation)
    await transaction.commit()
    return operation


def test_it_goes_with_its_file_and_its_name(world):
    async def scene(w):
        await w.start()
        volume = await kept(w)
        done = await w.ended(await ask(w, volume))
        assert done.status.state is OperationState.SUCCEEDED
        assert await w.objects.list(Volume) == []
        assert w.volumes.pool.volumes == {}
        assert "VolumeDeleted" in await w.events()
        await w.check_whole()

    world(scene)


def test_of_two_requests_both_succeed(world):
    async def scene(w):
        await w.start()
        volume = await kept(w)
        await w.kill()
        first = await ask(w, volume)
        [again] = await w.objects.list(Volume)
        second = await ask(w, again)
        await w.start()
        assert [(await w.ended(o)).status.state for o in (first, second)] == [OperationState.SUCCEEDED] * 2

    world(scene)


def test_it_stays_when_that_was_cancelled_before_it_began_or_a_vm_has_it(world):
    async def scene(w):
        await w.start()
        volume = await kept(w)
        vm, create = await w.create("other")
        await w.ended(create)
        await w.kill()
        operation = await ask(w, volume)
        await w.cancel(operation)
        await w.start()
        assert (await w.ended(operation)).status.state is OperationState.CANCELLED
        volume = await w.objects.get(Volume, volume.uid)
        assert not volume.being_deleted
        theirs = await w.objects.get(Volume, vm.spec.disks[0].volume_uid)
        done = await w.ended(await ask(w, theirs))
        assert (done.status.state, done.status.error.code) == (OperationState.FAILED, "volume-in-use")
        assert "other" in done.status.error.reason
        assert not (await w.objects.get(Volume, theirs.uid)).being_deleted
        await w.check_whole()

    world(scene)


KINDS = (FaultKind.CRASH_BEFORE, FaultKind.CRASH_AFTER, FaultKind.ERROR, FaultKind.LATE_ERROR)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("call", "nth"), [("storage.remove", 1), ("store.transact", 1), ("store.transact", 2)])
def test_every_call_may_be_cut(world, kind, call, nth):
    async def scene(w):
        await w.start()
        volume = await kept(w)
        crashed = asyncio.Event()
        w.simulation.on_crash = crashed.set
        error = CorralError(
            "storage-error" if call.startswith("storage") else "store-unavailable", "a call", "injected"
        )
        w.simulation.inject(Fault(kind, call, nth=nth, error=error))
        operation = await ask(w, volume)
        if "crash" in kind:
            async with asyncio.timeout(10):
                await crashed.wait()
            await w.kill()
            await w.start()
        done = await w.ended(operation)
        assert done.status.state is OperationState.SUCCEEDED, done.status
        await w.check_whole()
        assert await w.objects.list(Volume) == []

    world(scene)


def test_a_file_that_cannot_be_removed_is_waited_for_and_says_why(world):
    async def scene(w):
        await w.start()
        volume = await kept(w)
        error = CorralError("storage-error", "remove", "the directory is read-only")
        w.simulation.inject(Fault(FaultKind.ERROR, "storage.remove", times=2, error=error))
        operation = await ask(w, volume)

        async def says_why():
            found = await w.objects.get(Operation, operation.uid)
            return "read-only" in found.status.detail and found.status.phase == "waiting: storage-error"

        await w.until(says_why)
        assert (await w.ended(operation)).status.state is OperationState.SUCCEEDED

    world(scene)
