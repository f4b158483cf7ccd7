"""Policies, balancers and floating addresses of a stack: planned, changed in place, pruned, exported, gone with it."""

from typing import Any

import pytest

from corral.errors import CorralError
from corral.model.address import AddressSpec, FloatingAddress
from corral.model.balancer import Balancer, BalancerCheck, BalancerSpec, BalancerTarget
from corral.model.firewall_requests import CreateNetworkPolicyRequest
from corral.model.forward import Forward, ForwardSpec
from corral.model.identity import Role
from corral.model.router import Router, RouterSpec
from corral.model.stack_plan import ExportStackRequest, PlanDownRequest, PlanStackRequest, StackPlan
from corral.names import new_uid
from corral.services.network_policy import NetworkPolicyService
from corral.services.stack import StackService

OURS = {"corral/stack": "shop"}
SHOP: dict[str, Any] = {
    "stack": "shop",
    "networks": [{"name": "front", "mode": "isolated"}, {"name": "back", "mode": "isolated"}],
    "security_groups": {"web": ["in tcp/80"]},
    "network_policies": {
        "tiers": {"tiers": ["network:front", "group:web"], "unless": ["network:front to group:web tcp/80"]}
    },
    "routers": {"edge": {"connect": ["front", "back"]}},
    "balancers": {"shop": {"router": "edge", "listen": 80, "to": ["web"], "check": {"kind": "http", "path": "/up"}}},
    "addresses": {"face": {"router": "edge", "vm": "db"}},
    "forwards": {"18080": {"balancer": "shop"}},
    "defaults": {"image": "micro", "memory": "256M"},
    "vms": {"web": {"count": 2, "nics": ["front"]}, "db": {"nics": ["back"]}},
}
KINDS = ("network-policy", "balancer", "address")


async def plan(world: Any, document: dict[str, Any], **request: Any) -> StackPlan:
    asked = PlanStackRequest(document=document, **request)
    return await StackService(world.context).plan(world.admin(), "default", asked)


def wires(found: StackPlan) -> list[str]:
    return [action.id for action in found.actions if action.kind in KINDS]


async def make(world: Any) -> None:
    """What an apply of it would have left of them."""
    now = world.clock.now()
    router = await world.put(
        Router(name="edge", uid=new_uid(), created_at=now, labels=OURS, spec=RouterSpec(uplink="none"))
    )
    on = {"router": "edge", "router_uid": router.uid}
    targets = tuple(BalancerTarget(vm=f"web-{number}", vm_uid=new_uid()) for number in (1, 2))
    check = BalancerCheck(kind="http", path="/up")
    balancer = BalancerSpec(**on, listen=80, port=80, targets=targets, check=check)
    await world.put(Balancer(name="shop", uid=new_uid(), created_at=now, labels=OURS, spec=balancer))
    address = AddressSpec(**on, address="10.0.0.77", vm="db", vm_uid=new_uid())
    await world.put(FloatingAddress(name="face", uid=new_uid(), created_at=now, labels=OURS, spec=address))
    policies = NetworkPolicyService(world.context)
    tiers = {"tiers": ("network:default", "group:default"), "labels": OURS}
    request = CreateNetworkPolicyRequest.model_validate({"name": "tiers", **tiers})
    await policies.create(world.caller(Role.ADMIN), "default", request)


def test_they_come_after_what_they_name(play: Any) -> None:
    async def scene(world: Any) -> None:
        found = await plan(world, SHOP)
        by_id = {action.id: action for action in found.actions}
        policy = by_id["network-policy/tiers/create"]
        assert set(policy.after) == {"router/edge/create", "security-group/web/update"}
        balancer = by_id["balancer/shop/create"]
        assert balancer.body is not None
        assert balancer.body["targets"] == ["web-1", "web-2"]
        assert {"router/edge/create", "vm/web-1/create", "vm/web-2/create"} <= set(balancer.after)
        assert {"router/edge/create", "vm/db/create"} <= set(by_id["address/face/create"].after)
        assert "balancer/shop/create" in by_id["forward/tcp-18080/create"].after
        assert by_id["forward/tcp-18080/create"].body == {
            "balancer": "shop", "protocol": "tcp", "host_port": 18080, "labels": OURS,
        }  # fmt: skip

    play(scene)


def test_they_change_in_place_and_are_pruned_when_asked(play: Any) -> None:
    async def scene(world: Any) -> None:
        await make(world)
        base = {**SHOP, "network_policies": {"tiers": {"tiers": ["network:default", "group:default"]}}}
        assert wires(await plan(world, base)) == []
        changed = {
            "network_policies": {"tiers": {"tiers": ["network:default", "group:web"], "description": "apart"}},
            "balancers": {"shop": {"router": "edge", "listen": 80, "port": 8080, "to": ["db", "web"], "mode": "http"}},
            "addresses": {"face": {"router": "edge", "vm": "web-1"}},
        }
        found = {action.id: action for action in (await plan(world, {**base, **changed})).actions}
        assert found["network-policy/tiers/update"].changes == (
            "tier group:default: gone", "tier group:web: new", "description: another one",
        )  # fmt: skip
        balancer = found["balancer/shop/update"]
        assert balancer.body == {
            "port": 8080, "mode": "http", "check": {"kind": "tcp", "path": "/", "interval_s": 2},
            "targets": ["db", "web-1", "web-2"],
        }  # fmt: skip
        assert found["address/face/update"].body == {"vm": "web-1"}
        moved = {"addresses": {"face": {"router": "edge", "address": "10.0.0.78"}}}
        assert wires(await plan(world, {**base, **moved})) == ["address/face/delete", "address/face/create"]
        none = {
            key: value
            for key, value in base.items()
            if key not in ("network_policies", "balancers", "addresses", "forwards")
        }
        assert wires(await plan(world, none)) == []
        assert wires(await plan(world, none, prune=True)) == [
            "network-policy/tiers/delete", "balancer/shop/delete", "address/face/delete",
        ]  # fmt: skip

    play(scene)


