"""The daemon: start, stop, restart, status, logs; by systemd where its unit is installed, else by our supervisor."""

import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click

from corral.cli import supervisor
from corral.cli.output import duration, fields, output_option, show_document
from corral.cli.serve import given_flags, settings_options
from corral.cli.session import Session, pass_session
from corral.errors import EXIT_CONFLICT, EXIT_FAILED, CorralError
from corral.settings import Settings, load, variable

UNIT: Final = "corral.service"
UNIT_DIRECTORIES: Final = ("/etc/systemd/system", "/lib/systemd/system", "/usr/lib/systemd/system")
READY_TIMEOUT_S: Final = 60.0
STOP_TIMEOUT_S: Final = supervisor.STOP_DEADLINE_S + 10.0
POLL_S: Final = 0.05
FOLLOW_POLL_S: Final = 0.5
# After so many failures in a row `daemon start` reports them; the supervisor goes on trying.
FAILURES_TOLD: Final = 3
RETRY_TIMEOUT_S: Final = 2.0
LOG_TAIL_BYTES: Final = 64 * 1024
LOG_TAIL_LINES: Final = 20


@dataclass(frozen=True)
class Place:
    """Which daemon is meant: what it was told, and what keeps it running."""

    settings: Settings
    flags: dict[str, str]
    systemd: bool

    @property
    def socket(self) -> Path:
        return self.settings.socket

    @property
    def log(self) -> Path:
        return self.settings.state_dir / "log" / "daemon.log"

    def supervisor(self) -> supervisor.Record | None:
        return supervisor.find(self.socket)


def place(session: Session, options: dict[str, str | None]) -> Place:
    """The daemon that flags, environment and configuration file name.

    systemd is asked only about the machine's own daemon: any other place, or root's absence, means the supervisor.
    """
    flags = given_flags(session, options)
    elsewhere = any(flags.get(key) or variable(f"CORRAL_{key.upper()}") for key in ("state_dir", "socket"))
    installed = any((Path(directory) / UNIT).exists() for directory in UNIT_DIRECTORIES)
    running = Path("/run/systemd/system").is_dir()
    return Place(load(flags), flags, systemd=installed and running and not elsewhere and os.geteuid() == 0)


def _client_session(at: Place) -> Session:
    return Session(socket=str(at.socket), timeout_s=5.0)


def status_of(at: Place) -> dict[str, Any] | None:
    """What the daemon says of itself, with its supervisor; None when nobody answers."""
    session = _client_session(at)
    try:
        answer: Any = session.client().daemon()
    except CorralError as error:
        if error.code != "daemon-unreachable":
            raise
        return None
    finally:
        session.close()
    record = at.supervisor()
    kind = "systemd" if at.systemd else "process" if record else "none"
    return {**answer, "supervisor": {"kind": kind, "pid": record.pid if record else None}}


@click.group()
def daemon() -> None:
    """The daemon: by systemd where its unit is installed, else as a supervised background process.

    Several live side by side with --state-dir (or CORRAL_STATE_DIR) and --socket (or CORRAL_SOCKET).

    \b
    Examples:
      corral daemon start
      corral daemon start --state-dir /tmp/trial --hypervisor fake
      corral daemon status -o json
    """


@daemon.command()
@settings_options
@pass_session
def start(session: Session, /, **options: str | None) -> None:
    """Start the daemon and wait until it is ready; nothing happens when it runs already.

    \b
    Examples:
      corral daemon start
      corral daemon start --state-dir /tmp/trial --hypervisor fake
    """
    at = place(session, options)
    if (running := status_of(at)) is not None:
        _await_ready(at, lambda: None)
        click.echo(f"The daemon runs already: pid {running['pid']}, socket {running['socket']}")
        return
    started = time.monotonic()
    _start(at)
    _report_started(at, started)


