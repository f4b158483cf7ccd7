"""The part of the plan that is about power: what was wished, what happened by itself, and what was asked once. Pure."""

from dataclasses import dataclass, replace
from typing import Final

from corral.agent.plan_restart import is_restart, plan_restart, plan_start_again
from corral.agent.plan_snapshot import begin_take
from corral.agent.queue import Queue, cancelled, superseded_endings
from corral.agent.steps import AskShutdown, Destroy, Reboot, Reset, Resume, Save, Start, Step, Suspend
from corral.agent.view import ACTIVE, ASK_AGAIN_MAX_S, Ending, Plan, Settle, View, Wait, reached
from corral.hypervisor.base import StopCause
from corral.model import limits
from corral.model.operation import (
    AdoptVm,
    DestroyVm,
    Operation,
    OperationState,
    Problem,
    RebootVm,
    ResetVm,
    ResumeVm,
    SaveVm,
    ShutdownVm,
    SnapshotVm,
    StartVm,
    StepKind,
)
from corral.model.power import Stopped, Then, decide
from corral.model.vm import Power, VmState

BY_VIRSH: Final = "external:virsh"
BY_GUEST: Final = "external:guest"
_CAUSES: Final = {
    StopCause.GUEST: Stopped.BY_GUEST,
    StopCause.DESTROYED: Stopped.BY_VIRSH,
    StopCause.FAILED: Stopped.QEMU_KILLED,
    StopCause.CRASHED: Stopped.QEMU_KILLED,
}
_USER_PAUSE: Final = frozenset({"user", ""})


def plan_news(view: View, queue: Queue) -> Plan | None:
    """What happened to the domain by itself is decided, and on record, before its document is made or made anew: that
    may fail for as long as it likes, and afterwards nobody could tell any more. None: there is no news."""
    if queue.create is not None or _driving(view, queue):
        return None
    found = _happened(view, queue)
    told = found.settle.power is not None or found.settle.restarts is not None
    return replace(found, settle=replace(found.settle, more=True)) if told and not found.steps else None


def plan_power(view: View, queue: Queue, existence: tuple[Step, ...], *, drifted: bool) -> Plan:
    """Power and the operations that wait, once `existence` is taken care of."""
    created: tuple[Ending, ...] = ()
    if queue.create is not None and queue.power is not None and view.domain is not None and not existence:
        # Made; power is the newer request's matter.
        created, queue = (Ending(queue.create, OperationState.SUCCEEDED),), replace(queue, create=None)
    found = _wished(view, queue) if _driving(view, queue) else _happened(view, queue)
    if existence or found.steps:
        return Plan((*existence, *found.steps), again=True)
    endings = (
        *superseded_endings(queue),
        *created,
        *found.settle.endings,
        *(Ending(operation, OperationState.SUCCEEDED) for operation in queue.document),
    )
    settled = replace(found, settle=replace(found.settle, drifted=drifted, endings=endings))
    if not queue.imperative or not settled.settle.reached or settled.settle.power is not None:
        return settled
    if endings:  # first on record: what is done once stands in its own operation's journal
        return replace(settled, settle=replace(settled.settle, more=True))
    return _imperative(view, queue.imperative[0], settled)


def _driving(view: View, queue: Queue) -> bool:
    """Somebody wishes something new; otherwise what differs from the record has happened by itself."""
    if queue.power is not None or queue.create is not None:
        return True
    return view.vm.generation != view.vm.status.observed_generation and not queue.document


def _start(queue: Queue) -> Start:
    """As whoever asked for it wants it to boot."""
    intent = queue.power.spec.intent if queue.power is not None else None
    return Start(boot_from=intent.boot_from if isinstance(intent, StartVm) else "")


# ---- what was wished -----------------------------------------------------------------------------------------------


