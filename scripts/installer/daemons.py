"""libvirt's daemons and Corral's own: started where they do not run, by systemd where it does."""

import grp
import os
import sys
from collections.abc import Callable
from pathlib import Path

from installer.context import COMMAND, SYSTEM_STATE_DIR, UNIT, Context, systemd_runs
from installer.shell import Refused, until
from installer.venv import source_digest

VIRSH = ["virsh", "-c", "qemu:///system"]
LIBVIRT_START_S = 30.0
DAEMON_START_S = 90.0
PID_FILES = {"virtlogd": Path("/run/virtlogd.pid"), "libvirtd": Path("/run/libvirtd.pid")}
# Where no systemd runs, process 1 may be one that reaps no guest of libvirt's.
_REAPER = [sys.executable, "-I", "-S", str(Path(__file__).with_name("reaper.py")), "--detach"]
_START = {
    "virtlogd": ["virtlogd", "-d"],
    "libvirtd": [*_REAPER, "libvirtd", "--pid-file", str(PID_FILES["libvirtd"])],
}


def libvirt_answers(context: Context) -> bool:
    return context.shell.ask(context.shell.as_root([*VIRSH, "version"]), timeout_s=10).ok


def give_kvm_to_its_group(context: Context, say: Callable[[str], None]) -> None:
    """What udev does where it runs. A /dev/kvm that QEMU's user cannot open makes libvirt probe QEMU anew at each call,
    which takes seconds. Whether KVM is used is decided by measurement all the same."""
    kvm = Path("/dev/kvm")
    try:
        group = grp.getgrnam("kvm").gr_gid
        stat = kvm.stat()
    except (KeyError, FileNotFoundError):
        return
    if stat.st_gid == 0 and not stat.st_mode & 0o060:
        shell = context.shell
        shell.must("give /dev/kvm to its group", shell.as_root(["chgrp", str(group), str(kvm)]), say)
        shell.must("give /dev/kvm to its group", shell.as_root(["chmod", "0660", str(kvm)]), say)


def ensure_libvirt(context: Context, say: Callable[[str], None]) -> str:
    """libvirtd answers on its system socket; noted if it was started here, so that `make down` stops only its own."""
    shell = context.shell
    give_kvm_to_its_group(context, say)
    if libvirt_answers(context):
        return "libvirtd answers"
    if systemd_runs():
        units = ["virtlogd.socket", "libvirtd.socket", "libvirtd.service"]
        shell.must("start libvirtd", shell.as_root(["systemctl", "start", *units]), say)
    else:
        started = [name for name in PID_FILES if not _alive(PID_FILES[name])]
        for name in started:
            shell.must(f"start {name}", shell.as_root(_START[name]), say)
        context.note(started=sorted({*context.recall().get("started", []), *started}))
    if not until(lambda: libvirt_answers(context), LIBVIRT_START_S):
        how = "journalctl -u libvirtd" if systemd_runs() else "libvirtd --verbose shows why"
        raise Refused("start libvirtd", f"it does not answer within {LIBVIRT_START_S:g} s", how)
    return "libvirtd started"


def stop_libvirt(context: Context, say: Callable[[str], None]) -> str:
    """Stop what `ensure_libvirt` started, unless somebody's guests still run."""
    started = context.recall().get("started", [])
    if not started:
        return "libvirtd was there before: left running"
    if context.shell.ask([*context.shell.as_root(VIRSH), "list", "--name"]).output.strip():
        return "libvirtd left running: it has guests"
    for name in reversed([name for name in PID_FILES if name in started]):
        pid = _alive(PID_FILES[name])
        if pid:
            say(f"stopping {name}")
            context.shell.ask(context.shell.as_root(["sh", "-c", f"kill -TERM {pid:d}"]))
            if not until(lambda name=name: not _alive(PID_FILES[name]), 15):  # type: ignore[misc]
                raise Refused(f"stop {name}", f"process {pid} goes on 15 s after it was asked to end", "look at it")
    context.note(started=[])
    return f"stopped {' and '.join(started)}"


def _alive(pid_file: Path) -> int:
    """The pid in the file if such a process lives, else 0."""
    try:
        pid = int(pid_file.read_text())
        status = Path(f"/proc/{pid}/stat").read_text()
    except (OSError, ValueError):
        return 0
    return pid if runs_as(status, pid_file.stem) else 0


