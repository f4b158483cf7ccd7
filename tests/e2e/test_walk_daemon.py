"""The daemon under running guests: it dies, comes back and is replaced; virsh is used beside it; domains are taken over."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from walk import PATIENCE, PROGRAM, Walk, virsh

pytestmark = pytest.mark.timeout(900)


def status(walk: Walk) -> dict[str, object]:
    found: dict[str, object] = walk.json("daemon", "status")
    return found


def pid_of(name: str) -> str:
    return Path(f"/run/libvirt/qemu/{name}.pid").read_text()


def test_status_and_a_second_start(walk: Walk, vm: str) -> None:
    found = status(walk)
    assert (found["driver"], found["state_dir"]) == ("libvirt", str(walk.state_dir))
    assert found["accelerator"] in ("kvm", "tcg")
    assert {"pid", "version", "uptime_s", "socket"} <= set(found)
    walk("daemon", "start").ok()
    assert status(walk)["pid"] == found["pid"]
    assert "ready" in walk("daemon", "logs").ok()
    second = subprocess.run(
        [PROGRAM, "serve"], env=walk.environ, capture_output=True, text=True, timeout=60, check=False
    )
    assert (second.returncode, "[daemon-already-running]" in second.stderr) == (4, True)


def test_guests_outlive_the_daemon(walk: Walk, vm: str) -> None:
    """Killed, it is back by itself; stopped and restarted, it finds its guests; their addresses are kept."""
    walk.guest(vm, "touch /run/marker")
    qemu, address, daemon = pid_of(vm), walk("domifaddr", vm).ok(), int(str(status(walk)["pid"]))
    os.kill(daemon, signal.SIGKILL)
    walk.until("the supervisor started it again", lambda: walk("daemon", "status").status == 0)
    assert status(walk)["pid"] != daemon
    assert walk.guest(vm, "ls /run/marker") == "/run/marker\n"

    daemon = int(str(status(walk)["pid"]))
    walk("daemon", "restart").ok()
    assert status(walk)["pid"] != daemon
    assert walk.guest(vm, "ls /run/marker") == "/run/marker\n"

    walk("daemon", "stop").ok()
    walk("list").ends(6, "daemon-unreachable")
    walk("daemon", "status").ends(6)
    assert virsh("domstate", vm) == "running"
    # What virsh does while nobody looks is found afterwards.
    virsh("suspend", vm)
    walk("daemon", "start").ok()
    walk.until("it is seen paused", lambda: walk("domstate", vm).ok() == "paused\n")
    assert walk.info(vm)["spec"]["power"] == "paused"
    walk("resume", vm).ok()
    assert walk.guest(vm, "ls /run/marker") == "/run/marker\n"
    assert (pid_of(vm), walk("domifaddr", vm).ok()) == (qemu, address)


def test_what_virsh_does_is_adopted(walk: Walk, vm: str) -> None:
    def seen(state: str, power: str) -> None:
        walk.until(
            f"it is {state}, wished {power}",
            lambda: (walk.info(vm)["status"]["state"], walk.info(vm)["spec"]["power"]) == (state, power),
        )

    virsh("destroy", vm)
    seen("shut off", "off")
    virsh("start", vm)
    seen("running", "on")
    virsh("suspend", vm)
    seen("paused", "paused")
    virsh("resume", vm)
    seen("running", "on")
    assert "ExternalChange" in walk("events", "-n", "30", "-o", "name").ok().split()
    assert "external:virsh" in walk("audit", "list").ok()

    # A change of what Corral owns is not reverted silently: it is said, and undone when that is asked.
    def drifted() -> bool:
        conditions = walk.info(vm)["status"]["conditions"]
        return any(found["type"] == "Drifted" and found["status"] == "true" for found in conditions)

    virsh("setmem", vm, "96M", "--config")
    virsh("setmaxmem", vm, "96M", "--config")
    walk.until("the drift is told", drifted)
    [change] = walk.json("drift", "show", vm)["items"]
    assert "memory" in change["field"]
    assert (change["wished"], change["found"]) != ("", "")
    walk("drift", "reset", vm).ok()
    walk.until("it is as defined", lambda: not drifted())
    assert "<memory unit='KiB'>131072<" in virsh("dumpxml", vm, "--inactive")


@pytest.fixture
def foreign(walk: Walk, tmp_path: Path) -> Iterator[str]:
    """A running domain that somebody made with virsh."""
    digest = walk.json("image", "show", "micro")["status"]["facts"]["digest"]
    image = walk.state_dir / "images" / digest
    name = walk.name("foreign")
    (tmp_path / "domain.xml").write_text(
        f"""<domain type='qemu'><name>{name}</name><uuid>{uuid4()}</uuid><memory unit='MiB'>128</memory>
        <vcpu>1</vcpu><os><type arch='x86_64' machine='q35'>hvm</type><kernel>{image}/kernel</kernel>
        <initrd>{image}/initrd</initrd><cmdline>console=ttyS0 quiet panic=1</cmdline></os>
        <features><acpi/></features>
        <devices><serial type='pty'/><console type='pty'/><channel type='unix'>
        <target type='virtio' name='org.qemu.guest_agent.0'/></channel></devices></domain>"""
    )
    virsh("define", str(tmp_path / "domain.xml"))
    virsh("start", name)
    yield name
    if walk("info", name).status == 0:
        walk("delete", name).ok()


def test_adopt_takes_over_without_a_restart(walk: Walk, foreign: str) -> None:
    listed = walk("list", "--all").ok()
    assert any(foreign in line and "running (unmanaged)" in line for line in listed.splitlines())
    walk("shutdown", foreign).ends(3, "vm-not-found")
    walk("create", "--name", foreign, "--image", "micro").ends(4, "domain-name-taken")
    pid = pid_of(foreign)
    walk("adopt", foreign).ok()
    assert pid_of(foreign) == pid
    adopted = walk.info(foreign)
    assert adopted["spec"]["adopted"] is True
    assert adopted["uid"] == virsh("domuuid", foreign)
    assert adopted["status"]["state"] == "running"
    walk("wait", foreign, "--for", "agent", "--timeout", PATIENCE).ok()
    assert walk.guest(foreign, "echo here") == "here\n"
    walk("shutdown", foreign, "--timeout", PATIENCE).ok()
    assert virsh("domstate", foreign) == "shut off"
    walk("delete", foreign).ok()
    assert foreign not in virsh("list", "--all", "--name").split()


def test_backup_and_restore_of_the_database(walk: Walk, vm: str) -> None:
    backup = walk.home / "corral.db"
    walk("tag", vm, "when=before").ok()
    walk("admin", "backup-db", str(backup)).ok()
    assert backup.stat().st_mode & 0o777 == 0o600
    walk("tag", vm, "when=after").ok()
    pid = pid_of(vm)
    walk("admin", "restore-db", str(backup)).ends(4)  # under a running daemon
    walk("daemon", "stop").ok()
    walk("admin", "restore-db", str(backup)).ok()
    walk("daemon", "start").ok()
    assert walk("tag", vm).ok() == "when=before\n"
    walk("wait", vm, "--for", "running", "--timeout", PATIENCE).ok()
    assert pid_of(vm) == pid
    assert walk.json("audit", "verify")["valid"] is True


def test_a_lost_database_is_rebuilt(walk: Walk, vm: str) -> None:
    before, pid = walk.info(vm), pid_of(vm)
    walk("daemon", "stop").ok()
    for path in walk.state_dir.glob("corral.db*"):
        path.unlink()
    walk("daemon", "start").ok()
    walk("info", vm).ends(3, "vm-not-found")
    said = walk("recover").ok()
    assert vm in said
    after = walk.info(vm)
    for key in ("vcpus", "memory_mib", "disks", "nics", "image"):
        assert after["spec"][key] == before["spec"][key]
    assert (after["uid"], after["status"]["state"], pid_of(vm)) == (before["uid"], "running", pid)
    assert "micro" in walk("image", "list", "-o", "name").ok().split()
    walk("wait", vm, "--for", "agent", "--timeout", PATIENCE).ok()
    walk("shutdown", vm, "--timeout", PATIENCE).ok()
    walk("start", vm).ok()
