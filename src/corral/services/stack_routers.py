"""The routers and port forwards of a stack: routers after their networks and before the VMs on them, forwards at the end."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pydantic import ValidationError

from corral.errors import CorralError
from corral.model.forward import Forward
from corral.model.router import Router
from corral.model.router_requests import CreateForwardRequest, CreateRouterRequest
from corral.model.stack import STACK_LABEL
from corral.model.stack_plan import StackVerb
from corral.model.stack_wires import StackBalancedPort
from corral.services.access import authorize
from corral.services.caller import Caller
from corral.services.context import Context
from corral.services.stack_actions import CREATED, Sketch
from corral.services.stack_document import Stack, Trouble
from corral.services.stack_entrances import EntranceNeeds, sketch_entrances, sketch_entrances_gone
from corral.services.stack_state import check_own, find_of_stack

_OWN: Final = ("the stack's own",)


@dataclass(frozen=True)
class RoutingNeeds:
    """What the stack declares, and what of it is there."""

    routers: tuple[tuple[CreateRouterRequest, Router | None], ...] = ()
    forwards: tuple[tuple[CreateForwardRequest, Forward | None], ...] = ()
    stale: tuple[Forward, ...] = ()
    """Forwards of the stack that lead elsewhere, or that the document does not name any more."""


async def declared_routing(
    context: Context, caller: Caller, project: str, stack: Stack, troubles: list[Trouble]
) -> RoutingNeeds:
    routers: list[tuple[CreateRouterRequest, Router | None]] = []
    forwards: list[tuple[CreateForwardRequest, Forward | None]] = []
    if stack.routers:
        await authorize(context, caller, project, "router.create", stack.name)
    if stack.forwards:
        await authorize(context, caller, project, "forward.create", stack.name)
    for name, declared in stack.routers.items():
        request = CreateRouterRequest(name=name, labels={STACK_LABEL: stack.name}, **dict(declared))
        there = await context.objects.find(Router, project, name)
        try:
            check_own(there, stack.name, f"router {name!r}")
        except CorralError as error:
            troubles.append(Trouble(f"routers.{name}", error))
        routers.append((request, there))
    known = {one.name: one for one in await find_of_stack(context, Forward, project, stack.name)}
    kept: set[str] = set()
    names = {wish.name for wish in stack.vms}
    for key, target in stack.forwards.items():
        place, asked = f"forwards.{key}", f"port {key}"
        try:
            wished = _forward(stack.name, key, target)
        except ValidationError:
            reason = "ports are numbers from 1 to 65535"
            troubles.append(Trouble(place, CorralError("invalid-document", asked, reason, '"8080": web:80')))
            continue
        if wished.balancer is not None and wished.balancer not in stack.balancers:
            reason = f"the stack has no balancer {wished.balancer!r}"
            troubles.append(Trouble(place, CorralError("invalid-document", asked, reason, "balancers: …")))
            continue
        if wished.balancer is None and wished.vm not in names:
            reason = f"the stack has no VM {wished.vm!r}"
            troubles.append(Trouble(place, CorralError("invalid-document", asked, reason, ", ".join(sorted(names)))))
            continue
        name = f"{wished.protocol}-{wished.host_port}"
        found = known.get(name)
        try:
            check_own(found or await context.objects.find(Forward, project, name), stack.name, asked)
        except CorralError as error:
            troubles.append(Trouble(place, error))
        same = found is not None and _leads(found, wished)
        kept |= {name} if same else set()
        forwards.append((wished, found if same else None))
    stale = tuple(one for name, one in known.items() if name not in kept)
    return RoutingNeeds(tuple(routers), tuple(forwards), stale)


def _forward(stack: str, port: str, target: str | StackBalancedPort) -> CreateForwardRequest:
    number, _, protocol = port.partition("/")
    body: dict[str, object] = {"protocol": protocol or "tcp", "host_port": int(number)}
    if isinstance(target, str):
        vm, _, inner = target.partition(":")
        body |= {"vm": vm, "port": int(inner)}
    else:
        body["balancer"] = target.balancer
    return CreateForwardRequest.model_validate({**body, "labels": {STACK_LABEL: stack}})


def _leads(found: Forward, wished: CreateForwardRequest) -> bool:
    if wished.balancer is not None:
        return found.spec.balancer == wished.balancer
    return (found.spec.vm, found.spec.port) == (wished.vm, wished.port)


def sketch_routers(sketch: Sketch, needs: RoutingNeeds) -> None:
    """Guests learn their way out from DHCP when they start: a router comes before the VMs of its networks."""
    for request, there in needs.routers:
        names = [*request.connect, request.uplink_network]
        after = [sketch.last[f"network/{name}"] for name in names if f"network/{name}" in sketch.last]
        if there is None:
            change = f"{CREATED}: {', '.join(request.connect)}; uplink {request.uplink}"
            body = request.model_dump(mode="json", exclude_unset=True)
            sketch.add("router", request.name, StackVerb.CREATE, (change,), path="/routers", body=body, after=after)
        else:
            body, changes = _router_changes(request, there)
            if not changes:
                continue
            basis, path = f"{there.uid}:{there.generation}", f"/routers/{there.name}"
            sketch.add(
                *("router", request.name, StackVerb.UPDATE, changes),
                method="PATCH",
                path=path,
                body=body,
                after=after,
                basis=basis,
            )
        for name in request.connect:
            sketch.last[f"network/{name}"] = sketch.last[f"router/{request.name}"]


def _router_changes(request: CreateRouterRequest, there: Router) -> tuple[dict[str, object], list[str]]:
    now = [port.network for port in there.spec.ports]
    joins = [name for name in request.connect if name not in now]
    leaves = [name for name in now if name not in request.connect]
    changes = [f"network {name}: new" for name in joins] + [f"network {name}: gone" for name in leaves]
    body: dict[str, object] = {"connect": joins, "disconnect": leaves}
    port = there.spec.uplink_port
    outside = port.network if port is not None else request.uplink_network
    if (there.spec.uplink, outside) != (request.uplink, request.uplink_network):
        changes.append(f"uplink: {there.spec.uplink} → {request.uplink}")
        body |= {"uplink": request.uplink, "uplink_network": request.uplink_network}
    if there.spec.routes != request.routes:
        changes.append("routes: others")
        body["routes"] = [route.model_dump() for route in request.routes]
    return body, changes


def sketch_ways_in(sketch: Sketch, needs: RoutingNeeds, entrances: EntranceNeeds, *, prune: bool) -> None:
    """Once their VMs are made. Forwards that lead elsewhere go first: others take their ports, and the balancers go that
    they lead to."""
    for one in needs.stale:
        _gone(sketch, one, "it leads elsewhere, or nowhere", ())
    sketch_entrances(sketch, entrances, prune=prune)
    for request, there in needs.forwards:
        name = f"{request.protocol}-{request.host_port}"
        if there is None:
            to = sketch.last.get(f"balancer/{request.balancer}" if request.balancer else f"vm/{request.vm}")
            body = request.model_dump(mode="json", exclude_unset=True)
            where = request.balancer or f"{request.vm}:{request.port or request.host_port}"
            change = f"{CREATED}: {request.host_port} → {where}"
            after = [*([to] if to else []), *(sketch.last[key] for key in sketch.last if key.startswith("router/"))]
            sketch.add("forward", name, StackVerb.CREATE, (change,), path="/forwards", body=body, after=after)


def _gone(sketch: Sketch, forward: Forward, why: str, after: Sequence[str]) -> None:
    path = f"/forwards/{forward.name}"
    sketch.add("forward", forward.name, StackVerb.DELETE, (why,), method="DELETE", path=path, after=after)


async def sketch_routing_gone(context: Context, project: str, stack: str, sketch: Sketch) -> None:
    """Forwards and routers that the stack made: after its VMs, before its networks."""
    for forward in await find_of_stack(context, Forward, project, stack):
        _gone(sketch, forward, _OWN[0], ())
    await sketch_entrances_gone(context, project, stack, sketch)
    after = tuple(sketch.last.values())
    for router in await find_of_stack(context, Router, project, stack):
        path = f"/routers/{router.name}"
        sketch.add("router", router.name, StackVerb.DELETE, _OWN, method="DELETE", path=path, after=after)
