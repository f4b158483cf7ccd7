"""Carrying plans out: order, bounds, what is skipped when something fails. The daemon is a table of answers."""

import threading
import time
from typing import Any

import pytest

from corral.cli.stack_run import Progress, Run, State
from corral.errors import CorralError


def action(name: str, *after: str, waits: tuple[tuple[str, str], ...] = (), **fields: Any) -> dict[str, Any]:
    return {
        "id": name, "kind": "vm", "name": name, "verb": "create", "device": "", "method": "POST", "path": "/v1/vms",
        "query": {}, "body": {}, "operation": "", "key": f"key-{name}", "after": list(after),
        "waits": [{"vm": vm, "condition": condition} for vm, condition in waits], "changes": [], **fields,
    }  # fmt: skip


class Daemon:
    """Remembers what it was asked, and refuses what it was told to. Stands where the session and its client do."""

    def __init__(self, *refused: str, slowly_s: float = 0.0) -> None:
        self.refused = refused
        self.slowly_s = slowly_s
        self.asked: list[str] = []
        self.most = self._now = 0
        self._lock = threading.Lock()

    def another_client(self) -> "Daemon":
        return self

    def __enter__(self) -> "Daemon":
        return self

    def __exit__(self, *_error: object) -> None:
        pass

    def carry_out(self, one: dict[str, Any]) -> dict[str, Any]:
        with self._lock:
            self.asked.append(one["id"])
            self._now += 1
            self.most = max(self.most, self._now)
        time.sleep(self.slowly_s)
        with self._lock:
            self._now -= 1
        if one["id"] in self.refused:
            raise CorralError("insufficient-memory", one["id"], "refused")
        return {"uid": one["id"]}

    def get_operation(self, uid: str) -> dict[str, Any]:
        return {"uid": uid}

    def wait_vm(self, vm: str, condition: str, _timeout_s: float) -> None:
        self.asked.append(f"{vm}:{condition}")
        if condition == "never":
            raise CorralError("wait-timeout", f"wait for {vm}", "late")

    def wait_operation(self, uid: str, *, on_progress: Any = None) -> dict[str, Any]:
        del on_progress
        state = {"state": "succeeded", "error": None, "detail": ""}
        return {"uid": uid, "spec": {"intent": {"verb": "create"}, "target_name": uid}, "status": state}


class Silent:
    watches = False
    interval_s = 0.05

    def __init__(self) -> None:
        self.seen: list[str] = []

    def on_change(self, one: Progress) -> None:
        self.seen.append(f"{one.action['id']} {one.state}")

    def look(self) -> None:
        pass


def carry_out(daemon: Daemon, actions: list[dict[str, Any]], parallel: int = 8) -> tuple[dict[str, State], Silent]:
    session: Any = daemon
    view = Silent()
    done = Run(session, actions, parallel, 1.0).carry_out(view)
    return {one.action["id"]: one.state for one in done}, view


def test_what_comes_before_is_done_before() -> None:
    daemon = Daemon()
    states, _ = carry_out(daemon, [action("c", "b"), action("b", "a", waits=(("a", "agent"),)), action("a")])
    assert set(states.values()) == {State.DONE}
    assert daemon.asked == ["a", "a:agent", "b", "c"]


def test_a_failure_skips_what_needs_it_and_nothing_else() -> None:
    daemon = Daemon("a")
    states, view = carry_out(daemon, [action("a"), action("b", "a"), action("c", "b"), action("d"), action("e", "d")])
    assert states == {"a": State.FAILED, "b": State.SKIPPED, "c": State.SKIPPED, "d": State.DONE, "e": State.DONE}
    assert sorted(view.seen) == ["a failed", "b skipped", "c skipped", "d done", "e done"]


def test_a_condition_that_is_never_met_is_a_failure() -> None:
    states, _ = carry_out(Daemon(), [action("a", waits=(("x", "never"),)), action("b")])
    assert states == {"a": State.FAILED, "b": State.DONE}


@pytest.mark.parametrize("parallel", [1, 3])
def test_no_more_than_wished_are_asked_at_a_time(parallel: int) -> None:
    daemon = Daemon(slowly_s=0.01)
    states, _ = carry_out(daemon, [action(f"vm{number}") for number in range(9)], parallel)
    assert len(states) == 9
    assert daemon.most <= parallel


def test_what_is_under_way_already_is_only_waited_for() -> None:
    daemon = Daemon()
    states, _ = carry_out(daemon, [action("a", method="", operation="u"), action("b", "a")])
    assert states == {"a": State.DONE, "b": State.DONE}
    assert daemon.asked == ["b"]


def test_an_error_nobody_thought_of_ends_its_action_and_not_the_run() -> None:
    class Broken(Daemon):
        def carry_out(self, one: dict[str, Any]) -> dict[str, Any]:
            raise LookupError(one["id"])

    states, _ = carry_out(Broken(), [action("a"), action("b", "a")])
    assert states == {"a": State.FAILED, "b": State.SKIPPED}
