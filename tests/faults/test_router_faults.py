"""A router made, changed and deleted, with the agent killed or refused at every single call: what is wished comes about, and
nothing is left over."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from corral.errors import CorralError
from corral.model.address import AddressSpec, FloatingAddress
from corral.model.forward import Forward, ForwardSpec
from corral.model.network import Network, NetworkSpec
from corral.model.router import Router, RouterPort, RouterSpec
from corral.model.vm import Vm
from corral.names import new_mac, new_uid
from corral.network.router import FloatingWish, ForwardWish
from corral.simulation import Fault, FaultKind
from corral.store.objects import claim_key, host_port_claim

KINDS = (FaultKind.CRASH_BEFORE, FaultKind.CRASH_AFTER, FaultKind.ERROR, FaultKind.LATE_ERROR)
FLOATING = "192.168.200.99"


def network_named(world: Any, name: str, number: int) -> Network:
    spec = NetworkSpec(mode="isolated", subnet=f"10.7.{number}.0/24", domain=f"{name}.test", bridge=f"b{name}")
    return Network(name=name, uid=new_uid(), created_at=world.clock.now(), spec=spec)


def port_on(network: Network, address: str) -> RouterPort:
    return RouterPort(network=network.name, network_uid=network.uid, mac=new_mac(), address=address)


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting between tries is not the subject."""
    monkeypatch.setattr("corral.agent.supervised.backoff_s", lambda attempts: 0.02 * attempts)


class Scene:
    """Two isolated networks, a guest on the first, and a router between them that services have just written."""

    def __init__(self, world: Any) -> None:
        self.world = world
        self.front, self.back = network_named(world, "front", 1), network_named(world, "back", 2)
        ports = (port_on(self.front, "10.7.1.2"), port_on(self.back, "10.7.2.2"))
        spec = RouterSpec(ports=ports, uplink="nat", uplink_port=port_on(world.network, "192.168.200.2"))
        self.router = Router(name="edge", uid=new_uid(), created_at=world.clock.now(), spec=spec)

    async def write(self) -> None:
        transaction = self.world.objects.transaction()
        transaction.create(self.router)
        for port in self.router.spec.all_ports:
            transaction.claim(claim_key("mac", "host", port.mac), self.router.uid)
            transaction.claim(claim_key("address", port.network_uid, port.address), self.router.uid)
        await transaction.commit()

    async def change(self, **spec: object) -> None:
        while True:
            now = await self.world.objects.get(Router, self.router.uid)
            update = {"generation": now.generation + 1, "spec": now.spec.model_copy(update=spec)}
            transaction = self.world.objects.transaction()
            transaction.update(now.model_copy(update=update))
            try:
                await transaction.commit()
            except CorralError:  # the agent was first
                continue
            return

    async def delete(self) -> None:
        while True:
            now = await self.world.objects.get(Router, self.router.uid)
            transaction = self.world.objects.transaction()
            transaction.update(now.model_copy(update={"deletion_requested_at": self.world.clock.now()}))
            try:
                await transaction.commit()
            except CorralError:
                continue
            return

    async def routes(self, ports: int) -> bool:
        now = await self.world.objects.get(Router, self.router.uid)
        wish = self.world.routers.known.get(self.router.uid)
        return (
            wish is not None
            and len(wish.ports) == ports
            and now.status.active
            and now.status.observed_generation == now.generation
        )

    def told(self, network: Network) -> tuple[str, ...]:
        return tuple(self.world.routers.options.get(network.uid, ()))

    def kept(self, network: Network) -> set[str]:
        """Addresses that DHCP gives to nobody else."""
        return {one.address for one in self.world.networks.networks[network.uid].reservations.values()}

    async def gone(self) -> bool:
        found = await self.world.objects.get(Router, self.router.uid)
        told = (self.told(self.front), self.told(self.back))
        return found is None and self.router.uid not in self.world.routers.known and told == ((), ())


async def begun(world: Any) -> Scene:
    scene = Scene(world)
    transaction = world.objects.transaction()
    for network in (scene.front, scene.back):
        transaction.create(network)
    await transaction.commit()
    await world.start()
    return scene


async def reach(world: Any, goal: Callable[[], object]) -> None:
    """Until `goal` holds; an agent that was killed is started again, and nothing kills that one."""

    async def reached() -> object:
        if world.simulation.crashed:
            world.simulation.clear()
            await world.kill()
            await world.start()
        found = goal()
        return await found if asyncio.iscoroutine(found) else found

    await world.until(reached, 20.0)


