"""The actions of a plan: in an order that works, each with what it waits for. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from corral.model.image import ImageState
from corral.model.requests import CreateVmRequest
from corral.model.stack_plan import ActionKind, StackAction, StackBlock, StackVerb, StackWait
from corral.model.vm import Vm
from corral.model.volume import Volume
from corral.names import format_bytes
from corral.services.creation import PlannedVm
from corral.services.network_rules import mode_of
from corral.services.stack_diff import Difference
from corral.services.stack_document import Wish
from corral.services.stack_networks import NetworkNeed
from corral.services.stack_state import ImageNeed
from corral.services.stack_volumes import VolumeNeed

CREATED = "new"


@dataclass(frozen=True)
class Target:
    """One VM of the document: what it is to become, and what is there under its name."""

    wish: Wish
    request: CreateVmRequest
    """What is asked for a new one: the wish, with what its user left to the client."""
    planned: PlannedVm
    vm: Vm | None
    difference: Difference = field(default_factory=Difference)
    replaced: bool = False

    @property
    def is_new(self) -> bool:
        return self.vm is None or self.replaced or self.vm.being_deleted


@dataclass
class Sketch:
    """A plan while it is made. `under_way`: unfinished operations by the uid of what they are about."""

    under_way: Mapping[str, str]
    actions: list[StackAction] = field(default_factory=list)
    basis: dict[str, str] = field(default_factory=dict)
    """Of each action: what was there when it was planned, so that the same wish on another state is another request."""
    unchanged: list[str] = field(default_factory=list)
    blocked: list[StackBlock] = field(default_factory=list)
    last: dict[str, str] = field(default_factory=dict)
    """The last action of each VM, image, network and volume so far."""

    def add(
        self,
        kind: ActionKind,
        name: str,
        verb: StackVerb,
        changes: Sequence[str],
        *,
        method: Literal["", "POST", "PATCH", "DELETE"] = "POST",
        path: str = "",
        query: Mapping[str, str] | None = None,
        body: dict[str, Any] | None = None,
        device: str = "",
        operation: str = "",
        after: Sequence[str] = (),
        waits: Sequence[StackWait] = (),
        basis: str = "",
    ) -> None:
        identifier = "/".join(part for part in (kind, name, verb.value, device) if part)
        before = [self.last[f"{kind}/{name}"]] if f"{kind}/{name}" in self.last else []
        self.actions.append(
            StackAction(
                id=identifier,
                kind=kind,
                name=name,
                verb=verb,
                device=device,
                method=method,
                path=f"/v1{path}" if method else "",
                query=dict(query or {}),
                body=body,
                operation=operation,
                after=tuple(dict.fromkeys((*before, *after))),
                waits=tuple(waits),
                changes=tuple(changes),
            )
        )
        self.basis[identifier] = basis
        self.last[f"{kind}/{name}"] = identifier

    # ---- images ------------------------------------------------------------------------------------------------

    def image(self, need: ImageNeed) -> None:
        """Make it, or wait for who makes it."""
        if need.unmade is None:
            return
        image = need.there
        if image is None or image.status.state is ImageState.FAILED:
            change = CREATED if image is None else "its last build failed"
            basis = "" if image is None else f"{image.uid}:{image.generation}"
            body = {"catalogue": need.name}
            self.add("image", need.name, StackVerb.BUILD, (change,), path="/images", body=body, basis=basis)
        elif (operation := self.under_way.get(image.uid)) is not None:
            self._follow("image", need.name, operation, "it is being made already")

    # ---- networks ----------------------------------------------------------------------------------------------

    def network(self, need: NetworkNeed) -> None:
        """Make it; what is there stays as it is."""
        request = need.request
        if need.there is None:
            body = request.model_dump(mode="json", exclude_unset=True)
            place = request.bridge or request.nic or request.subnet or "a free subnet"
            change = f"{CREATED}: {mode_of(request, request.name)}, {place}"
            self.add("network", request.name, StackVerb.CREATE, (change,), path="/networks", body=body)
        elif need.fixed:
            hint = f"corral network delete {request.name}, then apply again"
            reason = "it cannot be changed in place"
            self.blocked.append(StackBlock(name=request.name, changes=need.fixed, reason=reason, hint=hint))

    def network_gone(self, name: str, after: Sequence[str]) -> None:
        """Once its VMs are."""
        path = f"/networks/{name}"
        self.add("network", name, StackVerb.DELETE, ("the stack's own",), method="DELETE", path=path, after=after)

    # ---- volumes -----------------------------------------------------------------------------------------------

    def volume(self, need: VolumeNeed) -> None:
        """Make it, let it grow, or wait for who makes it."""
        there, request = need.there, need.request
        if there is None:
            size = f" {format_bytes(request.size_bytes)}" if request.size_bytes else ""
            change = f"{CREATED}:{size} {request.format}" + (f", from image {request.image}" if request.image else "")
            image = self.last.get(f"image/{request.image}")
            body = request.model_dump(mode="json", exclude_unset=True)
            after = [image] if image else []
            self.add("volume", need.name, StackVerb.CREATE, (change,), path="/volumes", body=body, after=after)
            return
        if need.fixed:
            hint = f"corral volume delete {need.name}, then apply again"
            reason = "it cannot be changed in place"
            self.blocked.append(StackBlock(name=need.name, changes=need.fixed, reason=reason, hint=hint))
        elif (operation := self.under_way.get(there.uid)) is not None:
            self._follow("volume", need.name, operation, "a change is under way already")
        elif need.grows:
            change = f"size: {format_bytes(there.spec.size_bytes)} → {format_bytes(request.size_bytes or 0)}"
            body, basis = {"size_bytes": request.size_bytes}, f"{there.uid}:{there.generation}"
            path = f"/volumes/{need.name}"
            self.add(
                "volume", need.name, StackVerb.UPDATE, (change,), method="PATCH", path=path, body=body, basis=basis
            )

    # ---- VMs ---------------------------------------------------------------------------------------------------

    def vm(self, target: Target, images: Mapping[str, ImageNeed], room: Sequence[str]) -> None:
        """Everything that makes it what it is to be. `room`: what has to go before anything that takes memory."""
        wish, vm = target.wish, target.vm
        image = self.last.get(f"image/{wish.request.image}") if wish.request.image in images else None
        named = [f"volume/{disk.volume}" for disk in wish.request.disks if disk.volume is not None]
        volumes = [self.last[name] for name in named if name in self.last]
        cards = [f"network/{nic.network}" for nic in wish.request.nics or ()]
        cards += [f"security-group/{name}" for nic in wish.request.nics or () for name in nic.groups]
        networks = [self.last[name] for name in cards if name in self.last]
        before = [*([image] if image else []), *networks, *volumes, *room, *self._others(wish)]
        waits = [StackWait(vm=other, condition=condition) for other, condition in sorted(wish.after.items())]
        if target.is_new:
            body = target.request.model_dump(mode="json", exclude_unset=True)
            changes = _sketched(target.planned)
            self.add("vm", wish.name, StackVerb.CREATE, changes, path="/vms", body=body, after=before, waits=waits)
            return
        assert vm is not None
        basis = f"{vm.uid}:{vm.generation}"
        for draft in target.difference.drafts:
            starting = draft.verb is StackVerb.START
            self.add(
                "vm",
                wish.name,
                draft.verb,
                draft.changes,
                method=draft.method,
                path=f"/vms/{wish.name}{draft.path}",
                body=draft.body,
                device=draft.device,
                after=before
                if starting
                else (*room, *networks, *(volumes if draft.verb is StackVerb.ATTACH_DISK else ())),
                waits=waits if starting else (),
                basis=basis,
            )
        if not target.difference.drafts:
            if (operation := self.under_way.get(vm.uid)) is not None:
                self._follow("vm", wish.name, operation, "a change is under way already")
            else:
                self.unchanged.append(wish.name)

    def gone(self, vm: Vm, *, query: Mapping[str, str], why: Sequence[str], after: Sequence[str] = ()) -> None:
        """Delete it, or wait until it is."""
        if vm.being_deleted:
            if (operation := self.under_way.get(vm.uid)) is not None:
                self._follow("vm", vm.name, operation, "it is being deleted already")
            return
        basis = f"{vm.uid}:{vm.generation}"
        path = f"/vms/{vm.name}"
        self.add(
            "vm", vm.name, StackVerb.DELETE, why, method="DELETE", path=path, query=query, after=after, basis=basis
        )

    def free(self, name: str, volumes: Sequence[Volume]) -> None:
        """Delete the volumes of disks that were taken out of a VM."""
        for volume in volumes:
            detached = [f"vm/{name}/{StackVerb.DETACH_DISK}/{disk}" for disk in self._disks_of(name)]
            path, change = f"/volumes/{volume.name}", f"volume {volume.name}: deleted"
            self.add("volume", volume.name, StackVerb.DELETE, (change,), method="DELETE", path=path, after=detached)

    def _disks_of(self, name: str) -> list[str]:
        return [one.device for one in self.actions if one.name == name and one.verb is StackVerb.DETACH_DISK]

    def _follow(self, kind: Literal["image", "vm", "volume"], name: str, operation: str, why: str) -> None:
        self.add(kind, name, StackVerb.FOLLOW, (why,), method="", operation=operation)

    def _others(self, wish: Wish) -> list[str]:
        """The last actions on those that it comes after."""
        return [self.last[f"vm/{other}"] for other in sorted(wish.after) if f"vm/{other}" in self.last]


def _sketched(planned: PlannedVm) -> tuple[str, ...]:
    """A new VM in one line for people."""
    spec = planned.spec
    disks = ", ".join(disk.name for disk in spec.disks)
    made_of = f"image {spec.image}" if spec.image else "no image"
    line = f"{CREATED}: {made_of}, {spec.vcpus} vCPU, {spec.memory_mib} MiB" + (f", disks {disks}" if disks else "")
    return (line if planned.request.start else f"{line}, off",)
