"""What the world does to the agent: reboots, other tools, orphans, hung calls, lost processes."""

import asyncio
import time
from dataclasses import replace
from datetime import timedelta

from corral.agent.operations import trim_history
from corral.errors import CorralError
from corral.hypervisor.base import StopCause
from corral.hypervisor.fake import FakeDomain, FakeHypervisor
from corral.model.image import Image, ImageSource, ImageSpec, ImageState
from corral.model.network import Network
from corral.model.operation import (
    BuildImage,
    DeleteImage,
    DestroyVm,
    Operation,
    OperationSpec,
    OperationState,
    ResetVm,
    ShutdownVm,
    StartVm,
)
from corral.model.vm import BootOrder, Power, RunPolicy, VmState
from corral.names import new_uid
from corral.simulation import Fault, FaultKind

MAKING_S = 0.05


def test_a_killed_daemon_finds_its_guests_running(world):
    async def killed(w):
        await w.start()
        vms = [await w.create(f"vm{n}") for n in range(3)]
        for _, create in vms:
            await w.ended(create)
        await w.quiet()
        await w.kill()
        w.hypervisor.stop(vms[0][0].uid, StopCause.GUEST)
        w.hypervisor.stop(vms[1][0].uid, StopCause.FAILED)
        await w.start()
        await w.until(lambda: w.hypervisor.domains[vms[1][0].uid].starts == 2)
        await w.quiet()

        async def known():
            return (await w.vm(vms[1][0].uid)).status.state is VmState.RUNNING

        await w.until(known)
        assert (await w.vm(vms[0][0].uid)).spec.power is Power.OFF
        assert w.hypervisor.domains[vms[2][0].uid].starts == 1
        await w.check_whole()

    world(killed)


def test_a_domain_that_went_while_nobody_looked_is_made_again_and_runs(world):
    async def gone(w):
        await w.start()
        vms = [await w.create(f"vm{n}", run_policy=policy) for n, policy in enumerate(RunPolicy)]
        for _, create in vms:
            await w.ended(create)
        await w.quiet()
        await w.kill()
        for vm, _ in vms:
            w.hypervisor.stop(vm.uid, StopCause.DESTROYED)
            w.hypervisor._forget(w.hypervisor.domains[vm.uid])
        await w.start()
        for vm, _ in vms:
            stays = vm.spec.run_policy is RunPolicy.MANUAL

            async def settled(uid=vm.uid, stays=stays):
                domain = w.hypervisor.domains.get(uid)
                found = await w.vm(uid)
                return domain is not None and (
                    found.spec.power is Power.OFF if stays else found.status.state is VmState.RUNNING
                )

            await w.until(settled)
        await w.quiet()
        await w.check_whole()

    world(gone)


def test_a_network_that_runs_with_an_older_definition_says_so_until_it_is_made_anew(world):
    async def older(w):
        async def outdated():
            (network,) = await w.objects.list(Network)
            return next((c.status for c in network.status.conditions if c.type == "Outdated"), None)

        async def yes():
            return await outdated() == "true"

        async def no():
            return await outdated() == "false"

        await w.start()
        assert await outdated() is None
        await w.kill()
        w.networks.outdated = True
        await w.start()  # a newer version
        await w.until(yes)
        w.networks.outdated = False
        w.hypervisor.disconnect()
        w.hypervisor.reconnect()  # looks at everything
        await w.until(no)

    world(older)


def test_a_host_that_reboots_brings_guests_up_in_order(world):
    async def reboot(w):
        await w.start()
        wanted = (("late", 300, True), ("early", 10, True), ("never", 5, False), ("middle", 20, True))
        vms = {}
        for name, priority, autostart in wanted:
            vm, create = await w.create(name, boot=BootOrder(autostart=autostart, priority=priority, delay_s=0.02))
            await w.ended(create)
            vms[vm.uid] = name
        await w.quiet()
        await w.kill()
        w.reboot_host()
        started = []
        original = FakeHypervisor.run

        def run(uid):
            started.append(vms[uid])
            original(w.hypervisor, uid)

        w.hypervisor.run = run
        await w.start()
        await w.until(lambda: len(started) == 3)
        await w.quiet()
        assert started == ["early", "middle", "late"]

        async def settled():
            never = next(uid for uid, name in vms.items() if name == "never")
            return (await w.vm(never)).spec.power is Power.OFF

        await w.until(settled)
        await asyncio.sleep(0.05)
        await w.check_whole()

    world(reboot)