def _wished(view: View, queue: Queue) -> Plan:  # noqa: PLR0911  (a decision table)
    operation = queue.power
    if operation is not None and cancelled(operation) and not reached(view):
        return _taken_back(view, Ending(operation, OperationState.CANCELLED))
    if reached(view) and view.domain is not None:
        done = tuple(Ending(o, OperationState.SUCCEEDED) for o in (queue.create, queue.power) if o is not None)
        return Plan(settle=Settle(endings=done, reached=True, restarts=0))
    if view.known.started and not view.active and view.vm.spec.power is not Power.OFF:
        # It was started, and has stopped since: the request is fulfilled, the stop is the truth table's.
        done = tuple(Ending(o, OperationState.SUCCEEDED) for o in (queue.create, queue.power) if o is not None)
        return Plan(settle=Settle(endings=done, reached=True, keep_started=True), again=False)
    match view.vm.spec.power:
        case Power.ON if view.out_of_space and not _may_resume(view, operation):
            return _stands_still(view, queue)
        case Power.ON:
            return Plan((Resume(),) if view.active else (_start(queue),))
        case Power.PAUSED:
            return Plan((Suspend(),) if view.active else (_start(queue), Suspend()))
        case Power.OFF if not view.active:
            return Plan()  # the domain is yet to be made
        case Power.OFF:
            return _off(view, queue)


def _may_resume(view: View, operation: Operation | None) -> bool:
    """Once for whoever asks for it: a guest that stands still again at once has still no space."""
    asked = operation is not None and isinstance(operation.spec.intent, ResumeVm)
    return view.known.room or (asked and operation is not None and view.known.resumed_for != operation.uid)


def _stands_still(view: View, queue: Queue) -> Plan:
    """It goes on when there is space; whoever wanted it to go on now is told, who wanted it to start has got that."""
    reason = "its guest writes to a disk that has no space"
    hint = "free space in its pool (corral pool list): it then goes on by itself"
    problem = Problem(code="disk-full", asked=f"resume {view.vm.name}", reason=reason, hint=hint)
    found = [operation for operation in (queue.create, queue.power) if operation is not None]
    endings = tuple(
        Ending(operation, OperationState.FAILED, problem)
        if isinstance(operation.spec.intent, ResumeVm)
        else Ending(operation, OperationState.SUCCEEDED)
        for operation in found
    )
    return Plan(settle=Settle(endings=endings, reached=True, restarts=0))


def _off(view: View, queue: Queue) -> Plan:
    operation = queue.power
    intent = operation.spec.intent if operation is not None else None
    if isinstance(intent, DestroyVm):
        return Plan((Destroy(),))
    if isinstance(intent, SaveVm):
        return Plan((Save(),))
    return _graceful(view, operation, intent if isinstance(intent, ShutdownVm) else None)


def _graceful(view: View, operation: Operation | None, intent: ShutdownVm | None) -> Plan:  # noqa: PLR0911  (a decision table)
    """Ask the guest, ask again, and when it is late do what the request said."""
    assert view.domain is not None
    if view.domain.state is VmState.PAUSED and (view.known.room or not view.out_of_space):
        return Plan((Resume(),))  # a paused guest hears nothing
    uid = operation.uid if operation is not None else ""
    asked = view.known.asked
    if asked is None or asked.operation_uid != uid:
        return Plan((AskShutdown("agent" if view.domain.agent_connected else "acpi"),))
    deadline_s = intent.deadline_s if intent is not None else view.vm.spec.boot.shutdown_deadline_s
    force_s = intent.force_after_s if intent is not None else None
    if force_s is not None and view.now_s >= asked.since_s + force_s:
        return Plan((Destroy(),))
    if force_s is None and view.now_s >= asked.since_s + deadline_s:
        if operation is None:
            return Plan(wait=Wait(view.now_s + ASK_AGAIN_MAX_S, "the guest did not power off"))
        return _taken_back(view, Ending(operation, OperationState.FAILED, _late(view, "power off", deadline_s)))
    if view.domain.agent_connected and not asked.agent:
        return Plan((AskShutdown("agent"),))
    if view.now_s >= asked.next_s:
        return Plan((AskShutdown("acpi"),))
    end_s = asked.since_s + (force_s if force_s is not None else deadline_s)
    return Plan(wait=Wait(min(asked.next_s, end_s), "waiting for the guest to power off"))


