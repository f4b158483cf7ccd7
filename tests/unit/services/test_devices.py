"""Disks, drives, cards and knobs of a VM that is there: what each change writes, and what is refused."""

import asyncio
from typing import Any

import pytest

from corral.errors import CorralError
from corral.model import limits
from corral.model.base import Condition, ConditionStatus
from corral.model.requests import (
    AttachDiskRequest,
    ChangeDiskRequest,
    ChangeNicRequest,
    NicRequest,
    UpdateVmRequest,
)
from corral.model.vm import VmState
from corral.model.volume import Volume, VolumeSpec, VolumeStatus
from corral.names import GIB, new_uid
from corral.services.device import DeviceService
from corral.services.volume import VolumeService
from corral.store.objects import claim_key


def devices(world: Any) -> DeviceService:
    return DeviceService(world.context)


async def refused(code: str, call: Any) -> CorralError:
    with pytest.raises(CorralError) as found:
        await call
    assert found.value.code == code
    assert found.value.reason
    return found.value


def test_a_disk_comes_with_its_volume_and_goes_without_it(play: Any) -> None:
    async def scene(world: Any) -> None:
        await world.running("web")
        before = await world.vm("web")
        operation = await devices(world).attach_disk(
            world.caller(), "default", "web", AttachDiskRequest(size_bytes=2 * GIB, name="data", iops_max=50)
        )
        after = await world.vm("web")
        root, data = after.spec.disks
        assert (root.name, root.slot, data.name, data.iops_max) == ("root", 0, "data", 50)
        assert operation.spec.tracks_generation == after.generation == before.generation + 1
        volume = await world.objects.get(Volume, data.volume_uid)
        assert (volume.spec.size_bytes, volume.spec.vm_uid) == (2 * GIB, after.uid)
        assert volume.status.ready is False
        await devices(world).attach_disk(world.caller(), "default", "web", AttachDiskRequest(size_bytes=GIB))
        await devices(world).detach_disk(world.caller(), "default", "web", "data")
        left = (await world.vm("web")).spec.disks
        assert [(disk.name, disk.slot) for disk in left] == [("root", 0), ("disk0", 2)]
        kept = await world.objects.get(Volume, data.volume_uid)
        assert kept.spec.delete_with_vm is False
        assert kept.spec.vm_uid == after.uid  # the guest may still hold it: the agent lets it go

    play(scene)


def test_what_cannot_be_attached_is_refused_and_nothing_is_written(play: Any) -> None:
    async def scene(world: Any) -> None:
        await world.running("web")
        before = await world.vm("web")
        service, caller = devices(world), world.caller()
        same = AttachDiskRequest(size_bytes=GIB, name="root")
        await refused("name-taken", service.attach_disk(caller, "default", "web", same))
        for _ in range(limits.DISKS_MAX - len(before.spec.disks)):
            await service.attach_disk(caller, "default", "web", AttachDiskRequest(size_bytes=GIB))
        full = await refused("wrong-state", service.attach_disk(caller, "default", "web", AttachDiskRequest()))
        assert str(limits.DISKS_MAX) in full.reason
        before = await world.vm("web")
        by_path = AttachDiskRequest(path="/etc/shadow", format="raw")
        await refused("forbidden", service.attach_disk(caller, "default", "web", by_path))
        await refused("invalid-argument", service.attach_disk(world.admin(), "default", "web", by_path))
        missing = AttachDiskRequest(device="cdrom", image="none.iso")
        await refused("image-not-found", service.attach_disk(caller, "default", "web", missing))
        await refused("device-not-found", service.detach_disk(caller, "default", "web", "nope"))
        await refused("vm-not-found", service.attach_disk(caller, "default", "nobody", AttachDiskRequest()))
        assert await world.vm("web") == before

    play(scene)


def test_a_volume_grows_and_never_shrinks(play: Any) -> None:
    async def scene(world: Any) -> None:
        await world.running("web")
        vm = await world.vm("web")
        uid = vm.spec.disks[0].volume_uid
        service, caller = devices(world), world.caller()
        await service.change_disk(caller, "default", "web", "root", ChangeDiskRequest(size_bytes=3 * GIB))
        grown = await world.objects.get(Volume, uid)
        assert (grown.spec.size_bytes, grown.generation) == (3 * GIB, 2)
        error = await refused(
            "invalid-size",
            service.change_disk(caller, "default", "web", "root", ChangeDiskRequest(size_bytes=GIB)),
        )
        assert "3 GiB" in error.reason
        medium = ChangeDiskRequest(image="")
        await refused("invalid-argument", service.change_disk(caller, "default", "web", "root", medium))

    play(scene)