def _start(at: Place) -> None:
    """Start it and wait until it is ready. Shows the log's last words and ends the command when it cannot."""
    from corral.proc import call, spawn

    if at.systemd:
        call(["systemctl", "start", UNIT], timeout_s=READY_TIMEOUT_S)
        _await_ready(at, lambda: None)
        return
    with _in_our_directories(at):
        # Guests' QEMUs run under uids of their own and must get through to their disks: no reading, but passing.
        at.settings.state_dir.mkdir(mode=0o711, parents=True, exist_ok=True)
        at.log.parent.mkdir(mode=0o700, exist_ok=True)
        at.socket.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
        log = os.open(at.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    offset = os.fstat(log).st_size
    if (keeper := at.supervisor()) is not None:
        # It waits before its next try: whoever asks has mended something.
        os.close(log)
        _ask_to_retry(at, keeper.pid)
        _await_ready(at, lambda: _report_failures(at, offset))
        return
    argv = [sys.executable, "-m", "corral.cli.supervisor", str(at.socket), str(at.log), json.dumps(at.flags)]
    try:
        child = spawn(argv, log, own_session=True)
    finally:
        os.close(log)

    def still_trying() -> None:
        status = child.poll()
        # Another supervisor was faster: then its daemon is the one to wait for.
        if status is None or (status == EXIT_CONFLICT and at.supervisor() is not None):
            _report_failures(at, offset)
            return
        _explain(at, offset)
        click.echo(f"The daemon did not start. Its log: {at.log}", err=True)
        raise click.exceptions.Exit(status if status > 0 else EXIT_FAILED)

    _await_ready(at, still_trying)
    # It lives on by itself; the interpreter need not wait for it.
    child.returncode = 0


def _ask_to_retry(at: Place, pid: int) -> None:
    """Have the supervisor start the daemon now, and wait until it has taken note."""
    try:
        os.kill(pid, signal.SIGHUP)
    except ProcessLookupError:
        return
    except PermissionError as error:
        raise CorralError("forbidden", f"start the daemon of pid {pid}", "it is another user's", "use sudo") from error
    deadline = time.monotonic() + RETRY_TIMEOUT_S
    while time.monotonic() < deadline and (keeper := at.supervisor()) is not None and keeper.failures:
        time.sleep(POLL_S)


def _report_failures(at: Place, offset: int) -> None:
    """End the command once the supervisor has tried often enough; it goes on trying."""
    keeper = at.supervisor()
    if keeper is None or keeper.failures < FAILURES_TOLD:
        return
    _explain(at, offset)
    click.echo(
        f"The daemon does not start: {keeper.trouble}. Its supervisor (pid {keeper.pid}) goes on trying, ever more "
        f"rarely.\nMend it and run `corral daemon start` again, or give up: corral daemon stop. Its log: {at.log}",
        err=True,
    )
    raise click.exceptions.Exit(EXIT_FAILED)


@contextlib.contextmanager
def _in_our_directories(at: Place) -> Iterator[None]:
    try:
        yield
    except PermissionError as error:
        raise CorralError(
            "forbidden",
            f"start the daemon in {at.settings.state_dir}",
            str(error),
            "run it as root, or in a place of your own: --state-dir DIR",
        ) from error


def _await_ready(at: Place, still_trying: Callable[[], None]) -> None:
    session = _client_session(at)
    deadline = time.monotonic() + READY_TIMEOUT_S
    try:
        while time.monotonic() < deadline:
            try:
                if session.client().ready()["ready"]:
                    return
            except CorralError as error:
                if error.code not in ("daemon-unreachable", "rate-limited"):
                    raise
            still_trying()
            time.sleep(POLL_S)
    finally:
        session.close()
    answer = status_of(at)
    missing = answer["readiness"]["reasons"] if answer else []
    raise CorralError(
        "wait-timeout",
        "start the daemon",
        f"it is not ready after {READY_TIMEOUT_S:.0f} s" + (f": {', '.join(missing)}" if missing else ""),
        f"read {at.log}" if not at.systemd else f"journalctl -u {UNIT}",
    )


def _explain(at: Place, offset: int) -> None:
    """Why it did not start: what the last try wrote into the log."""
    with at.log.open("rb") as stream:
        stream.seek(max(offset, stream.seek(0, os.SEEK_END) - LOG_TAIL_BYTES))
        said = stream.read().decode(errors="replace").rstrip()
    last = said.rpartition(supervisor.STARTED)[2].splitlines()[1:] or said.splitlines()
    click.echo("\n".join(last[-LOG_TAIL_LINES:]), err=True)


def _report_started(at: Place, started: float) -> None:
    answer = status_of(at)
    if answer is None:
        raise CorralError("daemon-unreachable", "start the daemon", "it ended right after its start", f"read {at.log}")
    took = time.monotonic() - started
    click.echo(f"The daemon runs: pid {answer['pid']}, socket {answer['socket']}, ready after {took:.1f} s")


@daemon.command()
@settings_options
@pass_session
def stop(session: Session, /, **options: str | None) -> None:
    """Stop the daemon; running VMs go on. Nothing happens when it does not run.

    \b
    Examples:
      corral daemon stop
      corral daemon stop --state-dir /tmp/trial
    """
    click.echo("The daemon is stopped." if _stop(place(session, options)) else "The daemon does not run.")


def _stop(at: Place) -> bool:
    """Stop it; False when there was nothing to stop."""
    from corral.proc import call

    if at.systemd:
        running = status_of(at) is not None
        call(["systemctl", "stop", UNIT], timeout_s=READY_TIMEOUT_S)
        return running
    record = at.supervisor()
    answer = status_of(at)
    pid = record.pid if record else answer["pid"] if answer else None
    if pid is None:
        return False
    try:
        os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:
        return False
    except PermissionError as error:
        raise CorralError("forbidden", f"stop the daemon, pid {pid}", "it is another user's", "use sudo") from error
    deadline = time.monotonic() + STOP_TIMEOUT_S
    while time.monotonic() < deadline:
        if at.supervisor() is None and status_of(at) is None:
            return True
        time.sleep(POLL_S)
    raise CorralError("wait-timeout", f"stop the daemon, pid {pid}", f"it is still there after {STOP_TIMEOUT_S:.0f} s")


@daemon.command()
@settings_options
@pass_session
def restart(session: Session, /, **options: str | None) -> None:
    """Stop the daemon and start it with the flags that it had, and those given now. Running VMs do not notice.

    \b
    Examples:
      corral daemon restart
      corral daemon restart --log-level debug
    """
    at = place(session, options)
    started = time.monotonic()
    if at.systemd:
        from corral.proc import call

        call(["systemctl", "restart", UNIT], timeout_s=READY_TIMEOUT_S)
        _await_ready(at, lambda: None)
    else:
        record = at.supervisor()
        before = record.flags if record else {}
        _stop(at)
        _start(place(session, {**before, **options_given(options)}))
    _report_started(at, started)


def options_given(options: dict[str, str | None]) -> dict[str, str | None]:
    """Only the options that were given."""
    return {key: value for key, value in options.items() if value is not None}


@daemon.command()
@settings_options
@output_option
@pass_session
def status(session: Session, /, output: str, **options: str | None) -> None:
    """Show the daemon: pid, version, uptime, state directory, driver, accelerator, supervisor. Exit code 6 if it is down.

    \b
    Examples:
      corral daemon status
      corral daemon status -o json
    """
    at = place(session, options)
    answer = status_of(at)
    if answer is None:
        record = at.supervisor()
        raise CorralError(
            "daemon-unreachable",
            f"ask the daemon at {at.socket}",
            _trouble(record) if record else "it does not run",
            f"read {at.log}; `corral daemon start` tries at once" if record else "corral daemon start",
        )
    if output in ("json", "yaml"):
        show_document(answer, output)
        return
    keeper = answer["supervisor"]
    readiness = answer["readiness"]
    rows: list[tuple[str, object]] = [
        ("pid", answer["pid"]),
        ("version", answer["version"]),
        ("uptime", duration(answer["uptime_s"])),
        ("ready", "yes" if readiness["ready"] else f"no: {', '.join(readiness['reasons'])}"),
        ("state directory", answer["state_dir"]),
        ("socket", answer["socket"]),
        ("driver", answer["driver"]),
        ("hypervisor", f"{answer['hypervisor_uri']} ({'' if answer['hypervisor_connected'] else 'not '}connected)"),
        ("accelerator", answer["accelerator"] or "not measured yet"),
        ("supervisor", f"process {keeper['pid']}" if keeper["pid"] else keeper["kind"]),
    ]
    click.echo("\n".join(fields(rows)) if output == "table" else answer["pid"])


def _trouble(keeper: supervisor.Record) -> str:
    if keeper.trouble:
        return f"it does not stay up: {keeper.trouble} (supervisor: pid {keeper.pid})"
    return f"its supervisor (pid {keeper.pid}) is about to start it again"


@daemon.command()
@click.option("-f", "--follow", is_flag=True, help="Go on with what is written from now on.")
@click.option("-n", "--lines", type=click.IntRange(min=0), default=100, show_default=True, help="How many past lines.")
@settings_options
@pass_session
def logs(session: Session, /, follow: bool, lines: int, **options: str | None) -> None:
    """Print the daemon's log.

    \b
    Examples:
      corral daemon logs
      corral daemon logs --follow --lines 10
    """
    at = place(session, options)
    if at.systemd:
        from corral.proc import become

        become(["journalctl", "-u", UNIT, "-n", str(lines), *(["-f"] if follow else ["--no-pager"])])
    record = at.supervisor()
    log = Path(record.log) if record else at.log
    if not log.exists():
        raise CorralError("invalid-argument", f"read {log}", "there is no log: no daemon was started here")
    with log.open("rb") as stream:
        stream.seek(max(0, log.stat().st_size - LOG_TAIL_BYTES * 16))
        past = stream.read().decode(errors="replace").splitlines()
        click.echo("\n".join(past[len(past) - min(lines, len(past)) :]))
        while follow:
            more = stream.read()
            if more:
                click.echo(more.decode(errors="replace"), nl=False)
            elif log.stat().st_size < stream.tell():
                stream.seek(0)  # the supervisor has cut it
            else:
                time.sleep(FOLLOW_POLL_S)
