"""What other tools changed: shown with what cannot be taken over, and taken over in one transaction."""

from dataclasses import replace
from typing import Any

import pytest

from corral.errors import CorralError
from corral.hypervisor.base import DomainDisk, DomainNic
from corral.hypervisor.fake import FakeDomain, definition_hash
from corral.model.base import Condition, ConditionStatus
from corral.model.operation import Operation, UpdateVm
from corral.model.requests import CreateVmRequest, UpdateVmRequest
from corral.model.vm import Bus, DiskSpec, Vm, VmState
from corral.model.volume import Volume
from corral.store.objects import claim_key

from .conftest import Play, World

ACCEPT = UpdateVmRequest(accept_drift=True)
MAC = "52:54:00:00:00:77"


async def defined(world: World, name: str = "web", state: VmState = VmState.SHUT_OFF, **request: Any) -> Vm:
    """A VM and its domain, as the agent makes it."""
    asked = {"name": name, "image": "micro", "vcpus": 2, "memory_mib": 512, "disks": [{}, {"size_bytes": 2**30}]}
    await world.vms.create(
        world.caller(),
        "default",
        CreateVmRequest.model_validate({**asked, "start": state is VmState.RUNNING, **request}),
    )
    vm = await world.see(name, state, observed_generation=1)
    domain = FakeDomain(vm.uid, name, vm.spec.vcpus, vm.spec.memory_mib, None, state=state)
    domain.cpu_shares, domain.description, domain.graphics = vm.spec.weight, vm.spec.description, "vnc"
    domain.disks = tuple(
        DomainDisk(disk.name, str(world.volumes.path(disk.volume_uid or "")), "qcow2") for disk in vm.spec.disks
    )
    domain.nics = tuple(DomainNic(nic.name, nic.mac, "fake-default") for nic in vm.spec.nics)
    domain.seed_path = str(world.volumes.seed_path(vm.uid)) if vm.spec.cloud_init is not None else None
    domain.definition_hash = definition_hash(domain)
    world.hypervisor.add_foreign(domain)
    for uid in (disk.volume_uid for disk in vm.spec.disks):
        volume = await world.objects.get(Volume, uid or "")
        assert volume is not None
        await world.put(volume.model_copy(update={"status": volume.status.model_copy(update={"ready": True})}))
    return vm


async def accept(world: World, **given: Any) -> Operation:
    return await world.vms.update(world.caller(), "default", "web", ACCEPT, **given)


async def refusal(world: World, caller: Any = None) -> CorralError:
    """What is said, and that nothing was written."""
    before, revision = await world.vm("web"), world.objects.store.revision
    with pytest.raises(CorralError) as refused:
        await world.vms.update(caller or world.caller(), "default", "web", ACCEPT)
    assert await world.vm("web") == before
    assert world.objects.store.revision == revision
    return refused.value


def test_a_definition_as_wished_shows_nothing_and_accepts_nothing(play: Play) -> None:
    async def scene(world: World) -> None:
        await defined(world)
        found = await world.vms.drift(world.caller(), "default", "web")
        assert not found.drifted
        assert found.items == ()
        assert (await refusal(world)).code == "wrong-state"

    play(scene)


def test_memory_cpus_and_words_become_the_spec_in_one_transaction(play: Play) -> None:
    async def scene(world: World) -> None:
        vm = await defined(world)

        def change(domain: FakeDomain) -> None:
            domain.vcpus, domain.memory_mib, domain.description = 4, 1024, "bigger"
            domain.graphics, domain.firmware = "none", "uefi"

        world.hypervisor.edit(vm.uid, change)
        shown = await world.vms.drift(world.caller(), "default", "web")
        fields = {item.field: (item.wished, item.found, item.refusal) for item in shown.items}
        assert fields == {
            "vcpus": ("2", "4", ""),
            "memory": ("512 MiB", "1024 MiB", ""),
            "description": ("", "bigger", ""),
            "screen": ("vnc", "none", ""),
            "firmware": ("bios", "uefi", ""),
        }
        revision = world.objects.store.revision
        operation = await accept(world)
        assert world.objects.store.revision == revision + 1
        after = await world.vm("web")
        spec = after.spec
        assert (spec.vcpus, spec.memory_mib, spec.description) == (4, 1024, "bigger")
        assert (spec.graphics, spec.firmware) == ("none", "uefi")
        assert spec.weight == 2048, "the domain's own weight, though it has four vCPUs now"
        assert after.generation == 2
        assert operation.spec.intent == UpdateVm()
        assert operation.spec.tracks_generation == 2
        assert ("vm.update", "accepted") in await world.audit_outcomes()
        assert not (await world.vms.drift(world.caller(), "default", "web")).items

    play(scene)


