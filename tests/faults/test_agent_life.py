"""A VM's ordinary life under the agent, and what happens to it by itself."""

from corral.hypervisor.base import StopCause
from corral.model.host import Host
from corral.model.operation import (
    DeleteVm,
    DestroyVm,
    Operation,
    OperationState,
    RebootVm,
    ResetVm,
    SaveVm,
    ShutdownVm,
    StartVm,
    UpdateVm,
)
from corral.model.vm import CloudInitStatus, Power, VmState
from corral.model.volume import Volume
from corral.simulation import Fault, FaultKind
from corral.store.objects import EVENTS


def test_a_vm_is_created_stopped_started_and_deleted(world):
    async def life(w):
        await w.start()
        vm, create = await w.create()
        done = await w.ended(create)
        assert done.status.state is OperationState.SUCCEEDED, done.status
        assert [step.name for step in done.status.steps] == ["make-volume", "write-seed", "reserve", "define", "start"]
        await w.quiet()
        await w.check_whole()
        for intent, power, state in (
            (ShutdownVm(deadline_s=5), Power.OFF, VmState.SHUT_OFF),
            (StartVm(), Power.ON, VmState.RUNNING),
            (SaveVm(), Power.OFF, VmState.SHUT_OFF),
            (StartVm(), Power.ON, VmState.RUNNING),
            (DestroyVm(), Power.OFF, VmState.SHUT_OFF),
        ):
            done = await w.ended(await w.wish(vm, intent, power))
            assert done.status.state is OperationState.SUCCEEDED, (intent, done.status)
            assert (await w.vm(vm.uid)).status.state is state
        await w.check_whole()
        done = await w.ended(await w.wish(vm, DeleteVm(), delete=True))
        assert done.status.state is OperationState.SUCCEEDED
        await w.check_whole()
        assert await w.vm(vm.uid) is None

    world(life)


def test_the_guests_words_reach_the_status(world):
    async def tell(w):
        await w.start()
        vm, create = await w.create()
        await w.ended(create)

        async def known():
            status = (await w.vm(vm.uid)).status
            return status.agent_connected and status.cloud_init is CloudInitStatus.DONE and status.addresses

        await w.until(known)
        status = (await w.vm(vm.uid)).status
        assert status.addresses == (vm.spec.nics[0].address,)
        assert status.guest_os == "Fake Guest 1"

    world(tell)


def test_delete_keeping_disks(world):
    async def keep(w):
        await w.start()
        vm, create = await w.create()
        await w.ended(create)
        await w.ended(await w.wish(vm, DeleteVm(keep_disks=True), delete=True))
        volumes = await w.objects.list(Volume)
        assert [volume.spec.vm_uid for volume in volumes] == [None]
        assert set(w.volumes.pool.volumes) == {volumes[0].uid}

    world(keep)


def test_a_guest_that_powers_itself_off_stays_off(world):
    async def off(w):
        await w.start()
        vm, create = await w.create()
        await w.ended(create)
        await w.quiet()
        w.hypervisor.stop(vm.uid, StopCause.GUEST)

        async def adopted():
            return (await w.vm(vm.uid)).spec.power is Power.OFF

        await w.until(adopted)
        await w.quiet()
        await w.check_whole()
        assert "GuestPoweredOff" in await w.events()

    world(off)


def test_a_killed_qemu_is_restarted(world):
    async def killed(w):
        await w.start()
        vm, create = await w.create()
        await w.ended(create)
        await w.quiet()
        w.hypervisor.stop(vm.uid, StopCause.FAILED)
        await w.until(lambda: w.hypervisor.domains[vm.uid].starts == 2)

        async def counted():
            return (await w.vm(vm.uid)).status.state is VmState.RUNNING

        await w.until(counted)
        assert (await w.vm(vm.uid)).status.restarts == 1

    world(killed)


def test_virsh_start_and_suspend_are_adopted(world):
    async def adopt(w):
        await w.start()
        vm, create = await w.create(power=Power.OFF)
        await w.ended(create)
        await w.quiet()
        w.hypervisor.run(vm.uid)

        async def power(wanted):
            return (await w.vm(vm.uid)).spec.power is wanted

        await w.until(lambda: power(Power.ON))
        await w.hypervisor.suspend(vm.uid)
        await w.until(lambda: power(Power.PAUSED))
        await w.hypervisor.resume(vm.uid)
        await w.until(lambda: power(Power.ON))
        assert (await w.store.journal_last("audit")) is not None

    world(adopt)


