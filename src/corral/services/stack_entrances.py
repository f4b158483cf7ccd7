"""The balancers and floating addresses of a stack: once their routers and VMs are there, and gone before the routers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from corral.errors import CorralError
from corral.model.address import FloatingAddress
from corral.model.balancer import Balancer
from corral.model.router import Router
from corral.model.router_requests import CreateAddressRequest, CreateBalancerRequest
from corral.model.stack_plan import ActionKind, StackVerb
from corral.services.access import authorize
from corral.services.caller import Caller
from corral.services.context import Context
from corral.services.stack_actions import CREATED, Sketch
from corral.services.stack_document import Stack, Trouble
from corral.services.stack_state import check_own, find_of_stack

_GONE: Final = "the document does not name it any more"
_OWN: Final = "the stack's own"
_CHANGEABLE: Final = ("port", "mode", "algorithm", "check")


@dataclass(frozen=True)
class EntranceNeeds:
    """What the stack declares, with what is there of it; and what it declares no more."""

    balancers: tuple[tuple[CreateBalancerRequest, Balancer | None], ...] = ()
    addresses: tuple[tuple[CreateAddressRequest, FloatingAddress | None], ...] = ()
    stale: tuple[Balancer | FloatingAddress, ...] = ()


async def declared_entrances(
    context: Context, caller: Caller, project: str, stack: Stack, troubles: list[Trouble]
) -> EntranceNeeds:
    if stack.balancers:
        await authorize(context, caller, project, "balancer.create", stack.name)
    if stack.addresses:
        await authorize(context, caller, project, "address.create", stack.name)
    balancers: list[tuple[CreateBalancerRequest, Balancer | None]] = []
    for name, wished in stack.balancers.items():
        there, asked = await context.objects.find(Balancer, project, name), f"balancer {name!r}"
        try:
            check_own(there, stack.name, asked)
            await _check(context, project, stack, wished.router, wished.targets)
            if there is not None and (wished.router or there.spec.router, wished.listen) != (
                there.spec.router,
                there.spec.listen,
            ):
                reason = "its router, and the port that it listens on, stay: others may lead to it"
                raise CorralError("unsupported", asked, reason, "give it another name, or take it out first")
        except CorralError as error:
            troubles.append(Trouble(f"balancers.{name}", error))
        balancers.append((wished, there))
    addresses: list[tuple[CreateAddressRequest, FloatingAddress | None]] = []
    for name, face in stack.addresses.items():
        known = await context.objects.find(FloatingAddress, project, name)
        try:
            check_own(known, stack.name, f"address {name!r}")
            await _check(context, project, stack, face.router, (face.vm,) if face.vm else ())
        except CorralError as error:
            troubles.append(Trouble(f"addresses.{name}", error))
        addresses.append((face, known))
    stale: list[Balancer | FloatingAddress] = [
        *(
            one
            for one in await find_of_stack(context, Balancer, project, stack.name)
            if one.name not in stack.balancers
        ),
        *(
            one
            for one in await find_of_stack(context, FloatingAddress, project, stack.name)
            if one.name not in stack.addresses
        ),
    ]
    return EntranceNeeds(tuple(balancers), tuple(addresses), tuple(stale))


async def _check(context: Context, project: str, stack: Stack, router: str | None, vms: Sequence[str]) -> None:
    """Its router and its VMs are there, or will be."""
    if router is not None and router not in stack.routers:
        await context.objects.require(Router, project, router)
    names = {wish.name for wish in stack.vms}
    for vm in vms:
        if vm not in names:
            reason = f"the stack has no VM {vm!r}"
            raise CorralError("invalid-document", "", reason, f"its VMs: {', '.join(sorted(names))}")


def sketch_entrances(sketch: Sketch, needs: EntranceNeeds, *, prune: bool) -> None:
    """Once their VMs are made; those that go, once no forward leads to them any more."""
    if prune:
        after = _forwards(sketch)
        for one in needs.stale:
            _gone(sketch, one, _GONE, after if isinstance(one, Balancer) else ())
    for request, there in needs.balancers:
        _balancer(sketch, request, there)
    for face, known in needs.addresses:
        _address(sketch, face, known)


def _balancer(sketch: Sketch, request: CreateBalancerRequest, there: Balancer | None) -> None:
    after = _after(sketch, request.router, request.targets)
    if there is None:
        change = f"{CREATED}: {request.listen} → {', '.join(request.targets)}"
        body = request.model_dump(mode="json", exclude_unset=True)
        sketch.add("balancer", request.name, StackVerb.CREATE, (change,), path="/balancers", body=body, after=after)
        return
    wished = {**{field: getattr(request, field) for field in _CHANGEABLE}, "port": request.port or request.listen}
    changed = [field for field, value in wished.items() if getattr(there.spec, field) != value]
    changes = [f"{field}: another one" if field == "check" else _from_to(there, field, wished) for field in changed]
    body = {field: value for field, value in request.model_dump(mode="json").items() if field in changed}
    if "port" in changed:
        body["port"] = wished["port"]
    now = [target.vm for target in there.spec.targets]
    changes += [f"VM {name}: gone" for name in now if name not in request.targets]
    changes += [f"VM {name}: new" for name in request.targets if name not in now]
    if set(now) != set(request.targets):
        body["targets"] = list(request.targets)
    if body:
        path, basis = f"/balancers/{there.name}", f"{there.uid}:{there.generation}"
        sketch.add(
            *("balancer", there.name, StackVerb.UPDATE, changes),
            method="PATCH",
            path=path,
            body=body,
            after=after,
            basis=basis,
        )


def _from_to(there: Balancer, field: str, wished: dict[str, Any]) -> str:
    return f"{field}: {getattr(there.spec, field)} → {wished[field]}"


def _address(sketch: Sketch, request: CreateAddressRequest, there: FloatingAddress | None) -> None:
    after = _after(sketch, request.router, (request.vm,) if request.vm else ())
    if there is not None and (there.spec.router != request.router or request.address not in (None, there.spec.address)):
        _gone(sketch, there, "it is of another router, or another one", ())
        there = None
    if there is None:
        change = f"{CREATED}: on {request.router}" + (f", leads to {request.vm}" if request.vm else "")
        body = request.model_dump(mode="json", exclude_unset=True)
        sketch.add("address", request.name, StackVerb.CREATE, (change,), path="/addresses", body=body, after=after)
    elif there.spec.vm != request.vm:
        sketch.add(
            *("address", there.name, StackVerb.UPDATE, (f"vm: {there.spec.vm or 'none'} → {request.vm or 'none'}",)),
            method="PATCH",
            path=f"/addresses/{there.name}",
            body={"vm": request.vm},
            after=after,
            basis=f"{there.uid}:{there.generation}",
        )


def _after(sketch: Sketch, router: str | None, vms: Sequence[str]) -> list[str]:
    named = [f"vm/{name}" for name in vms]
    routers = [f"router/{router}"] if router else [key for key in sketch.last if key.startswith("router/")]
    return [sketch.last[key] for key in (*routers, *named) if key in sketch.last]


def _forwards(sketch: Sketch) -> list[str]:
    return [identifier for key, identifier in sketch.last.items() if key.startswith("forward/")]


def _gone(sketch: Sketch, one: Balancer | FloatingAddress, why: str, after: Sequence[str]) -> None:
    kind: ActionKind = "balancer" if isinstance(one, Balancer) else "address"
    path = f"/{one.PLURAL}/{one.name}"
    sketch.add(kind, one.name, StackVerb.DELETE, (why,), method="DELETE", path=path, after=after)


async def sketch_entrances_gone(context: Context, project: str, stack: str, sketch: Sketch) -> None:
    """After the forwards that lead to them, before the routers that they are on."""
    after = _forwards(sketch)
    for balancer in await find_of_stack(context, Balancer, project, stack):
        _gone(sketch, balancer, _OWN, after)
    for address in await find_of_stack(context, FloatingAddress, project, stack):
        _gone(sketch, address, _OWN, ())