CALLS = {
    "create": ("router.ensure", "router.tell_guests", "network.reserve", "network.refresh", "store.transact"),
    "change": ("router.ensure", "router.tell_guests", "network.release", "network.refresh", "store.transact"),
    "delete": ("router.remove", "router.tell_guests", "network.release", "network.refresh", "store.transact"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("verb", "call"), [(verb, call) for verb, calls in CALLS.items() for call in calls])
def test_it_converges(world: Any, verb: str, call: str, kind: FaultKind) -> None:
    async def play(w: Any) -> None:
        scene = await begun(w)
        if verb != "create":
            await scene.write()
            await w.until(lambda: scene.routes(2))
            await w.until(lambda: scene.told(scene.front) != ())
        w.simulation.inject(Fault(kind, call, nth=1))
        if verb == "create":
            await scene.write()
        elif verb == "change":
            await scene.change(ports=scene.router.spec.ports[:1])
        else:
            await scene.delete()
        if verb == "delete":
            await reach(w, scene.gone)
            await reach(w, lambda: scene.kept(scene.front) == set())
            for port in scene.router.spec.all_ports:
                assert await w.objects.owner(claim_key("address", port.network_uid, port.address)) is None
            return
        await reach(w, lambda: scene.routes(2 if verb == "create" else 1))
        await reach(w, lambda: scene.told(scene.front) == ("option:router,10.7.1.2",))
        await reach(w, lambda: "10.7.1.2" in scene.kept(scene.front))
        if verb == "change":
            await reach(w, lambda: scene.told(scene.back) == ())
            await reach(w, lambda: scene.kept(scene.back) == set())

    world(play)


def test_what_hangs_on_a_guest_goes_with_it(world: Any) -> None:
    async def play(w: Any) -> None:
        scene = await begun(w)
        await scene.write()
        vm, operation = await w.create()
        await w.ended(operation)
        nic = vm.spec.nics[0].model_copy(update={"network_uid": scene.front.uid, "address": "10.7.1.10"})
        current = await w.objects.get(Vm, vm.uid)
        forward = Forward(
            name="tcp-18080",
            uid=new_uid(),
            created_at=w.clock.now(),
            spec=ForwardSpec(protocol="tcp", host_port=18080, vm="web", vm_uid=vm.uid, port=80),
        )
        floating = FloatingAddress(
            name="shop",
            uid=new_uid(),
            created_at=w.clock.now(),
            spec=AddressSpec(address=FLOATING, router="edge", router_uid=scene.router.uid, vm="web", vm_uid=vm.uid),
        )
        transaction = w.objects.transaction()
        transaction.update(current.model_copy(update={"spec": current.spec.model_copy(update={"nics": (nic,)})}))
        transaction.create(forward)
        transaction.claim(host_port_claim("tcp", 18080), forward.uid)
        transaction.create(floating)
        await transaction.commit()
        wished = (ForwardWish("tcp", 18080, "10.7.1.10", 80),), (FloatingWish(FLOATING, "10.7.1.10"),)

        def led() -> bool:
            wish = w.routers.known.get(scene.router.uid)
            return wish is not None and (wish.forwards, wish.floating) == wished

        await w.until(led)
        assert FLOATING in scene.kept(w.network)
        now = await w.objects.get(Vm, vm.uid)
        transaction = w.objects.transaction()
        transaction.delete(now)
        await transaction.commit()
        await w.until(lambda: w.routers.known[scene.router.uid].forwards == ())

        async def let_go() -> bool:
            left = await w.objects.get(FloatingAddress, floating.uid)
            return await w.objects.get(Forward, forward.uid) is None and left.spec.vm_uid is None

        await w.until(let_go)
        assert await w.objects.owner(host_port_claim("tcp", 18080)) is None

    world(play)


def test_what_dies_by_itself_is_made_again(world: Any) -> None:
    async def play(w: Any) -> None:
        scene = await begun(w)
        await scene.write()
        await w.until(lambda: scene.routes(2))
        w.routers.known.pop(scene.router.uid)  # a namespace that somebody deleted
        w.agent.wire.wake()
        await w.until(lambda: scene.routes(2))

    world(play)
