"""Recovery of what is on the wires: groups, policies, routers, balancers, forwards and floating addresses from their sidecars.

What names something that has not come back is mended where that leaves nothing open, and otherwise left out; both are said.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic import ValidationError

from corral.model.address import FloatingAddress
from corral.model.balancer import Balancer
from corral.model.base import DEFAULT_PROJECT, Object
from corral.model.forward import Forward
from corral.model.identity import Project
from corral.model.network import Network
from corral.model.router import Router, RouterPort
from corral.model.vm import Vm
from corral.network import ipam
from corral.services.balancer import listen_claim
from corral.services.context import Context
from corral.storage.sidecars import KINDS, Sidecar
from corral.store.objects import claim_key, host_address_claim, host_port_claim, name_claim

_BY_PLURAL: Final[dict[str, type[Object]]] = {cls.PLURAL: cls for cls in KINDS}


@dataclass
class RecoveredWires:
    """What came back, and what is to be said of the rest."""

    found: dict[type[Object], list[str]] = field(default_factory=lambda: defaultdict(list))
    lost: list[str] = field(default_factory=list)

    def names(self, cls: type[Object]) -> tuple[str, ...]:
        return tuple(sorted(self.found.get(cls, ())))


@dataclass
class _World:
    """What is there to be named."""

    networks: dict[str, Network]
    vms: dict[str, Vm]
    routers: dict[str, Router]
    balancers: dict[str, Balancer]
    lost: list[str]

    def network(self, project: str, uid: str, name: str) -> Network | None:
        """By uid, or else by name: one that was made anew."""
        if uid in self.networks:
            return self.networks[uid]
        named = [one for one in self.networks.values() if one.name == name]
        own = [one for one in named if one.project == project]
        return next(iter(own or [one for one in named if one.project == DEFAULT_PROJECT]), None)


async def recover_wires(context: Context) -> RecoveredWires:
    """Once networks and VMs are there. It may be run again."""
    result = RecoveredWires()
    there = await asyncio.to_thread(context.sidecars.found)
    if not there:
        return result
    project = await context.objects.require(Project, DEFAULT_PROJECT, DEFAULT_PROJECT)
    read = [one for value in _of_last_history(there, project.uid, result.lost) if (one := _object(value, result.lost))]
    world = await _world(context, result.lost)
    for cls in KINDS:
        for value in (one for one in read if isinstance(one, cls)):
            if await context.objects.store.get(value.key) is not None:
                continue
            mended = _mended(world, value)
            if mended is not None and await _written(context, world, mended):
                result.found[cls].append(mended.name)
    return result


def _of_last_history(found: tuple[Sidecar, ...], now: str, lost: list[str]) -> list[Sidecar]:
    """Of the database that was lost last: others were given up before."""
    lost += [f"{one.kind}/{one.uid}.json cannot be read: {_what(one)} is gone" for one in found if not one.history]
    others = [one for one in found if one.history not in ("", now)]
    if not others:
        return []
    last = max(others, key=lambda one: one.written_at_s).history
    return [one for one in others if one.history == last]


def _what(sidecar: Sidecar) -> str:
    cls = _BY_PLURAL[sidecar.kind]
    return f"{'an' if cls.KIND[0] in 'aeiou' else 'a'} {cls.KIND.replace('-', ' ')}"


def _object(sidecar: Sidecar, lost: list[str]) -> Object | None:
    try:
        return _BY_PLURAL[sidecar.kind].model_validate_json(sidecar.document)
    except ValidationError:
        lost.append(
            f"{sidecar.kind}/{sidecar.uid}.json is of a version that this one cannot read: {_what(sidecar)} is gone"
        )
        return None


async def _world(context: Context, lost: list[str]) -> _World:
    objects = context.objects
    return _World(
        {one.uid: one for one in await objects.list(Network)},
        {one.uid: one for one in await objects.list(Vm)},
        {one.uid: one for one in await objects.list(Router)},
        {one.uid: one for one in await objects.list(Balancer)},
        lost,
    )


# ---- what each of them names -------------------------------------------------------------------------------------------


def _mended(world: _World, value: Object) -> Object | None:
    mend = _MENDERS.get(type(value))
    return value if mend is None else mend(world, value)


def _router(world: _World, router: Router) -> Router:
    ports = tuple(port for found in router.spec.ports if (port := _port(world, router, found)))
    update: dict[str, Any] = {"ports": ports}
    if router.spec.uplink_port is not None:
        uplink = _port(world, router, router.spec.uplink_port)
        update |= {"uplink_port": uplink} if uplink is not None else {"uplink_port": None, "uplink": "none"}
    return router.model_copy(update={"spec": router.spec.model_copy(update=update)})


def _port(world: _World, router: Router, port: RouterPort) -> RouterPort | None:
    network = world.network(router.project, port.network_uid, port.network)
    if network is None or not _has(network, port.address):
        why = "is not there" if network is None else f"has other addresses than {port.address}"
        world.lost.append(f"router {router.name}: network {port.network!r} {why}: it is not on it any more")
        return None
    return port.model_copy(update={"network_uid": network.uid})


def _has(network: Network, address: str) -> bool:
    """One to give, or that of the router which is the network's gateway."""
    spec = network.spec
    return bool(spec.subnet) and (address == spec.router_address or ipam.number_of(spec.subnet, address) is not None)


