"""The supervisor, for machines without systemd: keeps one daemon running, starts it again when it dies.

A process of its own (`python -m corral.cli.supervisor`), in its own session. It holds a lock file beside the API socket,
in which it says who it is and what it runs; the log file is bounded. SIGTERM stops the daemon, then the supervisor.
"""

import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Final

from corral.errors import EXIT_CONFLICT, EXIT_FAILED, EXIT_NOT_PERMITTED, EXIT_USAGE
from corral.proc import Child, spawn

STARTED: Final = "started the daemon"
LOG_MAX_BYTES: Final = 10 * 2**20
LOGS_KEPT: Final = 3
# How often the log's size is looked at.
LOG_CHECK_S: Final = 60.0
# A daemon that ends by itself this soon could not start. It is tried again for ever, ever more rarely: a full disk gets
# room, and a file system that was read-only is mounted again, with nobody there to type `corral daemon start`.
YOUNG_S: Final = 10.0
BACKOFF_FIRST_S: Final = 0.2
BACKOFF_MAX_S: Final = 60.0
# The daemon lets running steps reach a safe point within 5 s; after this it is killed.
STOP_DEADLINE_S: Final = 20.0
LOCK_TRIES: Final = 10
LOCK_PAUSE_S: Final = 0.05
# Bad settings, another daemon in the same place, no permission: trying again changes nothing.
HOPELESS: Final = frozenset({EXIT_USAGE, EXIT_CONFLICT, EXIT_NOT_PERMITTED})


@dataclass(frozen=True)
class Record:
    """What the lock file says."""

    pid: int
    flags: dict[str, str]
    """What the daemon was told; `daemon restart` tells it again."""
    log: str
    failures: int = 0
    """Starts in a row after which the daemon ended at once."""
    trouble: str = ""
    """How the last one of those ended, and when the next one comes; empty while nothing is wrong."""


def lock_path(socket: Path) -> Path:
    """Beside the daemon's socket, so that several daemons have several supervisors."""
    return socket.with_name(f"{socket.name}.supervisor")