def _late(view: View, verb: str, deadline_s: float) -> Problem:
    return Problem(
        code="shutdown-timeout",
        asked=f"{verb} {view.vm.name}",
        reason=f"the guest did not {verb} within {deadline_s:g} s",
        hint=f"`corral destroy {view.vm.name}` pulls the plug; `--force-after 60s` does so when the guest is late",
    )


def _taken_back(view: View, ending: Ending) -> Plan:
    """The operation ends without its effect; the wish becomes what it was, if nobody has wished since."""
    return Plan(settle=Settle(endings=(ending,), power=restored_power(view, ending.operation), source="agent"))


def restored_power(view: View, operation: Operation) -> Power | None:
    """What `power` was before `operation`, while the spec is still the one that it wrote."""
    spec = operation.spec
    if not spec.previous_power or spec.tracks_generation != view.vm.generation:
        return None
    previous = Power(spec.previous_power)
    return previous if previous is not view.vm.spec.power else None


# ---- what happened by itself ---------------------------------------------------------------------------------------


def _happened(view: View, queue: Queue) -> Plan:  # noqa: PLR0911  (a decision table)
    if not view.active:
        if view.vm.spec.power is not Power.OFF and any(isinstance(o.spec.intent, AdoptVm) for o in queue.document):
            return _adopted(view, Power.OFF, "was off when it was adopted")
        if (again := plan_start_again(view, queue, _seen_cause(view))) is not None:
            return again
        return _stopped(view) if view.vm.spec.power is not Power.OFF else Plan(settle=Settle(reached=True))
    assert view.domain is not None
    paused = view.domain.state is VmState.PAUSED
    before = view.vm.status.seen_state
    was_active = before in ACTIVE or view.known.started
    match view.vm.spec.power:
        case Power.OFF if was_active:
            return _graceful(view, None, None)
        case Power.OFF:
            # libvirt starts a guest paused, for another reason, before it lets it run.
            by_user = paused and view.domain.reason in _USER_PAUSE
            return _adopted(view, Power.PAUSED if by_user else Power.ON, "was started outside of Corral")
        case Power.ON if paused and before is VmState.RUNNING and view.domain.reason in _USER_PAUSE:
            return _adopted(view, Power.PAUSED, "was paused outside of Corral")
        case Power.ON if view.out_of_space and view.known.room:
            return Plan((Resume(),))
        case Power.PAUSED if not paused and before is VmState.PAUSED:
            return _adopted(view, Power.ON, "was resumed outside of Corral")
        case Power.PAUSED if not paused:
            return Plan((Suspend(),))
    return Plan(settle=Settle(reached=True))


def _adopted(view: View, power: Power, what: str) -> Plan:
    settle = Settle(
        power=power, source=BY_VIRSH, reason="ExternalChange", message=f"{view.vm.name} {what}", reached=True
    )
    return Plan(settle=settle)


@dataclass(frozen=True)
class _Stop:
    """A stop that nobody asked for, in the words of the truth table; `saved` stands outside of it."""

    cause: Stopped
    saved: bool
    new: bool
    """Not yet on record."""


def _stop(view: View) -> _Stop:
    vm = view.vm
    status = vm.status
    rebooted = bool(status.host_boot_id) and status.host_boot_id != view.boot_id
    seen = _seen_cause(view)
    new = status.seen_state in ACTIVE or status.seen_state is VmState.UNKNOWN or view.known.started
    if rebooted and not view.known.started:
        return _Stop(Stopped.HOST_REBOOTED, False, True)
    unseen = Stopped.UNKNOWN if view.domain is not None else Stopped.GONE
    return _Stop(_CAUSES.get(seen, unseen), seen is StopCause.SAVED, new)


def _seen_cause(view: View) -> StopCause:
    """Why the domain stopped, by what is seen of it now or was heard when it did."""
    seen = view.domain.stop_cause if view.domain is not None else StopCause.NONE
    return view.known.stop_cause if seen in (StopCause.NONE, StopCause.UNKNOWN) else seen