def test_a_card_brings_its_claims_and_takes_them_along(play: Any) -> None:
    async def scene(world: Any) -> None:
        await world.running("web")
        service, caller = devices(world), world.caller()
        await service.attach_nic(caller, "default", "web", NicRequest(model="e1000e"))
        vm = await world.vm("web")
        first, second = vm.spec.nics
        assert (second.name, second.model) == ("net1", "e1000e")
        assert second.address != first.address
        mac = claim_key("mac", "host", second.mac)
        assert await world.objects.owner(mac) == vm.uid
        wanted = ChangeNicRequest(address="10.0.0.77", link_up=False)
        await service.change_nic(caller, "default", "web", "net1", wanted)
        moved = (await world.vm("web")).spec.nics[1]
        assert (moved.address, moved.link_up, moved.mac) == ("10.0.0.77", False, second.mac)
        assert await world.objects.owner(claim_key("address", second.network_uid, second.address)) is None
        await service.detach_nic(caller, "default", "web", "net1")
        assert await world.objects.owner(mac) is None
        assert await world.objects.owner(claim_key("address", moved.network_uid, "10.0.0.77")) is None
        taken = NicRequest(address=first.address)
        await refused("address-taken", service.attach_nic(caller, "default", "web", taken))
        await refused("network-not-found", service.attach_nic(caller, "default", "web", NicRequest(network="no")))

    play(scene)


def test_knobs_are_merged_and_wrong_ones_name_their_place(play: Any) -> None:
    async def scene(world: Any) -> None:
        await world.running("web")

        async def change(**fields: Any) -> None:
            request = UpdateVmRequest.model_validate(fields)
            await world.vms.update(world.caller(), "default", "web", request)

        await change(vcpus=2, memory_mib=2048, hardware={"cpu": {"quota_percent": 50}, "watchdog": "reset"})
        await change(hardware={"cpu": {"quota_percent": None}, "memory": {"locked": True}})
        spec = (await world.vm("web")).spec
        assert (spec.vcpus, spec.memory_mib) == (2, 2048)
        assert (spec.hardware.cpu.quota_percent, spec.hardware.watchdog) == (None, "reset")
        assert spec.hardware.memory.locked
        error = await refused("invalid-argument", change(hardware={"cpu": {"quota_percent": 0}}))
        assert error.reason.startswith("hardware.cpu.quota_percent: ")
        await refused("invalid-argument", change(hardware={"cpo": {}}))
        await refused("insufficient-memory", change(memory_mib=2**20))
        await refused("forbidden", change(hardware={"kernel": {"kernel": "/boot/vmlinuz"}}))
        await refused("forbidden", change(hardware={"shares": [{"name": "etc", "path": "/etc"}]}))
        for path in ("/etc", "/srvx", "/srv/../etc"):
            request = UpdateVmRequest(hardware={"shares": [{"name": "shared", "path": path}]})
            with pytest.raises(CorralError):
                await world.vms.update(world.admin(), "default", "web", request)
        await refused("insufficient-memory", change(memory_mib=9 * 1024, hardware={"memory": {"reserved_mib": 9000}}))

    play(scene)


@pytest.mark.parametrize("what", ["adopted", "drifted", "deleting"])
def test_a_machine_that_is_not_corrals_to_change_is_left_alone(play: Any, what: str) -> None:
    async def scene(world: Any) -> None:
        vm = await world.running("web")
        now = world.clock.now()
        if what == "adopted":
            await world.put(vm.model_copy(update={"spec": vm.spec.model_copy(update={"adopted": True})}))
        elif what == "deleting":
            await world.put(vm.model_copy(update={"deletion_requested_at": now}))
        else:
            drifted = Condition(type="Drifted", status=ConditionStatus.TRUE, reason="x", since=now)
            await world.see("web", VmState.RUNNING, conditions=(drifted,))
        code = "vm-being-deleted" if what == "deleting" else "wrong-state"
        caller, service = world.caller(), devices(world)
        await refused(code, world.vms.update(caller, "default", "web", UpdateVmRequest(vcpus=2)))
        await refused(code, service.detach_disk(caller, "default", "web", "root"))
        await refused(code, service.attach_nic(caller, "default", "web", NicRequest()))

    play(scene)


