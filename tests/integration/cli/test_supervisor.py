"""The supervisor as a process: it brings a killed daemon back, gives a hopeless one up, and stops what it started."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from corral.cli import supervisor

# The longest that a test waits for by design is six seconds; the rest is for a machine that does other things.
DEADLINE_S = 60.0
# The daemon's stand-in: says its pid, then does what the test wants.
STAYS = "import os, time, pathlib; pathlib.Path('{pid}').write_text(str(os.getpid())); time.sleep(600)"
PROGRAM = """
import sys
from pathlib import Path
from corral.cli.supervisor import Supervisor
log = Path(sys.argv[1])
publish = lambda failures, trouble: log.with_name("record").write_text(f"{failures} {trouble}")
sys.exit(Supervisor([sys.executable, "-c", sys.argv[2]], log, publish).run())
"""


def until(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not what():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


@contextmanager
def supervised(directory: Path, code: str) -> Iterator["subprocess.Popen[bytes]"]:
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, str(directory / "log"), code])
    try:
        yield process
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(DEADLINE_S)
        process.kill()
        process.wait()


def read_pid(path: Path) -> int:
    until(lambda: path.exists() and path.read_text() != "")
    return int(path.read_text())


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_killed_daemon_comes_back_and_stopping_ends_both(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    with supervised(tmp_path, STAYS.format(pid=file)) as process:
        for _ in range(2):
            pid = read_pid(file)
            file.unlink()
            os.kill(pid, signal.SIGKILL)
        last = read_pid(file)
        process.terminate()
        assert process.wait(DEADLINE_S) == 0
        assert not alive(last)
    said = (tmp_path / "log").read_text()
    assert said.count("was ended by signal 9") == 2
    assert said.rstrip().endswith("stopped")


def test_wrong_settings_are_not_tried_again(tmp_path: Path) -> None:
    with supervised(tmp_path, "raise SystemExit(2)") as process:
        assert process.wait(DEADLINE_S) == 2
    assert (tmp_path / "log").read_text().count("started the daemon") == 1


def test_a_daemon_that_cannot_start_is_tried_ever_more_rarely_until_it_can(tmp_path: Path) -> None:
    file, record, mended = tmp_path / "pid", tmp_path / "record", tmp_path / "mended"
    code = f"import pathlib\nif not pathlib.Path({str(mended)!r}).exists(): raise SystemExit(1)\n"
    with supervised(tmp_path, code + STAYS.format(pid=file)) as process:
        # More often than any number of tries after which one might give up.
        until(lambda: record.exists() and record.read_text().startswith("5 it ended with status 1, 5 times in a row"))
        assert "the next start is at" in record.read_text()
        assert process.poll() is None
        mended.touch()
        process.send_signal(signal.SIGHUP)  # what `daemon start` does: no waiting for the next try
        assert alive(read_pid(file))
        until(lambda: record.read_text() == "0 ")
    pauses = [
        line.rpartition(" in ")[2] for line in (tmp_path / "log").read_text().splitlines() if " again in " in line
    ]
    assert pauses[:5] == ["0.4 s", "0.8 s", "1.6 s", "3.2 s", "6.4 s"]


def test_the_pause_between_tries_is_bounded(tmp_path: Path) -> None:
    keeper = supervisor.Supervisor([], tmp_path / "log", lambda _failures, _trouble: None)
    pauses = [keeper._judge(1, 0.1) for _ in range(20)]
    assert pauses[-1] == supervisor.BACKOFF_MAX_S
    assert keeper._judge(1, supervisor.YOUNG_S) == supervisor.BACKOFF_FIRST_S


def test_a_daemon_that_will_not_stop_is_killed(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    code = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {STAYS.format(pid=file)}"
    program = PROGRAM.replace("sys.exit(", "import corral.cli.supervisor as s; s.STOP_DEADLINE_S = 0.3; sys.exit(")
    process = subprocess.Popen([sys.executable, "-c", program, str(tmp_path / "log"), code])
    try:
        pid = read_pid(file)
        process.terminate()
        assert process.wait(DEADLINE_S) == 0
        assert not alive(pid)
    finally:
        process.kill()
        process.wait()


def test_the_log_is_cut_and_its_past_kept(tmp_path: Path) -> None:
    log = tmp_path / "daemon.log"
    with log.open("ab", buffering=0) as writer:
        for number in range(supervisor.LOGS_KEPT + 2):
            os.truncate(log, supervisor.LOG_MAX_BYTES)
            writer.write(f"\nround {number}".encode())
            supervisor.rotate(log)
            assert log.stat().st_size == 0
        writer.write(b"goes on")
    assert log.read_bytes() == b"goes on"
    older = sorted(path.name for path in tmp_path.iterdir())
    assert older == ["daemon.log", *(f"daemon.log.{number}" for number in range(1, supervisor.LOGS_KEPT + 1))]
    assert (tmp_path / "daemon.log.1").read_bytes().endswith(f"round {supervisor.LOGS_KEPT + 1}".encode())


def test_a_lock_file_that_nobody_holds_proves_nothing(tmp_path: Path) -> None:
    socket = tmp_path / "corral.sock"
    record = {"pid": os.getpid(), "flags": {}, "log": "x"}
    supervisor.lock_path(socket).write_text(json.dumps(record))
    assert supervisor.find(socket) is None
