"""Plans of stacks: what is made, changed and deleted, in which order, and what is refused before anything is done."""

from typing import Any

import pytest
from stack_world import apply, carry_out, finish, plan, plan_down

from corral.errors import CorralError
from corral.model.base import Condition, ConditionStatus
from corral.model.image import Image
from corral.model.operation import Operation
from corral.model.stack_plan import ExportStackRequest, StackPlan, StackVerb
from corral.model.vm import Vm
from corral.model.volume import Volume
from corral.services.stack import StackService

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAdBVfZz3GQQTQdS2VB3zKg7EOTa62HruGUU1Yt+HCOz ann@laptop"
SHOP: dict[str, Any] = {
    "stack": "shop",
    "variables": {"size": "512M", "cpus": 1},
    "defaults": {"image": "micro", "memory": "${size}", "labels": {"env": "test"}},
    "vms": {
        "web": {"count": 2, "vcpus": "${cpus}", "after": {"app": "ssh"}},
        "app": {"after": {"db": "agent"}},
        "db": {"disks": [2, {"size": "1G", "name": "data", "iops": 500}], "protected": False},
    },
}


def changed(document: dict[str, Any], vm: str, **fields: Any) -> dict[str, Any]:
    vms = {**document["vms"], vm: {**(document["vms"].get(vm) or {}), **fields}}
    return {**document, "vms": {name: fields for name, fields in vms.items() if fields is not None}}


def ids(found: StackPlan) -> list[str]:
    return [action.id for action in found.actions]


def test_everything_is_made_in_the_order_of_its_dependencies(play: Any) -> None:
    async def scene(world: Any) -> None:
        found = await apply(world, SHOP)
        assert ids(found) == ["vm/db/create", "vm/app/create", "vm/web-1/create", "vm/web-2/create"]
        db, app, web, _ = found.actions
        assert (db.after, db.waits) == ((), ())
        assert app.after == ("vm/db/create",)
        assert [(wait.vm, wait.condition.value) for wait in app.waits] == [("db", "agent")]
        assert web.after == ("vm/app/create",)
        vm = await world.vm("web-2")
        assert vm.labels == {"env": "test", "corral/stack": "shop"}
        assert vm.spec.memory_mib == 512
        again = await plan(world, SHOP)
        assert again.actions == ()
        assert set(again.unchanged) == {"db", "app", "web-1", "web-2"}

    play(scene)


def test_planning_makes_nothing(play: Any) -> None:
    async def scene(world: Any) -> None:
        before = world.objects.store.revision
        await plan(world, SHOP)
        assert world.objects.store.revision == before

    play(scene)


def test_the_same_plan_has_the_same_keys_until_it_was_carried_out(play: Any) -> None:
    async def scene(world: Any) -> None:
        first = await plan(world, SHOP)
        second = await plan(world, SHOP)
        assert [one.key for one in first.actions] == [one.key for one in second.actions]
        made = await carry_out(world, first.actions[0], settle=False)
        again = await carry_out(world, second.actions[0], settle=False)
        assert made is not None
        assert again is not None
        assert made.uid == again.uid
        follow = await plan(world, SHOP)
        assert ids(follow)[0] == "vm/db/follow"
        assert follow.actions[0].operation == made.uid

    play(scene)


def test_what_was_made_and_deleted_is_made_again_under_another_key(play: Any) -> None:
    async def scene(world: Any) -> None:
        document = {"stack": "one", "vms": {"one": {"image": "micro"}}}
        keys = set()
        for _ in range(3):
            found = await apply(world, document)
            keys.add(found.actions[0].key)
            for action in (await plan_down(world, "one")).actions:
                await carry_out(world, action)
            assert await world.objects.list(Vm) == []
        assert len(keys) == 3

    play(scene)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"memory": "1G"}, ["memory: 512 MiB → 1 GiB"]),
        ({"vcpus": 2}, ["vcpus: 1 → 2"]),
        ({"description": "x"}, ["description: none → x"]),
        ({"autostart": True}, ["boot.autostart: no → yes"]),
        ({"cpu_shares": 77}, ["cpu_shares: 1024 → 77"]),
        ({"hardware": {"cpu": {"quota_percent": 50}}}, ["hardware.cpu.quota_percent: none → 50"]),
        ({"labels": {"tier": "db"}}, ["label tier: none → db"]),
        ({"run_policy": "always"}, ["run_policy: on-failure → always"]),
        ({"graphics": "none"}, ["graphics: vnc → none"]),
    ],
)
def test_a_knob_is_changed_and_goes_back_to_its_default(play: Any, fields: dict[str, Any], expected: list[str]) -> None:
    async def scene(world: Any) -> None:
        await apply(world, SHOP)
        there = changed(SHOP, "db", **fields)
        found = await apply(world, there)
        assert ids(found) == ["vm/db/update"]
        assert list(found.actions[0].changes) == expected
        assert (await plan(world, there)).actions == ()
        assert ids(await apply(world, SHOP)) == ["vm/db/update"]
        assert (await plan(world, SHOP)).actions == ()

    play(scene)