def test_shutdown_late_restores_the_wish_and_force_pulls_the_plug(world):
    async def late(w):
        w.hypervisor.obeys_shutdown = False
        await w.start()
        vm, create = await w.create()
        await w.ended(create)
        done = await w.ended(await w.wish(vm, ShutdownVm(deadline_s=0.05), Power.OFF))
        assert done.status.state is OperationState.FAILED
        assert done.status.error.code == "shutdown-timeout"
        await w.quiet()
        await w.check_whole()
        assert (await w.vm(vm.uid)).spec.power is Power.ON
        done = await w.ended(await w.wish(vm, ShutdownVm(deadline_s=5, force_after_s=0.05), Power.OFF))
        assert done.status.state is OperationState.SUCCEEDED
        await w.check_whole()

    world(late)


def test_start_then_shutdown_supersedes_and_cancel_takes_back(world):
    async def change(w):
        w.hypervisor.obeys_shutdown = False
        await w.start()
        vm, create = await w.create()
        await w.ended(create)
        first = await w.wish(vm, ShutdownVm(deadline_s=60), Power.OFF)
        await w.until(lambda: "hypervisor.shutdown" in w.simulation.trace)
        second = await w.wish(vm, StartVm(), Power.ON)
        assert (await w.ended(first)).status.state is OperationState.SUPERSEDED
        assert (await w.ended(second)).status.state is OperationState.SUCCEEDED
        third = await w.wish(vm, ShutdownVm(deadline_s=60), Power.OFF)
        await w.until(lambda: w.simulation.trace.count("hypervisor.shutdown") >= 2)
        await w.cancel(third)
        assert (await w.ended(third)).status.state is OperationState.CANCELLED
        await w.quiet()
        await w.check_whole()
        assert (await w.vm(vm.uid)).spec.power is Power.ON

    world(change)


def test_reset_and_reboot_run_once(world):
    async def once(w):
        await w.start()
        vm, create = await w.create()
        await w.ended(create)
        assert (await w.ended(await w.ask(vm, ResetVm()))).status.state is OperationState.SUCCEEDED
        done = await w.ended(await w.ask(vm, RebootVm(deadline_s=5)))
        assert done.status.state is OperationState.SUCCEEDED, done.status
        assert w.hypervisor.domains[vm.uid].resets == 2

    world(once)


def test_description_changes_reach_the_domain_and_foreign_edits_are_drift(world):
    async def drift(w):
        await w.start()
        vm, create = await w.create()
        await w.ended(create)
        current = await w.vm(vm.uid)
        transaction = w.objects.transaction()
        spec = current.spec.model_copy(update={"description": "new"})
        operation = w.operation(vm, UpdateVm(), tracks=2)
        transaction.update(current.model_copy(update={"generation": 2, "spec": spec}))
        transaction.create(operation)
        await transaction.commit()
        assert (await w.ended(operation)).status.state is OperationState.SUCCEEDED
        assert '"description":"new"' in w.hypervisor.domains[vm.uid].metadata.spec_json
        w.hypervisor.edit(vm.uid, lambda domain: setattr(domain, "vcpus", 7))

        async def drifted():
            return any(c.type == "Drifted" and c.status == "true" for c in (await w.vm(vm.uid)).status.conditions)

        await w.until(drifted)
        assert w.hypervisor.domains[vm.uid].vcpus == 7

    world(drift)


def test_while_the_hypervisor_is_away_no_state_is_said_and_nothing_is_made_up_afterwards(world):
    async def away(w):
        await w.start()
        runs, create = await w.create()
        await w.ended(create)
        started_at = (await w.vm(runs.uid)).status.started_at
        events = len(await w.objects.store.journal(EVENTS))
        w.hypervisor.disconnect()

        async def unknown():
            return (await w.vm(runs.uid)).status.state is VmState.UNKNOWN

        await w.until(unknown, timeout_s=20)
        status = (await w.vm(runs.uid)).status
        assert status.seen_state is VmState.RUNNING
        assert any(c.type == "Reachable" and c.status == "false" for c in status.conditions)
        w.hypervisor.reconnect()

        async def known():
            return (await w.vm(runs.uid)).status.state is VmState.RUNNING

        await w.until(known, timeout_s=20)
        status = (await w.vm(runs.uid)).status
        assert (status.started_at, status.last_state) == (started_at, None)
        assert (await w.vm(runs.uid)).spec.power is Power.ON
        assert len(await w.objects.store.journal(EVENTS)) == events

    world(away)


def test_the_hosts_counts_follow_what_is_made_and_deleted_even_if_they_could_not_be_written_at_once(world):
    async def counted(w):
        await w.start()
        vm, create = await w.create()
        await w.ended(create)

        async def running():
            hosts = await w.objects.list(Host)
            return [host.status.vms_running for host in hosts]

        async def one():
            return await running() == [1]

        async def none():
            return await running() == [0]

        await w.until(one)
        w.simulation.inject(Fault(FaultKind.ERROR, "storage.usage"))
        await w.ended(await w.wish(vm, DeleteVm(), delete=True))
        await w.until(none, timeout_s=20)

    world(counted)


