"""Orphans are waited for by the reaper: an ended daemon, or a QEMU of libvirt's, does not stay as a zombie."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from installer import reaper

# Starts a program as daemons are started, its parent gone, and tells its pid.
ORPHAN = "sleep 600 >/dev/null 2>&1 & echo $!"
UNDER = "import os, subprocess, sys; from installer.reaper import under; sys.exit(under(lambda: subprocess.call(['sh', '-c', sys.argv[1]])))"


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def read(path: Path, within_s: float = 30.0) -> str:
    end = time.monotonic() + within_s
    while not path.exists():
        assert time.monotonic() < end
        time.sleep(0.01)
    return path.read_text()


def gone(pid: int, within_s: float = 10.0) -> bool:
    end = time.monotonic() + within_s
    while Path(f"/proc/{pid}").exists():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


@pytest.mark.parametrize("how", [[], ["--detach"]], ids=["stays", "detached"])
def test_a_daemons_reaper_stays_until_the_last_has_ended(tmp_path: Path, how: list[str]) -> None:
    told = tmp_path / "told"
    argv = [
        sys.executable,
        "-I",
        "-S",
        reaper.__file__,
        *how,
        "sh",
        "-c",
        f"({ORPHAN}) >{told}.new; mv {told}.new {told}; exit 3",
    ]
    started = subprocess.Popen(argv)
    if how:
        assert started.wait(30) == 0
    orphan = int(read(told))
    parent = parent_of(orphan)
    try:
        assert Path(f"/proc/{parent}/cmdline").read_text().split("\0")[: len(argv)] == argv
        assert how or started.poll() is None
    finally:
        os.kill(orphan, signal.SIGKILL)
    assert gone(orphan)
    if how:
        assert gone(parent)
    else:
        assert started.wait(10) == 3


def test_work_is_done_under_one_and_its_status_is_told() -> None:
    done = subprocess.run(
        [sys.executable, "-c", UNDER, f"({ORPHAN}); exit 5"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(reaper.__file__).parents[1])},
    )
    os.kill(int(done.stdout), signal.SIGKILL)
    assert done.returncode == 5, done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_whoever_stops_it_stops_the_work(number: signal.Signals) -> None:
    running = subprocess.Popen(
        [sys.executable, "-c", UNDER.replace("subprocess.call(['sh', '-c', sys.argv[1]])", "os.execvp('sh', ['sh', '-c', sys.argv[1]])"), "echo $$; exec sleep 600"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(reaper.__file__).parents[1])},
    )  # fmt: skip
    assert running.stdout is not None
    work = int(running.stdout.readline())
    running.send_signal(number)
    assert running.wait(30) == 128 + number
    assert gone(work)
    running.stdout.close()
