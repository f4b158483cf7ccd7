"""An operation that was asked for in the instant in which its VM went ends all the same: nothing is stuck."""

import asyncio

from corral.model.operation import CreateVm, DeleteVm, Operation, OperationState, ResetVm
from corral.model.vm import Vm
from corral.simulation import Fault, FaultKind


async def gone(w):
    """A VM that was there, and is not any more."""
    vm, create = await w.create()
    await w.ended(create)
    await w.ended(await w.wish(vm, DeleteVm(keep_disks=False), delete=True))
    await w.quiet()
    assert await w.objects.get(Vm, vm.uid) is None
    return vm


def test_what_comes_too_late_fails_and_says_so(world):
    async def scene(w):
        await w.start()
        vm = await gone(w)
        for intent in (ResetVm(), DeleteVm(keep_disks=True)):
            done = await w.ended(await w.ask(vm, intent))
            assert (done.status.state, done.status.error.code) == (OperationState.FAILED, "vm-not-found")
        await w.check_whole()

    world(scene)


def test_what_a_daemon_left_so_is_ended_by_the_next(world):
    async def scene(w):
        await w.start()
        vm = await gone(w)
        await w.kill()
        late, called_off = await w.ask(vm, DeleteVm(keep_disks=False)), await w.ask(vm, ResetVm())
        await w.cancel(called_off)
        await w.start()
        assert (await w.ended(late)).status.error.code == "vm-not-found"
        assert (await w.ended(called_off)).status.state is OperationState.CANCELLED

    world(scene)


def test_of_many_deletions_at_once_each_ends(world):
    async def scene(w):
        await w.start()
        for number in range(20):
            vm, _ = await w.create(f"vm{number}")
            asked = [await w.wish(vm, DeleteVm(keep_disks=False), delete=True)]
            while (current := await w.objects.get(Vm, vm.uid)) is not None and len(asked) < 4:
                operation = w.operation(current, DeleteVm(keep_disks=False), tracks=current.generation + 1)
                transaction = w.objects.transaction()
                transaction.update(current.model_copy(update={"generation": current.generation + 1}))
                transaction.create(operation)
                try:
                    await transaction.commit()
                except Exception:  # the agent was first
                    continue
                asked.append(operation)
            for operation in asked:
                assert (await w.ended(operation)).status.state is not OperationState.RUNNING
        assert not [o for o in w.agent.cache.all_unfinished() if not isinstance(o.spec.intent, CreateVm)]

    world(scene)


def test_a_deletion_that_is_seen_before_its_operation_is_not_carried_out_without_it(world):
    """After a lost race the VM alone is read anew: the operation of the same transaction, which says that the disks go,
    comes with the watch."""

    async def scene(w):
        await w.start()
        vm, create = await w.create()
        await w.ended(create)
        await w.quiet()
        cache, apply = w.agent.cache, w.agent.cache.apply
        cache.apply = lambda change: None  # the watch is late
        asked = await w.wish(vm, DeleteVm(keep_disks=False), delete=True)
        await cache.refresh(Vm, vm.uid)

        async def is_gone():
            return await w.objects.get(Vm, vm.uid) is None

        await w.until(is_gone)
        cache.apply = apply
        assert (await w.ended(asked)).status.state is OperationState.SUCCEEDED
        assert w.volumes.pool.volumes == {}
        await w.quiet()

    world(scene)


def test_a_deletion_that_has_begun_is_not_taken_back_with_a_later_one(world):
    """Its disks may be gone: a VM that came back would never start again."""

    async def scene(w):
        await w.start()
        vm, create = await w.create()
        await w.ended(create)
        await w.quiet()
        w.simulation.inject(Fault(FaultKind.ERROR, "storage.remove_seed", times=1000))
        first = await w.wish(vm, DeleteVm(keep_disks=False), delete=True)

        async def begun():
            return (await w.objects.get(Operation, first.uid)).status.state is OperationState.RUNNING

        await w.until(begun)
        later = await w.wish(vm, DeleteVm(keep_disks=True), delete=True)
        await w.cancel(later)
        await asyncio.sleep(0.1)
        w.simulation.clear()
        w.agent.dispatcher.forgive()
        w.agent.dispatcher.wake(vm.uid)
        assert (await w.ended(later)).status.state is OperationState.SUCCEEDED
        assert (await w.ended(first)).status.state is OperationState.SUPERSEDED
        assert await w.objects.get(Vm, vm.uid) is None
        assert w.volumes.pool.volumes == {}
        await w.check_whole()

    world(scene)