def test_a_vm_whose_redefinition_fails_is_watched_all_the_same(world):
    async def watched(w):
        await w.start()
        vm, create = await w.create()
        await w.ended(create)
        w.simulation.inject(Fault(FaultKind.ERROR, "hypervisor.define", times=10_000))
        current = await w.vm(vm.uid)
        spec = current.spec.model_copy(update={"vcpus": 2})
        operation = w.operation(vm, UpdateVm(), tracks=current.generation + 1)
        transaction = w.objects.transaction()
        transaction.update(current.model_copy(update={"generation": current.generation + 1, "spec": spec}))
        transaction.create(operation)
        await transaction.commit()
        assert (await w.ended(operation)).status.state is OperationState.FAILED
        found = await w.vm(vm.uid)
        assert found.status.state is VmState.RUNNING
        ready = next(c for c in found.status.conditions if c.type == "Ready")
        assert (ready.status, ready.reason) == ("false", "hypervisor-error")
        w.hypervisor.stop(vm.uid, StopCause.GUEST)

        async def off():
            found = await w.vm(vm.uid)
            return found.status.state is VmState.SHUT_OFF and found.spec.power is Power.OFF

        await w.until(off, timeout_s=2)
        w.hypervisor.run(vm.uid)

        async def on():
            found = await w.vm(vm.uid)
            return found.status.state is VmState.RUNNING and found.spec.power is Power.ON

        await w.until(on, timeout_s=2)
        w.simulation.clear()
        w.hypervisor.stop(vm.uid, StopCause.GUEST)
        await w.until(off, timeout_s=2)
        await w.until(lambda: w.hypervisor.domains[vm.uid].vcpus == 2, timeout_s=30)
        await w.quiet()
        await w.check_whole()

    world(watched)


def test_a_create_that_waits_for_an_absent_hypervisor_is_cancelled_at_once_if_nothing_was_made(world):
    async def waiting(w):
        await w.start()
        w.hypervisor.disconnect()
        vm, create = await w.create()
        await w.cancel(create)
        assert (await w.ended(create)).status.state is OperationState.CANCELLED
        assert await w.vm(vm.uid) is None
        await w.kill()
        await w.start(wait=False)  # a daemon that has never seen its hypervisor
        vm, create = await w.create("other")
        await w.cancel(create)
        assert (await w.ended(create, timeout_s=20)).status.state is OperationState.CANCELLED
        assert await w.vm(vm.uid) is None
        w.hypervisor.reconnect()
        await w.quiet()
        await w.check_whole()

    world(waiting)


def test_a_create_that_was_begun_says_that_its_cancelling_waits_and_is_undone_afterwards(world):
    async def waiting(w):
        await w.start()
        w.simulation.on_call = lambda call: w.hypervisor.disconnect() if call == "hypervisor.define" else None
        vm, create = await w.create()
        await w.until(lambda: not w.simulation.connected)
        w.simulation.on_call = None
        await w.cancel(create)

        async def said():
            status = (await w.objects.get(Operation, create.uid)).status
            return status.phase == "undoing: hypervisor-unavailable" and status.detail.startswith("cancelled; ")

        await w.until(said)
        w.hypervisor.reconnect()
        assert (await w.ended(create)).status.state is OperationState.CANCELLED
        assert await w.vm(vm.uid) is None
        await w.quiet()
        await w.check_whole()

    world(waiting)


def test_what_waits_for_an_absent_hypervisor_can_be_cancelled(world):
    async def cancel(w, operation):
        await w.cancel(operation)
        done = await w.ended(operation, timeout_s=20)
        assert done.status.state is OperationState.CANCELLED, done.status

    async def waiting(w):
        await w.start()
        vm, create = await w.create()
        await w.ended(create)
        w.hypervisor.disconnect()
        await cancel(w, await w.wish(vm, DestroyVm(), Power.OFF))
        assert (await w.vm(vm.uid)).spec.power is Power.ON
        await w.kill()
        await w.start(wait=False)  # a daemon that has never seen its hypervisor
        await cancel(w, await w.wish(vm, ShutdownVm(deadline_s=30), Power.OFF))
        assert (await w.vm(vm.uid)).spec.power is Power.ON
        w.hypervisor.reconnect()
        await w.quiet()
        assert (await w.vm(vm.uid)).status.state is VmState.RUNNING

    world(waiting)
