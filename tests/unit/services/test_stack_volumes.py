"""Volumes of a stack stand alone: made before the VMs that name them, grown, left when the stack goes."""

from typing import Any

import pytest
from stack_world import apply, carry_out, plan, plan_down

from corral.errors import CorralError
from corral.model.stack_plan import ExportStackRequest
from corral.model.volume import Volume
from corral.names import GIB
from corral.services.stack import StackService

LAB: dict[str, Any] = {
    "stack": "lab",
    "volumes": {"data": 2, "ours": {"size": 1, "format": "raw", "shared": True}},
    "defaults": {"image": "micro", "memory": "512M"},
    "vms": {
        "db": {"disks": [2, {"volume": "data", "name": "data"}, {"volume": "ours"}]},
        "web": {"disks": [2, {"volume": "ours"}]},
    },
}


async def volumes(world: Any) -> dict[str, Volume]:
    return {one.name: one for one in await world.objects.list(Volume) if one.labels}


def with_volume(**fields: Any) -> dict[str, Any]:
    return {**LAB, "volumes": {**LAB["volumes"], "data": {"size": 2, **fields}}}


def test_they_are_made_before_who_has_them_and_asked_for_once(play: Any) -> None:
    async def scene(world: Any) -> None:
        found = await apply(world, LAB)
        ids = [action.id for action in found.actions]
        assert ids == ["volume/data/create", "volume/ours/create", "vm/db/create", "vm/web/create"]
        assert found.actions[2].after == ("volume/data/create", "volume/ours/create")
        made, db = await volumes(world), await world.vm("db")
        assert [disk.volume_uid for disk in db.spec.disks[1:]] == [made["data"].uid, made["ours"].uid]
        assert (made["data"].spec.vm_uid, made["ours"].spec.vm_uid) == (db.uid, None)
        assert made["data"].labels == {"corral/stack": "lab"}
        again = await plan(world, LAB)
        assert (again.actions, set(again.unchanged)) == ((), {"db", "web"})

    play(scene)


def test_one_cut_in_the_middle_goes_on(play: Any) -> None:
    async def scene(world: Any) -> None:
        found = await plan(world, LAB)
        await carry_out(world, found.actions[0], settle=False)
        again = await plan(world, LAB)
        assert [action.id for action in again.actions] == [
            "volume/data/follow", "volume/ours/create", "vm/db/create", "vm/web/create",
        ]  # fmt: skip
        for action in again.actions:
            await carry_out(world, action)
        assert (await plan(world, LAB)).actions == ()

    play(scene)


def test_they_grow_and_what_else_differs_is_said(play: Any) -> None:
    async def scene(world: Any) -> None:
        await apply(world, LAB)
        grown = await apply(world, with_volume(size=4))
        assert [action.id for action in grown.actions] == ["volume/data/update"]
        assert (await volumes(world))["data"].spec.size_bytes == 4 * GIB
        for fields, word in (
            ({"size": 1}, "shrink"),
            ({"size": 4, "format": "raw"}, "format"),
            ({"read_only": True}, "read"),
        ):
            blocked = await plan(world, with_volume(**fields))
            assert word in " ".join(line for block in blocked.blocked for line in block.changes), fields

    play(scene)


def test_they_stay_when_the_stack_goes_and_when_their_disk_is_taken_out(play: Any) -> None:
    async def scene(world: Any) -> None:
        await apply(world, LAB)
        without = {**LAB, "vms": {"db": {"disks": [2]}, "web": LAB["vms"]["web"]}}
        taken = await plan(world, without, delete_disks=True)
        assert not [action for action in taken.actions if action.kind == "volume"]
        down = await plan_down(world, "lab")
        assert "data" in down.warnings[0]
        for action in down.actions:
            await carry_out(world, action)
        assert set(await volumes(world)) == {"data", "ours"}

    play(scene)


def test_what_is_somebody_elses_is_refused(play: Any) -> None:
    async def scene(world: Any) -> None:
        await apply(world, LAB)
        for document, code in (
            ({**LAB, "stack": "other", "vms": {}}, "name-taken"),
            (
                {"stack": "two", "defaults": LAB["defaults"], "vms": {"x": {"disks": [{"volume": "data"}]}}},
                "volume-in-use",
            ),
            (
                {"stack": "two", "defaults": LAB["defaults"], "vms": {"x": {"disks": [{"volume": "no"}]}}},
                "volume-not-found",
            ),
            ({"stack": "two", "volumes": {"v": {}}}, "invalid-argument"),
            ({"stack": "two", "volumes": {"v": {"size": 1, "shared": True}}}, "unsupported"),
            ({"stack": "two", "volumes": {"v": {"size": 1, "pool": "none"}}}, "pool-not-found"),
        ):
            with pytest.raises(CorralError) as refused:
                await plan(world, document)
            assert refused.value.code == code, document

    play(scene)


def test_an_exported_stack_names_them(play: Any) -> None:
    async def scene(world: Any) -> None:
        await apply(world, LAB)
        service = StackService(world.context)
        asked = ExportStackRequest(stack="lab", selector="corral/stack=lab")
        exported = await service.export(world.caller(), "default", asked)
        assert exported.document["vms"]["db"]["disks"][1] == {"name": "data", "volume": "data"}
        assert (await plan(world, exported.document)).actions == ()

    play(scene)
