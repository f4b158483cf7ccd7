"""Routers and forwards of a stack: routers before the VMs of their networks, forwards after; all of it gone with it."""

from typing import Any

import pytest

from corral.errors import CorralError
from corral.model.forward import Forward, ForwardSpec
from corral.model.network import Network, NetworkSpec
from corral.model.router import Router, RouterPort, RouterSpec
from corral.model.stack_plan import PlanDownRequest, PlanStackRequest, StackPlan
from corral.names import new_mac, new_uid
from corral.services.stack import StackService

SHOP: dict[str, Any] = {
    "stack": "shop",
    "networks": [{"name": "front", "mode": "isolated"}, {"name": "back", "mode": "isolated"}],
    "routers": {"edge": {"connect": ["front", "back"]}},
    "forwards": {"18080": "web:80", "15353/udp": "db:53"},
    "defaults": {"image": "micro", "memory": "256M"},
    "vms": {"web": {"nics": ["front"]}, "db": {"nics": ["back"]}},
}


OURS = {"corral/stack": "shop"}


async def plan(world: Any, document: dict[str, Any]) -> StackPlan:
    return await StackService(world.context).plan(world.admin(), "default", PlanStackRequest(document=document))


async def make(world: Any) -> None:
    """What an apply of it would have left, but the VMs."""
    now, ports = world.clock.now(), []
    for number, name in enumerate(("front", "back")):
        spec = NetworkSpec(mode="isolated", subnet=f"10.9.{number}.0/24", domain=f"{name}.internal", bridge=f"b{name}")
        network = await world.put(Network(name=name, uid=new_uid(), created_at=now, labels=OURS, spec=spec))
        ports.append(RouterPort(network=name, network_uid=network.uid, mac=new_mac(), address=f"10.9.{number}.2"))
    outside = RouterPort(network="default", network_uid=new_uid(), mac=new_mac(), address="10.128.0.9")
    router = RouterSpec(ports=tuple(ports), uplink="nat", uplink_port=outside)
    await world.put(Router(name="edge", uid=new_uid(), created_at=now, labels=OURS, spec=router))
    for name, number, vm, port in (("tcp-18080", 18080, "web", 80), ("udp-15353", 15353, "db", 53)):
        spec = ForwardSpec(protocol=name[:3], host_port=number, vm=vm, vm_uid=new_uid(), port=port)
        await world.put(Forward(name=name, uid=new_uid(), created_at=now, labels=OURS, spec=spec))


def test_a_router_comes_after_its_networks_and_before_their_vms(play: Any) -> None:
    async def scene(world: Any) -> None:
        found = await plan(world, SHOP)
        by_id = {action.id: action for action in found.actions}
        assert set(by_id["router/edge/create"].after) == {"network/front/create", "network/back/create"}
        assert "router/edge/create" in by_id["vm/web/create"].after
        assert "vm/web/create" in by_id["forward/tcp-18080/create"].after
        assert by_id["forward/udp-15353/create"].body == {
            "vm": "db", "protocol": "udp", "host_port": 15353, "port": 53, "labels": {"corral/stack": "shop"},
        }  # fmt: skip

    play(scene)


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"forwards": {"18080": "nobody:80"}}, "forwards.18080"),
        ({"forwards": {"18080": "web:99999"}}, "forwards.18080"),
        ({"forwards": {"0": "web:80"}}, "forwards"),
        ({"routers": {"edge": {"connect": ["front"], "uplink": "sideways"}}}, "routers.edge.uplink"),
    ],
)
def test_what_cannot_be_is_refused_with_its_place(play: Any, changes: dict[str, Any], place: str) -> None:
    async def scene(world: Any) -> None:
        with pytest.raises(CorralError) as raised:
            await plan(world, {**SHOP, **changes})
        assert raised.value.code == "invalid-document"
        assert place in raised.value.reason

    play(scene)


def test_it_changes_in_place_and_goes_with_the_stack(play: Any) -> None:
    async def scene(world: Any) -> None:
        await make(world)
        same = await plan(world, SHOP)
        assert not [action.id for action in same.actions if action.kind in ("router", "forward")]
        changed = {"routers": {"edge": {"connect": ["front"], "uplink": "none"}}, "forwards": {"18080": "web:81"}}
        found = await plan(world, {**SHOP, **changed})
        routing = [action for action in found.actions if action.kind in ("router", "forward")]
        assert [action.id for action in routing] == [
            "router/edge/update", "forward/tcp-18080/delete", "forward/udp-15353/delete", "forward/tcp-18080/create",
        ]  # fmt: skip
        assert routing[0].body == {
            "connect": [], "disconnect": ["back"], "uplink": "none", "uplink_network": "default",
        }  # fmt: skip
        assert "forward/tcp-18080/delete" in routing[3].after
        down = await StackService(world.context).plan_down(world.admin(), "default", PlanDownRequest(stack="shop"))
        order = [action.id for action in down.actions]
        assert order.index("router/edge/delete") > order.index("forward/udp-15353/delete")
        assert "router/edge/delete" in next(one for one in down.actions if one.id == "network/back/delete").after

    play(scene)


def test_what_a_network_behind_a_router_has_is_said_and_held_against_what_is_there(play: Any) -> None:
    async def scene(world: Any) -> None:
        front = {"name": "front", "gateway_at": "router", "dhcp_relay": "10.8.0.5"}
        document = {**SHOP, "networks": [front, {"name": "back", "mode": "isolated"}]}
        (new,) = [one for one in (await plan(world, document)).actions if one.id == "network/front/create"]
        assert new.changes == ("new: isolated, a free subnet",)
        assert new.body == {**front, "labels": OURS}
        await make(world)
        (block,) = (await plan(world, document)).blocked
        assert set(block.changes) == {
            "network front gateway_at: host → router",
            "network front dhcp_relay:  → 10.8.0.5",
        }

    play(scene)


def test_what_is_another_stacks_is_left_to_it(play: Any) -> None:
    async def scene(world: Any) -> None:
        await make(world)
        with pytest.raises(CorralError) as raised:
            await plan(world, {**SHOP, "stack": "other"})
        assert raised.value.code == "name-taken"
        for place in ("networks.front", "networks.back", "routers.edge", "forwards.18080", "forwards.15353/udp"):
            assert f"{place}: " in raised.value.reason, place

    play(scene)
