"""What a change request makes of a VM: its particulars, its labels, and the knobs of its machine. Pure."""

from collections.abc import Mapping
from typing import Any, Final

from pydantic import ValidationError

from corral.errors import CorralError
from corral.model import limits
from corral.model.hardware import HardwareSpec
from corral.model.requests import UpdateVmRequest
from corral.model.snapshot_policy import SnapshotPolicy
from corral.model.vm import Vm

_PARTICULARS: Final = ("description", "protected", "run_policy", "boot")
_MACHINE: Final = ("vcpus", "memory_mib", "cpu_shares", "firmware", "graphics", "graphics_listen")
# What names things of the host: the administrator's to give away.
_HOST_THINGS: Final = ("kernel", "shares", "host_devices")


def changes_machine(request: UpdateVmRequest) -> bool:
    """It asks for other hardware, which the host must be able to give."""
    return request.hardware is not None or any(getattr(request, knob) is not None for knob in _MACHINE)


def takes_from_host(request: UpdateVmRequest) -> bool:
    """It asks for files or devices of the host's."""
    return any((request.hardware or {}).get(knob) for knob in _HOST_THINGS)


def updated(vm: Vm, request: UpdateVmRequest, new_name: str | None, asked: str) -> Vm:
    """The VM with what the request gives, validated."""
    given = {name: value for name in (*_PARTICULARS, *_MACHINE) if (value := getattr(request, name)) is not None}
    if request.snapshot_policy is not None:
        given["snapshot_policy"] = _policy(request.snapshot_policy, asked)
    if request.hardware is not None:
        given["hardware"] = _merged(vm.spec.hardware, request.hardware, asked)
    labels = dict(vm.labels if request.labels is None else request.labels) | request.add_labels
    labels = {key: value for key, value in labels.items() if key not in request.remove_labels}
    return vm.changed(name=new_name or vm.name, labels=labels, spec=vm.spec.model_copy(update=given))


def _policy(policy: SnapshotPolicy, asked: str) -> SnapshotPolicy | None:
    if policy.total > limits.POLICY_SNAPSHOTS_MAX:
        raise CorralError(
            "invalid-argument",
            asked,
            f"the policy would keep {policy.total} snapshots, each a layer of every disk",
            f"keep at most {limits.POLICY_SNAPSHOTS_MAX} together",
        )
    return policy if policy.total else None


def _merged(hardware: HardwareSpec, patch: Mapping[str, Any], asked: str) -> HardwareSpec:
    """RFC 7396: objects are merged, null takes a member out and its default comes back, all else is replaced."""
    document = _merge(hardware.model_dump(mode="json"), patch)
    try:
        return HardwareSpec.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise CorralError(
            "invalid-argument", asked, f"hardware.{where}: {first['msg']}", "corral set --help lists the knobs"
        ) from error


def _merge(document: Any, patch: Any) -> Any:
    if not isinstance(patch, Mapping):
        return patch
    merged = dict(document) if isinstance(document, Mapping) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = _merge(merged.get(key), value)
    return merged


def merge_patch(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """The patch that makes `after` of `before`."""
    patch: dict[str, Any] = {key: None for key in before if key not in after}
    for key, value in after.items():
        old = before.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            inner = merge_patch(old, value)
            patch.update({key: inner} if inner else {})
        elif value != old or key not in before:
            patch[key] = value
    return patch