def _balancer(world: _World, balancer: Balancer) -> Balancer | None:
    spec = balancer.spec
    if spec.router_uid not in world.routers:
        _say_gone(world, balancer, f"router {spec.router!r}")
        return None
    targets = tuple(target for target in spec.targets if target.vm_uid in world.vms)
    gone = [target.vm for target in spec.targets if target not in targets]
    if not targets:
        _say_gone(world, balancer, f"VM {', '.join(gone)}")
        return None
    if gone:
        world.lost.append(f"balancer {balancer.name}: VM {', '.join(gone)} is not there: it leads to the others")
    return balancer.model_copy(update={"spec": spec.model_copy(update={"targets": targets})})


def _forward(world: _World, forward: Forward) -> Forward | None:
    spec = forward.spec
    if spec.vm_uid is not None and spec.vm_uid not in world.vms:
        _say_gone(world, forward, f"VM {spec.vm!r}")
        return None
    if spec.balancer_uid is not None and spec.balancer_uid not in world.balancers:
        _say_gone(world, forward, f"balancer {spec.balancer!r}")
        return None
    return forward


def _address(world: _World, address: FloatingAddress) -> FloatingAddress | None:
    spec = address.spec
    router = world.routers.get(spec.router_uid or "")
    if spec.router_uid is not None and (router is None or router.spec.uplink_port is None):
        _say_gone(world, address, f"router {spec.router!r}, or its uplink,")
        return None
    if spec.vm_uid is None or spec.vm_uid in world.vms:
        return address
    world.lost.append(f"address {address.name}: VM {spec.vm!r} is not there: it leads to nobody")
    return address.model_copy(update={"spec": spec.model_copy(update={"vm": None, "vm_uid": None})})


def _say_gone(world: _World, value: Object, what: str) -> None:
    world.lost.append(f"{value.kind} {value.name}: {what} is not there, so it is left out")


_MENDERS: Final[dict[type[Object], Callable[[_World, Any], Object | None]]] = {
    Router: _router,
    Balancer: _balancer,
    Forward: _forward,
    FloatingAddress: _address,
}


# ---- written ---------------------------------------------------------------------------------------------------------


async def _written(context: Context, world: _World, value: Object) -> bool:
    """With all that nobody else may have; not where somebody has it."""
    claims = [name_claim(value.KIND, value.project, value.name), *_claims(world, value)]
    if await context.objects.find(Project, DEFAULT_PROJECT, value.project) is None:
        world.lost.append(f"{value.kind} {value.name}: project {value.project!r} is not there, so it is left out")
        return False
    for claim in claims:
        if await context.objects.owner(claim) is not None:
            world.lost.append(
                f"{value.kind} {value.name}: another one has its {claim.split('/')[2]}, so it is left out"
            )
            return False
    transaction = context.objects.transaction()
    transaction.create(value.model_copy(update={"revision": 0}))
    for claim in claims[1:]:
        transaction.claim(claim, value.uid)
    await transaction.commit()
    if isinstance(value, Router):
        world.routers[value.uid] = value
    elif isinstance(value, Balancer):
        world.balancers[value.uid] = value
    return True


def _claims(world: _World, value: Object) -> Iterator[str]:
    if isinstance(value, Router):
        for port in value.spec.all_ports:
            yield claim_key("mac", "host", port.mac)
            yield claim_key("address", port.network_uid, port.address)
    elif isinstance(value, Balancer):
        yield listen_claim(value.spec)
    elif isinstance(value, Forward):
        yield host_port_claim(value.spec.protocol, value.spec.host_port)
    elif isinstance(value, FloatingAddress):
        router = world.routers.get(value.spec.router_uid or "")
        uplink = router.spec.uplink_port if router is not None else None
        address = value.spec.address
        yield host_address_claim(address) if uplink is None else claim_key("address", uplink.network_uid, address)
