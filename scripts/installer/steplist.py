"""A live list of steps with times: redrawn in place on a terminal, plain lines elsewhere."""

import shutil
import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import TextIO

TICK_S = 0.2
FRAMES = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
CLEAR_LINE = "\r\033[2K"


class Steps:
    """Runs named steps one after the other and shows how each goes and how long it took."""

    def __init__(self, count: int, stream: TextIO = sys.stdout) -> None:
        self._count = count
        self._done = 0
        self._stream = stream
        self._live = stream.isatty()
        self._began = time.monotonic()

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self._began

    def run(self, title: str, action: "Callable[[Callable[[str], None]], str]") -> None:
        """`action` gets a function that shows what is being done now, and returns what came of it."""
        self._done += 1
        label = f"[{self._done}/{self._count}] {title}"
        began = time.monotonic()
        with _Line(label, self._stream, self._live) as line:
            outcome = action(line.say)
        took = time.monotonic() - began
        mark = "\033[32m✓\033[0m" if self._live else "ok"
        self._stream.write(f"{mark} {label}{f': {outcome}' if outcome else ''}  ({took:.1f} s)\n")
        self._stream.flush()


def plain(text: str) -> str:
    """One line for a terminal: a guest's console, or a package's script, may hold what would steer it."""
    return "".join(character if character.isprintable() else " " for character in text)


class _Line:
    """The line of the step that runs; a thread redraws it, so that time goes on while a command is silent."""

    def __init__(self, label: str, stream: TextIO, live: bool) -> None:
        self._label, self._stream, self._live = label, stream, live
        self._text = ""
        self._began = time.monotonic()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._draw, daemon=True)

    def say(self, text: str) -> None:
        self._text = plain(text)

    def __enter__(self) -> "_Line":
        if self._live:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        if self._live:
            self._thread.join()
            self._stream.write(CLEAR_LINE)
        if kind is not None:
            mark = "\033[31m✗\033[0m" if self._live else "failed"
            self._stream.write(f"{mark} {self._label}  ({time.monotonic() - self._began:.1f} s)\n")
        self._stream.flush()

    def _draw(self) -> None:
        turn = 0
        while not self._over.wait(TICK_S):
            turn += 1
            elapsed = time.monotonic() - self._began
            head = f"{FRAMES[turn % len(FRAMES)]} {self._label}  {elapsed:.0f} s  "
            room = _columns() - len(head) - 1
            self._stream.write(f"{CLEAR_LINE}{head}\033[2m{self._text[: max(room, 0)]}\033[0m")
            self._stream.flush()


def _columns() -> int:
    return shutil.get_terminal_size().columns
