"""Routers, forwards, floating addresses and balancers as they are asked for, with an agent that makes them: bad input is
refused before effect, and whatever hangs on something keeps it."""

import asyncio
import socket
from typing import Any

import pytest
from routed_world import Scene, begun

from corral.errors import CorralError
from corral.model.balancer import BalancerCheck
from corral.model.identity import Identity, Role
from corral.model.network import Network
from corral.model.network_requests import ChangeNetworkRequest, CreateNetworkRequest
from corral.model.router import Router
from corral.model.router_requests import (
    AssignAddressRequest,
    CreateAddressRequest,
    CreateBalancerRequest,
    CreateForwardRequest,
    CreateRouterRequest,
    UpdateBalancerRequest,
    UpdateRouterRequest,
)
from corral.model.vm import Vm
from corral.names import new_uid
from corral.network import host_ports
from corral.services.address import AddressService
from corral.services.balancer import BalancerService
from corral.services.caller import Caller
from corral.services.forward import ForwardService
from corral.services.network import NetworkService
from corral.services.router import RouterService
from corral.store.objects import claim_key

CALLER = Caller(Identity(name="local:root", roles={"*": Role.ADMIN}), "r")
ME = (CALLER, "default")


class Desk:
    """The services, over the world's store."""

    def __init__(self, world: Any) -> None:
        context = world.devices._context
        self.routers, self.forwards = RouterService(context), ForwardService(context)
        self.addresses, self.balancers = AddressService(context), BalancerService(context)
        self.networks = NetworkService(context)

    async def edge(self, **more: Any) -> Router:
        return await self.routers.create(*ME, CreateRouterRequest(name="edge", connect=("front", "back"), **more))


async def refused(work: Any, code: str, words: str = "") -> None:
    with pytest.raises(CorralError) as raised:
        await work
    assert raised.value.code == code, raised.value
    assert words in raised.value.reason


async def guest_on(world: Any, scene: Scene, network: Network, name: str, address: str) -> Vm:
    vm, operation = await world.create(name)
    await world.ended(operation)
    current = await world.objects.get(Vm, vm.uid)
    nic = current.spec.nics[0].model_copy(
        update={"network": network.name, "network_uid": network.uid, "address": address}
    )
    transaction = world.objects.transaction()
    changed = current.model_copy(update={"spec": current.spec.model_copy(update={"nics": (nic,)})})
    transaction.update(changed)
    await transaction.commit()
    return changed


def test_a_router_is_made_changed_and_deleted(world: Any) -> None:
    async def play(w: Any) -> None:
        await begun(w)
        desk = Desk(w)
        router = await desk.edge()
        assert router.status.active
        assert [port.network for port in router.spec.ports] == ["front", "back"]
        assert router.spec.uplink_port is not None
        for port in router.spec.all_ports:
            assert await w.objects.owner(claim_key("address", port.network_uid, port.address)) == router.uid
        changed = await desk.routers.update(*ME, "edge", UpdateRouterRequest(disconnect=("back",), uplink="none"))
        assert [port.network for port in changed.spec.all_ports] == ["front"]
        assert changed.spec.ports[0] == router.spec.ports[0]
        back = router.spec.ports[1]
        assert await w.objects.owner(claim_key("address", back.network_uid, back.address)) is None
        await refused(desk.networks.delete(*ME, "front"), "network-in-use", "router edge")
        await desk.routers.delete(*ME, "edge")
        assert await w.objects.list(Router) == []

    world(play)


def test_routers_that_cannot_be_are_refused(world: Any) -> None:
    async def play(w: Any) -> None:
        scene = await begun(w)
        desk = Desk(w)
        lan = Network(
            name="lan",
            uid=new_uid(),
            created_at=w.clock.now(),
            spec=scene.front.spec.model_copy(update={"mode": "bridge", "subnet": "", "bridge": "br9"}),
        )
        twin = Network(name="twin", uid=new_uid(), created_at=w.clock.now(), spec=scene.front.spec)
        transaction = w.objects.transaction()
        transaction.create(lan)
        transaction.create(twin)
        await transaction.commit()

        def make(**body: Any) -> Any:
            return desk.routers.create(*ME, CreateRouterRequest(name="edge", **body))

        await refused(make(connect=("nowhere",)), "network-not-found")
        await refused(make(connect=("lan",)), "invalid-argument", "mode bridge")
        await refused(make(connect=("front", "twin")), "invalid-argument", "in common")
        await refused(make(connect=("front",), uplink_network="back"), "invalid-argument", "leads nowhere")
        await refused(make(connect=("default",)), "invalid-argument", "both of its sides")
        bad = {"to": "10.0.0.1/8", "via": "10.7.1.9"}
        await refused(make(connect=("front",), routes=(bad,)), "invalid-argument", "host bits")
        await refused(make(connect=("front",), routes=({"to": "10.0.0.0/8", "via": "10.7.1.999"},)), "invalid-argument")
        twice = ({"to": "10.0.0.0/8", "via": "10.7.1.9"}, {"to": "10.0.0.0/08", "via": "10.7.1.8"})
        await refused(make(connect=("front",), routes=twice), "invalid-argument", "two routes")
        assert await w.objects.list(Router) == []
        await desk.edge()
        await refused(desk.edge(), "name-taken")
        await refused(desk.routers.update(*ME, "edge", UpdateRouterRequest(disconnect=("lan",))), "invalid-argument")

    world(play)


