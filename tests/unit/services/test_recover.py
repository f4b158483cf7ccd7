"""Recovery of a lost database: what comes back, what is said to be lost, and when it is refused."""

from typing import Any

import pytest

from corral.errors import CorralError
from corral.hypervisor.base import DomainMetadata
from corral.hypervisor.fake import FakeDomain
from corral.images.base import FoundImage
from corral.model.image import Image, ImageState
from corral.model.network import Network, NetworkSpec
from corral.model.requests import CreateVmRequest, NicRequest
from corral.model.vm import RECOVERED_ANNOTATION, Power, Vm, VmState
from corral.model.volume import Volume
from corral.names import new_uid
from corral.services.recover import recover
from corral.store.base import Delete
from corral.store.objects import claim_key


async def on_host(world: Any, name: str, state: VmState = VmState.RUNNING, **request: Any) -> Vm:
    """A VM in the store and, as the agent would have left it, on the host."""
    body = CreateVmRequest.model_validate({"name": name, "image": "micro", "memory_mib": 64, **request})
    vm, _ = await world.vms.create(world.caller(), "default", body)
    vm = await world.vm(name)
    for volume in await world.objects.list(Volume):
        await world.volumes.create(volume, None, "")
    text = vm.model_dump_json(exclude={"status", "revision", "generation", "deletion_requested_at"})
    metadata = DomainMetadata(world.context.installation_id, vm.uid, "default", name, vm.generation, 3, text)
    world.hypervisor.add_foreign(FakeDomain(vm.uid, name, 1, 64, metadata, state=state))
    return vm


async def lose_database(world: Any) -> None:
    """All objects go, but for the network, which the hypervisor still has."""
    (network,) = await world.objects.list(Network)
    (image,) = await world.objects.list(Image)
    world.library.images = {image.status.facts.digest: FoundImage(image.name, image.spec, image.status.facts)}
    for record in (await world.objects.store.range("/")).records:
        if not record.key.startswith(("/networks/", "/claims/name/network/", "/projects/", "/claims/name/project/")):
            await world.objects.store.transact([Delete(record.key)])
    assert await world.objects.list(Vm) == []
    assert await world.objects.list(Network) == [network]


def test_everything_comes_back_with_its_claims(play: Any) -> None:
    async def scene(world: Any) -> None:
        old = await on_host(world, "web", labels={"a": "b"}, nics=(NicRequest(address="10.0.0.9"),))
        await on_host(world, "off", VmState.SHUT_OFF)
        await lose_database(world)
        report = await recover(world.context)
        assert (sorted(report.vms), report.images, len(report.volumes)) == (["off", "web"], ("micro",), 2)
        new = await world.vm("web")
        assert (new.uid, new.labels, new.spec.nics, new.spec.disks) == (
            old.uid,
            old.labels,
            old.spec.nics,
            old.spec.disks,
        )
        assert (new.spec.power, new.status.state, new.placement.epoch) == (Power.ON, VmState.RUNNING, 3)
        assert RECOVERED_ANNOTATION in new.annotations
        assert (await world.vm("off")).spec.power is Power.OFF
        (image,) = await world.objects.list(Image)
        assert (image.uid, image.status.state) == (old.spec.image_uid, ImageState.READY)
        network = new.spec.nics[0].network_uid
        assert await world.objects.owner(claim_key("address", network, "10.0.0.9")) == new.uid
        assert await world.objects.owner(claim_key("mac", "host", new.spec.nics[0].mac)) == new.uid
        assert await world.objects.owner(claim_key("dac-uid", "host", "0")) == new.uid
        assert any("operations, events" in sentence for sentence in report.lost)
        again = await recover(world.context)
        assert (again.vms, again.volumes, again.images) == ((), (), ())

    play(scene)


def test_a_medium_is_back_in_its_drive(play: Any) -> None:
    async def scene(world: Any) -> None:
        medium = await world.image("x.iso", kind="iso", disk_format="", digest="5" * 64)
        old = await on_host(world, "web", disks=[{}, {"device": "cdrom", "image": "x.iso"}])
        images = {
            image.status.facts.digest: FoundImage(image.name, image.spec, image.status.facts)
            for image in await world.objects.list(Image)
        }
        transaction = world.objects.transaction()
        transaction.delete(await world.objects.require(Image, "default", "x.iso"))
        await transaction.commit()
        await lose_database(world)
        world.library.images = images
        report = await recover(world.context)
        assert sorted(report.images) == ["micro", "x.iso"]
        assert (await world.objects.require(Image, "default", "x.iso")).uid == medium.uid
        assert (await world.vm("web")).spec.disks == old.spec.disks

    play(scene)