def test_guests_go_down_in_reverse_order_and_come_back(world):
    async def down(w):
        await w.start()
        for name, priority in (("first", 1), ("second", 2)):
            _, create = await w.create(name, boot=BootOrder(priority=priority))
            await w.ended(create)
        await w.quiet()
        told = []
        assert await w.agent.shutdown_guests(told.append) == 2
        assert [line.split()[0] for line in told] == ["second", "first"]
        await w.quiet()
        assert all(d.state is VmState.SHUT_OFF for d in w.hypervisor.domains.values())
        await w.stop()
        await w.start()
        await w.until(lambda: all(d.state is VmState.RUNNING for d in w.hypervisor.domains.values()))
        await w.quiet()

    world(down)


def test_domains_of_others_are_left_alone_and_ours_without_a_vm_are_reported(world):
    async def orphans(w):
        foreign = FakeDomain(new_uid(), "foreign", 1, 128, None, state=VmState.RUNNING)
        w.hypervisor.add_foreign(foreign)
        await w.start()
        vm, create = await w.create()
        await w.ended(create)
        await w.quiet()
        ours = w.hypervisor.domains[vm.uid]
        lost = replace(ours, uid=new_uid(), name="lost", state=VmState.SHUT_OFF)
        lost.metadata = replace(ours.metadata, vm_uid=lost.uid)
        copy = replace(ours, uid=new_uid(), name="copy", state=VmState.SHUT_OFF)
        w.hypervisor.add_foreign(lost)
        w.hypervisor.add_foreign(copy)
        await w.kill()
        await w.start()
        assert {foreign.uid, lost.uid, copy.uid, vm.uid} == set(w.hypervisor.domains)
        assert (await w.events()).count("OrphanDomain") == 1
        assert foreign.state is VmState.RUNNING

    world(orphans)


def test_what_a_late_call_leaves_is_removed_with_the_operation_as_proof(world):
    async def late(w):
        await w.start()
        w.simulation.inject(Fault(FaultKind.ERROR, "hypervisor.start"))
        vm, create = await w.create()
        assert (await w.ended(create)).status.state is OperationState.FAILED
        await w.quiet()
        domain = FakeDomain(vm.uid, "web", 1, 128, None)
        w.hypervisor.add_foreign(domain)
        volume = vm.spec.disks[0].volume_uid
        w.volumes.pool.volumes[volume] = f'{{"uid":"{volume}","spec":{{"vm_uid":"{vm.uid}","delete_with_vm":true}}}}'
        w.volumes.pool.volumes["unknown"] = '{"uid":"unknown","spec":{"vm_uid":"x","delete_with_vm":true}}'
        w.volumes.pool.seeds.add(vm.uid)
        await w.kill()
        await w.start()
        assert set(w.volumes.pool.volumes) == {"unknown"}
        assert w.volumes.pool.seeds == set()
        assert "OrphanVolume" in await w.events()

    world(late)


def test_a_lost_database_never_costs_a_disk(world, new_world):
    async def lost(w):
        await w.start()
        vm, create = await w.create()
        await w.ended(create)
        await w.kill()
        fresh = new_world()
        fresh.hypervisor, fresh.volumes, fresh.simulation = w.hypervisor, w.volumes, w.simulation
        await fresh.prepare()
        await fresh.start()
        assert vm.uid in fresh.hypervisor.domains
        assert len(fresh.volumes.pool.volumes) == 1
        assert {"OrphanDomain", "OrphanVolume", "OrphanSeed"} <= set(await fresh.events())
        await fresh.kill()

    world(lost)


def test_a_hung_call_marks_its_vm_and_no_other(world):
    async def hung(w):
        await w.start()
        vm, create = await w.create(power=Power.OFF)
        await w.ended(create)
        await w.quiet()
        w.simulation.inject(Fault(FaultKind.HANG, "hypervisor.start", times=2))
        start = await w.wish(vm, StartVm(), Power.ON)

        async def marked():
            conditions = (await w.vm(vm.uid)).status.conditions
            return any(c.type == "Reachable" and c.status == "false" for c in conditions)

        await w.until(marked)
        _, create = await w.create("other", power=Power.OFF)
        assert (await w.ended(create, 2)).status.state is OperationState.SUCCEEDED
        waiting = await w.objects.get(Operation, start.uid)
        assert not waiting.status.state.final
        w.simulation.clear()
        assert (await w.ended(start)).status.state is OperationState.SUCCEEDED
        await w.quiet()
        await w.check_whole()

    world(hung)