def test_disks_and_cards_come_change_and_go(play: Any) -> None:
    async def scene(world: Any) -> None:
        await apply(world, SHOP)
        disks = [2, {"size": "3G", "name": "data", "iops": 0}, {"size": "1G", "name": "logs"}]
        wide = changed(SHOP, "db", disks=disks, nics=["default", {"network": "default", "link_up": False}])
        found = await apply(world, wide)
        assert ids(found) == ["vm/db/change-disk/data", "vm/db/attach-disk/logs", "vm/db/attach-nic/net1"]
        assert "disk data size: 1 GiB → 3 GiB" in found.actions[0].changes
        assert [one.after for one in found.actions[1:]] == [(ids(found)[0],), (ids(found)[1],)]
        assert (await plan(world, wide)).actions == ()
        vm = await world.vm("db")
        assert [disk.name for disk in vm.spec.disks] == ["root", "data", "logs"]
        assert [nic.link_up for nic in vm.spec.nics] == [True, False]
        narrow = changed(SHOP, "db", disks=[2], nics=[])
        found = await apply(world, narrow)
        assert set(ids(found)) == {
            "vm/db/detach-disk/data", "vm/db/detach-disk/logs", "vm/db/detach-nic/net0", "vm/db/detach-nic/net1",
        }  # fmt: skip
        assert (await plan(world, narrow)).actions == ()
        assert len([volume for volume in await world.objects.list(Volume) if "data" in volume.name]) == 1

    play(scene)


def test_the_volumes_of_disks_taken_out_are_deleted_only_on_demand(play: Any) -> None:
    async def scene(world: Any) -> None:
        await apply(world, SHOP)
        found = await plan(world, changed(SHOP, "db", disks=[2]), delete_disks=True)
        detach, delete = found.actions
        assert (delete.kind, delete.verb, delete.after) == ("volume", StackVerb.DELETE, (detach.id,))
        assert delete.path.startswith("/v1/volumes/db-data-")

    play(scene)


@pytest.mark.parametrize(
    "fields",
    [
        {"image": "other"},
        {"user": "somebody"},
        {"user_data": "#cloud-config\n{}\n"},
        {"ssh_keys": [KEY]},
        {"hostname": "x"},
        {"disks": [1, {"size": "1G", "name": "data", "iops": 500}]},
        {"disks": [2, {"size": "1G", "name": "data", "bus": "scsi"}]},
        {"nics": [{"mac": "52:54:00:12:34:56"}]},
    ],
)
def test_what_cannot_be_changed_in_place_is_left_alone_or_replaced(play: Any, fields: dict[str, Any]) -> None:
    async def scene(world: Any) -> None:
        await world.image("other")
        await apply(world, SHOP)
        there = changed(SHOP, "db", **fields)
        (block,) = (await plan(world, there)).blocked
        assert block.name == "db"
        assert block.changes
        assert "--replace db" in block.hint
        found = await apply(world, there, replace=("db",))
        assert ids(found)[:2] == ["vm/db/delete", "vm/db/create"]
        assert found.actions[1].after == ("vm/db/delete",)
        assert (await plan(world, there)).actions == ()

    play(scene)


def test_the_appliers_own_keys_are_for_new_vms_alone(play: Any) -> None:
    async def scene(world: Any) -> None:
        await apply(world, SHOP, ssh_keys=(KEY,))
        assert (await world.vm("db")).spec.cloud_init.users[0].ssh_keys == (KEY,)
        assert (await plan(world, SHOP)).actions == ()

    play(scene)


