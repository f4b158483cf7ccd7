"""What follows when a step fails: look again, wait, or give up and say so. Pure."""

import random
from dataclasses import replace
from enum import StrEnum
from typing import Final

from corral.agent.plan_disks import is_past_return
from corral.agent.plan_power import restored_power
from corral.agent.plan_snapshot import begun_heads, first_in_time
from corral.agent.planner import plan_undo
from corral.agent.queue import Queue, cancelled, superseded_endings
from corral.agent.view import Ending, Plan, Settle, View, reached
from corral.errors import CorralError
from corral.model.operation import DeleteSnapshot, Operation, OperationState, Problem

BACKOFF_FIRST_S: Final = 1.0
BACKOFF_MAX_S: Final = 60.0
ATTEMPTS_MAX: Final = 4
"""Tries of a step whose failure may pass by itself, but not surely: about seven seconds in all."""

WAITED_FOR: Final = frozenset(
    {"hypervisor-unavailable", "hypervisor-timeout", "store-unavailable", "firewall-unavailable"}
)
_TRIED_AGAIN: Final = frozenset(
    {
        "disk-full",
        "command-timeout",
        "wrong-state",
        "domain-not-found",
        "network-not-found",
        "volume-not-found",
        "image-not-found",
        "guest-agent-unavailable",
        "guest-agent-timeout",
        "guest-agent-error",
        "precondition-failed",
    }
)


class Verdict(StrEnum):
    RETRY = "retry"
    GIVE_UP = "give-up"


def judge(error: CorralError, attempts: int, *, removing: bool, inherited: bool = False) -> Verdict:
    """`attempts` counts this failure, and no waiting for the hypervisor or the store. A removal is never given up: half
    removed helps nobody. `inherited`: a former daemon had begun it, and may have left libvirt with something half done that is
    in the way for a moment."""
    if removing or error.code in WAITED_FOR:
        return Verdict.RETRY
    passing = error.code in _TRIED_AGAIN or (inherited and error.code == "hypervisor-error")
    if passing and attempts < ATTEMPTS_MAX:
        return Verdict.RETRY
    return Verdict.GIVE_UP


def backoff_s(attempts: int, jitter: float | None = None) -> float:
    """Seconds before the next try: doubled from `BACKOFF_FIRST_S`, bounded, spread by up to a quarter."""
    share = random.random() if jitter is None else jitter  # noqa: S311  (spreads load, guards nothing)
    return min(BACKOFF_FIRST_S * 2.0 ** min(attempts - 1, 16), BACKOFF_MAX_S) * (1.0 - share / 4)


def is_removing(view: View, queue: Queue) -> bool:
    create = queue.create
    undoing = create is not None and (create.status.error is not None or cancelled(create))
    moved = bool(queue.disks) and is_past_return(view, queue.disks[0])
    return view.vm.being_deleted or undoing or moved or is_taken_back(view, queue)


def is_taken_back(view: View, queue: Queue) -> bool:
    """An operation on a point in time that had begun is being undone; or one is being forgotten, of which a part may be
    gone already."""
    first = first_in_time(queue)
    if first is not None and isinstance(first.spec.intent, DeleteSnapshot):
        return True
    begun = next((o for o in queue.imperative if begun_heads(view, o)), None)
    return begun is not None and (begun.status.error is not None or cancelled(begun))


def owner(queue: Queue) -> Operation | None:
    """The operation on whose behalf steps run: whose phase and journal they are."""
    for candidate in (queue.delete, queue.create, queue.power):
        if candidate is not None:
            return candidate
    if queue.document:
        return queue.document[0]
    return next(iter((*queue.imperative, *queue.disks)), None)


def plan_cancelled(view: View, queue: Queue, *, untouched: bool) -> Plan | None:
    """How cancelled operations end while what they need is away; None: there is none that may end unseen.

    A deletion must be finished and a create undone, unless it is `untouched`: nothing was made for it yet. What is done
    once may have been done already."""
    if queue.create is not None and cancelled(queue.create) and untouched:
        return Plan(settle=plan_undo(view, queue, queue.create).settle)
    found = [operation for operation in (queue.power, *queue.document, *queue.imperative) if operation is not None]
    # What has begun on a point in time is taken back first, as a create is.
    endable = [o for o in found if o is queue.power or (not o.status.steps and not begun_heads(view, o))]
    ended = [o for o in endable if cancelled(o)]
    if queue.create is not None or not ended:
        return None
    power = restored_power(view, queue.power) if queue.power is not None and queue.power in ended else None
    endings = tuple(Ending(operation, OperationState.CANCELLED) for operation in ended)
    return Plan(settle=Settle(endings=endings, power=power, source="agent" if power is not None else ""))


def plan_failure(view: View, queue: Queue, problem: Problem) -> Plan | None:
    """How the operations end that can not go on. None: a create, which must be undone before it ends."""
    if queue.create is not None:
        return None
    waiting = (*queue.declarative, *(o for o in queue.imperative if not begun_heads(view, o)))
    endings = (
        *superseded_endings(queue),
        *(Ending(operation, OperationState.FAILED, problem) for operation in waiting),
    )
    power = restored_power(view, queue.power) if queue.power is not None else None
    settle = Settle(endings=endings, power=power, source="agent" if power is not None else "", refused=problem)
    # What was asked of the document has failed; that its power is as wished stays true, and what happens next is news.
    return Plan(settle=replace(settle, reached=queue.power is None and reached(view)))
