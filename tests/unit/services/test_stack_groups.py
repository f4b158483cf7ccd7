"""Security groups of a stack: there before the cards that carry them, changed in place, gone with it."""

from typing import Any

import pytest
from stack_world import apply, carry_out, plan, plan_down

from corral.errors import CorralError
from corral.model.security_group import SecurityGroup
from corral.model.stack_plan import ExportStackRequest
from corral.services.stack import StackService

SHOP: dict[str, Any] = {
    "stack": "shop",
    "security_groups": {
        "web": ["in tcp/80", "out tcp/8080 to group:app"],
        "app": {"rules": ["in tcp/8080 from group:web"], "description": "the engine"},
    },
    "defaults": {"image": "micro", "memory": "256M"},
    "vms": {
        "web": {"nics": [{"network": "default", "groups": ["web"]}]},
        "app": {"nics": [{"network": "default", "groups": ["app", "default"]}]},
        "plain": {},
    },
}


async def rules_of(world: Any) -> dict[str, list[str]]:
    found = await world.objects.list(SecurityGroup)
    return {one.name: [rule.text for rule in one.spec.rules] for one in found}


def test_groups_that_speak_of_each_other_are_made_then_filled_then_carried(play: Any) -> None:
    async def scene(world: Any) -> None:
        found = await apply(world, SHOP)
        assert [action.id for action in found.actions][:4] == [
            "security-group/web/create", "security-group/app/create", "security-group/web/update",
            "security-group/app/update",
        ]  # fmt: skip
        web = next(action for action in found.actions if action.id == "vm/web/create")
        assert "security-group/web/update" in web.after
        assert await rules_of(world) == {
            "web": ["in tcp/80 from any", "out tcp/8080 to group:app"], "app": ["in tcp/8080 from group:web"],
        }  # fmt: skip
        assert (await world.vm("app")).spec.nics[0].groups == ("app", "default")
        assert (await plan(world, SHOP)).actions == ()

    play(scene)


def test_what_changes_is_told_and_cards_change_while_they_run(play: Any) -> None:
    async def scene(world: Any) -> None:
        await apply(world, SHOP)
        groups = {**SHOP["security_groups"], "web": ["in tcp/443", "out tcp/8080 to group:app"]}
        nics = {"nics": [{"network": "default", "groups": ["web", "app"]}]}
        found = await apply(world, {**SHOP, "security_groups": groups, "vms": {**SHOP["vms"], "web": nics}})
        assert [action.id for action in found.actions] == ["security-group/web/update", "vm/web/change-nic/net0"]
        assert found.actions[0].changes == ("rule in tcp/80 from any: gone", "rule in tcp/443 from any: new")
        assert (await world.vm("web")).spec.nics[0].groups == ("web", "app")

    play(scene)


def test_they_go_with_the_stack(play: Any) -> None:
    async def scene(world: Any) -> None:
        await apply(world, SHOP)
        for action in (await plan_down(world, "shop")).actions:
            await carry_out(world, action)
        assert await rules_of(world) == {}

    play(scene)


def test_an_export_says_the_groups_of_cards(play: Any) -> None:
    async def scene(world: Any) -> None:
        await apply(world, SHOP)
        request = ExportStackRequest(stack="shop", vms=("app", "plain"))
        document = (await StackService(world.context).export(world.caller(), "default", request)).document
        assert document["vms"]["app"]["nics"] == [{"network": "default", "groups": ("app", "default")}]
        assert (await plan(world, {**SHOP, **document})).actions == ()

    play(scene)


@pytest.mark.parametrize(
    ("change", "code", "place"),
    [
        ({"security_groups": {"web": ["in tcp/70000"]}}, "invalid-rule", "security_groups.web"),
        ({"security_groups": {"open": ["in any"]}}, "name-taken", "security_groups.open"),
        ({"security_groups": {"web": ["in any from group:nobody"]}}, "security-group-not-found", "security_groups.web"),
        ({"security_groups": {"web": ["in any from network:back"]}}, "network-not-found", "security_groups.web"),
        ({"vms": {"one": {"nics": [{"groups": ["nobody"]}]}}}, "security-group-not-found", "vms.one.nics[0]"),
        ({"security_groups": {"We;b": []}}, "invalid-document", "security_groups"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(play: Any, change: dict[str, Any], code: str, place: str) -> None:
    async def scene(world: Any) -> None:
        with pytest.raises(CorralError) as refused:
            await plan(world, {"stack": "lab", "defaults": {"image": "micro"}, "vms": {}, **change})
        assert refused.value.code == code
        assert place in refused.value.reason

    play(scene)
