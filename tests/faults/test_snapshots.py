"""Points in time in the life of a VM: back and forth, forgotten in any order, with what else is done to it."""

from dataclasses import replace

import pytest
from points_in_time import check_layers, forget, found, holds, reads, revert, take, taken, write

from corral.errors import CorralError
from corral.model.identity import Identity, Role
from corral.model.layer import Layer
from corral.model.operation import DeleteVm, DestroyVm, OperationState, SaveVm, StartVm
from corral.model.snapshot import Snapshot
from corral.model.vm import Power
from corral.model.volume import Volume
from corral.services.caller import Caller
from corral.services.ledger import Ledger
from corral.services.recover import recover
from corral.services.snapshot_diff import SnapshotDiffer
from corral.store.memory import MemoryStore
from corral.store.objects import Objects

ADMIN = Caller(Identity(name="local:root", roles={"*": Role.ADMIN}), "request")
DONE, FAILED = OperationState.SUCCEEDED, OperationState.FAILED


def test_a_vm_goes_back_and_forth(world):
    async def scene(w):
        await w.start()
        vm, create = await w.create()
        await w.ended(create)
        write(w, vm, 0, "one")
        await taken(w, vm, "first")
        write(w, vm, 0, "two")
        write(w, vm, 1, "more")
        await taken(w, vm, "second")
        write(w, vm, 0, "three")
        assert await holds(w, "first") == {0: "one"}
        assert await holds(w, "second") == {0: "two", 1: "more"}
        assert reads(w, vm) == {0: "three", 1: "more"}
        assert (await w.ended(await revert(w, vm, "first"))).status.state is DONE
        await w.quiet()
        assert reads(w, vm) == {0: "one"}
        write(w, vm, 0, "other")
        await taken(w, vm, "branch")
        first, branch = await found(w, "first"), await found(w, "branch")
        assert branch.spec.parent_uid == first.uid
        assert (await w.ended(await revert(w, vm, "second"))).status.state is DONE
        await w.quiet()
        assert reads(w, vm) == {0: "two", 1: "more"}
        await check_layers(w)
        await w.check_whole()
        for name, rest in (("first", ["branch", "second"]), ("second", ["branch"]), ("branch", [])):
            assert (await w.ended(await forget(w, vm, name))).status.state is DONE
            await w.quiet()
            assert sorted(s.name for s in await w.objects.list(Snapshot)) == rest
            assert reads(w, vm) == {0: "two", 1: "more"}
            if "branch" in rest:
                assert await holds(w, "branch") == {0: "other"}
        await w.quiet()
        await check_layers(w)

    world(scene)


def test_a_chain_that_is_only_added_to_and_taken_from_below_does_not_grow(world):
    """As a schedule does it with a guest that never stops."""

    async def scene(w):
        await w.start()
        vm, create = await w.create()
        await w.ended(create)
        for number in range(5):
            write(w, vm, number, f"v{number}")
            await taken(w, vm, f"s{number}")
            if number >= 2:
                assert (await w.ended(await forget(w, vm, f"s{number - 2}"))).status.state is DONE
                await w.quiet()
                assert len(await w.objects.list(Layer)) == 3  # two points in time, and the head
                await check_layers(w)
        assert await holds(w, "s3") == {number: f"v{number}" for number in range(4)}
        assert await holds(w, "s4") == reads(w, vm) == {number: f"v{number}" for number in range(5)}

    world(scene)


def test_several_asked_at_once_are_taken_one_after_the_other(world):
    async def scene(w):
        await w.start()
        vm, create = await w.create()
        await w.ended(create)
        asked = [await take(w, vm, name) for name in ("a", "b", "c")]
        assert [(await w.ended(operation)).status.state for operation in asked] == [DONE] * 3
        await w.quiet()
        a, b, c = [await found(w, name) for name in ("a", "b", "c")]
        assert [s.spec.parent_uid for s in (a, b, c)] == [None, a.uid, b.uid]
        await check_layers(w)

    world(scene)


def test_reverting_twice_to_the_same_point_drops_what_was_written_between(world):
    async def scene(w):
        await w.start()
        vm, create = await w.create()
        await w.ended(create)
        write(w, vm, 0, "kept")
        await taken(w, vm, "point")
        for value in ("x", "y"):
            write(w, vm, 0, value)
            assert (await w.ended(await revert(w, vm, "point"))).status.state is DONE
            await w.quiet()
            assert reads(w, vm) == {0: "kept"}
            await check_layers(w)
        assert (await w.vm(vm.uid)).status.conditions[0].status == "true"
        assert not any(c.type == "Drifted" and c.status == "true" for c in (await w.vm(vm.uid)).status.conditions)

    world(scene)


def test_one_whose_memory_is_saved_is_left_alone(world):
    async def scene(w):
        await w.start()
        vm, create = await w.create()
        await w.ended(create)
        await taken(w, vm, "before")
        await w.ended(await w.wish(vm, SaveVm(), Power.OFF))
        for operation in (await take(w, vm, "new"), await revert(w, vm, "before")):
            done = await w.ended(operation)
            assert (done.status.state, done.status.error.code) == (FAILED, "wrong-state")
        assert [s.name for s in await w.objects.list(Snapshot)] == ["before"]
        await w.ended(await w.wish(vm, StartVm(), Power.ON))
        assert (await w.ended(await revert(w, vm, "before"))).status.state is DONE
        await w.quiet()
        await check_layers(w)

    world(scene)


