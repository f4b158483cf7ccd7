"""A reboot with changes that wait for a restart, and what may come between the guest's end and its new start."""

import pytest

from corral.hypervisor.base import StopCause
from corral.model.operation import DestroyVm, OperationState, RebootVm, ShutdownVm, UpdateVm
from corral.model.vm import Power


async def _waiting(w):
    """A running VM with more vCPUs waiting than it was started with."""
    await w.start()
    vm, create = await w.create()
    await w.ended(create)
    await w.ended(await w.wish(vm, UpdateVm(), spec={"vcpus": 2}))
    await w.quiet()
    assert (await w.vm(vm.uid)).status.pending_restart
    return vm


def test_what_waits_applies_and_the_next_reboot_is_the_guests_own(world):
    async def reboots(w):
        vm = await _waiting(w)
        done = await w.ended(await w.ask(vm, RebootVm(deadline_s=10)))
        assert done.status.state is OperationState.SUCCEEDED
        assert [step.name for step in done.status.steps] == ["ask-restart", "restart"]
        domain = w.hypervisor.domains[vm.uid]
        assert (domain.starts, domain.resets) == (2, 0)
        await w.quiet()
        assert (await w.vm(vm.uid)).status.pending_restart == ()
        await w.ended(await w.ask(vm, RebootVm(deadline_s=10)))
        assert (domain.starts, domain.resets) == (2, 1)

    world(reboots)


def test_a_deaf_guest_runs_on_and_the_reboot_says_so(world):
    async def deaf(w):
        vm = await _waiting(w)
        w.hypervisor.obeys_shutdown = False
        done = await w.ended(await w.ask(vm, RebootVm(deadline_s=0.3)))
        assert (done.status.state, done.status.error.code) == (OperationState.FAILED, "shutdown-timeout")
        await w.quiet()
        assert (await w.vm(vm.uid)).spec.power is Power.ON
        assert w.hypervisor.domains[vm.uid].starts == 1

    world(deaf)


def test_who_pulls_the_plug_meanwhile_wants_it_off(world):
    async def pulled(w):
        vm = await _waiting(w)
        w.hypervisor.obeys_shutdown = False
        reboot = await w.ask(vm, RebootVm(deadline_s=10))
        await w.until(lambda: "hypervisor.shutdown" in w.simulation.trace)
        w.hypervisor.stop(vm.uid, StopCause.DESTROYED)
        done = await w.ended(reboot)
        assert done.status.state is OperationState.SUPERSEDED
        await w.quiet()
        assert (await w.vm(vm.uid)).spec.power is Power.OFF
        assert w.hypervisor.domains[vm.uid].starts == 1

    world(pulled)


@pytest.mark.parametrize("intent", [ShutdownVm(deadline_s=10, force_after_s=0.2), DestroyVm()], ids=lambda i: i.verb)
def test_whoever_asks_for_its_end_meanwhile_gets_it(world, intent):
    async def ended(w):
        vm = await _waiting(w)
        w.hypervisor.obeys_shutdown = False
        reboot = await w.ask(vm, RebootVm(deadline_s=10))
        await w.until(lambda: "hypervisor.shutdown" in w.simulation.trace)
        off = await w.wish(vm, intent, Power.OFF)
        assert (await w.ended(off)).status.state is OperationState.SUCCEEDED
        assert (await w.ended(reboot)).status.state is OperationState.SUPERSEDED
        assert w.hypervisor.domains[vm.uid].starts == 1

    world(ended)