def test_a_vm_that_is_off_is_started_after_those_that_it_waits_for(play: Any) -> None:
    async def scene(world: Any) -> None:
        await apply(world, SHOP)
        for name in ("db", "app"):
            await finish(world, await world.vms.destroy(world.caller(), "default", name))
        found = await apply(world, SHOP)
        assert ids(found) == ["vm/db/start", "vm/app/start"]
        assert found.actions[1].after == ("vm/db/start",)
        assert found.actions[1].waits[0].vm == "db"

    play(scene)


def test_what_is_no_longer_named_is_shown_and_pruned_on_demand(play: Any) -> None:
    async def scene(world: Any) -> None:
        await apply(world, SHOP)
        small = {**SHOP, "vms": {"db": SHOP["vms"]["db"]}}
        found = await plan(world, small)
        assert (found.actions, found.orphans) == ((), ("app", "web-1", "web-2"))
        assert set(ids(await apply(world, small, prune=True))) == {
            f"vm/{name}/delete" for name in ("app", "web-1", "web-2")
        }
        assert [vm.name for vm in await world.objects.list(Vm)] == ["db"]

    play(scene)


def test_protected_vms_are_neither_pruned_nor_taken_down(play: Any) -> None:
    async def scene(world: Any) -> None:
        await apply(world, changed(SHOP, "db", protected=True))
        assert [block.name for block in (await plan_down(world, "shop")).blocked] == ["db"]
        small = {**SHOP, "vms": {"app": {}}}
        assert [block.name for block in (await plan(world, small, prune=True)).blocked] == ["db"]

    play(scene)


def test_down_goes_the_other_way_round(play: Any) -> None:
    async def scene(world: Any) -> None:
        await apply(world, SHOP)
        found = await plan_down(world, "shop", document=SHOP)
        assert ids(found) == ["vm/web-2/delete", "vm/web-1/delete", "vm/app/delete", "vm/db/delete"]
        assert set(found.actions[2].after) == {"vm/web-1/delete", "vm/web-2/delete"}
        assert found.actions[3].after == ("vm/app/delete",)
        kept = await plan_down(world, "shop", document=SHOP, keep_disks=True)
        assert [one.verb.value for one in kept.actions][:2] == ["shutdown", "delete"]
        assert all(one.query == {"keep_disks": "true"} for one in kept.actions if one.verb is StackVerb.DELETE)
        for action in found.actions:
            await carry_out(world, action)
        assert await world.objects.list(Vm) == []
        assert (await plan_down(world, "shop")).actions == ()

    play(scene)


def test_images_that_are_not_there_are_built_first(play: Any) -> None:
    async def scene(world: Any) -> None:
        document = {"stack": "deb", "images": ["debian-12"], "vms": {"one": {"image": "debian-12", "memory": "512M"}}}
        with pytest.raises(CorralError) as refused:
            await plan(world, changed(document, "one", memory="128M"))
        assert "at least 256 MiB" in refused.value.reason
        found = await plan(world, document)
        assert ids(found) == ["image/debian-12/build", "vm/one/create"]
        assert found.actions[1].after == ("image/debian-12/build",)
        await carry_out(world, found.actions[0], settle=False)
        later = await plan(world, document)
        assert ids(later) == ["image/debian-12/follow", "vm/one/create"]
        assert later.actions[1].after == ("image/debian-12/follow",)
        await apply(world, document)
        assert (await plan(world, document)).actions == ()
        assert (await world.objects.require(Image, "default", "debian-12")).status.state.value == "ready"

    play(scene)


def test_all_together_have_to_fit(play: Any) -> None:
    async def scene(world: Any) -> None:
        document = {"stack": "big", "vms": {"big": {"image": "micro", "count": 5, "memory": "2G"}}}
        with pytest.raises(CorralError) as refused:
            await plan(world, document)
        assert refused.value.code == "insufficient-memory"
        await apply(world, changed(document, "big", count=4))
        moved = {"stack": "big", "vms": {"other": {"image": "micro", "count": 4, "memory": "2G"}}}
        with pytest.raises(CorralError):
            await plan(world, moved)
        found = await plan(world, moved, prune=True)
        deletes = {one.id for one in found.actions if one.verb is StackVerb.DELETE}
        assert len(deletes) == 4
        assert all(deletes == set(one.after) for one in found.actions if one.verb is StackVerb.CREATE)

    play(scene)


