"""Waiting for operations: a bar for people who wait longer than half a second, lines with -v, silence otherwise."""

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

import click

from corral.cli.output import printable, show_document
from corral.cli.session import Failures, Session
from corral.errors import CorralError

if TYPE_CHECKING:
    from corral.client_types import Operation

# Shorter waits show nothing: a bar that flashes by tells nobody anything.
QUIET_FIRST_S: Final = 0.5


def finish(
    session: Session,
    names: Sequence[str],
    request: Callable[[str], "Operation"],
    *,
    output: str,
    done: str,
    asynchronous: bool,
) -> None:
    """Ask `request` for every name, then wait for all of the operations; one that fails does not stop the others.

    `done` is what people read afterwards, as in `web: started`. Ends the command with the first failure's status.
    """
    failures = Failures()
    accepted: list[tuple[str, Operation]] = []
    for name in names:
        try:
            accepted.append((name, request(name)))
        except CorralError as error:
            failures.add(error)
    ended: list[Operation] = []
    for name, operation in accepted:
        try:
            ended.append(operation if asynchronous else wait_for(session, operation))
        except CorralError as error:
            failures.add(error)
            continue
        if asynchronous:
            if output in ("table", "name"):
                click.echo(operation["uid"])
        elif output == "table":
            click.echo(f"{name}: {done}")
        elif output == "name":
            click.echo(name)
    if output in ("json", "yaml") and ended:
        show_document(ended[0] if len(names) == 1 else ended, output)
    failures.leave()


def wait_for(session: Session, operation: "Operation") -> "Operation":
    """The operation at its good end. Raises its own error otherwise. Ctrl-C leaves it going on and says its id."""
    try:
        final = _watch(session, operation)
    except KeyboardInterrupt:
        uid = operation["uid"]
        click.echo(
            f"\nThe operation goes on: {uid}\n  corral operation watch {uid}\n  corral operation cancel {uid}", err=True
        )
        raise
    from corral.client import raise_for_operation

    raise_for_operation(final)
    return final


def _watch(session: Session, operation: "Operation") -> "Operation":
    if is_final(operation):
        return operation
    if session.verbose and not sys.stderr.isatty():
        return session.client().wait_operation(operation["uid"], on_progress=_Lines(operation))
    if sys.stderr.isatty():
        operation = session.client().get_operation(operation["uid"], wait_s=QUIET_FIRST_S)
        if is_final(operation):
            return operation
        with _Bar(operation) as bar:
            return session.client().wait_operation(operation["uid"], on_progress=bar)
    return session.client().wait_operation(operation["uid"])


def is_final(operation: "Operation") -> bool:
    """It will not change any more."""
    return operation["status"]["state"] not in ("accepted", "running")


def describe(operation: "Operation") -> str:
    """`create web: making disk 40 %`, for people."""
    spec, status = operation["spec"], operation["status"]
    intent: Any = spec["intent"]
    text = f"{intent['verb']} {spec['target_name']}"
    if status.get("phase"):
        text += f": {status['phase']}"
    if status.get("detail"):
        text += f" ({status['detail']})"
    return printable(text)


class _Lines:
    """A line for each new phase, for logs."""

    def __init__(self, operation: "Operation") -> None:
        self._phase = ""
        self(operation)

    def __call__(self, operation: "Operation") -> None:
        phase = operation["status"].get("phase", "")
        if phase and phase != self._phase:
            click.echo(describe(operation), err=True)
        self._phase = phase


class _Bar:
    """A bar on standard error; it vanishes when the work is done."""

    def __init__(self, operation: "Operation") -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        self._progress: Progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._task = self._progress.add_task(describe(operation), total=None)

    def __enter__(self) -> "_Bar":
        self._progress.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._progress.stop()

    def __call__(self, operation: "Operation") -> None:
        part = operation["status"].get("progress")
        self._progress.update(
            self._task,
            description=describe(operation),
            total=None if part is None else 1.0,
            completed=part or 0.0,
        )
