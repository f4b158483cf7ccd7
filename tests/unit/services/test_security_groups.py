"""Security groups and network policies: made, changed, in use, too many, and what is refused before any effect."""

import asyncio
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError

from corral.errors import CorralError
from corral.model import limits
from corral.model.firewall_requests import (
    CreateNetworkPolicyRequest,
    CreateSecurityGroupRequest,
    UpdateNetworkPolicyRequest,
    UpdateSecurityGroupRequest,
)
from corral.model.identity import Role
from corral.model.network import Network, NetworkSpec
from corral.model.requests import ChangeNicRequest, CreateVmRequest, ListRequest, NicRequest
from corral.model.security_group import SecurityGroup
from corral.model.vm import Vm
from corral.names import new_uid
from corral.services.beginning import ensure_project
from corral.services.device import DeviceService
from corral.services.network_policy import NetworkPolicyService
from corral.services.security_group import SecurityGroupService
from corral.store.objects import claim_key


def group(name: str, *rules: str) -> CreateSecurityGroupRequest:
    return CreateSecurityGroupRequest(name=name, rules=rules)


def texts(found: SecurityGroup) -> list[str]:
    return [rule.text for rule in found.spec.rules]


async def vm_with(world: Any, name: str, *groups: str) -> Vm:
    request = CreateVmRequest(name=name, image="micro", nics=(NicRequest(groups=groups),))
    made, _ = await world.vms.create(world.caller(), "default", request)
    assert made is not None
    return made


def refused(code: str) -> Any:
    return pytest.raises(CorralError, match=code)


def test_rules_come_and_go_and_each_is_there_once(play: Any) -> None:
    async def scene(world: Any) -> None:
        groups, caller = SecurityGroupService(world.context), world.caller()
        await groups.create(
            caller, "default", group("web", "in tcp/443", "in tcp/443 from any", "in any from group:web")
        )
        found = await groups.update(caller, "default", "web", UpdateSecurityGroupRequest(add_rules=("out any",)))
        assert texts(found) == ["in tcp/443 from any", "in any from group:web", "out any to any"]
        first = found.spec.rules[0].id
        change = UpdateSecurityGroupRequest(remove_rules=(first, "out any"), add_rules=("in tcp/80",))
        found = await groups.update(caller, "default", "web", change)
        assert texts(found) == ["in any from group:web", "in tcp/80 from any"]
        with refused("invalid-rule"):
            await groups.update(caller, "default", "web", UpdateSecurityGroupRequest(remove_rules=(first,)))
        same = await groups.update(caller, "default", "web", UpdateSecurityGroupRequest(add_rules=("in tcp/80",)))
        assert (same.revision, same.generation) == (found.revision, found.generation)

    play(scene)


def test_a_new_group_lets_out_and_nobody_in_unless_its_rules_are_given(play: Any) -> None:
    async def scene(world: Any) -> None:
        groups, caller = SecurityGroupService(world.context), world.caller()
        made = await groups.create(caller, "default", CreateSecurityGroupRequest(name="new"))
        assert texts(made) == ["out any to any"]
        made = await groups.create(caller, "default", group("db", "in tcp/5432"))
        assert texts(made) == ["in tcp/5432 from any"]
        assert texts(await groups.create(caller, "default", group("shut"))) == []

    play(scene)


def test_default_and_open_are_always_there_and_default_can_change(play: Any) -> None:
    async def scene(world: Any) -> None:
        groups, caller = SecurityGroupService(world.context), world.caller()
        listing = await groups.list(caller, "default", ListRequest())
        assert [json.loads(one)["name"] for one in listing.documents] == ["default", "open"]
        listing = await groups.list(caller, "default", ListRequest(fields="name"))
        assert [json.loads(one) for one in listing.documents] == [{"name": "default"}, {"name": "open"}]
        assert (await groups.list(caller, "default", ListRequest(selector="tier=web"))).documents == ()
        before = json.loads((await groups.get(caller, "default", "default")).content)
        change = UpdateSecurityGroupRequest(add_rules=("in tcp/22",))
        changed = await groups.update(caller, "default", "default", change)
        assert changed.uid == before["uid"]
        assert texts(changed) == ["in any from group:default", "out any to any", "in tcp/22 from any"]
        listing = await groups.list(caller, "default", ListRequest())
        assert sorted(json.loads(one)["name"] for one in listing.documents) == ["default", "open"]
        with refused("name-taken"):
            await groups.create(caller, "default", group("open"))
        with refused("wrong-state"):
            await groups.update(caller, "default", "open", change)
        for name in ("default", "open"):
            with refused("security-group-in-use"):
                await groups.delete(caller, "default", name)

    play(scene)