def test_vms_of_others_are_never_taken_over(play: Any) -> None:
    async def scene(world: Any) -> None:
        await world.running("db")
        with pytest.raises(CorralError) as refused:
            await plan(world, SHOP)
        assert refused.value.code == "name-taken"
        assert "vms.db" in refused.value.reason
        await apply(world, {"stack": "mine", "vms": {"own": {"image": "micro"}}})
        with pytest.raises(CorralError) as refused:
            await plan(world, {"stack": "yours", "vms": {"own": {"image": "micro"}}})
        assert "'mine'" in refused.value.reason

    play(scene)


def test_an_export_applies_to_no_change(play: Any) -> None:
    async def scene(world: Any) -> None:
        document = changed(
            SHOP, "db", nics=["default", {"queues": 2}], hardware={"watchdog": "reset", "cpu": {"quota_percent": 50}}
        )
        await apply(world, document, ssh_keys=(KEY,))
        request = ExportStackRequest(stack="shop", selector="corral/stack=shop")
        exported = await StackService(world.context).export(world.caller(), "default", request)
        assert exported.notes == ()
        assert set(exported.document["vms"]) == {"web-1", "web-2", "app", "db"}
        found = await plan(world, exported.document)
        assert (found.actions, found.blocked, found.orphans) == ((), (), ())

    play(scene)


def test_a_vm_that_is_being_deleted_is_waited_for_and_made_anew(play: Any) -> None:
    async def scene(world: Any) -> None:
        await apply(world, SHOP)
        going = await world.vms.delete(world.caller(), "default", "db")
        found = await plan(world, SHOP)
        assert ids(found) == ["vm/db/follow", "vm/db/create"]
        assert (found.actions[0].operation, found.actions[1].after) == (going.uid, ("vm/db/follow",))
        gone = await world.vms.delete(world.caller(), "default", "web-1")
        assert gone.uid in [one.operation for one in (await plan_down(world, "shop")).actions]
        small = {**SHOP, "vms": {"db": SHOP["vms"]["db"]}}
        assert "vm/web-1/follow" in ids(await plan(world, small))

    play(scene)


def test_the_hardware_of_drifted_and_adopted_vms_is_left_alone(play: Any) -> None:
    async def scene(world: Any) -> None:
        await apply(world, SHOP)
        vm = await world.vm("db")
        drifted = Condition(type="Drifted", status=ConditionStatus.TRUE, reason="changed", since=world.clock.now())
        await world.put(vm.model_copy(update={"status": vm.status.model_copy(update={"conditions": (drifted,)})}))
        assert (await plan(world, SHOP)).blocked == ()
        assert (await plan(world, changed(SHOP, "db", description="x"))).blocked == ()
        (block,) = (await plan(world, changed(SHOP, "db", vcpus=2))).blocked
        assert block.changes == ("vcpus: 1 → 2",)
        assert "corral drift show db" in block.hint

    play(scene)


def test_who_waits_for_what_never_comes_is_warned(play: Any) -> None:
    async def scene(world: Any) -> None:
        await world.image("mute", ssh=False)
        found = await plan(world, changed(SHOP, "app", image="mute"))
        assert list(found.warnings) == [
            f"{name} waits for SSH in app, whose image has no server for it" for name in ("web-1", "web-2")
        ]
        assert (await plan(world, SHOP)).warnings == ()

    play(scene)


def test_who_may_not_use_the_hosts_files_may_not_plan_with_them(play: Any) -> None:
    async def scene(world: Any) -> None:
        document = {"stack": "x", "vms": {"a": {"disks": [{"path": "/srv/a.qcow2"}]}}}
        with pytest.raises(CorralError) as refused:
            await plan(world, document)
        assert refused.value.code == "forbidden"

    play(scene)


def test_several_problems_are_told_at_once_with_their_places(play: Any) -> None:
    async def scene(world: Any) -> None:
        document = {
            "stack": "bad",
            "networks": ["nowhere"],
            "vms": {
                "a": {"image": "nothing"},
                "b": {"image": "micro", "nics": ["elsewhere"]},
                "c": {"image": "micro", "hardware": {"secure_boot": True}},
                "d": {"image": "micro", "nics": [{"address": "10.0.0.300"}]},
            },
        }
        with pytest.raises(CorralError) as refused:
            await plan(world, document)
        for place in ("networks:", "vms.a:", "vms.b: nics[0]", "vms.c:", "vms.d:"):
            assert place in refused.value.reason, refused.value.reason
        assert await world.objects.list(Operation) == []

    play(scene)