def find(socket: Path) -> Record | None:
    """The living supervisor of the daemon at `socket`: whoever holds the lock; a file alone proves nothing."""
    try:
        fd = os.open(lock_path(socket), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    with os.fdopen(fd, "rb") as stream:
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            try:
                # What follows the document is the rest of a longer one, about to be cut off.
                content, _ = json.JSONDecoder().raw_decode(stream.read(65536).decode())
                return Record(
                    pid=int(content["pid"]),
                    flags=dict(content["flags"]),
                    log=str(content["log"]),
                    failures=int(content.get("failures", 0)),
                    trouble=str(content.get("trouble", "")),
                )
            except (ValueError, KeyError):
                return None  # it is about to write it
        return None


def rotate(log: Path) -> None:
    """Keep `log` bounded: copied aside and cut, since the daemon goes on writing to the same open file."""
    try:
        if log.stat().st_size <= LOG_MAX_BYTES:
            return
    except FileNotFoundError:
        return
    for number in range(LOGS_KEPT, 1, -1):
        older = log.with_name(f"{log.name}.{number - 1}")
        if older.exists():
            older.replace(log.with_name(f"{log.name}.{number}"))
    shutil.copyfile(log, log.with_name(f"{log.name}.1"))
    os.truncate(log, 0)


class Supervisor:
    """One daemon and its restarts. Signals only wake the loop, which then looks at what is."""

    def __init__(self, argv: Sequence[str], log: Path, publish: Callable[[int, str], None]) -> None:
        """`publish` is told the failures in a row and the trouble, for those who ask what the supervisor does."""
        self._argv = tuple(argv)
        self._log = log
        self._publish = publish
        self._stop = False
        self._retry = False
        self._deaths = 0
        self._wake_out, self._wake_in = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def run(self) -> int:
        """Keep the daemon running until SIGTERM (0) or until it is hopeless (the daemon's own exit status).

        SIGHUP means that somebody has mended what was wrong: the next try comes at once.
        """
        signal.set_wakeup_fd(self._wake_in, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._asked_to_stop)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        signal.signal(signal.SIGHUP, self._asked_to_retry)
        while True:
            started = time.monotonic()
            status = self._attend(self._start())
            if not self._stopping():
                pause_s = self._judge(status, time.monotonic() - started)
                if pause_s is None:
                    return abs(status) or EXIT_FAILED
                self._sleep(pause_s)
            if self._stopping():
                self._say("stopped")
                return 0

    def _stopping(self) -> bool:
        """A method, since a signal may change the answer between two looks."""
        return self._stop

    def _asked_to_stop(self, _number: int, _frame: FrameType | None) -> None:
        self._stop = True

    def _asked_to_retry(self, _number: int, _frame: FrameType | None) -> None:
        self._retry = True

    def _start(self) -> Child:
        try:
            fd = os.open(self._log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:  # a disk that is full or read-only: the daemon will say no more than its exit status
            fd = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        try:
            child = spawn(self._argv, fd)
        finally:
            os.close(fd)
        self._say(f"{STARTED}, pid {child.pid}")
        return child

    def _attend(self, child: Child) -> int:
        """Wait for the daemon's end; look after its log meanwhile; hand on a wish to stop."""
        deadline: float | None = None
        while (status := child.poll()) is None:
            self._heed()
            if self._stop and deadline is None:
                child.terminate()
                deadline = time.monotonic() + STOP_DEADLINE_S
            if deadline is not None and time.monotonic() > deadline:
                self._say("the daemon did not stop in time: killing it")
                child.kill()
                deadline = float("inf")
            rotate(self._log)
            remaining = LOG_CHECK_S if deadline is None else deadline - time.monotonic()
            self._wait(min(LOG_CHECK_S, max(0.01, remaining)))
        return status

    def _judge(self, status: int, age_s: float) -> float | None:
        """Seconds until the next start; None when it is hopeless."""
        ended = f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"
        if status in HOPELESS and age_s < YOUNG_S:
            self._say(f"the daemon {ended}: trying again would change nothing, giving up")
            return None
        self._deaths = self._deaths + 1 if age_s < YOUNG_S else 0
        pause_s = min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2.0 ** min(self._deaths, 10))
        often = f", {self._deaths} times in a row" if self._deaths > 1 else ""
        self._say(f"the daemon {ended}{often}, starting it again in {pause_s:.1f} s")
        self._publish(self._deaths, f"it {ended}{often}; the next start is at {_clock(time.time() + pause_s)}")
        return pause_s

    def _sleep(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not (self._stop or self._retry) and (remaining := deadline - time.monotonic()) > 0:
            self._wait(remaining)
        self._heed()

    def _heed(self) -> None:
        """What was asked by SIGHUP: the failures until now are forgotten."""
        if self._retry:
            self._retry = False
            self._deaths = 0
            self._publish(0, "")
            self._say("asked to try at once")

    def _wait(self, seconds: float) -> None:
        """Until a signal comes or `seconds` are over."""
        if select.select([self._wake_out], [], [], seconds)[0]:
            with contextlib.suppress(BlockingIOError):
                os.read(self._wake_out, 4096)

    def _say(self, text: str) -> None:
        # On a disk that is full or read-only there is no log; the record beside the socket says how it stands.
        with contextlib.suppress(OSError), self._log.open("a", encoding="utf-8") as stream:
            stream.write(f"{_clock(time.time())} supervisor: {text}\n")


def _clock(when: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(when))


def supervise(socket: Path, log: Path, flags: dict[str, str]) -> int:
    """Hold the lock beside `socket` and run the daemon with `flags`; the exit status."""
    # Nobody else may open it: who can, can lock it too, and pass for a supervisor whose pid is in the file.
    fd = os.open(lock_path(socket), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        os.fchmod(fd, 0o600)
        if not _locked(fd):
            return EXIT_CONFLICT
        record = Record(os.getpid(), flags, str(log))
        _write(fd, record)
        publish = lambda failures, trouble: _write(fd, replace(record, failures=failures, trouble=trouble))  # noqa: E731
        return Supervisor(serve_argv(flags), log, publish).run()
    finally:
        # The file stays: unlinking a lock that somebody else has just opened would make two of them.
        os.close(fd)


def _write(fd: int, record: Record) -> None:
    """In place, since the lock is on this very file: a reader in between finds a whole document at its start."""
    content = json.dumps(asdict(record)).encode()
    # A full disk may be why the daemon fails; the supervisor itself must not fail of it.
    with contextlib.suppress(OSError):
        os.pwrite(fd, content, 0)
        os.ftruncate(fd, len(content))


def _locked(fd: int) -> bool:
    """Take the lock; `find` holds it for an instant when it looks, so that one refusal proves nothing."""
    for _ in range(LOCK_TRIES):
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(LOCK_PAUSE_S)
        else:
            return True
    return False


def serve_argv(flags: dict[str, str]) -> list[str]:
    """The command that is the daemon."""
    words = [word for key, value in sorted(flags.items()) for word in (f"--{key.replace('_', '-')}", value)]
    return [sys.executable, "-m", "corral.cli", "serve", *words]


if __name__ == "__main__":
    sys.exit(supervise(Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])))
