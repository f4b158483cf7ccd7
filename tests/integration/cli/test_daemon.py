"""The daemon's own commands: start, status, logs, restart, stop; side by side; killed and back; backup and restore."""

import json
import os
import signal
import time
from pathlib import Path

from .conftest import Corral, make

BACK_WITHIN_S = 20.0


def runs(pid: int) -> bool:
    """A process that has ended and that nobody has asked for yet does not run."""
    deadline = time.monotonic() + 5.0
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return False
        if state == "Z":
            return False
        time.sleep(0.05)
    return True


def test_start_status_logs_restart_stop(place: Corral) -> None:
    assert place("daemon", "status").status == 6
    assert place("list").status == 6
    assert "The daemon runs" in place("daemon", "start", "--hypervisor", "fake").ok().out
    assert "runs already" in place("daemon", "start").ok().out
    status = place("daemon", "status", "-o", "json").json
    assert status["driver"] == "fake"
    assert status["state_dir"] == str(place.state_dir)
    assert status["supervisor"]["kind"] == "process"
    assert {"pid", "version", "uptime_s", "accelerator"} <= set(status)
    assert str(status["pid"]) in place("daemon", "status").ok().out
    assert "started the daemon" in place("daemon", "logs").ok().out
    place("daemon", "restart").ok()
    after = place("daemon", "status", "-o", "json").json
    assert after["driver"] == "fake"
    assert after["pid"] != status["pid"]
    assert "stopped" in place("daemon", "stop").ok().out
    assert "does not run" in place("daemon", "stop").ok().out
    for pid in (after["pid"], after["supervisor"]["pid"]):
        assert not runs(pid)


def test_a_killed_daemon_is_back_with_its_vms(place: Corral) -> None:
    place("daemon", "start", "--hypervisor", "fake").ok()
    place("image", "build", "micro").ok()
    place("create", "web", "--image", "micro", "--memory", "128").ok()
    pid = place("daemon", "status", "-o", "json").json["pid"]
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + BACK_WITHIN_S
    while (ran := place("daemon", "status", "-o", "json")).status != 0 or not json.loads(ran.out)["readiness"]["ready"]:
        assert time.monotonic() < deadline, ran.err
        time.sleep(0.1)
    assert json.loads(ran.out)["pid"] != pid
    assert place("list", "-o", "name").ok().out == "web\n"
    assert "was ended by signal 9" in place("daemon", "logs").ok().out


def test_a_daemon_that_cannot_start_says_why_and_is_not_tried_again(place: Corral) -> None:
    ran = place("daemon", "start", "--hypervisor", "vmware")
    assert ran.status == 2
    assert "unknown driver" in ran.err
    assert place("daemon", "status").status == 6


def test_a_daemon_that_fails_is_reported_and_tried_on_until_what_is_wrong_is_mended(place: Corral) -> None:
    place.state_dir.mkdir(mode=0o711, parents=True, exist_ok=True)
    in_the_way = place.state_dir / "corral.db"
    in_the_way.mkdir()  # as a disk that is read-only: the database cannot be opened
    failed = place("daemon", "start")
    assert failed.status == 1
    assert "goes on trying" in failed.err
    down = place("daemon", "status")
    assert down.status == 6
    assert "times in a row; the next start is at" in down.err
    in_the_way.rmdir()
    place("daemon", "start").ok()
    assert place("daemon", "status", "-o", "json").json["supervisor"]["kind"] == "process"
    place("daemon", "stop").ok()


def test_two_live_side_by_side(place: Corral, tmp_path: Path) -> None:
    other = make(tmp_path / "other")
    try:
        place("daemon", "start", "--hypervisor", "fake").ok()
        other("daemon", "start", "--hypervisor", "fake").ok()
        place("image", "build", "micro").ok()
        assert other("image", "list", "-o", "name").ok().out == ""
        by_flag = other("--state-dir", str(place.state_dir), "image", "list", "-o", "name")
        assert by_flag.ok().out == "micro\n"
        by_socket = other("--socket", str(place.state_dir / "run" / "corral.sock"), "image", "list", "-o", "name")
        assert by_socket.ok().out == "micro\n"
        other("daemon", "stop").ok()
        place("list").ok()
    finally:
        other("daemon", "stop")


def test_a_second_daemon_in_the_same_place_is_refused(place: Corral) -> None:
    place("daemon", "start", "--hypervisor", "fake").ok()
    ran = place("serve", "--hypervisor", "fake")
    assert ran.status == 4
    assert "[daemon-already-running]" in ran.err


def test_a_backup_is_restored(place: Corral, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    place("daemon", "start", "--hypervisor", "fake").ok()
    place("admin", "token", "create", "before").ok()
    place("admin", "backup-db", str(copy)).ok()
    assert copy.stat().st_mode & 0o777 == 0o600
    place("admin", "token", "create", "after").ok()
    refused = place("admin", "restore-db", str(copy))
    assert refused.status == 4
    place("daemon", "stop").ok()
    place("admin", "restore-db", str(copy)).ok()
    place("daemon", "start", "--hypervisor", "fake").ok()
    assert place("admin", "token", "list", "-o", "name").ok().out == "before\n"


def test_a_lost_database_is_rebuilt(place: Corral) -> None:
    place("daemon", "start", "--hypervisor", "fake").ok()
    place("image", "build", "micro").ok()
    place("create", "web", "--image", "micro", "--memory", "128").ok()
    before = place("info", "web", "-o", "json").json
    place("daemon", "stop").ok()
    for file in place.state_dir.glob("corral.db*"):
        file.unlink()
    place("daemon", "start", "--hypervisor", "fake").ok()
    assert "unmanaged" in place("list", "--all").ok().out
    said = place("recover").ok().out
    assert "vms: 1 (web)" in said
    assert "not known: " in said
    after = place("info", "web", "-o", "json").json
    assert after["uid"] == before["uid"]
    assert after["status"]["state"] == "running"


def test_a_daemon_whose_supervisor_is_gone_is_still_stopped(place: Corral) -> None:
    place("daemon", "start", "--hypervisor", "fake").ok()
    status = place("daemon", "status", "-o", "json").json
    os.kill(status["supervisor"]["pid"], signal.SIGKILL)
    deadline = time.monotonic() + BACK_WITHIN_S
    while place("daemon", "status", "-o", "json").json["supervisor"]["kind"] != "none":
        assert time.monotonic() < deadline
    place("daemon", "stop").ok()
    assert not runs(status["pid"])
