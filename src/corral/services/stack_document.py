"""From a stack's document to the VMs that it wishes: variables, defaults, counts, dependencies. Pure; refuses with places."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from corral.errors import CorralError
from corral.model import limits
from corral.model.firewall_requests import CreateNetworkPolicyRequest, CreateSecurityGroupRequest
from corral.model.network_requests import CreateNetworkRequest
from corral.model.requests import CreateVmRequest, WaitCondition
from corral.model.router_requests import CreateAddressRequest, CreateBalancerRequest
from corral.model.stack import STACK_LABEL, StackDisk, StackDocument, StackNic, StackVm
from corral.model.stack_wires import StackBalancedPort, StackRouter
from corral.model.volume_requests import CreateVolumeRequest
from corral.services.stack_parts import (
    DISK_WORDS,
    PROBLEMS_SHOWN,
    address_of,
    balancer_of,
    group_of,
    instances,
    invalid,
    network_of,
    policy_of,
    shown,
    validated,
    volume_of,
)

_REFERENCE: Final = re.compile(r"\$\$\{|\$\{([^}]*)\}?")
# The document's word, and the request's.
_SAME: Final = (
    "image", "os", "vcpus", "cpu_shares", "firmware", "hostname", "user", "ssh_keys", "user_data", "network_config", "labels",
    "description", "protected", "run_policy", "graphics", "graphics_listen", "hardware", "start",
)  # fmt: skip
_BOOT: Final = {
    "autostart": "autostart", "priority": "priority", "delay": "delay_s", "shutdown_deadline": "shutdown_deadline_s",
}  # fmt: skip

Scalar = str | int | float | bool


@dataclass(frozen=True)
class Wish:
    """One VM as the document wants it."""

    name: str
    place: str
    """Where it stands in the document: `vms.web`."""
    request: CreateVmRequest
    after: Mapping[str, WaitCondition]
    """The VMs, each by its own name, that have to get so far before it is made and started."""

    def names(self, *fields: str) -> bool:
        """The document says something of one of these fields."""
        return any(field in self.request.model_fields_set for field in fields)


@dataclass(frozen=True)
class Stack:
    """A document that contradicts itself nowhere."""

    name: str
    images: tuple[str, ...]
    networks: tuple[str, ...]
    """Those that have to be there."""
    vms: tuple[Wish, ...]
    """Those that others wait for come first."""
    volumes: Mapping[str, CreateVolumeRequest]
    new_networks: Mapping[str, CreateNetworkRequest]
    groups: Mapping[str, CreateSecurityGroupRequest]
    routers: Mapping[str, StackRouter]
    forwards: Mapping[str, str | StackBalancedPort]
    """From `8080` to `web:80`."""
    policies: Mapping[str, CreateNetworkPolicyRequest]
    balancers: Mapping[str, CreateBalancerRequest]
    addresses: Mapping[str, CreateAddressRequest]


@dataclass(frozen=True)
class Trouble:
    """One thing that is wrong, and where."""

    place: str
    error: CorralError


def refuse(asked: str, troubles: list[Trouble]) -> None:
    """Nothing without troubles; else one error with all of them, each with its place."""
    if not troubles:
        return
    shown = [f"{one.place}: {_reason(one.error)}" for one in troubles[:PROBLEMS_SHOWN]]
    if len(troubles) > PROBLEMS_SHOWN:
        shown.append(f"and {len(troubles) - PROBLEMS_SHOWN} more")
    first = troubles[0].error
    reason = shown[0] if len(shown) == 1 else "\n  ".join(["nothing was done:", *shown])
    raise CorralError(first.code, asked, reason, first.hint, first.context)


def _reason(error: CorralError) -> str:
    """What is in the way; with what was asked for, where that names a part of the VM."""
    return f"{error.asked}: {error.reason}" if error.asked else error.reason


def read_stack(document: Mapping[str, Any], overrides: Mapping[str, str]) -> Stack:
    """The stack. Raises `invalid-document` with every place that is wrong; `invalid-argument` for an unknown override."""
    asked = f"read stack {_name_of(document)}"
    variables = _variables(document, overrides, asked)
    _check_shape(document, asked)
    budget = _Budget(asked)
    rest = {key: value for key, value in document.items() if key != "variables"}
    whole = validated(StackDocument, _present(budget.replaced(rest, {**variables, "index": 1, "vm": "vm"})), "", asked)
    wishes: list[Wish] = []
    defaults = document.get("defaults") or {}
    for base, declared in whole.vms.items():
        merged = _merged(defaults, document["vms"][base] or {})
        for name, index in instances(base, declared):
            values = {**variables, "index": index, "vm": name}
            vm = validated(StackVm, budget.replaced(merged, values), f"vms.{base}", asked)
            wishes.append(_wish(whole, name, f"vms.{base}", vm, asked))
            if len(wishes) > limits.STACK_VMS_MAX:
                raise invalid(asked, "vms", f"with their counts they are more than {limits.STACK_VMS_MAX} VMs")
    _check_names(wishes, asked)
    volumes = {name: volume_of(whole, name, volume, asked) for name, volume in whole.volumes.items()}
    named = tuple(network for network in whole.networks if isinstance(network, str))
    made = [network_of(whole, network, asked) for network in whole.networks if not isinstance(network, str)]
    if twice := {
        name for name in (*named, *(one.name for one in made)) if [*named, *(one.name for one in made)].count(name) > 1
    }:
        raise invalid(asked, "networks", f"{min(twice)} is there twice")
    networks = {network.name: network for network in made}
    return Stack(
        name=whole.stack,
        images=whole.images,
        networks=named,
        vms=_in_order(wishes, asked),
        volumes=volumes,
        new_networks=networks,
        groups={name: group_of(whole, name, group, asked) for name, group in whole.security_groups.items()},
        routers=whole.routers,
        forwards=whole.forwards,
        policies={name: policy_of(whole, name, one, asked) for name, one in whole.network_policies.items()},
        balancers={name: balancer_of(whole, name, one, asked) for name, one in whole.balancers.items()},
        addresses={name: address_of(whole, name, one, asked) for name, one in whole.addresses.items()},
    )


# ---- variables -----------------------------------------------------------------------------------------------------


def _variables(document: Mapping[str, Any], overrides: Mapping[str, str], asked: str) -> dict[str, Scalar]:
    given = document.get("variables") or {}
    head = {"stack": "x", "variables": given}
    known: dict[str, Scalar] = dict(validated(StackDocument, head, "", asked).variables)
    for name in overrides:
        if name not in known:
            raise CorralError(
                "invalid-argument",
                f"--set {shown(name)}=…",
                "the stack has no such variable",
                f"its variables: {', '.join(known) or 'none'}",
            )
    return {**known, **overrides}


class _Budget:
    """Replaces variables, and refuses what grows beyond all bounds by it."""

    def __init__(self, asked: str) -> None:
        self._asked = asked
        self._left = limits.STACK_TEXT_MAX_CHARS

    def replaced(self, value: Any, variables: Mapping[str, Scalar], place: str = "", depth: int = 0) -> Any:
        """`value` with the variables in its texts replaced; a text that is one variable alone takes its very value."""
        if depth > limits.STACK_DEPTH_MAX:
            raise invalid(self._asked, place, f"it is nested deeper than {limits.STACK_DEPTH_MAX} levels")
        if isinstance(value, Mapping):
            return {
                key: self.replaced(inner, variables, f"{place}.{key}" if place else str(key), depth + 1)
                for key, inner in value.items()
            }
        if isinstance(value, list | tuple):
            return [
                self.replaced(inner, variables, f"{place}[{number}]", depth + 1) for number, inner in enumerate(value)
            ]
        return self._text(value, variables, place) if isinstance(value, str) else value

    def _text(self, text: str, variables: Mapping[str, Scalar], place: str) -> Scalar:
        def word(match: re.Match[str]) -> str:
            return "${" if match[0] == "$${" else _word(self._value(match, variables, place))

        alone = _REFERENCE.fullmatch(text)
        if alone is not None and alone[0] != "$${":
            return self._value(alone, variables, place)
        found = _REFERENCE.sub(word, text) if "${" in text else text
        self._left -= len(found)
        if self._left < 0:
            raise invalid(self._asked, place, "the stack is too large once its variables are replaced")
        return found

    def _value(self, match: re.Match[str], variables: Mapping[str, Scalar], place: str) -> Scalar:
        name = match[1]
        if name in variables and match[0].endswith("}"):
            return variables[name]
        raise CorralError(
            "invalid-document",
            self._asked,
            f"{place}: there is no variable {shown(match[0])}",
            f"its variables: {', '.join(variables)}; write $${{ for a ${{ of the text's own",
        )


def _word(value: Scalar) -> str:
    return ("true" if value else "false") if isinstance(value, bool) else str(value)


# ---- shape ---------------------------------------------------------------------------------------------------------


def _check_shape(document: Mapping[str, Any], asked: str) -> None:
    """What is looked at before it is validated: which VMs there are."""
    for key, inner in (("vms", document.get("vms")), ("defaults", document.get("defaults"))):
        if inner is not None and not isinstance(inner, Mapping):
            raise invalid(asked, key, "it is no mapping of names to values")
    for name, vm in (document.get("vms") or {}).items():
        if vm is not None and not isinstance(vm, Mapping):
            raise invalid(asked, f"vms.{shown(name)}", "it is no mapping of fields to values")


def _present(document: dict[str, Any]) -> dict[str, Any]:
    """`web:` with nothing behind it is a VM with the defaults; a section with nothing in it is not there."""
    found = {key: value for key, value in document.items() if value is not None}
    if "vms" in found:
        found["vms"] = {name: {} if vm is None else vm for name, vm in found["vms"].items()}
    return found


def _merged(defaults: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Mappings are merged, everything else is replaced."""
    merged = dict(defaults)
    for key, value in own.items():
        before = merged.get(key)
        merged[key] = _merged(before, value) if isinstance(before, Mapping) and isinstance(value, Mapping) else value
    return merged