@pytest.mark.parametrize(
    ("rules", "code"),
    [
        (["in tcp/70000"], "invalid-rule"),
        (["in tcp/80 from 10.0.0.1/8"], "invalid-rule"),
        (["in tcp/80 from group:nonesuch"], "security-group-not-found"),
        (["in tcp/80 from network:nonesuch"], "network-not-found"),
        (["in tcp/80 from network:lan"], "invalid-rule"),
        (["in tcp/80; flush ruleset"], "invalid-rule"),
    ],
)
def test_what_cannot_be_is_refused_before_any_effect(play: Any, rules: list[str], code: str) -> None:
    async def scene(world: Any) -> None:
        groups, caller, now = SecurityGroupService(world.context), world.caller(), datetime.now(UTC)
        spec = NetworkSpec(mode="bridge", bridge="br0")
        await world.put(Network(name="lan", uid=new_uid(), created_at=now, spec=spec))
        with refused(code):
            await groups.create(caller, "default", group("web", *rules))
        assert await world.objects.list(SecurityGroup) == []
        with refused(code):
            await groups.update(caller, "default", "default", UpdateSecurityGroupRequest(add_rules=tuple(rules)))
        assert await world.objects.list(SecurityGroup) == []

    play(scene)


@pytest.mark.parametrize("name", ["Web", "a b", "x;reboot", "$(id)", "../x", "{ drop }", "", "a" * 64])
def test_a_name_that_could_be_a_command_is_no_name(name: str) -> None:
    with pytest.raises(ValidationError):
        CreateSecurityGroupRequest(name=name)
    with pytest.raises(ValidationError):
        NicRequest(groups=(name,))