def test_a_volume_that_nobody_has_is_attached_by_name(play: Any) -> None:
    async def scene(world: Any) -> None:
        await world.running("web")
        await world.running("db")
        service, caller = devices(world), world.caller()
        await service.attach_disk(caller, "default", "web", AttachDiskRequest(size_bytes=2 * GIB, name="data"))
        uid = (await world.vm("web")).spec.disks[1].volume_uid
        volume = await world.objects.get(Volume, uid)
        request = AttachDiskRequest(volume=volume.name)
        in_use = await refused("volume-in-use", service.attach_disk(caller, "default", "db", request))
        assert "VM web" in in_use.reason
        await service.detach_disk(caller, "default", "web", "data")
        await refused("volume-in-use", service.attach_disk(caller, "default", "db", request))  # not let go yet
        volume = await world.objects.get(Volume, uid)
        free = volume.model_copy(
            update={
                "spec": volume.spec.model_copy(update={"vm_uid": None}),
                "status": volume.status.model_copy(update={"ready": True}),
            }
        )
        await world.put(free)
        sized = AttachDiskRequest(volume=volume.name, size_bytes=GIB)
        await refused("invalid-argument", service.attach_disk(caller, "default", "db", sized))
        keyed = world.caller(key="one")
        first = await service.attach_disk(keyed, "default", "db", request)
        again = await service.attach_disk(keyed, "default", "db", request)
        assert again.uid == first.uid
        db = await world.vm("db")
        assert [disk.volume_uid for disk in db.spec.disks][1:] == [uid]
        taken = await world.objects.get(Volume, uid)
        assert (taken.spec.vm_uid, taken.spec.delete_with_vm) == (db.uid, False)
        by_uid = AttachDiskRequest(volume=uid)
        await refused("volume-in-use", service.attach_disk(caller, "default", "web", by_uid))
        missing = AttachDiskRequest(volume="nothing")
        await refused("volume-not-found", service.attach_disk(caller, "default", "web", missing))

    play(scene)


def test_of_two_that_want_a_volume_one_gets_it(play: Any) -> None:
    async def scene(world: Any) -> None:
        await world.running("web")
        await world.running("db")
        spec = VolumeSpec(size_bytes=GIB)
        now, status = world.clock.now(), VolumeStatus(ready=True)
        volume = await world.put(Volume(name="old", uid=new_uid(), created_at=now, spec=spec, status=status))
        request = AttachDiskRequest(volume="old")
        results = await asyncio.gather(
            *(devices(world).attach_disk(world.caller(), "default", name, request) for name in ("web", "db")),
            VolumeService(world.context).delete(world.caller(), "default", "old"),
            return_exceptions=True,
        )
        errors = [result for result in results if isinstance(result, CorralError)]
        assert len(errors) == 2, results
        assert {error.code for error in errors} <= {"volume-in-use", "precondition-failed"}
        after = await world.objects.get(Volume, volume.uid)
        assert (after.spec.vm_uid is None) == after.being_deleted

    play(scene)


def test_a_name_that_was_chosen_for_it_is_chosen_anew(play: Any) -> None:
    async def scene(world: Any) -> None:
        await world.running("web")
        request = AttachDiskRequest(size_bytes=GIB)
        await asyncio.gather(*(devices(world).attach_disk(world.caller(), "default", "web", request) for _ in range(3)))
        assert [disk.name for disk in (await world.vm("web")).spec.disks] == ["root", "disk0", "disk1", "disk2"]

    play(scene)


def test_a_guest_that_sleeps_keeps_the_machine_that_it_had(play: Any) -> None:
    async def scene(world: Any) -> None:
        await world.running("web")
        await world.see("web", VmState.SHUT_OFF, has_saved_memory=True)
        caller, service = world.caller(), devices(world)
        error = await refused("wrong-state", service.attach_disk(caller, "default", "web", AttachDiskRequest()))
        assert "memory is saved" in error.reason
        await refused("wrong-state", service.detach_disk(caller, "default", "web", "root"))
        await refused("wrong-state", service.attach_nic(caller, "default", "web", NicRequest()))
        await refused("wrong-state", world.vms.update(caller, "default", "web", UpdateVmRequest(vcpus=2)))
        await world.vms.update(caller, "default", "web", UpdateVmRequest(description="asleep"))

    play(scene)
