"""Every command of a user's day, with the micro guest and with Debian: the same steps, each seen in virsh or in the guest.

The tests stand in the order in which they run; one guest of each kind lives through them all.
"""

import contextlib
import os
import re
import select
import signal
import subprocess
from collections.abc import Iterator

import pytest
from debian_guest import BOOT, PASSWORD, check_first_boot
from walk import PATIENCE_S, Terminal, Walk, virsh
from walked_guest import DEAF, HEARS_AGAIN, IMAGE, SCRIPT, Guest

pytestmark = pytest.mark.timeout(1500)

BOOT_S = 600.0


@pytest.fixture(scope="module", params=["micro", pytest.param("debian", marks=pytest.mark.debian)])
def made(walk: Walk, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    kind, place = request.param, tmp_path_factory.mktemp("made")
    if kind == "debian":
        request.getfixturevalue("debian_image")
    guest = Guest(walk, walk.name(f"both-{kind}"), kind)
    (place / "password").write_text(PASSWORD + "\n")
    (place / "user-data").write_text(SCRIPT[kind])
    walk(
        *("create", "--name", guest.name, "--image", *IMAGE[kind], "--disk", "size=5"),
        *("--ssh-key", str(walk.home / ".ssh/id_ed25519.pub"), "--password-file", str(place / "password")),
        *("--user-data", str(place / "user-data"), "--wait", "agent", "--timeout", BOOT),
    ).ok()
    yield guest
    if walk("info", guest.name).status == 0:
        walk("delete", guest.name).ok()


@pytest.fixture
def guest(walk: Walk, made: Guest) -> Guest:
    """Running, with its agent, whatever the test before did with it."""
    if walk.info(made.name)["status"]["state"] == "paused":
        walk("resume", made.name).ok()
    walk("start", made.name).ok()
    made.ready()
    return made


def test_create_list_info_wait(walk: Walk, guest: Guest) -> None:
    name = guest.name
    assert virsh("domstate", name) == "running"
    for condition in ("running", "agent", "ip", "cloud-init"):
        walk("wait", name, "--for", condition, "--timeout", BOOT).ok()
    walk("wait", name, "--for", "shutoff", "--timeout", "1s").ends(1, "wait-timeout")
    found = walk.info(name)
    assert (found["uid"], found["status"]["cloud_init"]) == (virsh("domuuid", name), "done")
    assert "cloud-init:  done" in walk("info", name).ok()
    assert name in walk("list", "-o", "name").ok().split()
    [address] = walk("domifaddr", name).ok().split()
    assert guest.says("hostname; cat /etc/marker").split() == [name, "written"]
    assert int(guest.says("nproc")) == found["spec"]["vcpus"] == (2 if guest.debian else 1)
    told = walk.json("guest", name)
    assert (told["hostname"], address in told["addresses"]) == (name, True)
    assert ("Debian" if guest.debian else "Corral micro") in told["os"]
    assert f"<name>{name}<" in walk("dumpxml", name).ok()


def test_console_by_corral_and_by_virsh(walk: Walk, guest: Guest) -> None:
    prompt = r"\$ " if guest.debian else "# "
    terminal = walk.terminal("console", guest.name)
    try:
        terminal.expect("Ctrl-] leaves", 60)
        if guest.debian:
            log_in(terminal)
        knock(terminal, prompt)
        terminal.send("echo $((40 + 2)) by corral\r")
        terminal.expect("42 by corral", 120)
        terminal.send("\x1d")
        assert terminal.end() == 0
    finally:
        terminal.close()

    terminal = Terminal(["virsh", "console", guest.name], walk.environ)
    try:
        terminal.expect("Escape character is", 60)
        knock(terminal, prompt)
        terminal.send("echo $((40 + 3)) by virsh\r")
        terminal.expect("43 by virsh", 120)
        if guest.debian:
            terminal.send("exit\r")
            terminal.expect("login: ", 120)
        terminal.send("\x1d")
        assert terminal.end() == 0
    finally:
        terminal.close()
    log = walk("console", "--log", guest.name).out
    assert "42 by corral" in log
    assert "43 by virsh" in log


def knock(terminal: Terminal, prompt: str) -> None:
    """Enter until it comes: what is typed before the console is open is lost."""
    for _ in range(24):
        terminal.send("\r")
        with contextlib.suppress(AssertionError):
            terminal.expect(prompt, 5)
            return
    terminal.expect(prompt, 1)


def log_in(terminal: Terminal) -> None:
    knock(terminal, "login: ")
    terminal.send("debian\r")
    terminal.expect("assword: ", 120)
    terminal.send(PASSWORD + "\r")


def test_ssh(walk: Walk, guest: Guest) -> None:
    if not guest.debian:
        walk("wait", guest.name, "--for", "ssh", "--timeout", "2s").ends(1, "wait-timeout")
        assert walk("ssh", guest.name, "--", "true").status == 255  # as ssh says it: nobody listens there
        return
    walk("wait", guest.name, "--for", "ssh", "--timeout", BOOT).ok()
    ran = walk("ssh", guest.name, "--", "echo out; echo err >&2; exit 7")
    assert (ran.status, ran.stdout) == (7, b"out\n")
    assert ran.stderr.endswith(b"err\n")  # after what ssh says of a host that it has not seen before
    assert walk("ssh", guest.name, "--", "wc", "-c", stdin="x" * 100_000).ok() == "100000\n"
    check_first_boot(walk, guest.name)


def test_exec_ends_as_the_command_does(walk: Walk, guest: Guest) -> None:
    name = guest.name
    ran = walk("exec", name, "--", "sh", "-c", "echo to out; echo to err >&2; exit 7")
    assert (ran.status, ran.stdout, ran.stderr) == (7, b"to out\n", b"to err\n")
    assert walk("exec", "-i", name, "--", "wc", "-c", stdin="x" * 100_000).ok() == "100000\n"
    assert walk("exec", "-i", name, "--", "sh", stdin="echo $((6 * 7))\nexit 3\n").ends(3) == "42\n"
    walk("exec", "-i", name, "--", "cat", stdin="x" * 300_000).ends(2, "body-too-large")
    assert walk("exec", name, "--", "printf", "%s|", "a b", "$HOME", "`id`", "'").stdout == b"a b|$HOME|`id`|'|"
    assert walk("exec", name, "--", "printf", r"\000\377\n").stdout == b"\x00\xff\n"
    ran = walk("exec", name, "--", "no-such-program")
    assert (ran.status, "no-such-program" in ran.err) == (127, True)
    # A signal and an exit code of the same number are told apart.
    with walk.client() as client:
        ends = [list(client.exec(name, ["sh", "-c", command]))[-1] for command in ("kill -9 $$", "exit 137")]
    assert ends == [(None, 9, False, True), (137, None, False, True)]
    ran = walk("exec", name, "--", "sh", "-c", "kill -9 $$")
    assert (ran.status, "signal 9" in ran.err) == (128 + 9, True)
    ran = walk("exec", name, "--", "head", "-c", "3000000", "/dev/zero")
    assert (ran.status, len(ran.stdout), "the rest was cut" in ran.err) == (0, 2**20, True)
    assert walk("guest-agent-command", name, "--", "echo", "alias").ok() == "alias\n"


def test_exec_shows_output_when_it_is_written(walk: Walk, guest: Guest) -> None:
    """The command waits for what only somebody who has seen its first line does."""
    running = guest.spawn("echo first; while [ ! -e /run/go ]; do sleep 0.2; done; echo second; rm /run/go; exit 4")
    try:
        assert heard(running) == b"first\n"
        guest.says("touch /run/go")
        assert running.communicate(timeout=120)[0] == b"second\n"
        assert running.returncode == 4
    finally:
        running.kill()
        running.wait(20)
    walk.until("its files are gone", lambda: guest.says("ls -d /run/corral-exec.* | wc -l") == "1\n")


def heard(running: "subprocess.Popen[bytes]") -> bytes:
    assert running.stdout is not None
    assert select.select([running.stdout], [], [], 120)[0], "nothing came"
    return os.read(running.stdout.fileno(), 1000)


def test_exec_stops_what_nobody_waits_for(walk: Walk, guest: Guest) -> None:
    """Late, or its client gone: neither the program nor what it has started stays behind."""
    late = walk("exec", guest.name, "--timeout", "2s", "--", "sh", "-c", "sleep 41414; true")
    late.ends(1, "guest-agent-timeout")
    assert "it was stopped" in late.err
    walk.until("it is gone", lambda: not guest.running("sleep 41414"))

    running = guest.spawn("echo here; trap '' TERM; sleep 51515; sleep 51515")
    try:
        assert heard(running) == b"here\n"
        assert guest.running("sleep 51515")
        running.send_signal(signal.SIGINT)
        assert running.wait(PATIENCE_S) != 0
    finally:
        running.kill()
        running.communicate(timeout=20)
    walk.until("it is gone", lambda: not guest.running("sleep 51515"))


def test_pause_and_resume(walk: Walk, guest: Guest) -> None:
    walk("suspend", guest.name).ok()
    assert virsh("domstate", guest.name) == "paused"
    assert walk.info(guest.name)["spec"]["power"] == "paused"
    assert guest.name in walk("list", "-o", "name").ok().split()
    walk("exec", guest.name, "--", "true").ends(4, "wrong-state")
    walk("resume", guest.name).ok()
    assert virsh("domstate", guest.name) == "running"
    guest.says("true")


def test_save_and_start(walk: Walk, guest: Guest) -> None:
    guest.says("echo here >/run/marker")
    before_s, address = walk.uptime_s(guest.name), walk("domifaddr", guest.name).ok()
    walk("save", guest.name).ok()
    assert virsh("domstate", guest.name) == "shut off"
    assert walk.info(guest.name)["status"]["has_saved_memory"] is True
    assert "saved memory" in walk("info", guest.name).ok()
    walk("start", guest.name).ok()
    assert guest.says("cat /run/marker") == "here\n"
    assert walk.uptime_s(guest.name) > before_s
    assert walk("domifaddr", guest.name).ok() == address


def test_describe_tag_protect_autostart(walk: Walk, guest: Guest) -> None:
    name = guest.name
    walk("describe", name, "of the walk").ok()
    assert walk("desc", name).ok() == "of the walk\n"
    assert virsh("desc", name) == "of the walk"
    walk("tag", name, "env=test", "old=1").ok()
    walk("tag", name, "old-").ok()
    labels = walk("tag", name).ok().split()
    assert "env=test" in labels
    assert "old=1" not in labels
    walk("protect", name).ok()
    walk("delete", name).ends(4, "vm-protected")
    assert virsh("domstate", name) == "running"
    walk("unprotect", name).ok()
    walk("autostart", name, "--priority", "3").ok()
    assert walk.info(name)["spec"]["boot"]["priority"] == 3
    walk("autostart", name, "--disable").ok()
    assert walk.info(name)["spec"]["boot"]["autostart"] is False


def test_top_and_events(walk: Walk, guest: Guest) -> None:
    name = guest.name
    [usage] = [item for item in walk.json("top", "--once", name)["items"] if item["name"] == name]
    assert usage["cpu_time_ns"] > 0
    assert usage["memory_rss_bytes"] > 2**20
    assert usage["net_received_bytes"] > 0
    assert name in walk("domstats").ok()
    newest = walk.json("events", "-n", "1")[-1]["sequence"]
    follower = walk.terminal("events", "--follow", "--after", str(newest))
    try:
        virsh("suspend", name)
        follower.expect(rf"{name}\S*.*", 60)
        virsh("resume", name)
        walk.until("it is seen", lambda: walk.info(name)["spec"]["power"] == "on")
        follower.send("\x03")
    finally:
        follower.close()
    mine = [event for event in walk.json("events", "--after", str(newest)) if event["object_name"] == name]
    assert "ExternalChange" in [event["reason"] for event in mine]


def test_operations(walk: Walk, guest: Guest) -> None:
    """The shutdown of a guest that does not listen can be watched, and called off."""
    name, boot_id = guest.name, guest.boot_id()
    guest.says(f"(sleep 1; {DEAF[guest.kind]}) >/dev/null 2>&1 &")
    walk.until("the agent is gone", lambda: not walk.info(name)["status"]["agent_connected"])
    walk("shutdown", name, "--timeout", "2s").ends(1, "shutdown-timeout")
    uid = walk("shutdown", name, "--timeout", "600s", "--async").ok().strip()
    assert uid in walk("operation", "list", "-o", "name").ok().split()
    walk.until("it is under way", lambda: walk.json("operation", "show", uid[:8])["status"]["state"] == "running")
    assert walk("operation", "cancel", uid).ok() == f"{uid}: cancelled\n"
    walk("operation", "watch", uid).ends(4, "operation-cancelled")
    shown = walk("operation", "show", uid).ok()
    assert re.search(r"state: +cancelled", shown)
    assert "requested by: local:root" in shown
    assert uid in walk("operation", "list", "--all", "-o", "name").ok().split()
    assert (virsh("domstate", name), walk.info(name)["spec"]["power"]) == ("running", "on")
    if guest.debian:
        walk("ssh", name, "--", HEARS_AGAIN).ok()
        guest.ready()
        assert guest.boot_id() == boot_id
        return
    # A reset needs nobody's ear, and is a new boot under the same QEMU.
    qemu, address = guest.qemu(), walk("domifaddr", name).ok()
    walk("reset", name).ok()
    walk.until("it is up anew", lambda: guest.boot_id() not in ("", boot_id), BOOT_S)
    assert (guest.qemu(), walk("domifaddr", name).ok()) == (qemu, address)


def test_reboot(walk: Walk, guest: Guest) -> None:
    boot_id, qemu, address = guest.boot_id(), guest.qemu(), walk("domifaddr", guest.name).ok()
    assert walk("reboot", guest.name, "--timeout", BOOT).ok() == f"{guest.name}: rebooted\n"
    walk.until("it is up anew", lambda: guest.boot_id() not in ("", boot_id), BOOT_S)
    assert (guest.qemu(), walk("domifaddr", guest.name).ok()) == (qemu, address)


def test_adopt_takes_over_the_running_guest(walk: Walk, guest: Guest, vm: str) -> None:
    """With Corral's marks taken off it is a domain like any other: seen as unmanaged, taken over while it runs on."""
    name, boot_id, qemu = guest.name, guest.boot_id(), guest.qemu()
    walk("daemon", "stop").ok()
    marks = re.search(r"""<metadata>.*xmlns:\w+=["']([^"']+)["']""", virsh("dumpxml", name), re.DOTALL)
    assert marks is not None
    virsh("metadata", name, marks[1], "--remove", "--live", "--config")
    for path in walk.state_dir.glob("corral.db*"):
        path.unlink()
    walk("daemon", "start").ok()
    walk("recover").ok()
    assert vm in walk("list", "--all", "-o", "name").ok().split()
    walk("info", name).ends(3, "vm-not-found")
    assert any(name in line and "running (unmanaged)" in line for line in walk("list", "--all").ok().splitlines())
    walk("adopt", name).ok()
    adopted = walk.info(name)
    assert (adopted["spec"]["adopted"], adopted["uid"]) == (True, virsh("domuuid", name))
    guest.ready()
    assert (guest.boot_id(), guest.qemu()) == (boot_id, qemu)


def test_shutdown_rename_start_reset_destroy(walk: Walk, guest: Guest) -> None:
    """It need not come up for what is seen of a reset: it begins to boot again, under the same QEMU."""
    name, other = guest.name, walk.name(f"renamed-{guest.kind}")
    walk("rename", name, other).ends(4, "wrong-state")
    walk("shutdown", name, "--timeout", BOOT).ok()
    assert virsh("domstate", name, "--reason") == "shut off (shutdown)"
    walk("wait", name, "--for", "shutoff", "--timeout", "10s").ok()
    assert walk.info(name)["spec"]["power"] == "off"
    walk("rename", name, other).ok()
    assert virsh("domstate", other) == "shut off"
    walk("info", name).ends(3, "vm-not-found")
    guest.name = other
    before = guest.boots()
    uid = walk("start", other, "--async").ok().strip()
    assert walk("operation", "watch", uid, "-o", "name").ok().strip() == uid
    assert virsh("domstate", other) == "running"
    walk.until("it boots", lambda: guest.boots() == before + 1, BOOT_S)
    qemu = guest.qemu()
    walk("reset", other).ok()
    walk.until("it boots again", lambda: guest.boots() == before + 2, BOOT_S)
    assert guest.qemu() == qemu != ""
    assert walk("destroy", walk.name("nobody"), other).ends(3, "vm-not-found") == f"{other}: stopped\n"
    assert virsh("domstate", other) == "shut off"
    walk("domrename", other, name).ok()
    guest.name = name


@pytest.mark.soak
def test_panic(walk: Walk, guest: Guest) -> None:
    """run_policy is on-failure: a guest that panicked is started again."""
    if not guest.debian:
        return  # its kernel has no such device, and reboots
    name, qemu = guest.name, guest.qemu()
    newest = walk.json("events", "-n", "1")[-1]["sequence"]
    walk("exec", name, "--timeout", "60s", "--", "sh", "-c", "echo c >/proc/sysrq-trigger")
    walk.until("it runs again", lambda: guest.qemu() not in ("", qemu) and virsh("domstate", name) == "running", BOOT_S)
    mine = [event for event in walk.json("events", "--after", str(newest)) if event["object_name"] == name]
    assert "VmRestarted" in [event["reason"] for event in mine]
    walk("destroy", name).ok()


def test_delete(walk: Walk, made: Guest) -> None:
    walk("delete", made.name).ok()
    assert made.name not in virsh("list", "--all", "--name").split()
    walk("info", made.name).ends(3, "vm-not-found")