def test_a_vm_that_is_deleted_takes_its_points_with_it_but_not_its_kept_disks(world):
    async def scene(w):
        await w.start()
        for keep in (True, False):
            vm, create = await w.create(f"web{int(keep)}")
            await w.ended(create)
            write(w, vm, 0, "a")
            await taken(w, vm, "first")
            write(w, vm, 1, "b")
            content = reads(w, vm)
            assert (await w.ended(await w.wish(vm, DeleteVm(keep_disks=keep), delete=True))).status.state is DONE
            await w.quiet()
            assert await w.objects.list(Snapshot) == []
            assert w.volumes.layers.points == {}
            if keep:
                [volume] = await w.objects.list(Volume)
                assert w.hypervisor.disks.content(str(w.volumes.volume_path(volume))) == content
                kept = {layer.uid for layer in await w.objects.list(Layer)}
                assert kept == {volume.uid, volume.head_uid}
        assert {layer.uid for layer in await w.objects.list(Layer)} == kept
        there = {path.rpartition("/")[2] for path in w.hypervisor.disks.files if "/volumes/" in path}
        assert there == {f"{uid}.qcow2" for uid in kept}

    world(scene)


def test_a_snapshot_of_a_vm_that_is_being_deleted_goes_with_it(world):
    async def scene(w):
        await w.start()
        vm, create = await w.create()
        await w.ended(create)
        await w.kill()
        asked = await take(w, vm, "late")
        await w.wish(vm, DeleteVm(), delete=True)
        await w.start()
        assert (await w.ended(asked)).status.state is OperationState.SUPERSEDED
        await w.quiet()
        assert await w.objects.list(Snapshot) == []
        assert await w.vm(vm.uid) is None

    world(scene)


def test_with_memory_a_guest_goes_on_where_it_was_and_one_that_is_off_has_none(world):
    async def scene(w):
        await w.start()
        vm, create = await w.create()
        await w.ended(create)
        w.hypervisor.domains[vm.uid].memory = "thought"
        await taken(w, vm, "alive", memory=True)
        w.hypervisor.domains[vm.uid].memory = "other"
        await w.ended(await w.wish(vm, DestroyVm(), Power.OFF))
        done = await w.ended(await take(w, vm, "dead", memory=True))
        assert (done.status.state, done.status.error.code) == (FAILED, "wrong-state")
        assert (await w.ended(await revert(w, vm, "alive"))).status.state is DONE
        await w.quiet()
        assert (await w.vm(vm.uid)).spec.power is Power.ON
        domain = w.hypervisor.domains[vm.uid]
        assert (domain.memory, domain.state) == ("thought", "running")
        await check_layers(w)
        await w.check_whole()

    world(scene)


def test_with_the_database_lost_all_points_come_back(world):
    async def scene(w):
        await w.start()
        vm, create = await w.create()
        await w.ended(create)
        write(w, vm, 0, "a")
        await taken(w, vm, "first")
        write(w, vm, 0, "b")
        await taken(w, vm, "second")
        assert (await w.ended(await revert(w, vm, "first"))).status.state is DONE
        await w.quiet()
        write(w, vm, 1, "now")
        before = {kind: await w.objects.list(kind) for kind in (Layer, Snapshot, Volume)}
        await w.kill()
        w.store = MemoryStore()
        w.objects = Objects(w.store)
        transaction = w.objects.transaction()
        transaction.create(w.network)
        await transaction.commit()
        context = replace(
            w.devices._context,
            objects=w.objects,
            ledger=Ledger(w.objects),
            hypervisor=w.hypervisor,
            volumes=w.volumes,
            networks=w.networks,
        )
        w.simulation.revive()
        report = await recover(context)
        assert report.vms == ("web",)
        after = {kind: await w.objects.list(kind) for kind in before}
        assert [s.name for s in after[Snapshot]] == [s.name for s in before[Snapshot]]
        assert {layer.uid for layer in after[Layer]} == {layer.uid for layer in before[Layer]}
        assert [v.head_uid for v in after[Volume]] == [v.head_uid for v in before[Volume]]
        assert (await w.vm(vm.uid)).spec.snapshot_uid == (await found(w, "first")).uid
        await w.start()
        await w.quiet()
        assert reads(w, vm) == {0: "a", 1: "now"}
        assert (await holds(w, "first"), await holds(w, "second")) == ({0: "a"}, {0: "b"})
        assert (await w.ended(await revert(w, vm, "second"))).status.state is DONE
        await w.quiet()
        assert reads(w, vm) == {0: "b"}
        await check_layers(w)

    world(scene)


def test_what_was_written_between_two_points_is_told(world):
    async def scene(w):
        await w.start()
        vm, create = await w.create(power=Power.ON)
        await w.ended(create)
        write(w, vm, 0, "a")
        await taken(w, vm, "one")
        write(w, vm, 3, "b")
        await taken(w, vm, "two")
        await revert(w, vm, "one")
        await w.quiet()
        write(w, vm, 9, "c")
        context = replace(w.devices._context, volumes=w.volumes, hypervisor=w.hypervisor)

        async def between(one: str, other: str) -> list[int]:
            found = await SnapshotDiffer(context).diff(ADMIN, "default", vm.name, one, other)
            [disk] = found.disks
            assert disk.changed_bytes == 65536 * len(disk.extents)
            return [extent.start // 65536 for extent in disk.extents]

        assert await between("one", "two") == [3]
        assert await between("two", "one") == [3]
        assert await between("one", "now") == [9]
        assert await between("two", "now") == [3, 9]  # two branches
        assert await between("one", "one") == []
        with pytest.raises(CorralError) as refused:
            await between("one", "three")
        assert refused.value.code == "snapshot-not-found"

    world(scene)
