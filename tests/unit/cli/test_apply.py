"""What `apply` does when somebody else was faster: it looks again, a few times, and ends with the first failure's status."""

from typing import Any

import click
import pytest

from corral.cli import apply
from corral.errors import CorralError

OPTIONS: dict[str, Any] = {"output": "table", "parallel": 2, "yes": True, "sources": ()}


class Daemon:
    """Refuses each action as it was told, once for each word in the list. Stands where the session and its client do."""

    def __init__(self, **refusals: list[str]) -> None:
        self.refusals = refusals
        self.asked: list[str] = []

    def another_client(self) -> "Daemon":
        return self

    def __enter__(self) -> "Daemon":
        return self

    def __exit__(self, *_error: object) -> None:
        pass

    def carry_out(self, action: dict[str, Any]) -> dict[str, Any]:
        self.asked.append(action["name"])
        if codes := self.refusals.get(action["name"]):
            raise CorralError(codes.pop(0), action["name"], "no")
        return {"uid": action["name"]}

    def wait_operation(self, uid: str, **_options: Any) -> dict[str, Any]:
        status = {"state": "succeeded", "error": None, "detail": ""}
        return {"uid": uid, "spec": {"intent": {"verb": "create"}, "target_name": uid}, "status": status}


def plan(*names: str) -> dict[str, Any]:
    actions = [
        {
            "id": name, "kind": "vm", "name": name, "verb": "create", "device": "", "method": "POST", "path": "/v1/vms",
            "query": {}, "body": {}, "operation": "", "key": name, "after": [], "waits": [], "changes": [],
        }
        for name in names
    ]  # fmt: skip
    return {"stack": "lab", "actions": actions, "unchanged": [], "blocked": [], "orphans": [], "warnings": []}


def carry_out(daemon: Daemon, first: dict[str, Any], *later: dict[str, Any]) -> None:
    session: Any = daemon
    plans = iter(later)
    apply._carry_out(session, first, lambda: next(plans), OPTIONS, 1.0)


def test_who_was_beaten_to_it_looks_again(capsys: pytest.CaptureFixture[str]) -> None:
    daemon = Daemon(a=["name-taken"], b=["stale-revision"])
    carry_out(daemon, plan("a", "b", "c"), plan("b"))
    assert sorted(daemon.asked) == ["a", "b", "b", "c"]
    assert capsys.readouterr().out.splitlines()[-1] == "stack lab: 2 done"


def test_a_quarrel_is_given_up(capsys: pytest.CaptureFixture[str]) -> None:
    daemon = Daemon(a=["name-taken"] * 9)
    with pytest.raises(click.exceptions.Exit) as ended:
        carry_out(daemon, plan("a"), *[plan("a")] * 9)
    assert ended.value.exit_code == 4
    assert len(daemon.asked) == apply.ROUNDS_MAX
    assert "stack lab: 1 failed" in capsys.readouterr().out


def test_other_failures_are_final_and_the_first_counts(capsys: pytest.CaptureFixture[str]) -> None:
    daemon = Daemon(b=["daemon-already-running"], c=["forbidden"])
    with pytest.raises(click.exceptions.Exit) as ended:
        carry_out(daemon, plan("a", "b", "c"))
    assert ended.value.exit_code == 4
    assert capsys.readouterr().out.splitlines()[-1] == "stack lab: 1 done, 2 failed"


def test_nothing_begins_while_something_is_in_the_way() -> None:
    block = {"name": "a", "changes": ["image: x → y"], "reason": "it cannot be changed in place", "hint": "--replace a"}
    with pytest.raises(CorralError) as refused:
        apply._check({**plan("b"), "blocked": [block]}, OPTIONS)
    assert refused.value.hint == "--replace a"