def test_a_store_of_another_history_is_left_alone(play: Any) -> None:
    async def scene(world: Any) -> None:
        await on_host(world, "web")
        await lose_database(world)
        await world.image("other")
        world.library.images = {key: found for key, found in world.library.images.items() if found.name == "micro"}
        with pytest.raises(CorralError) as refused:
            await recover(world.context)
        assert refused.value.code == "precondition-failed"
        assert "other" in refused.value.reason
        assert await world.objects.list(Vm) == []

    play(scene)


def test_what_cannot_be_known_is_said(play: Any) -> None:
    async def scene(world: Any) -> None:
        await on_host(world, "web", ssh_keys=(), user="ann", password="x")
        await on_host(world, "diskless")
        vm = await world.vm("diskless")
        world.volumes.pool.volumes.pop(vm.spec.disks[0].volume_uid)
        world.volumes.pool.volumes[new_uid()] = ""  # a file without its sidecar
        world.volumes.pool.volumes[new_uid()] = "{nonsense"
        uid, stranger = new_uid(), new_uid()
        mute = DomainMetadata(world.context.installation_id, uid, "default", "mute", 1, 1, "")
        world.hypervisor.add_foreign(FakeDomain(uid, "mute", 1, 64, mute))
        theirs = DomainMetadata(new_uid(), stranger, "default", "theirs", 1, 1, "")
        world.hypervisor.add_foreign(FakeDomain(stranger, "theirs", 1, 64, theirs))
        await lose_database(world)
        report = await recover(world.context)
        assert sorted(report.vms) == ["diskless", "web"]
        told = "\n".join(report.lost)
        for words in (
            "has no sidecar",
            "cannot be read",
            "VM diskless: the file of its disk 'root' is not there",
            "VM web: password hashes and user-data",
            "domain mute does not say what it is",
        ):
            assert words in told
        assert "theirs" not in told

    play(scene)


def test_cards_move_to_the_network_of_the_same_name(play: Any) -> None:
    async def scene(world: Any) -> None:
        old = await on_host(world, "web")
        await lose_database(world)
        (network,) = await world.objects.list(Network)
        transaction = world.objects.transaction()
        transaction.delete(network)
        await transaction.commit()
        spec = network.spec.model_copy(update={"subnet": "10.7.0.0/24"})
        await world.put(network.model_copy(update={"uid": new_uid(), "spec": spec, "revision": 0}))
        report = await recover(world.context)
        (nic,) = (await world.vm("web")).spec.nics
        assert nic.network_uid != old.spec.nics[0].network_uid
        assert nic.address == ""
        assert any("10.0.0.2 is not one of 10.7.0.0/24" in sentence for sentence in report.lost)

    play(scene)


def test_an_empty_host_gives_an_empty_report(play: Any) -> None:
    async def scene(world: Any) -> None:
        report = await recover(world.context)
        assert report.vms == ()

    play(scene)


def test_an_image_that_is_a_kernel_alone_keeps_its_uid(play: Any) -> None:
    """No volume tells it; with another uid the VM would be defined anew, without its kernel."""

    async def scene(world: Any) -> None:
        old = await on_host(world, "web")
        await lose_database(world)
        for found in await world.volumes.found():
            document = Volume.model_validate_json(found.document)
            spec = document.spec.model_copy(update={"image_uid": None, "image_digest": ""})
            await world.volumes.remove(document.uid)
            await world.volumes.create(document.model_copy(update={"spec": spec}), None, "")
        await recover(world.context)
        (image,) = await world.objects.list(Image)
        assert image.uid == old.spec.image_uid

    play(scene)


def test_networks_that_the_hypervisor_still_has_come_back(play: Any) -> None:
    async def scene(world: Any) -> None:
        spec = NetworkSpec(mode="isolated", subnet="10.9.0.0/24", domain="back.internal", bridge="crlback")
        back = Network(name="back", uid=new_uid(), created_at=world.context.clock.now(), spec=spec)
        await world.put(back)
        await world.context.networks.ensure(back, ())
        old = await on_host(world, "web", nics=(NicRequest(network="back"),))
        for record in (await world.objects.store.range("/")).records:
            if "back" in record.key or record.key == back.key:
                await world.objects.store.transact([Delete(record.key)])
        await lose_database(world)
        report = await recover(world.context)
        assert sorted(report.networks) == ["back", "default"]
        assert (await world.objects.find(Network, "default", "back")).spec == spec
        assert (await world.vm("web")).spec.nics == old.spec.nics

    play(scene)