def test_rules_are_bounded_in_a_group_and_in_a_project(play: Any) -> None:
    async def scene(world: Any) -> None:
        groups, caller = SecurityGroupService(world.context), world.caller()
        with pytest.raises(ValidationError):
            group("many", *(f"in tcp/{port}" for port in range(1, 5001)))
        full = limits.GROUP_RULES_MAX
        for number in range(limits.PROJECT_RULES_MAX // full):
            await groups.create(
                caller, "default", group(f"g{number}", *(f"in tcp/{port}" for port in range(1, full + 1)))
            )
        with refused("invalid-rule"):
            await groups.update(caller, "default", "g0", UpdateSecurityGroupRequest(add_rules=("in udp/1",)))
        with refused("invalid-rule"):
            await groups.create(caller, "default", group("more", "in udp/1"))
        await groups.create(caller, "default", group("none"))

    play(scene)


def test_many_at_once_stay_within_the_bounds_of_the_project(play: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene(world: Any) -> None:
        monkeypatch.setattr(limits, "PROJECT_RULES_MAX", 20)
        monkeypatch.setattr(limits, "PROJECT_POLICIES_MAX", 3)
        groups, policies = SecurityGroupService(world.context), NetworkPolicyService(world.context)
        caller = world.caller(Role.ADMIN)
        await groups.create(caller, "default", group("one", "in tcp/1"))
        await groups.create(caller, "default", group("two", "in tcp/1"))
        more = [
            groups.update(caller, "default", name, UpdateSecurityGroupRequest(add_rules=(f"in tcp/{port}",)))
            for port in range(10, 40)
            for name in ("one", "two")
        ]
        apart = [
            policies.create(
                caller, "default", CreateNetworkPolicyRequest(name=f"p{n}", tiers=("group:one", "group:two"))
            )
            for n in range(10)
        ]
        done = await asyncio.gather(*more, *apart, return_exceptions=True)
        failed = [one.code for one in done if isinstance(one, CorralError)]
        assert len(failed) == len(done) - 18 - 3
        assert set(failed) == {"invalid-rule", "wrong-state"}
        assert sum(len(one.spec.rules) for one in await world.objects.list(SecurityGroup)) == 20

    play(scene)


def test_a_deletion_that_was_cut_is_finished_by_the_next_daemon(play: Any) -> None:
    async def scene(world: Any) -> None:
        groups, caller = SecurityGroupService(world.context), world.caller()
        for name in ("gone", "kept"):
            await groups.create(caller, "default", group(name))
        await vm_with(world, "one", "kept")
        left = world.objects.transaction()
        for name in ("gone", "kept", "never"):
            found = await world.objects.find(SecurityGroup, "default", name)
            left.claim(claim_key("group-going", "default", name), found.uid if found else "x")
        await left.commit()
        await ensure_project(world.context)
        assert [one.name for one in await world.objects.list(SecurityGroup)] == ["kept"]
        await vm_with(world, "three", "kept")
        assert (await world.objects.store.range("/claims/group-going/")).records == ()
        assert ("security-group.delete", "accepted") in await world.audit_outcomes()

    play(scene)


def test_on_a_full_disk_the_next_daemon_starts_all_the_same(play: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene(world: Any) -> None:
        made = await SecurityGroupService(world.context).create(world.caller(), "default", group("web"))
        await ensure_project(world.context)
        left, going = world.objects.transaction(), claim_key("group-going", "default", "web")
        left.claim(going, made.uid)
        await left.commit()

        async def full(*_given: Any, **_more: Any) -> None:
            raise CorralError("disk-full", "commit", "no space left on the device")

        with monkeypatch.context() as now:
            now.setattr(world.objects.store, "transact", full)
            await ensure_project(world.context)
        assert await world.objects.owner(going) == made.uid
        await ensure_project(world.context)
        assert await world.objects.owner(going) is None
        assert not await world.objects.list(SecurityGroup)

    play(scene)


def test_a_group_that_is_named_anywhere_stays(play: Any) -> None:
    async def scene(world: Any) -> None:
        groups, policies = SecurityGroupService(world.context), NetworkPolicyService(world.context)
        devices, caller = DeviceService(world.context), world.caller(Role.ADMIN)
        for name in ("web", "app", "db"):
            await groups.create(caller, "default", group(name, f"in any from group:{name}"))
        await vm_with(world, "one", "web")
        await groups.update(caller, "default", "web", UpdateSecurityGroupRequest(add_rules=("out any to group:app",)))
        tiers = CreateNetworkPolicyRequest(name="tiers", tiers=("group:db", "network:default"))
        await policies.create(caller, "default", tiers)
        for name in ("web", "app", "db"):
            with refused("security-group-in-use"):
                await groups.delete(caller, "default", name)
        await devices.change_nic(caller, "default", "one", "net0", ChangeNicRequest(groups=()))
        await policies.delete(caller, "default", "tiers")
        for name in ("web", "app", "db"):
            await groups.delete(caller, "default", name)
        assert await world.objects.list(SecurityGroup) == []
        await groups.create(caller, "default", group("web"))

    play(scene)


def test_a_card_gets_only_groups_that_are_there(play: Any) -> None:
    async def scene(world: Any) -> None:
        groups, devices, caller = SecurityGroupService(world.context), DeviceService(world.context), world.caller()
        with refused("security-group-not-found"):
            await vm_with(world, "one", "web")
        assert await world.objects.list(Vm) == []
        await groups.create(caller, "default", group("web"))
        vm = await vm_with(world, "one", "web", "default", "web")
        assert vm.spec.nics[0].groups == ("web", "default")
        with refused("security-group-not-found"):
            await devices.change_nic(caller, "default", "one", "net0", ChangeNicRequest(groups=("nonesuch",)))
        await devices.change_nic(caller, "default", "one", "net0", ChangeNicRequest(groups=("open",)))
        await devices.attach_nic(caller, "default", "one", NicRequest(groups=("web",)))
        assert [nic.groups for nic in (await world.vm("one")).spec.nics] == [("open",), ("web",)]

    play(scene)


def test_a_card_and_the_deletion_of_its_group_never_both_win(play: Any) -> None:
    async def scene(world: Any) -> None:
        groups, caller = SecurityGroupService(world.context), world.caller()
        for turn in range(20):
            await groups.create(caller, "default", group("web"))
            create, delete = vm_with(world, f"vm{turn}", "web"), groups.delete(caller, "default", "web")
            made, gone = await asyncio.gather(
                *((create, delete) if turn % 2 else (delete, create)), return_exceptions=True
            )
            made, gone = (made, gone) if turn % 2 else (gone, made)
            is_there = await world.objects.find(SecurityGroup, "default", "web") is not None
            named = any("web" in nic.groups for vm in await world.objects.list(Vm) for nic in vm.spec.nics)
            assert is_there or not named
            assert isinstance(gone, CorralError) == is_there
            for vm in await world.objects.list(Vm):
                transaction = world.objects.transaction()
                transaction.delete(vm)
                for nic in vm.spec.nics:
                    transaction.release(f"/claims/mac/host/{nic.mac}")
                    transaction.release(f"/claims/address/{nic.network_uid}/{nic.address}")
                await transaction.commit()
            if is_there:
                await groups.delete(caller, "default", "web")

    play(scene)


def test_a_deletion_that_was_cut_is_done_by_the_next(play: Any) -> None:
    async def scene(world: Any) -> None:
        groups, caller = SecurityGroupService(world.context), world.caller()
        made = await groups.create(caller, "default", group("web"))
        transaction = world.objects.transaction()
        transaction.claim("/claims/group-going/default/web", made.uid)
        await transaction.commit()
        with refused("precondition-failed"):
            await vm_with(world, "one", "web")
        await groups.delete(caller, "default", "web")
        await groups.create(caller, "default", group("web"))
        await vm_with(world, "one", "web")

    play(scene)


def test_changes_at_once_are_all_there(play: Any) -> None:
    async def scene(world: Any) -> None:
        groups, caller = SecurityGroupService(world.context), world.caller()
        await groups.create(caller, "default", group("web"))
        changes = [UpdateSecurityGroupRequest(add_rules=(f"in tcp/{port}",)) for port in range(1, 17)]
        await asyncio.gather(*(groups.update(caller, "default", "web", change) for change in changes))
        found = await world.objects.require(SecurityGroup, "default", "web")
        assert {rule.port_min for rule in found.spec.rules} == set(range(1, 17))

    play(scene)


def test_policies_are_an_administrators_and_name_what_is_there(play: Any) -> None:
    async def scene(world: Any) -> None:
        policies, caller = NetworkPolicyService(world.context), world.caller(Role.ADMIN)
        request = CreateNetworkPolicyRequest(
            name="tiers",
            tiers=("network:default", "group:default"),
            unless=("group:default to network:default tcp/80",),
        )
        with refused("forbidden"):
            await policies.create(world.caller(Role.OPERATOR), "default", request)
        made = await policies.create(caller, "default", request)
        assert [one.text for one in made.spec.unless] == ["group:default to network:default tcp/80"]
        for change, code in (
            ({"tiers": ("network:nonesuch", "group:default"), "unless": ()}, "network-not-found"),
            ({"tiers": ("network:default", "group:nonesuch"), "unless": ()}, "security-group-not-found"),
            ({"tiers": ("network:default", "network:default"), "unless": ()}, "invalid-rule"),
            ({"tiers": ("group:open", "group:default")}, "invalid-rule"),
            ({"unless": ("group:default to network:default tcp/70000",)}, "invalid-rule"),
        ):
            with refused(code):
                await policies.update(caller, "default", "tiers", UpdateNetworkPolicyRequest.model_validate(change))
        changed = await policies.update(caller, "default", "tiers", UpdateNetworkPolicyRequest(unless=()))
        assert (changed.spec.unless, changed.generation) == ((), made.generation + 1)
        await policies.delete(caller, "default", "tiers")
        with refused("network-policy-not-found"):
            await policies.delete(caller, "default", "tiers")

    play(scene)
