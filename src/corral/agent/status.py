"""What is written about a VM after a look at it. Pure."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from corral.agent.view import ACTIVE, Settle, View
from corral.hypervisor.base import NO_SPACE
from corral.model.base import Condition, ConditionStatus, with_condition
from corral.model.operation import OperationState
from corral.model.vm import CloudInitStatus, Vm, VmState, VmStatus

CRASH_LOOP_RESTARTS: Final = 3
AWAY: Final = "hypervisor-unavailable"
IDENTITY_SHARED: Final = "IdentityShared"


@dataclass(frozen=True)
class GuestKnown:
    """What the guest itself, or the DHCP server, told since it started."""

    addresses: tuple[str, ...] = ()
    guest_os: str = ""
    cloud_init: CloudInitStatus | None = None
    cloud_init_detail: str = ""


@dataclass(frozen=True)
class HostKnown:
    """What goes into every VM's status about its host."""

    accelerator: Literal["kvm", "tcg", ""]
    qemu_version: str


def observed_status(view: View, settle: Settle, guest: GuestKnown, host: HostKnown, now: datetime) -> VmStatus:
    """The status after this look; the same object if nothing changed."""
    old = view.vm.status
    domain = view.domain
    state = domain.state if domain is not None else VmState.SHUT_OFF
    active = state in ACTIVE
    fresh = active and (old.seen_state not in ACTIVE or view.known.started)
    update: dict[str, object] = {
        "state": state,
        "last_state": None,
        "state_reason": domain.reason if domain is not None else "",
        "agent_connected": active and domain is not None and domain.agent_connected,
        "pending_restart": domain.pending if active and domain is not None and not view.vm.spec.adopted else (),
        "clock_behind": view.clock_behind,
        "has_saved_memory": domain is not None and domain.has_managed_save,
        "last_error_code": settle.refused.code if settle.refused else _failure(settle, old.last_error_code, 0),
        "last_error": settle.refused.reason if settle.refused else _failure(settle, old.last_error, 1),
    }
    if not settle.keep_boot_id:
        update["host_boot_id"] = view.boot_id
    if settle.restarts is not None:
        update["restarts"] = settle.restarts
    if settle.reached:
        update["observed_generation"] = view.vm.generation + (1 if settle.power is not None else 0)
    if fresh:
        update |= {"started_at": now, "accelerator": host.accelerator, "qemu_version": host.qemu_version}
    update |= _guest(view, guest, active, fresh)
    update["conditions"] = _conditions(view, settle, active, now)
    changed = {name: value for name, value in update.items() if getattr(old, name) != value}
    return old.model_copy(update=changed) if changed else old


def stands_still(vm: Vm) -> bool:
    """As it was seen last, its guest waits for space on a disk."""
    return vm.status.state is VmState.PAUSED and vm.status.state_reason == NO_SPACE


def _failure(settle: Settle, old: str, part: int) -> str:
    """The last failure is shown until the wish is reached."""
    for ending in settle.endings:
        if ending.state is OperationState.FAILED and ending.problem is not None:
            return (ending.problem.code, ending.problem.reason)[part]
    return "" if settle.reached else old


def _guest(view: View, guest: GuestKnown, active: bool, fresh: bool) -> dict[str, object]:
    """Addresses and cloud-init's word; what an earlier run of the guest said is no longer true."""
    old = view.vm.status
    known: dict[str, object] = {}
    if not active:
        known["addresses"] = ()
    elif guest.addresses or fresh:
        known["addresses"] = guest.addresses
    if guest.guest_os:
        known["guest_os"] = guest.guest_os
    if view.vm.spec.cloud_init is None:
        known["cloud_init"] = CloudInitStatus.NONE
    elif guest.cloud_init is not None:
        known |= {"cloud_init": guest.cloud_init, "cloud_init_detail": guest.cloud_init_detail}
    elif fresh and old.cloud_init is not CloudInitStatus.DONE:
        known["cloud_init"] = CloudInitStatus.UNKNOWN
    return known


def _conditions(view: View, settle: Settle, active: bool, now: datetime) -> tuple[Condition, ...]:
    old = {condition.type: condition for condition in view.vm.status.conditions}
    found = [_ready(view, settle, now)]
    if settle.drifted or "Drifted" in old:
        shown = f"its definition was changed outside of Corral: corral drift show {view.vm.name}"
        text = shown if settle.drifted else ""
        found.append(condition("Drifted", settle.drifted, "definition-changed" if text else "as-defined", text, now))
    if active and view.domain is not None:
        there = view.domain.agent_connected
        found.append(condition("GuestAgentConnected", there, "connected" if there else "not-connected", "", now))
    elif "GuestAgentConnected" in old:
        found.append(condition("GuestAgentConnected", False, "not-running", "", now))
    if view.out_of_space or "OutOfSpace" in old:
        full = view.out_of_space
        text = "its guest wrote to a disk that has no space; it goes on by itself once there is some" if full else ""
        found.append(condition("OutOfSpace", full, "no-space" if full else "has-space", text, now))
    if "Reachable" in old:
        found.append(condition("Reachable", True, "answers", "", now))
    restarts = view.vm.status.restarts if settle.restarts is None else settle.restarts
    degraded, reason = _degraded(view, restarts)
    if degraded or "Degraded" in old:
        found.append(condition("Degraded", degraded, reason, "", now))
    conditions = view.vm.status.conditions
    for new in found:
        known = old.get(new.type)
        if known is None or (known.status, known.reason, known.message) != (
            new.status,
            new.reason,
            new.message,
        ):
            conditions = with_condition(conditions, new)
    return conditions


def _degraded(view: View, restarts: int) -> tuple[bool, str]:
    if restarts >= CRASH_LOOP_RESTARTS:
        return True, "crash-loop"
    domain = view.domain
    if domain is not None and domain.state is VmState.PAUSED and domain.reason not in ("user", ""):
        return True, domain.reason.replace(" ", "-")
    return False, "as-wished"


def _ready(view: View, settle: Settle, now: datetime) -> Condition:
    if settle.refused is not None:
        return condition("Ready", False, settle.refused.code, settle.refused.reason, now)
    if settle.reached:
        return condition("Ready", True, "as-wished", "", now)
    return condition("Ready", False, "under-way", "", now)


def condition(kind: str, true: bool, reason: str, message: str, now: datetime) -> Condition:
    status = ConditionStatus.TRUE if true else ConditionStatus.FALSE
    return Condition.model_construct(type=kind, status=status, reason=reason, message=message, since=now)


def with_shared_identity(status: VmStatus, now: datetime) -> VmStatus:
    """A fork whose guest has its template's name, keys and ids, since no agent took its own."""
    if any(found.type == IDENTITY_SHARED for found in status.conditions):
        return status
    text = "its guest still has the host name, the keys and the ids of its template"
    shared = condition(IDENTITY_SHARED, True, "no-agent", text, now)
    return status.model_copy(update={"conditions": with_condition(status.conditions, shared)})


def unreachable(status: VmStatus, code: str, reason: str, now: datetime) -> VmStatus:
    """The hypervisor did not answer for this VM; what was seen last stays, and is no longer said to be so where the
    hypervisor is away altogether."""
    away = condition("Reachable", False, code, reason, now)
    update: dict[str, object] = {
        "conditions": with_condition(status.conditions, away),
        "last_error_code": code,
        "last_error": reason,
    }
    if code == AWAY and status.state is not VmState.PENDING:
        update |= {"state": VmState.UNKNOWN, "last_state": status.seen_state}
    return status.model_copy(update=update)
