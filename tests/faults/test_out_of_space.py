"""A guest whose write finds no space stands still, is said to, and goes on by itself once there is some."""

import asyncio

import pytest

from corral.hypervisor.base import NO_SPACE
from corral.model.base import ConditionStatus
from corral.model.operation import DestroyVm, OperationState, PauseVm, ResumeVm, ShutdownVm
from corral.model.pool import Pool, PoolLevel
from corral.model.vm import Power, VmState


async def stands_still(w, vm) -> bool:
    found = await w.vm(vm.uid)
    return found.status.state is VmState.PAUSED and found.status.state_reason == NO_SPACE


async def runs(w, vm) -> bool:
    return (await w.vm(vm.uid)).status.state is VmState.RUNNING


async def full(w):
    """A VM whose guest met a full disk."""
    await w.start()
    vm, create = await w.create()
    await w.ended(create)
    w.volumes.full = True
    w.hypervisor.guest_meets_full_disk(vm.uid)
    await w.until(lambda: stands_still(w, vm))
    return vm


async def pool_is(w, level: PoolLevel) -> bool:
    return any(pool.status.level is level for pool in await w.objects.list(Pool))


def condition(vm, kind: str) -> ConditionStatus:
    return next(found.status for found in vm.status.conditions if found.type == kind)


def test_it_is_said_and_it_goes_on_by_itself(world):
    async def scene(w):
        vm = await full(w)
        found = await w.vm(vm.uid)
        assert condition(found, "OutOfSpace") is ConditionStatus.TRUE
        assert found.spec.power is Power.ON
        assert "VmOutOfSpace" in await w.events()
        await w.until(lambda: pool_is(w, PoolLevel.CRITICAL))  # it is looked at with it, not at the next relist
        await asyncio.sleep(1.3)  # looked at once, and there was none
        assert await stands_still(w, vm)
        w.volumes.full = False
        await w.until(lambda: runs(w, vm))
        assert condition(await w.vm(vm.uid), "OutOfSpace") is ConditionStatus.FALSE
        assert "VmHasSpace" in await w.events()

    world(scene)


def test_a_daemon_that_was_killed_meanwhile_finds_it_again(world):
    async def scene(w):
        vm = await full(w)
        await w.kill()
        w.volumes.full = False
        await w.start()
        await w.until(lambda: runs(w, vm))

    world(scene)


def test_who_wants_it_to_go_on_is_told_why_it_does_not(world):
    async def scene(w):
        vm = await full(w)
        resume = w.hypervisor.resume

        async def resumed_for_an_instant(uid: str) -> None:
            await resume(uid)
            w.hypervisor.guest_meets_full_disk(uid)

        w.hypervisor.resume = resumed_for_an_instant
        done = await w.ended(await w.wish(vm, ResumeVm(), Power.ON))
        assert (done.status.state, done.status.error.code) == (OperationState.FAILED, "disk-full")
        assert await stands_still(w, vm)
        w.hypervisor.resume = resume
        w.volumes.full = False
        await w.until(lambda: runs(w, vm))

    world(scene)


@pytest.mark.parametrize("intent", [DestroyVm(), ShutdownVm(deadline_s=0.2, force_after_s=0.2)])
def test_it_can_be_stopped(world, intent):
    async def scene(w):
        vm = await full(w)
        done = await w.ended(await w.wish(vm, intent, Power.OFF))
        assert done.status.state is OperationState.SUCCEEDED
        assert (await w.vm(vm.uid)).status.state is VmState.SHUT_OFF

    world(scene)


def test_one_that_its_user_paused_stays_paused(world):
    async def scene(w):
        vm = await full(w)
        await w.ended(await w.wish(vm, PauseVm(), Power.PAUSED))
        w.volumes.full = False
        await asyncio.sleep(1.5)
        assert (await w.vm(vm.uid)).status.state is VmState.PAUSED
        done = await w.ended(await w.wish(vm, ResumeVm(), Power.ON))
        assert done.status.state is OperationState.SUCCEEDED
        assert await runs(w, vm)

    world(scene)