def test_a_balancer_goes_once_no_forward_leads_to_it(play: Any) -> None:
    async def scene(world: Any) -> None:
        await make(world)
        balancer = await world.context.objects.require(Balancer, "default", "shop")
        leads = ForwardSpec(host_port=18080, port=80, balancer="shop", balancer_uid=balancer.uid)
        now = world.clock.now()
        await world.put(Forward(name="tcp-18080", uid=new_uid(), created_at=now, labels=OURS, spec=leads))
        base = {**SHOP, "network_policies": {"tiers": {"tiers": ["network:default", "group:default"]}}}
        none = {key: value for key, value in base.items() if key not in ("balancers", "forwards")}
        gone = {action.id: action for action in (await plan(world, none, prune=True)).actions}
        assert "forward/tcp-18080/delete" in gone["balancer/shop/delete"].after
        elsewhere = {**none, "forwards": {"18080": "db:80"}}
        found = {action.id: action for action in (await plan(world, elsewhere, prune=True)).actions}
        assert "forward/tcp-18080/delete" in found["balancer/shop/delete"].after
        assert "forward/tcp-18080/delete" in found["forward/tcp-18080/create"].after

    play(scene)


def test_a_balancer_whose_router_is_not_named_stays_on_its_own(play: Any) -> None:
    async def scene(world: Any) -> None:
        await make(world)
        check = {"kind": "http", "path": "/up"}
        base = {**SHOP, "network_policies": {"tiers": {"tiers": ["network:default", "group:default"]}}}
        unnamed = {**base, "balancers": {"shop": {"listen": 80, "to": ["web"], "check": check}}}
        assert wires(await plan(world, unnamed)) == []

    play(scene)


def test_they_go_before_what_they_are_on_and_are_exported(play: Any) -> None:
    async def scene(world: Any) -> None:
        await make(world)
        down = await StackService(world.context).plan_down(world.admin(), "default", PlanDownRequest(stack="shop"))
        order = [action.id for action in down.actions]
        assert set(wires(down)) == {"network-policy/tiers/delete", "balancer/shop/delete", "address/face/delete"}
        assert order[-1] == "router/edge/delete"
        await world.running("db")
        request = ExportStackRequest(stack="shop", vms=("db",))
        document = (await StackService(world.context).export(world.caller(), "default", request)).document
        assert document["network_policies"] == {"tiers": {"tiers": ["network:default", "group:default"]}}
        assert document["addresses"] == {"face": {"router": "edge", "address": "10.0.0.77", "vm": "db"}}
        assert "balancers" not in document, "its VMs are not told"

    play(scene)


@pytest.mark.parametrize(
    ("changes", "code", "place"),
    [
        ({"balancers": {"shop": {"listen": 80, "to": ["nobody"]}}}, "invalid-document", "balancers.shop"),
        ({"balancers": {"shop": {"listen": 0, "to": ["web"]}}}, "invalid-document", "balancers.shop.listen"),
        (
            {"balancers": {"shop": {"listen": 81, "router": "none", "to": ["web"]}}},
            "router-not-found",
            "balancers.shop",
        ),
        ({"addresses": {"face": {"router": "edge", "vm": "nobody"}}}, "invalid-document", "addresses.face"),
        ({"forwards": {"1": {"balancer": "none"}}}, "invalid-document", "forwards.1"),
        ({"network_policies": {"tiers": {"tiers": ["network:front"]}}}, "invalid-rule", "network_policies.tiers"),
        (
            {"network_policies": {"tiers": {"tiers": ["network:front", "group:no"]}}},
            "security-group-not-found",
            "network_policies.tiers",
        ),
    ],
)
def test_what_cannot_be_is_refused_with_its_place(play: Any, changes: dict[str, Any], code: str, place: str) -> None:
    async def scene(world: Any) -> None:
        with pytest.raises(CorralError) as raised:
            await plan(world, {**SHOP, **changes})
        assert raised.value.code == code
        assert place in raised.value.reason

    play(scene)


def test_what_is_somebody_elses_or_would_have_to_be_made_anew_is_refused(play: Any) -> None:
    async def scene(world: Any) -> None:
        await make(world)
        base = {**SHOP, "network_policies": {}}
        listen = {"balancers": {"shop": {"router": "edge", "listen": 443, "to": ["web"]}}}
        with pytest.raises(CorralError, match="unsupported"):
            await plan(world, {**base, "forwards": {}, **listen})
        with pytest.raises(CorralError, match="name-taken"):
            await plan(world, {**base, "stack": "other", "routers": {}, "addresses": {}, "forwards": {}})

    play(scene)