def _stopped(view: View) -> Plan:  # noqa: PLR0911  (a decision table)
    """It should run and does not."""
    vm = view.vm
    if view.draining:
        return Plan(settle=Settle(reached=True))
    stop = _stop(view)
    if not stop.new:
        return _start_when_due(view)
    if stop.saved:
        return _adopted(view, Power.OFF, "was saved outside of Corral")
    then = decide(vm.spec.run_policy, vm.spec.boot.autostart, stop.cause)
    if then is Then.STAY_OFF:
        guest = stop.cause is Stopped.BY_GUEST
        return Plan(
            settle=Settle(
                power=Power.OFF,
                source=BY_VIRSH if stop.cause is Stopped.BY_VIRSH else BY_GUEST if guest else f"external:{stop.cause}",
                reason="GuestPoweredOff" if guest else "ExternalChange",
                message=f"{vm.name} stopped ({stop.cause}) and stays off",
                reached=True,
            )
        )
    if then is Then.BOOT:
        if view.known.queued_for_boot:
            return Plan(settle=Settle(keep_boot_id=True))
        return Plan((Start(),))
    restarts = 1 if view.ran_long else vm.status.restarts + 1
    return Plan(
        settle=Settle(
            restarts=restarts,
            reason="VmRestarted",
            message=f"{vm.name} stopped ({stop.cause}); it is started again in {backoff_s(restarts):g} s",
        ),
        wait=Wait(view.now_s + backoff_s(restarts), "waiting before the restart"),
    )


def backoff_s(restarts: int) -> float:
    """Seconds before the n-th restart in a row (from 1): doubled each time, bounded."""
    return float(min(limits.RESTART_BACKOFF_FIRST_S * 2 ** min(restarts - 1, 20), limits.RESTART_BACKOFF_MAX_S))


def _start_when_due(view: View) -> Plan:
    if view.known.queued_for_boot:
        return Plan()
    if view.now_s < view.known.restart_at_s:
        return Plan(wait=Wait(view.known.restart_at_s, "waiting before the restart"))
    return Plan((Start(),))


# ---- what is asked once --------------------------------------------------------------------------------------------


def _imperative(view: View, operation: Operation, otherwise: Plan) -> Plan:  # noqa: PLR0911  (a decision table)
    """The oldest imperative operation, when all that is wished is reached. Its step runs at most once, ever."""
    intent = operation.spec.intent
    settle = otherwise.settle
    if isinstance(intent, SnapshotVm):
        return begin_take(view, operation, otherwise)
    if isinstance(intent, RebootVm) and is_restart(view, operation):
        return plan_restart(view, operation, otherwise, _late(view, "power off", intent.deadline_s))

    def ends(state: OperationState, problem: Problem | None = None) -> Plan:
        return replace(otherwise, settle=replace(settle, endings=(*settle.endings, Ending(operation, state, problem))))

    done = operation.uid in view.known.once_done
    begun = any(record.kind is StepKind.ONCE for record in operation.status.steps)
    if begun and not done:
        return ends(OperationState.INTERRUPTED)
    if done and (isinstance(intent, ResetVm) or view.known.rebooted):
        return ends(OperationState.SUCCEEDED)
    if cancelled(operation):
        return ends(OperationState.CANCELLED)
    if not view.active:
        if done:
            return ends(OperationState.SUPERSEDED)
        asked = f"{intent.verb} {view.vm.name}"
        return ends(OperationState.FAILED, Problem(code="wrong-state", asked=asked, reason="it does not run"))
    if isinstance(intent, ResetVm):
        return Plan((Reset(operation.uid),), again=True)
    assert isinstance(intent, RebootVm)
    if not done:
        assert view.domain is not None
        return Plan((Reboot(operation.uid, "agent" if view.domain.agent_connected else "acpi"),), again=True)
    end_s = view.known.reboot_asked_s + intent.deadline_s
    if view.now_s >= end_s:
        return ends(OperationState.FAILED, _late(view, "reboot", intent.deadline_s))
    return replace(otherwise, wait=Wait(end_s, "waiting for the guest to reboot"))
