"""A change of the host's network on its way, on disk: what to put back, and how far it has come.

One directory. `state` is moved by renaming, so that of two who decide at once (somebody confirms, time runs out) one wins.
"""

import base64
import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from corral import files
from corral.host.bridging.plan import Command, FileChange, Manager, Plan

PLAN: Final = "plan.json"
RESULT: Final = "result.json"
LOG: Final = "log"
LOCK: Final = "lock"
PLAN_MAX_BYTES: Final = 8 * 2**20
_LOCK_LOOK_S: Final = 0.05
_MODE: Final = 0o600
_DIR_MODE: Final = 0o700


class State(StrEnum):
    """Where it is; the name of the marker file."""

    NONE = "none"
    APPLYING = "applying"
    PENDING = "pending"  # applied, and waits for confirmation
    CONFIRMED = "confirmed"
    ROLLING_BACK = "rolling-back"
    ROLLED_BACK = "rolled-back"


UNFINISHED: Final = frozenset({State.APPLYING, State.PENDING, State.ROLLING_BACK})


@dataclass(frozen=True)
class Result:
    """What people are told of it."""

    reason: str = ""
    deadline_at: float = 0.0
    """Seconds since the epoch; 0: none is set yet."""
    problems: tuple[str, ...] = ()


class Journal:
    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def begin(self, plan: Plan, confirm_within_s: float) -> None:
        """Durable before anything is changed. What an earlier change left is overwritten."""
        self.directory.mkdir(parents=True, exist_ok=True)
        self.directory.chmod(_DIR_MODE)
        for state in State:
            (self.directory / state.value).unlink(missing_ok=True)
        document = {"plan": _plan_document(plan), "confirm_within_s": confirm_within_s, "begun_at": time.time()}
        files.write_atomic(self.directory / PLAN, json.dumps(document).encode(), _MODE)
        self.tell(Result())
        files.write_atomic(self.directory / State.APPLYING.value, b"", _MODE)

    def state(self) -> State:
        return next((state for state in State if (self.directory / state.value).exists()), State.NONE)

    def move(self, before: State, after: State) -> bool:
        """False: it is not (any more) in the state `before`."""
        try:
            (self.directory / before.value).rename(self.directory / after.value)
        except FileNotFoundError:
            return False
        files.fsync_dir(self.directory)
        return True

    def plan(self) -> tuple[Plan, float]:
        """And within how many seconds it is to be confirmed."""
        document = json.loads(files.read_limited(self.directory / PLAN, PLAN_MAX_BYTES))
        return _read_plan(document["plan"]), float(document["confirm_within_s"])

    def tell(self, result: Result) -> None:
        document = {"reason": result.reason, "deadline_at": result.deadline_at, "problems": list(result.problems)}
        files.write_atomic(self.directory / RESULT, json.dumps(document).encode(), _MODE)

    def result(self) -> Result:
        try:
            found = json.loads(files.read_limited(self.directory / RESULT, PLAN_MAX_BYTES))
        except FileNotFoundError:
            return Result()
        return Result(found["reason"], float(found["deadline_at"]), tuple(found["problems"]))

    @contextmanager
    def held(self, patience_s: float = 0.0) -> Iterator[bool]:
        """By the process that carries it out; False: another one has it. The kernel lets go when that one dies."""
        self.directory.mkdir(parents=True, exist_ok=True)
        fd = os.open(self.directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _MODE)
        end_s = time.monotonic() + patience_s
        try:
            while not (mine := _locked(fd)) and time.monotonic() < end_s:
                time.sleep(_LOCK_LOOK_S)
            yield mine
        finally:
            os.close(fd)

    def deserted(self) -> bool:
        """It is not at its end, and nobody carries it out: its process, or the machine, died."""
        if self.state() not in UNFINISHED:
            return False
        with self.held() as mine:
            return mine and self.state() in UNFINISHED


def _locked(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _plan_document(plan: Plan) -> dict[str, Any]:
    return {
        "manager": plan.manager.value,
        "nic": plan.nic,
        "bridge": plan.bridge,
        "files": [
            {
                "path": file.path,
                "before": _packed(file.before),
                "after": _packed(file.after),
                "mode": file.mode,
                "own_directory": file.own_directory,
            }
            for file in plan.files
        ],
        "addresses": list(plan.addresses),
        "notes": list(plan.notes),
        **{
            phase: [{"argv": list(command.argv), "needed": command.needed} for command in getattr(plan, phase)]
            for phase in _PHASES
        },
    }


_PHASES: Final = ("before", "after", "undo_before", "undo_after", "undo_again")


def _read_plan(found: dict[str, Any]) -> Plan:
    phases = {
        phase: tuple(Command(tuple(each["argv"]), bool(each["needed"])) for each in found.get(phase, ()))
        for phase in _PHASES
    }
    changes = tuple(
        FileChange(
            file["path"],
            _unpacked(file["before"]),
            _unpacked(file["after"]),
            int(file["mode"]),
            bool(file.get("own_directory")),
        )
        for file in found["files"]
    )
    return Plan(
        Manager(found["manager"]),
        found["nic"],
        found["bridge"],
        changes,
        addresses=tuple(found.get("addresses", ())),
        notes=tuple(found["notes"]),
        **phases,
    )


def _packed(text: str | None) -> str | None:
    return None if text is None else base64.b64encode(text.encode(errors="surrogateescape")).decode()


def _unpacked(text: str | None) -> str | None:
    return None if text is None else base64.b64decode(text).decode(errors="surrogateescape")