def test_a_stubborn_guest_can_be_destroyed_while_its_shutdown_waits(world):
    async def stubborn(w):
        w.hypervisor.obeys_shutdown = False
        await w.start()
        vm, create = await w.create()
        await w.ended(create)
        shutdown = await w.wish(vm, ShutdownVm(deadline_s=600), Power.OFF)
        await w.until(lambda: "hypervisor.shutdown" in w.simulation.trace)

        async def phase():
            return "waiting for the guest" in (await w.objects.get(Operation, shutdown.uid)).status.phase

        await w.until(phase)
        destroy = await w.wish(vm, DestroyVm(), Power.OFF)
        assert (await w.ended(destroy)).status.state is OperationState.SUCCEEDED
        assert (await w.ended(shutdown)).status.state is OperationState.SUPERSEDED

    world(stubborn)


def test_a_cancelled_create_leaves_nothing(world):
    async def cancelled(w):
        w.simulation.inject(Fault(FaultKind.ERROR, "hypervisor.start", times=50, error=_away()))
        await w.start()
        _, create = await w.create()
        await w.until(lambda: "hypervisor.start" in w.simulation.trace)
        await w.cancel(create)
        assert (await w.ended(create)).status.state is OperationState.CANCELLED
        await w.quiet()
        await w.check_whole()
        assert not w.hypervisor.domains

    world(cancelled)


def _away():
    return CorralError("hypervisor-unavailable", "start", "away")


def test_a_guest_that_dies_again_and_again_is_held_back(world):
    async def loop(w):
        await w.start()
        vm, create = await w.create(run_policy=RunPolicy.ALWAYS)
        await w.ended(create)
        await w.quiet()
        for count in (1, 2):
            w.hypervisor.stop(vm.uid, StopCause.GUEST)
            await w.until(lambda count=count: w.hypervisor.domains[vm.uid].starts == count + 1)

            async def recorded(count=count):
                status = (await w.vm(vm.uid)).status
                return status.restarts == count and status.state is VmState.RUNNING

            await w.until(recorded)

    world(loop)


def test_a_reset_on_a_stopped_vm_fails_and_says_so(world):
    async def reset(w):
        await w.start()
        vm, create = await w.create(power=Power.OFF)
        await w.ended(create)
        done = await w.ended(await w.ask(vm, ResetVm()))
        assert done.status.error.code == "wrong-state"

    world(reset)


def test_images_are_built_deleted_and_kept_while_in_use(world):
    async def images(w):
        await w.start()
        image = Image(
            name="debian-12",
            uid=new_uid(),
            created_at=w.clock.now(),
            spec=ImageSpec(catalogue="debian-12", source=ImageSource.BUILD),
        )
        w.simulation.on_call = lambda call: time.sleep(MAKING_S) if call == "images.make" else None
        build = _image_operation(w, image, BuildImage())
        transaction = w.objects.transaction()
        transaction.create(image)
        transaction.create(build)
        await transaction.commit()
        done = await w.ended(build)
        assert done.status.state is OperationState.SUCCEEDED
        # It began before the image was made, not when that had ended.
        assert done.status.ended_at - done.status.started_at >= timedelta(seconds=MAKING_S)
        w.simulation.on_call = None
        assert (await w.objects.get(Image, image.uid)).status.state is ImageState.READY
        delete = _image_operation(w, image, DeleteImage())
        transaction = w.objects.transaction()
        transaction.create(delete)
        await transaction.commit()
        assert (await w.ended(delete)).status.state is OperationState.SUCCEEDED
        assert await w.objects.get(Image, image.uid) is None
        assert w.library.images == {}
        _, create = await w.create()
        await w.ended(create)
        refused = _image_operation(w, w.image, DeleteImage())
        transaction = w.objects.transaction()
        transaction.create(refused)
        await transaction.commit()
        assert (await w.ended(refused)).status.error.code == "image-in-use"

    world(images)


def _image_operation(w, image, intent):
    uid = new_uid()
    return Operation(
        name=uid,
        uid=uid,
        created_at=w.clock.now(),
        spec=OperationSpec(
            intent=intent,
            target_kind="image",
            target_uid=image.uid,
            target_name=image.name,
            requested_by="local:root",
            request_id="r",
        ),
    )


def test_history_is_bounded_and_the_newest_stay(world):
    async def trim(w):
        await w.start()
        vm, create = await w.create(power=Power.OFF)
        await w.ended(create)
        for _ in range(3):
            last = await w.ended(await w.wish(vm, DestroyVm(), Power.OFF))
        await w.quiet()
        assert await trim_history(w.objects, 1) == 3
        assert [operation.uid for operation in await w.objects.list(Operation)] == [last.uid]

    world(trim)