def test_what_hangs_on_a_router(world: Any) -> None:
    async def play(w: Any) -> None:
        scene = await begun(w)
        desk = Desk(w)
        router = await desk.edge()
        await guest_on(w, scene, scene.front, "web", "10.7.1.10")
        await guest_on(w, scene, w.network, "aside", "192.168.200.77")
        made = await desk.addresses.create(*ME, CreateAddressRequest(name="float", router="edge", vm="web"))
        assert made.spec.address.startswith("192.168.200.")
        taken = CreateAddressRequest(name="other", router="edge", address=made.spec.address)
        await refused(desk.addresses.create(*ME, taken), "address-taken")
        await refused(
            desk.addresses.assign(*ME, "float", AssignAddressRequest(vm="aside")), "invalid-argument", "no card"
        )
        await refused(desk.routers.delete(*ME, "edge"), "router-in-use", "address float")
        await refused(desk.routers.update(*ME, "edge", UpdateRouterRequest(uplink="none")), "router-in-use")
        assert (await desk.addresses.assign(*ME, "float", AssignAddressRequest(vm=None))).spec.vm is None
        await desk.addresses.delete(*ME, "float")

        shop = CreateBalancerRequest(name="shop", listen=80, targets=("web",), check=BalancerCheck(kind="http"))
        await desk.balancers.create(*ME, shop)
        await refused(desk.balancers.create(*ME, shop.model_copy(update={"name": "twin"})), "address-taken")
        aside = CreateBalancerRequest(name="no", listen=81, targets=("aside",))
        await refused(desk.balancers.create(*ME, aside), "invalid-argument", "no router")
        await w.until(lambda: bool(w.routers.known[router.uid].balancers))
        await desk.balancers.update(*ME, "shop", UpdateBalancerRequest(port=8000, algorithm="leastconn"))
        await w.until(lambda: w.routers.known[router.uid].balancers[0].port == 8000)
        await desk.forwards.create(*ME, CreateForwardRequest(balancer="shop", host_port=18081))
        await refused(desk.balancers.delete(*ME, "shop"), "balancer-in-use")
        await desk.forwards.delete(*ME, "tcp-18081")
        await desk.balancers.delete(*ME, "shop")
        await desk.routers.delete(*ME, "edge")

    world(play)


def test_a_port_of_the_hosts_is_forwarded_once_and_never_taken_from_it(world: Any) -> None:
    async def play(w: Any) -> None:
        scene = await begun(w)
        desk = Desk(w)
        await guest_on(w, scene, w.network, "near", "192.168.200.77")
        await guest_on(w, scene, scene.front, "far", "10.7.1.10")
        near = CreateForwardRequest(vm="near", host_port=18082, port=80)
        await refused(
            desk.forwards.create(*ME, CreateForwardRequest(vm="far", host_port=18083)), "invalid-argument", "no router"
        )
        tries = await asyncio.gather(*(desk.forwards.create(*ME, near) for _ in range(8)), return_exceptions=True)
        codes = [one.code for one in tries if isinstance(one, CorralError)]
        assert codes == ["address-taken"] * 7
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
            await refused(
                desk.forwards.create(*ME, near.model_copy(update={"host_port": port})), "address-taken", "listens"
            )
        assert not host_ports.in_use("tcp", port)
        both = CreateForwardRequest(vm="near", balancer="shop", host_port=18084)
        await refused(desk.forwards.create(*ME, both), "invalid-argument", "one VM")
        await desk.forwards.delete(*ME, "tcp-18082")
        await desk.forwards.create(*ME, near)

    world(play)


