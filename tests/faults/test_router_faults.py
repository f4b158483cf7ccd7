"""A router made, changed and deleted, with the agent killed or refused at every single call: what is wished comes about, and
nothing is left over."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from routed_world import begun

from corral.model.address import AddressSpec, FloatingAddress
from corral.model.forward import Forward, ForwardSpec
from corral.model.vm import Vm
from corral.names import new_uid
from corral.network.router import FloatingWish, ForwardWish
from corral.simulation import Fault, FaultKind
from corral.store.objects import claim_key, host_port_claim

KINDS = (FaultKind.CRASH_BEFORE, FaultKind.CRASH_AFTER, FaultKind.ERROR, FaultKind.LATE_ERROR)
FLOATING = "192.168.200.99"


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting between tries is not the subject."""
    monkeypatch.setattr("corral.agent.supervised.backoff_s", lambda attempts: 0.02 * attempts)


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
        met: list[str] = []
        w.simulation.on_call = met.append
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
            assert call in met, "it was never called: nothing went wrong here"
            return
        await reach(w, lambda: scene.routes(2 if verb == "create" else 1))
        await reach(w, lambda: scene.told(scene.front) == ("option:router,10.7.1.2",))
        await reach(w, lambda: "10.7.1.2" in scene.kept(scene.front))
        if verb == "change":
            await reach(w, lambda: scene.told(scene.back) == ())
            await reach(w, lambda: scene.kept(scene.back) == set())
        assert call in met, "it was never called: nothing went wrong here"

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
