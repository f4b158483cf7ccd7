"""Volumes that nobody has are deleted; the others name who has them."""

from typing import Any

import pytest

from corral.errors import CorralError
from corral.hypervisor.base import DomainDisk
from corral.hypervisor.fake import FakeDomain
from corral.model.operation import DeleteVolume
from corral.model.requests import ListRequest
from corral.model.volume import Volume
from corral.names import new_uid
from corral.services.volume import VolumeService

from .conftest import Play, World


async def kept(world: World, **spec: Any) -> Volume:
    """The volume of a VM that is gone."""
    await world.running("gone")
    [volume] = await world.objects.list(Volume)
    spec = {"vm_uid": None, **spec}
    return await world.put(volume.model_copy(update={"spec": volume.spec.model_copy(update=spec)}))


async def forget(world: World) -> None:
    vm = await world.vm("gone")
    transaction = world.objects.transaction()
    transaction.delete(vm)
    await transaction.commit()


async def refusal(world: World, name: str, **given: Any) -> CorralError:
    with pytest.raises(CorralError) as refused:
        await VolumeService(world.context).delete(world.caller(), "default", name, **given)
    return refused.value


@pytest.mark.parametrize("by", ["name", "uid"])
def test_a_kept_volume_is_deleted_by_its_name_or_uid(play: Play, by: str) -> None:
    async def scene(world: World) -> None:
        volume = await kept(world)
        await forget(world)
        service = VolumeService(world.context)
        name = str(getattr(volume, by))
        assert volume.uid in (await service.get(world.caller(), "default", name)).content.decode()
        operation = await service.delete(world.caller(), "default", name)
        assert operation.spec.intent == DeleteVolume()
        assert (operation.spec.target_kind, operation.spec.target_name) == ("volume", volume.name)
        after = await world.objects.get(Volume, volume.uid)
        assert after is not None
        assert after.being_deleted
        assert ("volume.delete", "accepted") in await world.audit_outcomes()
        assert len((await service.list(world.caller(), "default", ListRequest())).documents) == 1

    play(scene)


def test_a_vms_volume_is_not_and_the_vm_is_named(play: Play) -> None:
    async def scene(world: World) -> None:
        await world.running("web")
        [volume] = await world.objects.list(Volume)
        error = await refusal(world, volume.name)
        assert (error.code, "VM web" in error.reason) == ("volume-in-use", True)
        assert ("volume.delete", "volume-in-use") in await world.audit_outcomes()

    play(scene)


def test_one_that_was_attached_outside_is_not_either(play: Play) -> None:
    async def scene(world: World) -> None:
        volume = await kept(world)
        await forget(world)
        path = str(world.volumes.path(volume.uid))
        for disk in (DomainDisk("vdb", path, "qcow2"), DomainDisk("vda", "/x", "qcow2", backing=((path, "qcow2"),))):
            domain = FakeDomain(new_uid(), "theirs", 1, 128, None, disks=(disk,))
            world.hypervisor.domains = {domain.uid: domain}
            assert "domain theirs" in (await refusal(world, volume.name)).reason
        world.hypervisor.disconnect()
        assert (await refusal(world, volume.name)).code == "hypervisor-unavailable"

    play(scene)


def test_one_that_is_not_there_and_one_that_changed(play: Play) -> None:
    async def scene(world: World) -> None:
        volume = await kept(world)
        await forget(world)
        assert (await refusal(world, "nothing")).code == "volume-not-found"
        assert (await refusal(world, new_uid())).code == "volume-not-found"
        assert (await refusal(world, volume.name, if_revision=1)).code == "stale-revision"

    play(scene)