def _wish(whole: StackDocument, name: str, place: str, vm: StackVm, asked: str) -> Wish:
    for field in ("user_data_file", "network_config_file"):
        if getattr(vm, field):
            raise invalid(asked, f"{place}.{field}", "files are read by the command line, not by the daemon")
    given = vm.model_dump(mode="json", exclude_unset=True)
    body: dict[str, Any] = {field: given[field] for field in _SAME if given.get(field) is not None}
    if "memory" in given:
        body["memory_mib"] = given["memory"]
    if given.get("thin"):
        body["force"] = True
    if boot := {word: given[field] for field, word in _BOOT.items() if field in given}:
        body["boot"] = boot
    if vm.disks:
        body["disks"] = [_disk_body(disk) for disk in vm.disks]
    if vm.nics is not None:
        body["nics"] = [_nic_body(nic) for nic in vm.nics]
    body["labels"] = {**body.get("labels", {}), STACK_LABEL: whole.stack}
    request: CreateVmRequest = validated(CreateVmRequest, {"name": name, **body}, place, asked)
    after: dict[str, WaitCondition] = {}
    for base, condition in vm.after.items():
        other = whole.vms.get(base)
        if other is None:
            known = ", ".join(whole.vms)
            raise invalid(asked, f"{place}.after.{base}", f"the stack has no VM {base!r}", f"its VMs: {known}")
        after.update({instance: condition for instance, _ in instances(base, other)})
    return Wish(name, place, request, after)