def test_cards_come_go_and_change_with_their_claims(play: Play) -> None:
    async def scene(world: World) -> None:
        vm = await defined(world, nics=[{}, {}])
        first, second = vm.spec.nics
        changed = DomainNic("net0", MAC, "fake-default", "e1000e")
        new = DomainNic("net2", "52:54:00:00:00:78", "fake-default")
        world.hypervisor.edit(vm.uid, lambda domain: setattr(domain, "nics", (changed, domain.nics[1], new)))
        await accept(world)
        nics = (await world.vm("web")).spec.nics
        assert [nic.mac for nic in nics] == [MAC, second.mac, new.mac]
        assert (nics[0].name, nics[0].address, nics[0].model) == ("net0", first.address, "e1000e")
        assert nics[1] == second
        assert nics[2].name == "net2"
        assert nics[2].address not in ("", first.address, second.address)
        owner = world.objects.owner
        assert await owner(claim_key("mac", "host", first.mac)) is None
        assert await owner(claim_key("mac", "host", MAC)) == vm.uid
        assert await owner(claim_key("address", nics[2].network_uid, nics[2].address)) == vm.uid

        await world.see("web", VmState.SHUT_OFF, observed_generation=2)
        world.hypervisor.edit(vm.uid, lambda domain: setattr(domain, "nics", domain.nics[:1]))
        await accept(world)
        assert await owner(claim_key("mac", "host", second.mac)) is None
        assert await owner(claim_key("address", second.network_uid, second.address)) is None

    play(scene)


def test_a_disk_that_was_detached_is_kept_and_comes_back(play: Play) -> None:
    async def scene(world: World) -> None:
        vm = await defined(world)
        root, data = vm.spec.disks
        whole = world.hypervisor.domains[vm.uid].disks
        world.hypervisor.edit(vm.uid, lambda domain: setattr(domain, "disks", whole[:1]))
        await accept(world)
        volume = await world.objects.get(Volume, data.volume_uid or "")
        assert volume is not None
        assert volume.spec.vm_uid is None
        assert (await world.vm("web")).spec.disks == (root,)

        await world.see("web", VmState.SHUT_OFF, observed_generation=2)
        world.hypervisor.edit(vm.uid, lambda domain: setattr(domain, "disks", whole))
        await accept(world)
        volume = await world.objects.get(Volume, data.volume_uid or "")
        assert volume is not None
        assert (volume.spec.vm_uid, volume.spec.delete_with_vm) == (vm.uid, False)
        assert [disk.volume_uid for disk in (await world.vm("web")).spec.disks] == [root.volume_uid, data.volume_uid]

    play(scene)


def test_disks_keep_their_places(play: Play) -> None:
    """The one in the middle went, another came further on: the guest finds its disks where they were."""

    async def scene(world: World) -> None:
        vm = await defined(world, disks=[{}, {"size_bytes": 2**30}, {"size_bytes": 2**30}])
        root, middle, last = world.hypervisor.domains[vm.uid].disks
        there = (root, replace(last, slot=2), replace(middle, slot=7))
        world.hypervisor.edit(vm.uid, lambda domain: setattr(domain, "disks", there))
        await accept(world)
        assert [(disk.name, disk.slot) for disk in (await world.vm("web")).spec.disks] == [
            ("root", None),
            ("disk1", 7),
            ("disk2", 2),
        ]

    play(scene)


def test_a_running_guests_volume_is_not_let_go(play: Play) -> None:
    async def scene(world: World) -> None:
        vm = await defined(world, state=VmState.RUNNING)
        world.hypervisor.edit(vm.uid, lambda domain: setattr(domain, "disks", domain.disks[:1]))
        assert "once the VM is off" in (await refusal(world)).reason

    play(scene)