def test_what_comes_onto_a_router_while_it_is_deleted_keeps_it(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def play(w: Any) -> None:
        scene = await begun(w)
        desk = Desk(w)
        await desk.edge()
        await guest_on(w, scene, scene.front, "web", "10.7.1.10")
        address = CreateAddressRequest(name="late", router="edge")
        shop = CreateBalancerRequest(name="shop", listen=80, targets=("web",))
        unused = desk.routers._check_unused
        coming = [lambda: desk.addresses.create(*ME, address), lambda: desk.balancers.create(*ME, shop)]

        async def then_somebody_comes(router: Router, asked: str) -> None:
            await unused(router, asked)
            await coming.pop()()

        monkeypatch.setattr(desk.routers, "_check_unused", then_somebody_comes)
        await refused(desk.routers.delete(*ME, "edge"), "router-in-use", "balancer shop")
        await desk.balancers.delete(*ME, "shop")
        await refused(desk.routers.delete(*ME, "edge"), "router-in-use", "address late")
        await desk.addresses.delete(*ME, "late")

    world(play)


def test_a_network_that_is_deleted_while_a_router_comes_onto_it_is_not_joined(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def play(w: Any) -> None:
        await begun(w)
        desk = Desk(w)
        committed, done = desk.routers._committed, list[str]()

        async def after_the_network_is_gone(*args: Any) -> bool:
            if not done:
                done.append("front")
                await desk.networks.delete(*ME, "front")
            return await committed(*args)

        monkeypatch.setattr(desk.routers, "_committed", after_the_network_is_gone)
        await refused(desk.edge(), "network-not-found")
        assert await w.objects.list(Router) == []

    world(play)


@pytest.mark.parametrize("port", [0, 65536, -1])
def test_ports_beyond_the_kernels_are_no_ports(port: int) -> None:
    with pytest.raises(ValueError, match="port"):
        CreateForwardRequest(vm="web", host_port=port, port=80)
    with pytest.raises(ValueError, match="port"):
        CreateForwardRequest(vm="web", host_port=80, port=port)


async def tenants(w: Any, desk: Desk) -> None:
    for name in ("red", "blue"):
        request = CreateNetworkRequest(name=name, gateway_at="router", subnet="10.7.9.0/24")
        assert (await desk.networks.create(*ME, request)).status.active


async def served(w: Any, name: str, reason: str) -> bool:
    found = await w.objects.find(Network, "default", name)
    return [one.reason for one in found.status.conditions if one.type == "Served"] == [reason]


def test_tenants_overlap_until_the_host_would_have_to_tell_them_apart(world: Any) -> None:
    async def play(w: Any) -> None:
        await begun(w)
        desk = Desk(w)
        await tenants(w, desk)
        for name in ("red", "blue"):
            await w.until(lambda name=name: served(w, name, "no-router"))
            made = await desk.routers.create(*ME, CreateRouterRequest(name=name, connect=(name,)))
            await w.until(lambda name=name: served(w, name, "router"))
            assert [port.address for port in made.spec.ports] == ["10.7.9.1"]
            assert w.routers.known[made.uid].served[0].gateway
        second = await desk.routers.create(*ME, CreateRouterRequest(name="aside", connect=("red",), uplink="none"))
        assert second.spec.ports[0].address == "10.7.9.2"
        assert w.routers.known[second.uid].served == ()
        both = CreateRouterRequest(name="both", connect=("red", "blue"), uplink="none")
        await refused(desk.routers.create(*ME, both), "invalid-argument", "in common")

        routed = await desk.routers.update(*ME, "red", UpdateRouterRequest(uplink="routed"))
        assert routed.spec.uplink_port is not None
        led = w.routers.known[routed.uid].host_routes
        assert [(one.to, one.via) for one in led] == [("10.7.9.0/24", routed.spec.uplink_port.address)]
        work = desk.routers.update(*ME, "blue", UpdateRouterRequest(uplink="routed"))
        await refused(work, "no-free-subnet", "10.7.9.0/24 is in use: network 'red'")
        taken = CreateNetworkRequest(name="late", mode="routed", subnet="10.7.9.0/25")
        await refused(desk.networks.create(*ME, taken), "no-free-subnet", "network 'red'")
        await desk.networks.create(*ME, CreateNetworkRequest(name="third", gateway_at="router", subnet="10.7.9.0/24"))
        # As it is back, others may.
        await desk.routers.update(*ME, "red", UpdateRouterRequest(uplink="nat"))
        assert w.routers.known[routed.uid].host_routes == ()
        await desk.routers.update(*ME, "blue", UpdateRouterRequest(uplink="routed"))
        await desk.routers.delete(*ME, "blue")
        await w.until(lambda: served(w, "blue", "no-router"))
        free = await desk.networks.create(*ME, CreateNetworkRequest(name="free", gateway_at="router"))
        assert free.spec.subnet != "10.7.9.0/24", "unasked it is nobody's"

    world(play)


def test_only_one_of_two_that_ask_at_once_is_led_to(world: Any) -> None:
    async def play(w: Any) -> None:
        await begun(w)
        desk = Desk(w)
        await tenants(w, desk)
        tries = await asyncio.gather(
            *(
                desk.routers.create(*ME, CreateRouterRequest(name=name, connect=(name,), uplink="routed"))
                for name in ("red", "blue")
            ),
            return_exceptions=True,
        )
        codes = [one.code for one in tries if isinstance(one, CorralError)]
        assert codes == ["no-free-subnet"]
        (left,) = await w.objects.list(Router)
        for port in left.spec.all_ports:
            assert await w.objects.owner(claim_key("address", port.network_uid, port.address)) == left.uid

    world(play)


def test_gateways_that_cannot_be_are_refused(world: Any) -> None:
    async def play(w: Any) -> None:
        await begun(w)
        desk = Desk(w)

        def make(**body: Any) -> Any:
            return desk.networks.create(*ME, CreateNetworkRequest.model_validate({"name": "no", **body}))

        behind = {"gateway_at": "router"}
        await refused(make(**behind, mode="nat"), "invalid-argument", "leads out by itself")
        await refused(make(**behind, bridge="br0"), "invalid-argument", "leads out by itself")
        await refused(make(**behind, host_names=True), "invalid-argument", "not the host's")
        await refused(make(**behind, subnet="8.8.8.0/24"), "invalid-argument", "private")
        await refused(make(**behind, bandwidth_in={"average_bytes_per_s": 1000}), "invalid-argument", "no queue")
        await refused(make(**behind, subnet="10.7.9.0/24", dns=("10.7.9.1",)), "invalid-argument", "ask itself")
        relay = {"dhcp_relay": "192.0.2.9"}
        await refused(make(**relay), "invalid-argument", "serves DHCP")
        await refused(make(**behind, subnet="10.7.9.0/24", dhcp_relay="10.7.9.5"), "invalid-argument", "in the network")
        await refused(make(**behind, dhcp_relay="there"), "invalid-argument", "no address")
        await refused(make(**behind, **relay, boot={"file": "x"}), "invalid-argument", "boot file would come from")
        await desk.networks.create(*ME, CreateNetworkRequest(name="red", gateway_at="router"))
        passed = await desk.networks.change(*ME, "red", ChangeNetworkRequest(dhcp_relay="192.0.2.9"))
        assert passed.spec.dhcp_relay == "192.0.2.9"
        assert (await desk.networks.change(*ME, "red", ChangeNetworkRequest(dhcp_relay=""))).spec.dhcp_relay == ""
        await refused(
            desk.networks.change(*ME, "red", ChangeNetworkRequest(mode="routed")), "invalid-argument", "its gateway"
        )
        out = CreateRouterRequest(name="edge", connect=("front",), uplink="routed")
        await refused(desk.routers.create(*ME, out), "invalid-argument", "past the router")
        await refused(
            desk.routers.create(*ME, CreateRouterRequest(name="edge", uplink_network="red")),
            "invalid-argument",
            "leads nowhere",
        )

    world(play)


def test_of_two_that_would_join_networks_with_the_same_addresses_at_once_one_is_refused(world: Any) -> None:
    async def play(w: Any) -> None:
        await begun(w)
        desk = Desk(w)
        await tenants(w, desk)
        await desk.networks.create(*ME, CreateNetworkRequest(name="mid", gateway_at="router", subnet="10.7.8.0/24"))
        tries = await asyncio.gather(
            *(
                desk.routers.create(*ME, CreateRouterRequest(name=name, connect=(name, "mid"), uplink="none"))
                for name in ("red", "blue")
            ),
            return_exceptions=True,
        )
        assert [one.code for one in tries if isinstance(one, CorralError)] == ["invalid-argument"]
        (left,) = await w.objects.list(Router)
        # What is taken off and put on by one request keeps the gateway's address.
        again = UpdateRouterRequest(disconnect=("mid",), connect=("mid",), uplink="nat")
        changed = await desk.routers.update(*ME, left.name, again)
        assert {port.address for port in changed.spec.ports} == {"10.7.9.1", "10.7.8.1"}

    world(play)


def test_a_network_gets_no_way_out_where_the_host_could_not_tell_tenants_apart_then(world: Any) -> None:
    async def play(w: Any) -> None:
        await begun(w)
        desk = Desk(w)
        await tenants(w, desk)
        await desk.networks.create(*ME, CreateNetworkRequest(name="shut", mode="isolated"))
        await desk.routers.create(*ME, CreateRouterRequest(name="red", connect=("red",), uplink="routed"))
        await desk.routers.create(*ME, CreateRouterRequest(name="blue", connect=("blue", "shut"), uplink="none"))
        opened = ChangeNetworkRequest(mode="nat")
        await refused(desk.networks.change(*ME, "shut", opened), "no-free-subnet", "network 'red'")
        await desk.routers.update(*ME, "red", UpdateRouterRequest(uplink="none"))
        assert (await desk.networks.change(*ME, "shut", opened)).spec.mode == "nat"

    world(play)
