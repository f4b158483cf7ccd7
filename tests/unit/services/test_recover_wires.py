"""Recovery of what is on the wires: what names something that is gone is mended or left out, and both are said."""

import os
from pathlib import Path
from typing import Any

from corral.model.address import AddressSpec, FloatingAddress
from corral.model.balancer import Balancer, BalancerSpec, BalancerTarget
from corral.model.base import Object
from corral.model.forward import Forward, ForwardSpec
from corral.model.network import Network
from corral.model.router import Router, RouterPort, RouterSpec
from corral.model.security_group import SecurityGroup, SecurityGroupSpec
from corral.names import new_mac, new_uid
from corral.services.recover_wires import recover_wires
from corral.storage.sidecars import Sidecar, document_of
from corral.store.objects import claim_key, host_port_claim

GONE = new_uid()


def written(world: Any, history: str, *values: Object, at_s: float = 1000.0) -> None:
    world.context.sidecars.write(Sidecar(one.PLURAL, one.uid, history, document_of(one)) for one in values)
    for one in values:
        path = Path(world.context.settings.state_dir, "objects", one.PLURAL, f"{one.uid}.json")
        os.utime(path, (at_s, at_s))


def made(world: Any, cls: type[Object], name: str, spec: Any) -> Any:
    return cls(name=name, uid=new_uid(), created_at=world.clock.now(), spec=spec)  # type: ignore[call-arg]


def router_of(world: Any, *networks: tuple[str, str], uplink: Network) -> Router:
    ports = tuple(RouterPort(network=n, network_uid=u, mac=new_mac(), address="10.9.0.5") for n, u in networks)
    out = RouterPort(network=uplink.name, network_uid=uplink.uid, mac=new_mac(), address="10.0.0.77")
    return made(world, Router, "edge", RouterSpec(ports=ports, uplink="nat", uplink_port=out))


def test_what_names_something_that_is_gone(play: Any) -> None:
    async def scene(world: Any) -> None:
        web = await world.running("web")
        (default,) = await world.objects.list(Network)
        edge = router_of(world, ("lost", GONE), uplink=default)
        there, lost = BalancerTarget(vm="web", vm_uid=web.uid), BalancerTarget(vm="old", vm_uid=GONE)
        on = {"router": "edge", "router_uid": edge.uid}
        shop = made(world, Balancer, "shop", BalancerSpec(**on, listen=80, port=80, targets=(there, lost)))
        dead = made(world, Balancer, "dead", BalancerSpec(**on, listen=81, port=81, targets=(lost,)))
        face = made(world, FloatingAddress, "face", AddressSpec(**on, address="10.0.0.78", vm="old", vm_uid=GONE))
        far = made(world, FloatingAddress, "far", AddressSpec(router="x", router_uid=GONE, address="10.0.0.79"))
        kept = made(world, Forward, "tcp-80", ForwardSpec(host_port=80, port=80, vm="web", vm_uid=web.uid))
        over = made(world, Forward, "tcp-81", ForwardSpec(host_port=81, port=81, vm="old", vm_uid=GONE))
        none = made(
            world, Forward, "tcp-82", ForwardSpec(host_port=82, port=81, balancer="dead", balancer_uid=dead.uid)
        )
        written(world, "before", edge, shop, dead, face, far, kept, over, none)
        broken = Path(world.context.settings.state_dir, "objects", "routers", "x.json")
        broken.write_text("{")
        done = await recover_wires(world.context)
        assert {cls.KIND: done.names(cls) for cls in done.found} == {
            "router": ("edge",),
            "balancer": ("shop",),
            "forward": ("tcp-80",),
            "address": ("face",),
        }
        router = await world.objects.require(Router, "default", "edge")
        assert (router.spec.ports, router.spec.uplink_port) == ((), edge.spec.uplink_port)
        assert (await world.objects.require(Balancer, "default", "shop")).spec.targets == (there,)
        address = await world.objects.require(FloatingAddress, "default", "face")
        assert (address.uid, address.spec.vm_uid) == (face.uid, None)
        assert await world.objects.owner(claim_key("address", default.uid, "10.0.0.77")) == edge.uid
        assert await world.objects.owner(claim_key("address", default.uid, "10.0.0.78")) == face.uid
        assert await world.objects.owner(claim_key("listen", edge.uid, "80")) == shop.uid
        assert await world.objects.owner(host_port_claim("tcp", 80)) == kept.uid
        for told in ("routers/x.json", "network 'lost'", "dead", "'old'", "far", "tcp-81", "tcp-82"):
            assert any(told in sentence for sentence in done.lost), told
        assert not (await recover_wires(world.context)).found, "a second time there is nothing to do"

    play(scene)


def test_the_history_that_was_lost_last_comes_back(play: Any) -> None:
    async def scene(world: Any) -> None:
        older, newer, taken = (made(world, SecurityGroup, n, SecurityGroupSpec()) for n in ("older", "newer", "mine"))
        written(world, "first", older, at_s=1000)
        written(world, "second", newer, taken, at_s=2000)
        mine = await world.put(made(world, SecurityGroup, "mine", SecurityGroupSpec()))
        done = await recover_wires(world.context)
        assert done.names(SecurityGroup) == ("newer",)
        assert any("mine" in sentence for sentence in done.lost)
        assert (await world.objects.require(SecurityGroup, "default", "mine")).uid == mine.uid
        freed = world.objects.transaction()
        freed.delete(mine)
        await freed.commit()
        assert (await recover_wires(world.context)).names(SecurityGroup) == ("mine",), (
            "what was left out is tried again"
        )
        assert (await world.objects.require(SecurityGroup, "default", "mine")).uid == taken.uid

    play(scene)