def test_a_file_of_the_hosts_is_taken_over_by_an_administrator_alone(
    play: Play, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("disks") / "mine.raw"
    path.write_bytes(b"\0" * 512)

    async def scene(world: World) -> None:
        vm = await defined(world)
        disk = DomainDisk("vdc", str(path), "raw")
        world.hypervisor.edit(vm.uid, lambda domain: setattr(domain, "disks", (*domain.disks, disk)))
        with pytest.raises(CorralError, match="forbidden"):
            await accept(world)
        assert len((await world.vm("web")).spec.disks) == 2
        await world.vms.update(world.admin(), "default", "web", ACCEPT)
        added = (await world.vm("web")).spec.disks[2]
        assert (added.path, added.format, added.volume_uid) == (str(path), "raw", None)

    play(scene)


@pytest.mark.parametrize(
    ("disks", "words"),
    [
        (lambda disks: (replace(disks[0], path="/srv/over.qcow2"), disks[1]), "lies over"),
        (lambda disks: (*disks, DomainDisk("x", "/etc/passwd", "raw")), "system's own files"),
        (lambda disks: (*disks, DomainDisk("x", "/nonexistent", "raw")), "no file"),
        (lambda disks: (replace(disks[0], format="raw"), disks[1]), "format of a volume"),
    ],
)
def test_a_disk_that_cannot_be_taken_over_is_named(play: Play, disks: Any, words: str) -> None:
    async def scene(world: World) -> None:
        vm = await defined(world)
        world.hypervisor.edit(vm.uid, lambda domain: setattr(domain, "disks", disks(domain.disks)))
        error = await refusal(world, world.admin())
        assert error.code == "unsupported"
        assert words in error.reason

    play(scene)


def test_another_vms_volume_is_not_taken_over(play: Play) -> None:
    async def scene(world: World) -> None:
        other = await defined(world, "other")
        vm = await defined(world)
        theirs = world.hypervisor.domains[other.uid].disks[1]
        world.hypervisor.edit(vm.uid, lambda domain: setattr(domain, "disks", (*domain.disks, theirs)))
        assert "volume of another VM" in (await refusal(world, world.admin())).reason

    play(scene)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("vcpus", 500, "vcpus: Corral's VMs have 1 to 288"),
        ("memory_mib", 8, "memory: Corral's VMs have 32"),
        ("cpu_shares", 0, "cpu shares"),
        ("description", "x" * 5000, "more than 4096 characters"),
        ("seed_path", "/srv/other.iso", "cloud-init seed"),
        ("nics", (DomainNic("net0", MAC, "br0"),), "not one that this project has"),
        ("nics", (DomainNic("net0", MAC, "fake-default", "ne2k_pci"),), "Corral's cards are"),
        ("nics", (DomainNic("a", MAC, "fake-default"), DomainNic("b", MAC, "fake-default")), "a MAC of its own"),
    ],
)
def test_what_cannot_be_taken_over_is_named_with_the_reason(play: Play, name: str, value: Any, words: str) -> None:
    async def scene(world: World) -> None:
        vm = await defined(world)

        def change(domain: FakeDomain) -> None:
            setattr(domain, name, value)
            domain.firmware = "uefi"  # this one could be: it is not taken over by itself

        world.hypervisor.edit(vm.uid, change)
        error = await refusal(world, world.admin())
        assert error.code == "unsupported"
        assert words in error.reason
        assert "firmware" not in error.reason

    play(scene)


def test_the_balloon_is_named(play: Play) -> None:
    """`virsh setmaxmem` alone leaves the guest what it had."""

    async def scene(world: World) -> None:
        vm = await defined(world)
        world.hypervisor.edit(vm.uid, lambda domain: setattr(domain, "memory_mib", 1024))
        whole = world.hypervisor.describe

        async def ballooned(uid: str) -> Any:
            return replace(await whole(uid), current_memory_mib=512, foreign=("disk hda: bus ide",))

        world.hypervisor.describe = ballooned  # type: ignore[method-assign]
        reason = (await refusal(world)).reason
        assert "virsh setmem web 1024M --config" in reason
        assert "disk hda: bus ide: Corral has no word for it" in reason

    play(scene)


def test_more_than_the_host_has_is_not_accepted_for_a_running_guest(play: Play) -> None:
    async def scene(world: World) -> None:
        vm = await defined(world, state=VmState.RUNNING)
        world.hypervisor.edit(vm.uid, lambda domain: setattr(domain, "memory_mib", 64 * 1024))
        assert (await refusal(world)).code == "insufficient-memory"

    play(scene)


