"""Sessions with a running micro guest: console on a terminal, commands through the agent, figures, and what it may ask."""

import subprocess
from pathlib import Path

import pytest
from walk import PATIENCE, PATIENCE_S, Walk, virsh

pytestmark = pytest.mark.timeout(900)


def test_console_on_a_terminal(walk: Walk, vm: str) -> None:
    terminal = walk.terminal("console", vm)
    try:
        terminal.expect("Ctrl-] leaves", 60)
        terminal.send("\r")
        terminal.expect("# ", 60)
        terminal.send("echo answer $((6 * 7))\r")
        terminal.expect("answer 42", 60)

        # One at a time; --force takes it over, and the other one is told.
        walk("console", vm, stdin="").ends(4, "console-in-use")
        second = walk.terminal("console", "--force", vm)
        try:
            second.expect("Ctrl-] leaves", 60)
            terminal.expect("The console ended", 60)
            assert terminal.end() == 0
            second.send("\recho second\r")
            second.expect("\nsecond", 60)
            second.send("\x1d")
            second.expect("the VM goes on", 30)
            assert second.end() == 0
        finally:
            second.close()
    finally:
        terminal.close()
    assert "answer 42" in walk("console", "--log", vm).out
    assert "echo second" in walk("console", "--log", vm).out


def test_exec_survives_a_flood(walk: Walk, vm: str) -> None:
    """More than the guest agent itself can hold in so small a guest."""
    ran = walk("exec", vm, "--", "sh", "-c", "head -c 40000000 /dev/zero; exit 3")
    ran.ends(3)
    assert len(ran.stdout) == 2**20
    assert "the rest was cut" in ran.err
    assert walk.guest(vm, "echo still here") == "still here\n"


def test_what_is_wrong_with_a_session_is_said(walk: Walk, vm: str) -> None:
    nobody = walk.name("nobody")
    for argv in (("exec", nobody, "--", "true"), ("console", nobody), ("ssh", nobody), ("guest", nobody)):
        walk(*argv).ends(3, "vm-not-found")
    walk("exec", vm).ends(2)
    walk("wait", vm, "--for", "nothing").ends(2)
    walk("wait", vm, "--for", "ssh", "--timeout", "2s").ends(1, "wait-timeout")


def test_top_and_metrics(walk: Walk, vm: str) -> None:
    walk.guest(vm, "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done")
    assert walk("top", "--once").ok().splitlines()[0].split()[:3] == ["NAME", "CPU", "%"]
    [usage] = [item for item in walk.json("top", "--once", vm)["items"] if item["name"] == vm]
    assert usage["cpu_time_ns"] > 0
    assert usage["memory_rss_bytes"] > 2**20
    assert usage["net_received_bytes"] > 0
    assert vm in walk("domstats").ok()
    terminal = walk.terminal("top", "--interval", "1s")
    try:
        terminal.expect("Ctrl-C leaves", 30)
        terminal.expect("Ctrl-C leaves", 30)
        terminal.send("\x03")
    finally:
        terminal.close()

    with walk.client() as client:
        metrics = client.request_bytes("GET", "/metrics").decode()
        assert client.request("GET", "/healthz")
        assert client.request("GET", "/readyz")["ready"] is True
    assert any(line.startswith("corral_vm_") and f'"{vm}"' in line for line in metrics.splitlines())
    assert "corral_host_" in metrics


def test_a_guest_that_powers_itself_off_stays_off(walk: Walk, vm: str) -> None:
    walk("exec", vm, "--", "poweroff")
    walk("wait", vm, "--for", "shutoff", "--timeout", PATIENCE).ok()
    walk.until("its power is off", lambda: walk.info(vm)["spec"]["power"] == "off")
    assert virsh("domstate", vm) == "shut off"
    reasons = [event["reason"] for event in walk.json("events", "-n", "20") if event["object_name"] == vm]
    assert "GuestPoweredOff" in reasons


def test_a_killed_qemu_is_started_again(walk: Walk, vm: str) -> None:
    pid_file = Path(f"/run/libvirt/qemu/{vm}.pid")
    pid = pid_file.read_text()
    subprocess.run(["kill", "-9", pid], check=True)
    walk.until("it runs again", lambda: pid_file.exists() and pid_file.read_text() not in ("", pid), PATIENCE_S)
    walk("wait", vm, "--for", "running", "--timeout", PATIENCE).ok()
    assert walk.info(vm)["spec"]["power"] == "on"
    assert "VmRestarted" in walk("events", "-n", "30", "-o", "name").ok().split()
