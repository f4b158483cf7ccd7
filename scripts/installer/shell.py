"""Commands of the installer: run with their output in a log, as root where they must be, and refused in plain words."""

import contextlib
import json
import os
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

TAIL_LINES = 15


@dataclass(eq=False)
class Refused(Exception):  # noqa: N818 -- it is a refusal, as in `except Refused`
    """The installer cannot go on: what it wanted, what is in the way, what to do."""

    what: str
    why: str
    hint: str = ""

    def __str__(self) -> str:
        return f"{self.what}: {self.why}" + (f"\n  {self.hint}" if self.hint else "")


@dataclass(frozen=True)
class Result:
    """How a command ended; `output` holds standard output alone, `tail` the last lines of both."""

    status: int
    output: str
    tail: str = ""

    @property
    def ok(self) -> bool:
        return self.status == 0


@dataclass
class Shell:
    """Runs commands. `as_root` puts sudo in front for callers who are not root."""

    log: Path
    environment: dict[str, str] = field(default_factory=dict)

    def as_root(self, argv: Sequence[str]) -> list[str]:
        if os.geteuid() == 0:
            return list(argv)
        kept = [f"{name}={value}" for name, value in self.environment.items()]
        return ["sudo", *kept, *argv]

    def ask(self, argv: Sequence[str], timeout_s: float = 30.0, stdin: str = "") -> Result:
        """Run a short command for its answer; a missing program is status 127, a late one 124."""
        try:
            done = subprocess.run(
                argv, capture_output=True, text=True, errors="replace", timeout=timeout_s, input=stdin,
                env={**os.environ, **self.environment}, check=False,
            )  # fmt: skip
        except FileNotFoundError:
            return Result(127, "", f"{argv[0]} is not installed")
        except subprocess.TimeoutExpired:
            return Result(124, "", f"{shlex.join(argv)} did not answer within {timeout_s:g} s")
        return Result(done.returncode, done.stdout, "\n".join((done.stdout + done.stderr).splitlines()[-TAIL_LINES:]))

    def write_as_root(self, path: Path, content: str, mode: int = 0o644) -> None:
        """Replace a file of the system's, whole or not at all, making its directory."""
        beside = path.with_name(f".{path.name}.new")
        written = self.ask(self.as_root(["install", "-D", "-m", f"{mode:o}", "/dev/stdin", str(beside)]), stdin=content)
        moved = self.ask(self.as_root(["mv", "-f", str(beside), str(path)])) if written.ok else written
        if not moved.ok:
            raise Refused(f"write {path}", moved.tail)

    def work(self, argv: Sequence[str], say: Callable[[str], None], cwd: Path | None = None) -> Result:
        """Run a long command: every line goes to the log, and to `say` while it lasts."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        tail: list[str] = []
        with self.log.open("a") as log:
            log.write(f"\n$ {shlex.join(argv)}\n")
            with _started(argv, {**os.environ, **self.environment}, cwd) as process:
                assert process.stdout is not None
                for line in process.stdout:
                    log.write(line)
                    log.flush()
                    tail = [*tail[1 - TAIL_LINES :], line.rstrip()]
                    say(line.strip())
                status = process.wait()
        return Result(status, "\n".join(tail), "\n".join(tail))

    def must(self, what: str, argv: Sequence[str], say: Callable[[str], None], cwd: Path | None = None) -> Result:
        """`work` that refuses to go on after a bad end."""
        result = self.work(argv, say, cwd)
        if not result.ok:
            raise Refused(
                what,
                f"`{shlex.join(argv)}` ended with status {result.status}:\n{result.tail}",
                f"all of its output: {self.log}",
            )
        return result


@contextlib.contextmanager
def _started(argv: Sequence[str], environment: dict[str, str], cwd: Path | None) -> Iterator["subprocess.Popen[str]"]:
    try:
        process = subprocess.Popen(
            argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True,
            errors="replace", env=environment, cwd=cwd,
        )  # fmt: skip
    except FileNotFoundError as error:
        raise Refused(f"run {argv[0]}", "it is not installed", "") from error
    try:
        with process:
            yield process
    except BaseException:
        process.terminate()
        process.wait()
        raise


def until(question: Callable[[], bool], timeout_s: float, interval_s: float = 0.2) -> bool:
    """Ask until the answer is yes, for at most `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while not question():
        if time.monotonic() > deadline:
            return False
        time.sleep(interval_s)
    return True


def parsed(result: Result) -> object:
    """The JSON that a command printed; None when it is not JSON."""
    try:
        return json.loads(result.output)
    except json.JSONDecodeError:
        return None
