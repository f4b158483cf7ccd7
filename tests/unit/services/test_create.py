"""Making a VM: what is written, and what is refused before anything is."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from corral.errors import CorralError
from corral.model.image import ImageState
from corral.model.network import Network, NetworkSpec
from corral.model.operation import CreateVm, Operation
from corral.model.requests import CreateVmRequest, DiskRequest, NicRequest
from corral.model.vm import DAC_UID_FIRST, Firmware, Power, Vm, VmState
from corral.model.volume import Volume
from corral.names import GIB, new_uid
from corral.store.objects import claim_key

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAdBVfZz3GQQTQdS2VB3zKg7EOTa62HruGUU1Yt+HCOz ann@laptop"


async def create(world: Any, name: str = "web", **request: Any) -> tuple[Vm, Operation]:
    request = {"name": name, "image": "micro", **request}
    vm, operation = await world.vms.create(world.caller(), "default", CreateVmRequest.model_validate(request))
    assert vm is not None
    return vm, operation


async def refused(world: Any, **request: Any) -> CorralError:
    """The error of a create, after which nothing may have been written."""
    before = {kind: await world.objects.list(kind) for kind in (Vm, Volume, Operation)}
    with pytest.raises(CorralError) as error:
        await create(world, **request)
    assert {kind: await world.objects.list(kind) for kind in (Vm, Volume, Operation)} == before
    last = (await world.audit_outcomes())[-1]
    assert last in (("vm.create", error.value.code), ("host.use-path", "denied"))
    return error.value


def test_one_transaction_writes_vm_volume_operation_and_claims(play: Any) -> None:
    async def scene(world: Any) -> None:
        vm, operation = await create(world, vcpus=2, memory_mib=512, labels={"tier": "web"}, ssh_keys=[KEY])
        assert (await world.vm("web")).revision == vm.revision == operation.revision
        assert isinstance(operation.spec.intent, CreateVm)
        assert (operation.spec.target_uid, operation.spec.tracks_generation) == (vm.uid, vm.generation)
        assert vm.spec.power is Power.ON
        (volume,) = await world.objects.list(Volume)
        assert vm.spec.disks[0].volume_uid == volume.uid
        assert (volume.spec.size_bytes, volume.spec.vm_uid, volume.spec.delete_with_vm) == (GIB, vm.uid, True)
        (nic,) = vm.spec.nics
        (network,) = await world.objects.list(Network)
        assert (nic.address, nic.network_uid) == ("10.0.0.2", network.uid)
        assert await world.objects.owner(claim_key("mac", "host", nic.mac)) == vm.uid
        assert await world.objects.owner(claim_key("address", network.uid, nic.address)) == vm.uid
        assert vm.annotations["corral/dac-uid"] == str(DAC_UID_FIRST)
        assert await world.objects.owner(claim_key("dac-uid", "host", "0")) == vm.uid
        assert vm.spec.cloud_init.users[0].name == "root"
        assert vm.spec.cloud_init.users[0].ssh_keys == (KEY,)
        assert await world.audit_outcomes() == [("vm.create", "accepted")]

    play(scene)


def test_a_password_is_hashed_and_shown_nowhere(play: Any) -> None:
    async def scene(world: Any) -> None:
        vm, operation = await create(world, password="correct horse", user="ann", user_data="#cloud-config\nx: y\n")
        kept = await world.vm("web")
        assert kept.spec.cloud_init.users[0].password_hash == "$6$salt$13"
        assert vm.spec.cloud_init.users[0].password_hash == ""
        document = (await world.vms.get(world.caller(), "default", "web")).content.decode()
        for text in (document, operation.model_dump_json(), await world.audit_text(), vm.model_dump_json()):
            assert "correct horse" not in text
            assert "$6$" not in text
            assert "x: y" not in text

    play(scene)


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        ({"name": "x" * 300}, "invalid-name"),
        ({"name": "../etc"}, "invalid-name"),
        ({"name": "a; rm -rf /"}, "invalid-name"),
        ({"name": "$(reboot)"}, "invalid-name"),
        ({"name": ""}, "invalid-name"),
        ({"name": "Web"}, "invalid-name"),
        ({"image": "nonesuch"}, "image-not-found"),
        ({"image": "debian-12"}, "image-not-found"),
        ({"image": "../../etc/shadow"}, "invalid-name"),
        ({"memory_mib": 16 * 1024}, "insufficient-memory"),
        ({"memory_mib": 16 * 1024, "start": False}, "insufficient-memory"),
        ({"memory_mib": 33, "image": "thirsty"}, "invalid-argument"),
        ({"vcpus": 33}, "insufficient-cpu"),
        ({"disks": [{"size_bytes": 2**46}, {"size_bytes": 2**46}] + [{"size_bytes": 2**46}] * 14}, "insufficient-disk"),
        ({"disks": [{"size_bytes": 2**20}]}, "invalid-size"),
        ({"disks": [{"name": "a"}, {"name": "a"}]}, "invalid-argument"),
        ({"disks": [{"path": "/dev/null"}]}, "forbidden"),
        ({"ssh_keys": ["ssh-rsa nonsense"]}, "invalid-ssh-key"),
        ({"user_data": "#cloud-config\n- not\n- a mapping\n"}, "invalid-cloud-init"),
        ({"user_data": "#cloud-config\na: [1\n"}, "invalid-cloud-init"),
        ({"user_data": "hello"}, "invalid-cloud-init"),
        ({"user_data": "#cloud-config\n" + "x" * (10 * 2**20)}, "body-too-large"),
        ({"network_config": "version: 3\n"}, "invalid-cloud-init"),
        ({"password": "two\nlines"}, "invalid-argument"),
        ({"user": "Root User", "ssh_keys": [KEY]}, "invalid-argument"),
        ({"nics": [{"network": "nonesuch"}]}, "network-not-found"),
        ({"nics": [{"address": "10.9.9.9"}]}, "invalid-argument"),
        ({"nics": [{"address": "10.0.0.1"}]}, "invalid-argument"),
        ({"nics": [{"mac": "53:54:00:00:00:01"}]}, "invalid-argument"),
        ({"nics": [{"mac": "52:54:00:00:00:01"}, {"mac": "52:54:00:00:00:01"}]}, "address-taken"),
        ({"image": "bare", "password": "x"}, "unsupported"),
        ({"firmware": "uefi"}, "unsupported"),
        ({"disks": [{}, {"bus": "sata", "read_only": True}]}, "unsupported"),
        ({"image": "failed"}, "image-not-ready"),
    ],
)
def test_bad_requests_are_refused_before_anything_is_written(play: Any, request_: dict[str, Any], code: str) -> None:
    async def scene(world: Any) -> None:
        await world.image("thirsty", memory_min_mib=64)
        await world.image("bare", cloud_init=False)
        await world.image("failed", ImageState.FAILED)
        assert (await refused(world, **{"name": "web", **request_})).code == code
        assert world.context.ledger.committed.memory_mib == 0

    play(scene)


def test_a_name_that_is_refused_does_not_fill_the_audit_log(play: Any) -> None:
    async def scene(world: Any) -> None:
        await refused(world, name="x" * 100_000)
        assert len(await world.audit_text()) < 2000

    play(scene)


def test_force_allows_disks_larger_than_the_free_space(play: Any) -> None:
    async def scene(world: Any) -> None:
        world.volumes.full = True
        assert (await refused(world, name="web")).code == "insufficient-disk"
        vm, _ = await create(world, force=True)
        assert vm.name == "web"

    play(scene)


def _qcow2(version: int = 3, features: int = 0) -> bytes:
    """A header as far as anybody reads it."""
    return b"QFI\xfb" + version.to_bytes(4, "big") + b"\0" * 64 + features.to_bytes(8, "big") + b"\0" * 24


def test_a_disk_by_path_is_for_administrators_and_must_not_be_ours(play: Any, tmp_path: Path) -> None:
    async def scene(world: Any) -> None:
        theirs, ours = tmp_path.parent / f"{tmp_path.name}-theirs.raw", tmp_path / "volumes"
        theirs.write_bytes(b"\0" * 1024)
        ours.mkdir()
        (ours / "x.qcow2").write_bytes(b"")
        link = tmp_path.parent / f"{tmp_path.name}-link.raw"
        link.symlink_to(ours / "x.qcow2")

        async def by_path(path: Path | str) -> Vm:
            disks = (DiskRequest(), DiskRequest(path=str(path), format="raw"))
            request = CreateVmRequest(name="web", image="micro", disks=disks)
            return (await world.vms.create(world.admin(), "default", request))[0]

        for path, code in (
            (ours / "x.qcow2", "invalid-argument"),
            (link, "invalid-argument"),
            ("relative.raw", "invalid-argument"),
            (tmp_path, "invalid-argument"),
            ("/nonesuch/disk", "volume-not-found"),
        ):
            with pytest.raises(CorralError) as error:
                await by_path(path)
            assert error.value.code == code
        vm = await by_path(theirs)
        assert (vm.spec.disks[1].path, vm.spec.disks[1].format) == (str(theirs), "raw")
        assert len(await world.objects.list(Volume)) == 1

    play(scene)


@pytest.mark.parametrize(
    ("path", "content", "code"),
    [
        ("/etc/passwd", None, "invalid-argument"),  # it would become the guest's
        ("/usr/bin/env", None, "invalid-argument"),
        ("/proc/self/maps", None, "invalid-argument"),
        ("data-elsewhere.qcow2", _qcow2(features=1 << 2), "invalid-argument"),
        ("no.qcow2", b"#!/bin/sh\n", "image-invalid"),
        ("old.qcow2", _qcow2(version=2), ""),
        ("good.qcow2", _qcow2(features=1), ""),
    ],
)
def test_a_disk_by_path_cannot_lead_to_other_files(
    play: Any, tmp_path: Path, path: str, content: bytes | None, code: str
) -> None:
    async def scene(world: Any) -> None:
        disk = tmp_path.parent / f"{tmp_path.name}-{path}" if content is not None else Path(path)
        if content is not None:
            disk.write_bytes(content)
        request = CreateVmRequest(name="web", disks=(DiskRequest(path=str(disk)),))
        if not code:
            await world.vms.create(world.admin(), "default", request)
            return
        with pytest.raises(CorralError) as error:
            await world.vms.create(world.admin(), "default", request)
        assert error.value.code == code

    play(scene)


def test_a_vm_without_image_or_card(play: Any) -> None:
    async def scene(world: Any) -> None:
        request = CreateVmRequest(name="empty", disks=(DiskRequest(size_bytes=GIB),), nics=(), start=False)
        vm, _ = await world.vms.create(world.caller(), "default", request)
        assert (vm.spec.image_uid, vm.spec.cloud_init, vm.spec.nics, vm.spec.power) == (None, None, (), Power.OFF)
        (volume,) = await world.objects.list(Volume)
        assert volume.spec.image_uid is None

    play(scene)


def test_keys_for_an_image_without_cloud_init_are_left_out(play: Any) -> None:
    async def scene(world: Any) -> None:
        await world.image("bare", cloud_init=False)
        vm, _ = await create(world, image="bare", ssh_keys=[KEY])
        assert vm.spec.cloud_init is None

    play(scene)


def test_firmware_follows_the_image(play: Any) -> None:
    async def scene(world: Any) -> None:
        await world.image("modern", bios=False, uefi=True)
        assert (await create(world, image="modern"))[0].spec.firmware is Firmware.UEFI

    play(scene)


def test_an_address_asked_for_is_given_once(play: Any) -> None:
    async def scene(world: Any) -> None:
        nics = (NicRequest(address="10.0.0.77", mac="52:54:00:00:00:77"),)
        vm, _ = await create(world, nics=nics)
        assert vm.spec.nics[0].address == "10.0.0.77"
        assert (await refused(world, name="other", nics=(NicRequest(address="10.0.0.77"),))).code == "address-taken"
        same_mac = (NicRequest(mac="52:54:00:00:00:77"),)
        assert (await refused(world, name="other", nics=same_mac)).code == "address-taken"

    play(scene)


def test_a_thousand_creates_of_one_name_make_one_vm(play: Any) -> None:
    async def scene(world: Any) -> None:
        async def one() -> str:
            try:
                await create(world, memory_mib=6000)
            except CorralError as error:
                return error.code
            return "made"

        ends = await asyncio.gather(*(one() for _ in range(1000)))
        assert sorted(set(ends)) == ["made", "name-taken"]
        assert ends.count("made") == 1
        assert len(await world.objects.list(Vm)) == len(await world.objects.list(Operation)) == 1
        assert len(await world.objects.list(Volume)) == 1
        assert world.context.ledger.committed.memory_mib == 6000

    play(scene)


def test_parallel_creates_never_promise_more_than_there_is(play: Any) -> None:
    async def scene(world: Any) -> None:
        async def one(index: int) -> str:
            try:
                await create(world, name=f"vm-{index}", memory_mib=1024)
            except CorralError as error:
                return error.code
            return "made"

        ends = await asyncio.gather(*(one(index) for index in range(50)))
        assert ends.count("made") == 8  # (9 GiB - 1 GiB reserved) / 1 GiB
        assert ends.count("insufficient-memory") == 42
        vms = await world.objects.list(Vm)
        assert len({vm.spec.nics[0].address for vm in vms}) == 8
        assert len({vm.annotations["corral/dac-uid"] for vm in vms}) == 8

    play(scene)


def test_all_addresses_of_a_network_can_be_given_and_then_it_says_so(play: Any) -> None:
    async def scene(world: Any) -> None:
        ends = await asyncio.gather(
            *(create(world, name=f"vm-{index}", memory_mib=32, start=False) for index in range(253))
        )
        assert len({vm.spec.nics[0].address for vm, _ in ends}) == 253
        assert (await refused(world, name="one-more", memory_mib=32, start=False)).code == "no-free-address"

    play(scene, cpu_overcommit=1000.0)


def test_what_a_deleted_vm_had_is_given_again(play: Any) -> None:
    async def scene(world: Any) -> None:
        await world.follow()
        vm, _ = await create(world, memory_mib=6000)
        assert (await refused(world, name="other", memory_mib=6000)).code == "insufficient-memory"
        transaction = world.objects.transaction()
        transaction.delete(vm)
        transaction.release(claim_key("address", vm.spec.nics[0].network_uid, vm.spec.nics[0].address))
        transaction.release(claim_key("dac-uid", "host", "0"))
        await transaction.commit()
        async with asyncio.timeout(5):
            while world.context.ledger.committed.memory_mib:
                await asyncio.sleep(0)
        again, _ = await create(world, memory_mib=6000, nics=(NicRequest(address=vm.spec.nics[0].address),))
        assert again.spec.nics[0].address == vm.spec.nics[0].address

    play(scene)


def test_a_new_ledger_knows_what_the_store_holds(play: Any) -> None:
    async def scene(world: Any) -> None:
        await create(world, memory_mib=1000)
        await create(world, name="off", memory_mib=500, start=False)
        ledger = type(world.context.ledger)(world.objects)
        await ledger.prime()
        assert ledger.committed.memory_mib == 1000
        (network,) = await world.objects.list(Network)
        assert ledger.addresses(network).taken == {0, 1}
        assert ledger.dac_uids.taken == {0, 1}

    play(scene)


def test_an_image_that_is_being_deleted_is_not_used(play: Any) -> None:
    async def scene(world: Any) -> None:
        await world.images.delete(world.caller(), "default", "micro")
        assert (await refused(world, name="web")).code == "image-not-ready"
        assert await world.objects.find(Vm, "default", "web") is None

    play(scene)


def test_a_network_that_goes_meanwhile_gets_no_vm(play: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene(world: Any) -> None:
        spec = NetworkSpec(mode="isolated", subnet="10.40.0.0/24", bridge="crlgoing")
        going = Network(name="going", uid=new_uid(), created_at=world.clock.now(), spec=spec)
        await world.put(going)

        async def meanwhile(*args: Any) -> None:
            transaction = world.objects.transaction()
            if (there := await world.objects.get(Network, going.uid)) is not None:
                transaction.delete(there)
                await transaction.commit()

        monkeypatch.setattr("corral.services.creation.check_cards", meanwhile)
        with pytest.raises(CorralError) as error:
            await create(world, nics=[{"network": "going"}])
        assert error.value.code == "network-not-found"
        assert await world.objects.list(Vm) == []

    play(scene)


def test_state_of_a_new_vm_is_pending(play: Any) -> None:
    async def scene(world: Any) -> None:
        vm, _ = await create(world)
        assert vm.status.state is VmState.PENDING

    play(scene)


def test_an_image_that_is_a_kernel_alone_gets_an_empty_disk(play: Any) -> None:
    async def scene(world: Any) -> None:
        await world.image("kernel", disk_format="", disk_virtual_bytes=0, has_kernel=True)
        vm, _ = await create(world, image="kernel")
        (volume,) = await world.objects.list(Volume)
        assert (volume.spec.image_uid, volume.spec.size_bytes) == (None, GIB)
        assert vm.spec.disks[0].volume_uid == volume.uid

    play(scene)


def test_an_ordinary_users_own_libvirt_is_refused_in_plain_words(play: Any) -> None:
    """It was an error of libvirt's, after the disk was made: a network that is not active, CPU tuning in session mode."""

    async def scene(world: Any) -> None:
        error = await refused(world)
        assert error.code == "unsupported"
        assert "qemu:///session" in error.reason
        assert "sudo corral" in error.hint

    play(scene, hypervisor="libvirt", libvirt_uri="qemu:///session")