def runs_as(status: str, name: str) -> bool:
    """Whether a line of /proc/PID/stat (proc(5)) is of a process of that name that has not ended: where process 1 reaps
    nobody's children, as in many containers, the ended stay as zombies."""
    found, _, rest = status.partition("(")[2].rpartition(")")
    return found == name[:15] and rest.split()[0] != "Z"


def ensure_places(context: Context, say: Callable[[str], None]) -> str:
    """The group of administrators and, for the system's installation, the command on everybody's PATH."""
    shell = context.shell
    made = []
    try:
        grp.getgrnam("corral")
    except KeyError:
        shell.must("make the group corral", shell.as_root(["groupadd", "--system", "corral"]), say)
        made.append("group corral")
    if not context.trial and (not COMMAND.is_symlink() or str(COMMAND.readlink()) != context.corral):
        if COMMAND.exists() and not COMMAND.is_symlink():
            raise Refused(f"link {COMMAND}", "a file of somebody else's is there", "move it away")
        shell.must(f"link {COMMAND}", shell.as_root(["ln", "-sfn", context.corral, str(COMMAND)]), say)
        made.append(str(COMMAND))
    return f"made {', '.join(made)}" if made else "group corral" + ("" if context.trial else f", {COMMAND}")


def ensure_unit(context: Context, say: Callable[[str], None]) -> bool:
    """Write the systemd unit; True if it was not there or another."""
    text = (context.root / "packaging/corral.service").read_text().replace("@ROOT@", str(context.root))
    if UNIT.exists() and UNIT.read_text() == text:
        return False
    context.shell.write_as_root(UNIT, text)
    context.shell.must("read the unit", context.shell.as_root(["systemctl", "daemon-reload"]), say)
    context.shell.must("enable the unit", context.shell.as_root(["systemctl", "enable", "corral.service"]), say)
    return True


def daemon_status(context: Context) -> dict[str, object] | None:
    found = context.document("daemon", "status", timeout_s=15)
    return found if isinstance(found, dict) and found.get("pid") else None


def ensure_daemon(context: Context, say: Callable[[str], None]) -> str:
    """The daemon answers and runs this checkout's code; a running one of older code is replaced, guests go on."""
    changed_unit = context.by_systemd and ensure_unit(context, say)
    source = source_digest(context.root)
    status = daemon_status(context)
    if status and context.recall().get("source") == source and not changed_unit:
        return (
            f"pid {status['pid']}, driver {status.get('driver')}, accelerator {status.get('accelerator') or 'unknown'}"
        )
    verb = "restart" if status else "start"
    shell = context.shell
    if context.by_systemd:
        # After several failures systemd refuses to start it for a while; what failed may be mended by now.
        shell.ask(shell.as_root(["systemctl", "reset-failed", "corral.service"]))
        shell.must(f"{verb} the daemon", shell.as_root(["systemctl", verb, "corral.service"]), say)
    else:
        shell.must(f"{verb} the daemon", shell.as_root([context.corral, "daemon", verb]), say)
    if not until(lambda: daemon_status(context) is not None, DAEMON_START_S, 0.5):
        how = "journalctl -u corral" if context.by_systemd else f"{context.corral} daemon logs"
        raise Refused(f"{verb} the daemon", f"it does not answer within {DAEMON_START_S:g} s", how)
    context.note(source=source)
    status = daemon_status(context) or {}
    return f"{verb}ed: pid {status.get('pid')}, driver {status.get('driver')}, accelerator {status.get('accelerator') or 'not measured yet'}"


def stop_daemon(context: Context, say: Callable[[str], None]) -> str:
    if context.by_systemd and UNIT.exists():
        context.shell.must("stop the daemon", context.shell.as_root(["systemctl", "stop", "corral.service"]), say)
        return "stopped"
    if not Path(context.corral).exists() or daemon_status(context) is None:
        return "was not running"
    context.shell.must("stop the daemon", context.shell.as_root([context.corral, "daemon", "stop"]), say)
    return "stopped"


def as_caller_may_use(context: Context) -> str:
    """How a caller who is not root gets at the daemon; empty for those who do already."""
    if os.geteuid() == 0 or "corral" in {grp.getgrgid(gid).gr_name for gid in os.getgroups()}:
        return ""
    return "sudo usermod -aG corral $USER, then log in again: until then use sudo corral"


def state_dir_is_safe_to_remove(path: Path) -> bool:
    """A state directory of ours, and not a place that holds other things."""
    return path == SYSTEM_STATE_DIR or (len(path.parts) > 2 and (path / "installation-id").exists())
