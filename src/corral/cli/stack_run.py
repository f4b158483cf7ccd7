"""Carrying a plan out: every action when those before it have succeeded, many at a time; one that fails stops only what
needs it."""

import functools
import queue
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from corral.cli.session import Session
from corral.errors import CorralError

if TYPE_CHECKING:
    from corral.client import Client

Action = dict[str, Any]
_T = TypeVar("_T")

# A daemon that restarts is back within seconds, and every request carries a key: asking again asks for the same.
PATIENCE_S: Final = 20.0
PAUSE_S: Final = 0.5
# Refusals that say: it is no longer as it was planned. Planning anew finds out what is left.
CHANGED: Final = frozenset(
    {
        "name-taken", "domain-name-taken", "vm-not-found", "device-not-found", "volume-not-found", "wrong-state",
        "vm-being-deleted", "stale-revision", "precondition-failed", "operation-superseded", "idempotency-key-reused",
        "operation-not-found", "network-not-found",
    }
)  # fmt: skip


class State(StrEnum):
    """How far an action is."""

    PLANNED = "planned"
    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass
class Progress:
    """One action on its way."""

    action: Action
    state: State = State.PLANNED
    detail: str = ""
    """What is being done, or waited for; of a skipped one, what it needed."""
    error: CorralError | None = None
    operation: str = ""


class View(Protocol):
    """Who looks at a run."""

    watches: bool
    """What operations are doing is followed."""
    interval_s: float

    def on_change(self, one: Progress) -> None:
        """It has ended, or will not begin."""

    def look(self) -> None:
        """Called every `interval_s`."""


@dataclass
class Run:
    """One plan being carried out. `parallel`: at most so many requests at a time; waiting for guests is not counted."""

    session: Session
    actions: Iterable[Action]
    parallel: int
    timeout_s: float
    progress: dict[str, Progress] = field(init=False)

    def __post_init__(self) -> None:
        self.progress = {action["id"]: Progress(action) for action in self.actions}
        self._slots = threading.Semaphore(self.parallel)
        self._ended: queue.SimpleQueue[Progress] = queue.SimpleQueue()
        self._under_way = 0
        self._watches = False

    def carry_out(self, view: View) -> list[Progress]:
        """Everything, to its end, under somebody's eyes. Ctrl-C leaves what was asked for going on."""
        self._watches = view.watches
        self._begin()
        while self._under_way:
            try:
                one = self._ended.get(timeout=view.interval_s)
            except queue.Empty:
                view.look()
                continue
            self._under_way -= 1
            if one.state is State.FAILED:
                self._skip(one.action["id"], one, view)
            view.on_change(one)
            self._begin()
            view.look()
        return list(self.progress.values())

    def _begin(self) -> None:
        for one in self.progress.values():
            before = [self.progress[known] for known in one.action["after"] if known in self.progress]
            if one.state is State.PLANNED and all(other.state is State.DONE for other in before):
                one.state = State.WAITING
                self._under_way += 1
                # A daemon thread: Ctrl-C ends the command at once, and the operations go on without us.
                threading.Thread(target=self._work, args=(one,), daemon=True).start()

    def _skip(self, identifier: str, failed: Progress, view: View) -> None:
        """Whatever needs it is not begun, nor what needs that."""
        for one in self.progress.values():
            if one.state is State.PLANNED and identifier in one.action["after"]:
                one.state = State.SKIPPED
                one.detail = f"{failed.action['verb']} of {failed.action['name']} failed"
                view.on_change(one)
                self._skip(one.action["id"], failed, view)

    def _work(self, one: Progress) -> None:
        try:
            with self.session.another_client() as client:
                self._wait(client, one)
                with self._slots:
                    one.state = State.RUNNING
                    self._ask(client, one)
            one.state, one.detail = State.DONE, ""
        except CorralError as error:
            one.state, one.error = State.FAILED, error
        except Exception as error:  # noqa: BLE001 -- top of the thread: its end must be known, or all wait for ever
            one.state, one.error = State.FAILED, CorralError("internal", one.action["id"], f"{error!r}")
        finally:
            self._ended.put(one)

    def _wait(self, client: "Client", one: Progress) -> None:
        deadline = time.monotonic() + self.timeout_s
        for wait in one.action["waits"]:
            one.detail = f"waits for {wait['vm']}: {wait['condition']}"
            patiently(functools.partial(self._until, client, wait, deadline))
        one.detail = ""

    @staticmethod
    def _until(client: "Client", wait: dict[str, str], deadline: float) -> None:
        client.wait_vm(wait["vm"], wait["condition"], max(0.1, deadline - time.monotonic()))

    def _ask(self, client: "Client", one: Progress) -> None:
        from corral.client import raise_for_operation

        action: Any = one.action
        if action["method"]:
            operation = patiently(lambda: client.carry_out(action))
            if operation is None:
                return
        else:
            operation = patiently(lambda: client.get_operation(action["operation"]))
        one.operation = operation["uid"]

        def see(operation: Any) -> None:
            one.detail = str(operation["status"].get("phase") or "")

        watched = see if self._watches else None
        raise_for_operation(client.wait_operation(operation["uid"], on_progress=watched))


def patiently(call: Callable[[], _T]) -> _T:
    """Ask again where a daemon is away for a moment, or says that it was asked too often."""
    gives_up_at = time.monotonic() + PATIENCE_S
    while True:
        try:
            return call()
        except CorralError as error:
            if error.code not in ("daemon-unreachable", "rate-limited") or time.monotonic() > gives_up_at:
                raise
        time.sleep(PAUSE_S)