def _disk_body(disk: StackDisk) -> dict[str, Any]:
    given = disk.model_dump(mode="json", exclude_unset=True, exclude_none=True)
    body = {DISK_WORDS.get(key, key): value for key, value in given.items() if key != "keep"}
    return {**body, "delete_with_vm": False} if disk.keep else body


def _nic_body(nic: StackNic) -> dict[str, Any]:
    return nic.model_dump(mode="json", exclude_unset=True, exclude_none=True)


# ---- what goes together --------------------------------------------------------------------------------------------


def _check_names(wishes: list[Wish], asked: str) -> None:
    seen: dict[str, Wish] = {}
    addresses: dict[tuple[str, str], str] = {}
    for wish in wishes:
        if wish.name in seen:
            reason = f"{seen[wish.name].place} makes a VM {wish.name!r} as well"
            raise invalid(asked, wish.place, reason, "give one of the two another name")
        seen[wish.name] = wish
        for number, nic in enumerate(wish.request.nics or ()):
            for key in ((nic.network, nic.address), ("mac", nic.mac)):
                if key[1] is not None and (other := addresses.setdefault((key[0], key[1]), wish.name)) != wish.name:
                    place = f"{wish.place}.nics[{number}]"
                    raise invalid(
                        asked, place, f"{other} has {key[1]} already", "leave it out, or write ${index} in it"
                    )


def _in_order(wishes: list[Wish], asked: str) -> tuple[Wish, ...]:
    """Those that are waited for first; refuses circles, and waiting for what is never started."""
    by_name = {wish.name: wish for wish in wishes}
    for wish in wishes:
        for other, condition in wish.after.items():
            if why := _never(by_name[other].request, condition):
                raise invalid(asked, f"{wish.place}.after.{other}", f"{other} {why}, so it is never {condition.value}")
    ordered: list[Wish] = []
    waiting = dict(by_name)
    while waiting:
        ready = [wish for wish in waiting.values() if not any(other in waiting for other in wish.after)]
        if not ready:
            circle = _circle(waiting)
            raise invalid(asked, f"{by_name[circle[0]].place}.after", f"it goes in a circle: {' after '.join(circle)}")
        ordered += ready
        for wish in ready:
            del waiting[wish.name]
    return tuple(ordered)


def _never(request: CreateVmRequest, condition: WaitCondition) -> str:
    """Why it will never get so far; empty: it may."""
    if not request.start:
        return "is not started"
    by_network = condition in (WaitCondition.IP, WaitCondition.SSH)
    return "has no network card" if by_network and request.nics == () else ""


def _circle(waiting: Mapping[str, Wish]) -> list[str]:
    path = [next(iter(waiting))]
    while True:
        following = next(other for other in waiting[path[-1]].after if other in waiting)
        if following in path:
            return [*path[path.index(following) :], following]
        path.append(following)


def _name_of(document: Mapping[str, Any]) -> str:
    name = document.get("stack")
    return repr(shown(name)) if isinstance(name, str) else "without a name"