def test_a_mac_of_another_vm_is_refused(play: Play) -> None:
    async def scene(world: World) -> None:
        other = await defined(world, "other")
        vm = await defined(world)
        card = DomainNic("net0", other.spec.nics[0].mac, "fake-default")
        world.hypervisor.edit(vm.uid, lambda domain: setattr(domain, "nics", (card,)))
        assert (await refusal(world)).code == "address-taken"

    play(scene)


def test_a_stale_revision_and_a_change_under_way_are_conflicts(play: Play) -> None:
    async def scene(world: World) -> None:
        vm = await defined(world)
        world.hypervisor.edit(vm.uid, lambda domain: setattr(domain, "vcpus", 3))
        with pytest.raises(CorralError, match="stale-revision"):
            await accept(world, if_revision=1)
        await world.vms.update(world.caller(), "default", "web", UpdateVmRequest(description="mine"))
        error = await refusal(world)
        assert (error.code, "being carried out" in error.reason) == ("wrong-state", True)

    play(scene)


def test_other_changes_do_not_come_with_it(play: Play) -> None:
    async def scene(world: World) -> None:
        await defined(world)
        both = UpdateVmRequest(accept_drift=True, description="x")
        with pytest.raises(CorralError, match="invalid-argument"):
            await world.vms.update(world.caller(), "default", "web", both)

    play(scene)


def test_tuning_of_disks_and_cards_and_the_boot_order_become_the_spec(play: Play) -> None:
    async def scene(world: World) -> None:
        vm = await defined(world, nics=[{}])
        whole = world.hypervisor.describe
        root, data = world.hypervisor.domains[vm.uid].disks
        card = world.hypervisor.domains[vm.uid].nics[0]
        found: dict[str, Any] = {
            "disks": (replace(root, name="vda", cache="none", aio="native", iops_max=500), replace(data, name="vdb")),
            "nics": (replace(card, link_up=False, queues=2),),
            "vcpus_max": 4,
            "graphics_listen": "127.0.0.1",
            "boot": ("vdb", "vda"),
        }

        async def tuned(uid: str) -> Any:
            return replace(await whole(uid), **found)

        world.hypervisor.describe = tuned  # type: ignore[method-assign]
        items = (await world.vms.drift(world.caller(), "default", "web")).items
        assert {item.field for item in items} == {
            "vcpus at most",
            "screen",
            f"disk {root.path}",
            f"network card {card.mac}",
            "boot order",
        }
        assert not any(item.refusal for item in items)
        await accept(world)
        spec = (await world.vm("web")).spec
        assert (spec.disks[0].cache, spec.disks[0].aio, spec.disks[0].iops_max) == ("none", "native", 500)
        assert (spec.nics[0].link_up, spec.nics[0].queues) == (False, 2)
        assert (spec.hardware.cpu.vcpus_max, spec.graphics_listen) == (4, "127.0.0.1")
        assert spec.hardware.boot_devices == ("disk1", "root")
        assert not (await world.vms.drift(world.caller(), "default", "web")).items

        await world.see("web", VmState.SHUT_OFF, observed_generation=2)
        found["disks"] = (replace(root, name="vda", cache="magic"), replace(data, name="vdb"))
        assert "cache: Corral has no word for it" in (await refusal(world)).reason

    play(scene)


def test_a_drive_for_cds_stays(play: Play) -> None:
    async def scene(world: World) -> None:
        vm = await defined(world)
        drive = DiskSpec(name="cd0", device="cdrom", bus=Bus.SATA, format="raw")
        spec = vm.spec.model_copy(update={"disks": (vm.spec.disks[0], drive, vm.spec.disks[1])})
        await world.put(vm.model_copy(update={"spec": spec}))
        assert not (await world.vms.drift(world.caller(), "default", "web")).items
        world.hypervisor.edit(vm.uid, lambda domain: setattr(domain, "vcpus", 4))
        await accept(world)
        assert (await world.vm("web")).spec.disks == spec.disks

    play(scene)


def test_a_knob_that_was_turned_is_not_taken_over(play: Play) -> None:
    async def scene(world: World) -> None:
        vm = await defined(world)
        drifted = Condition(
            type="Drifted", status=ConditionStatus.TRUE, reason="definition-changed", since=vm.created_at
        )
        await world.see("web", VmState.SHUT_OFF, conditions=(drifted,))
        shown = await world.vms.drift(world.caller(), "default", "web")
        assert (shown.drifted, shown.items) == (True, ())
        error = await refusal(world)
        assert (error.code, "drift reset web" in error.hint) == ("unsupported", True)

    play(scene)
