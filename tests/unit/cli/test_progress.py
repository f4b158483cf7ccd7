"""Waiting for operations: several at once, failures that do not stop the others, Ctrl-C that leaves the work alone."""

from typing import Any

import click
import pytest

from corral.cli.progress import describe, finish, wait_for
from corral.cli.session import Session
from corral.errors import CorralError


def operation(name: str, state: str = "running", error: dict[str, Any] | None = None) -> Any:
    return {
        "uid": f"uid-of-{name}",
        "name": f"uid-of-{name}",
        "spec": {"intent": {"verb": "start"}, "target_name": name},
        "status": {"state": state, "phase": "making disk", "detail": "", "error": error, "progress": 0.4},
    }


class Daemon:
    """Answers in the place of the client: what each operation becomes."""

    def __init__(self, ends: dict[str, Any]) -> None:
        self._ends = ends

    def wait_operation(self, uid: str, **_options: Any) -> Any:
        end = self._ends[uid]
        if isinstance(end, BaseException):
            raise end
        return end

    def close(self) -> None:
        """Nothing is open."""


def session(**ends: Any) -> Session:
    made = Session()
    made._clients.append(Daemon({f"uid-of-{name}": end for name, end in ends.items()}))  # type: ignore[arg-type]
    return made


def test_all_are_asked_before_any_is_waited_for_and_the_first_failure_counts(
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked = []
    problem = {"code": "name-taken", "asked": "start b", "reason": "no", "hint": ""}
    running = session(a=operation("a", "succeeded"), b=operation("b", "failed", problem), c=operation("c", "succeeded"))

    def request(name: str) -> Any:
        asked.append(name)
        if name == "nobody":
            raise CorralError("vm-not-found", "start nobody", "there is none")
        return operation(name)

    with pytest.raises(click.exceptions.Exit) as ended:
        finish(running, ("a", "nobody", "b", "c"), request, output="table", done="started", asynchronous=False)
    assert ended.value.exit_code == 3
    assert asked == ["a", "nobody", "b", "c"]
    said = capsys.readouterr()
    assert said.out == "a: started\nc: started\n"
    assert "[vm-not-found]" in said.err
    assert "[name-taken]" in said.err


def test_control_c_says_the_operations_id(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyboardInterrupt):
        wait_for(session(a=KeyboardInterrupt()), operation("a"))
    assert "goes on: uid-of-a" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("state", "code"), [("cancelled", "operation-cancelled"), ("superseded", "operation-superseded")]
)
def test_an_end_without_an_error_has_its_own_code(state: str, code: str) -> None:
    with pytest.raises(CorralError) as caught:
        wait_for(session(a=operation("a", state)), operation("a"))
    assert caught.value.code == code
    assert caught.value.exit_status == 4


def test_a_finished_operation_is_not_waited_for() -> None:
    assert wait_for(session(), operation("a", "succeeded"))["status"]["state"] == "succeeded"


def test_people_read_verb_target_and_phase() -> None:
    assert describe(operation("web")) == "start web: making disk"
