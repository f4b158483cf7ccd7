"""The parts of a stack's document as requests of the other routes: volumes, networks, groups, and who gets where. Pure."""

from collections.abc import Iterator
from typing import Any, Final

from pydantic import ValidationError

from corral.errors import CorralError
from corral.model.firewall_requests import CreateNetworkPolicyRequest, CreateSecurityGroupRequest
from corral.model.network_requests import CreateNetworkRequest
from corral.model.router_requests import CreateAddressRequest, CreateBalancerRequest
from corral.model.stack import STACK_LABEL, StackDocument, StackSecurityGroup, StackVm, StackVolume
from corral.model.stack_wires import StackAddress, StackBalancer, StackNetwork, StackNetworkPolicy
from corral.model.volume_requests import CreateVolumeRequest
from corral.names import plain_text

PROBLEMS_SHOWN: Final = 10
_TEXT_SHOWN: Final = 40
# The document's word, and the request's.
DISK_WORDS: Final = {"size": "size_bytes", "iops": "iops_max", "bandwidth": "bytes_per_s_max"}


def instances(base: str, declared: StackVm) -> Iterator[tuple[str, int]]:
    if declared.count is None:
        yield base, 1
        return
    for index in range(1, declared.count + 1):
        yield f"{base}-{index}", index


def validated(cls: Any, value: object, place: str, asked: str) -> Any:
    try:
        return cls.model_validate(value)
    except ValidationError as error:
        lines = []
        for one in error.errors(include_url=False, include_input=False)[:PROBLEMS_SHOWN]:
            where = ".".join(shown(str(part)) for part in (place, *one["loc"]) if part != "")
            lines.append(f"{where or 'the document'}: {one['msg'].removeprefix('Value error, ')}")
        more = error.error_count() - len(lines)
        reason = "\n  ".join([*lines, *([f"and {more} more"] if more > 0 else [])])
        raise CorralError(
            "invalid-document", asked, reason, "corral stack schema describes what can be said"
        ) from error


def volume_of(whole: StackDocument, name: str, volume: StackVolume, asked: str) -> CreateVolumeRequest:
    given = volume.model_dump(mode="json", exclude_unset=True, exclude_none=True)
    body = {DISK_WORDS.get(key, key): value for key, value in given.items()}
    labels = {STACK_LABEL: whole.stack}
    made: CreateVolumeRequest = validated(
        CreateVolumeRequest, {"name": name, "labels": labels, **body}, f"volumes.{name}", asked
    )
    return made


def network_of(whole: StackDocument, network: StackNetwork, asked: str) -> CreateNetworkRequest:
    given = network.model_dump(mode="json", exclude_unset=True, exclude_none=True)
    body = {**given, "labels": {STACK_LABEL: whole.stack}}
    made: CreateNetworkRequest = validated(CreateNetworkRequest, body, f"networks.{network.name}", asked)
    return made


def group_of(whole: StackDocument, name: str, group: StackSecurityGroup, asked: str) -> CreateSecurityGroupRequest:
    body = {**group.model_dump(mode="json"), "name": name, "labels": {STACK_LABEL: whole.stack}}
    made: CreateSecurityGroupRequest = validated(CreateSecurityGroupRequest, body, f"security_groups.{name}", asked)
    return made


def policy_of(whole: StackDocument, name: str, policy: StackNetworkPolicy, asked: str) -> CreateNetworkPolicyRequest:
    body = {**policy.model_dump(mode="json"), "name": name, "labels": {STACK_LABEL: whole.stack}}
    made: CreateNetworkPolicyRequest = validated(CreateNetworkPolicyRequest, body, f"network_policies.{name}", asked)
    return made


def balancer_of(whole: StackDocument, name: str, balancer: StackBalancer, asked: str) -> CreateBalancerRequest:
    """Before each instance of the VMs that it names."""
    place, targets = f"balancers.{name}", list[str]()
    for base in balancer.to:
        if base not in whole.vms:
            known = ", ".join(whole.vms)
            raise invalid(asked, place, f"the stack has no VM {base!r}", f"its VMs: {known}")
        targets += [instance for instance, _ in instances(base, whole.vms[base])]
    given = balancer.model_dump(mode="json", exclude_unset=True, exclude_none=True, exclude={"to"})
    body = {**given, "name": name, "targets": targets, "labels": {STACK_LABEL: whole.stack}}
    made: CreateBalancerRequest = validated(CreateBalancerRequest, body, place, asked)
    return made


def address_of(whole: StackDocument, name: str, address: StackAddress, asked: str) -> CreateAddressRequest:
    given = address.model_dump(mode="json", exclude_unset=True, exclude_none=True)
    body = {**given, "name": name, "labels": {STACK_LABEL: whole.stack}}
    made: CreateAddressRequest = validated(CreateAddressRequest, body, f"addresses.{name}", asked)
    return made


def shown(text: object) -> str:
    return plain_text(str(text), _TEXT_SHOWN)


def invalid(asked: str, place: str, reason: str, hint: str = "") -> CorralError:
    return CorralError("invalid-document", asked, f"{place or 'the document'}: {reason}", hint)
