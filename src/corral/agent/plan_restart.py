"""A reboot of a VM with changes that only a start brings: the guest powers off, and is started anew. Pure.

The operation's journal says how far it is: that the guest was asked, and that it was started since. So a daemon that dies
in between goes on, and a stop that was asked for is not taken for the guest's own.
"""

from dataclasses import replace
from typing import Final

from corral.agent.queue import Queue, cancelled
from corral.agent.steps import AskRestart, Restart
from corral.agent.view import Ending, Plan, View, Wait
from corral.hypervisor.base import StopCause
from corral.model.operation import Operation, OperationState, Problem, RebootVm
from corral.model.vm import Power, VmState

# By the guest, or nobody knows: libvirt forgets it with its own restart. Who pulled the plug meanwhile wants it off.
_AS_ASKED: Final = frozenset({StopCause.GUEST, StopCause.NONE, StopCause.UNKNOWN})


def is_restart(view: View, operation: Operation) -> bool:
    """This reboot has begun as a restart, or has to."""
    if not isinstance(operation.spec.intent, RebootVm):
        return False
    begun = {record.name for record in operation.status.steps}
    if AskRestart.NAME in begun:
        return True
    waits = view.active and view.domain is not None and bool(view.domain.pending)
    return not begun and waits and not view.vm.spec.adopted


def plan_start_again(view: View, queue: Queue, cause: StopCause) -> Plan | None:
    """The guest went down as it was asked to. None: that is not what has happened."""
    operation = queue.imperative[0] if queue.imperative else None
    if operation is None or view.active or view.domain is None or view.draining:
        return None
    if view.vm.spec.power is not Power.ON or view.vm.status.host_boot_id not in ("", view.boot_id):
        return None
    if AskRestart.NAME not in {record.name for record in operation.status.steps} or cause not in _AS_ASKED:
        return None
    return Plan((Restart(operation_uid=operation.uid),), again=True)


def plan_restart(  # noqa: PLR0911  (a decision table)
    view: View, operation: Operation, otherwise: Plan, late: Problem
) -> Plan:
    """What is next while all else is as wished. `late` is said of a guest that does not go down."""
    intent = operation.spec.intent
    assert isinstance(intent, RebootVm)
    steps = {record.name for record in operation.status.steps}
    asked, domain = view.known.asked, view.domain

    def ends(state: OperationState, problem: Problem | None = None) -> Plan:
        endings = (*otherwise.settle.endings, Ending(operation, state, problem))
        return replace(otherwise, settle=replace(otherwise.settle, endings=endings))

    if not view.active or domain is None:
        # Off by somebody's wish; where it is to run, whoever decides about that starts it.
        return ends(OperationState.SUPERSEDED) if view.vm.spec.power is Power.OFF else otherwise
    if Restart.NAME in steps or (AskRestart.NAME in steps and asked is None and not domain.pending):
        return ends(OperationState.SUCCEEDED)
    if cancelled(operation):
        return ends(OperationState.CANCELLED)
    by_agent = domain.agent_connected
    if asked is None and domain.state is VmState.PAUSED:
        return ends(OperationState.FAILED, late)  # a paused guest hears nothing
    if asked is None:
        return Plan((AskRestart("agent" if by_agent else "acpi", operation.uid),), again=True)
    end_s = asked.since_s + intent.deadline_s
    if view.now_s >= end_s:
        return ends(OperationState.FAILED, late)
    if by_agent and not asked.agent:
        return Plan((AskRestart("agent", operation.uid),), again=True)
    if view.now_s >= asked.next_s:
        return Plan((AskRestart("acpi", operation.uid),), again=True)
    return replace(otherwise, wait=Wait(min(asked.next_s, end_s), "waiting for the guest to power off"))
