"""Every verb of a VM, as a user types it: what is printed, in which format, with which exit code."""

import json
import signal
import uuid
from collections.abc import Iterator

import pytest
import yaml

from .conftest import Corral


def new_name() -> str:
    return f"t{uuid.uuid4().hex[:8]}"


@pytest.fixture
def vm(corral: Corral) -> Iterator[str]:
    """A running VM."""
    name = new_name()
    corral("create", "--name", name, "--image", "micro", "--memory", "128").ok()
    yield name
    corral("unprotect", name)
    corral("delete", name)


def state(corral: Corral, name: str) -> str:
    return corral("domstate", name).ok().out.strip()


def test_create_says_what_it_did_and_info_shows_it(corral: Corral) -> None:
    name = new_name()
    made = corral(
        "create", "--name", name, "--image", "micro", "--memory", "256M", "--vcpus", "2", "--label", "env=test"
    )
    assert made.ok().out == f"{name}: running\n"
    document = corral("info", name, "-o", "json").json
    assert document["name"] == name
    assert document["spec"]["memory_mib"] == 256
    assert document["spec"]["vcpus"] == 2
    assert document["labels"] == {"env": "test"}
    assert document["status"]["state"] == "running"
    shown = corral("info", name).ok().out
    assert "state:" in shown
    assert "running" in shown
    assert yaml.safe_load(corral("info", name, "-o", "yaml").ok().out)["uid"] == document["uid"]
    corral("delete", name).ok()


def test_create_without_starting_and_as_json(corral: Corral) -> None:
    name = new_name()
    document = corral("create", name, "--image", "micro", "--memory", "128", "--no-start", "-o", "json").json
    assert document["status"]["state"] == "shut off"
    assert state(corral, name) == "shut off"
    corral("start", name).ok()
    assert state(corral, name) == "running"
    corral("delete", name).ok()


def test_the_first_vms_of_somebody_without_a_key_made_at_once_share_the_one_that_is_made(corral: Corral) -> None:
    (corral.home / ".ssh" / "id_ed25519.pub").rename(corral.home / "mine.pub")
    names = [f"first-{number}" for number in range(6)]
    create = ("create", "--image", "micro", "--memory", "128", "--no-start", "--name")
    try:
        running = [corral.start(*create, name) for name in names]
        ended = [(process.communicate(timeout=60)[1], process.returncode) for process in running]
        assert [status for _, status in ended] == [0] * len(names), ended
        [made] = (corral.home / ".ssh").glob("*.pub")
        users = [corral("info", name, "-o", "json").json["spec"]["cloud_init"]["users"] for name in names]
        assert [user["ssh_keys"] for [user] in users] == [[made.read_text().strip()]] * len(names)
    finally:
        corral("delete", *names)
        (corral.home / "mine.pub").rename(corral.home / ".ssh" / "id_ed25519.pub")


def test_list_shows_what_runs_and_all_shows_the_rest(corral: Corral, vm: str) -> None:
    assert vm in corral("list", "-o", "name").ok().out.split()
    corral("destroy", vm).ok()
    assert vm not in corral("list", "-o", "name").ok().out.split()
    assert vm in corral("list", "--all", "-o", "name").ok().out.split()
    table = corral("list", "--all").ok().out.splitlines()
    assert table[0].split() == ["NAME", "STATE", "VCPUS", "MEMORY", "ADDRESS", "AGE"]
    assert isinstance(corral("list", "--all", "-o", "json").json, list)
    assert "\x1b" not in "".join(table)


def test_the_life_of_a_vm(corral: Corral, vm: str) -> None:
    for verb, after in (
        ("pause", "paused"),
        ("resume", "running"),
        ("suspend", "paused"),
        ("resume", "running"),
        ("reset", "running"),
        ("reboot", "running"),
        ("save", "shut off"),
        ("start", "running"),
        ("shutdown", "shut off"),
        ("start", "running"),
        ("destroy", "shut off"),
    ):
        corral(verb, vm).ok()
        assert state(corral, vm) == after, verb


def test_several_names_and_a_bad_one_does_not_stop_the_others(corral: Corral) -> None:
    names = [new_name(), new_name()]
    for name in names:
        corral("create", name, "--image", "micro", "--memory", "128", "--no-start").ok()
    ran = corral("start", names[0], "nobody", names[1])
    assert ran.status == 3
    assert "[vm-not-found]" in ran.err
    assert ran.out == f"{names[0]}: started\n{names[1]}: started\n"
    ran = corral("delete", names[0], "nobody", names[1], "-o", "json")
    assert ran.status == 3
    assert [operation["status"]["state"] for operation in json.loads(ran.out)] == ["succeeded", "succeeded"]


def test_asynchronous_commands_print_the_operation(corral: Corral, vm: str) -> None:
    uid = corral("destroy", vm, "--async").ok().out.strip()
    assert corral("operation", "watch", uid, "-o", "json").json["status"]["state"] == "succeeded"
    assert corral("operation", "show", uid[:8], "-o", "json").json["uid"] == uid
    assert uid in corral("operation", "list", "--all", "-o", "name").ok().out.split()
    assert corral("operation", "cancel", uid).status == 4
    assert "verb:" in corral("operation", "show", uid).ok().out


def test_particulars(corral: Corral, vm: str) -> None:
    corral("describe", vm, "the front end").ok()
    assert corral("desc", vm).ok().out == "the front end\n"
    corral("tag", vm, "env=test", "tier=web").ok()
    corral("tag", vm, "tier-").ok()
    assert corral("tag", vm).ok().out == "env=test\n"
    assert corral("list", "-l", "env=test", "-o", "name").ok().out == f"{vm}\n"
    corral("protect", vm).ok()
    refused = corral("delete", vm)
    assert refused.status == 4
    assert "[vm-protected]" in refused.err
    corral("unprotect", vm).ok()
    corral("autostart", vm, "--priority", "10", "--delay", "5s").ok()
    assert corral("info", vm, "-o", "json").json["spec"]["boot"]["delay_s"] == 5
    corral("autostart", vm, "--disable").ok()
    boot = corral("info", vm, "-o", "json").json["spec"]["boot"]
    assert (boot["autostart"], boot["priority"]) == (False, 10)
    corral("destroy", vm).ok()
    corral("rename", vm, f"{vm}-2").ok()
    corral("domrename", f"{vm}-2", vm).ok()


def test_undefine_keeps_the_disks(corral: Corral) -> None:
    name = new_name()
    corral("create", name, "--image", "micro", "--memory", "128", "--disk", "1", "--disk", "size=2,name=data").ok()
    assert len(corral("domblklist", name).ok().out.splitlines()) == 2
    before = set(corral("volume", "list", "-o", "name").ok().out.split())
    corral("undefine", name).ok()
    assert corral("info", name).status == 3
    kept = set(corral("vol-list", "-o", "name").ok().out.split())
    assert kept == before
    (data,) = [
        volume for volume in corral("volume", "list", "-o", "json").json if volume["name"].startswith(f"{name}-data")
    ]
    assert data["spec"]["size_bytes"] == 2 * 2**30
    assert data["name"] in corral("vol-info", data["name"]).ok().out


def test_wait(corral: Corral, vm: str) -> None:
    corral("wait", vm, "--for", "running").ok()
    late = corral("wait", vm, "--for", "shutoff", "--timeout", "300ms")
    assert late.status == 1
    assert "[wait-timeout]" in late.err
    assert "running" in late.err
    assert corral("wait", "nobody", "--for", "running").status == 3


@pytest.mark.parametrize(
    ("argv", "code", "status"),
    [
        (["create", "a" * 300, "--image", "micro"], "invalid-name", 2),
        (["create", "../etc", "--image", "micro"], "invalid-name", 2),
        (["create", "x; reboot", "--image", "micro"], "invalid-name", 2),
        (["create", "ok", "--image", "nothing"], "image-not-found", 3),
        (["create", "ok", "--image", "micro", "--memory", "0"], "", 2),
        (["create", "ok", "--image", "micro", "--vcpus", "0"], "", 2),
        (["create", "ok", "--image", "micro", "--user-data", "/nonexistent"], "invalid-argument", 2),
        (["info", "nobody"], "vm-not-found", 3),
        (["start", "no/body"], "invalid-name", 2),
        (["image", "show", "nothing"], "image-not-found", 3),
        (["operation", "show", "00000000-0000-4000-8000-000000000000"], "operation-not-found", 3),
    ],
)
def test_bad_input_is_refused_with_a_code(corral: Corral, argv: list[str], code: str, status: int) -> None:
    ran = corral(*argv)
    assert ran.status == status, ran.err
    assert ran.err.startswith("error: ")
    assert f"[{code}" in ran.err
    assert ran.out == ""


@pytest.mark.parametrize(
    ("size", "said"),
    [("-5", "cannot become smaller"), ("-5G", "cannot become smaller"), ("--5x", "cannot become smaller")],
)
def test_a_size_that_a_disk_cannot_get_is_refused(corral: Corral, vm: str, size: str, said: str) -> None:
    ran = corral("disk", "resize", vm, "root", size)
    assert (ran.status, "[invalid-size]" in ran.err, said in ran.err) == (2, True, True), ran.err


def test_what_waits_for_a_restart_is_seen_until_it_was(corral: Corral, vm: str) -> None:
    changed = corral("set", vm, "memory=256M").ok()
    assert "waits for a restart: memory" in changed.err
    assert "a reboot from inside the guest does not" in changed.err
    assert "running, restart pending" in corral("list").ok().out
    assert "waits for a restart:" in corral("info", vm).ok().out
    corral("shutdown", vm).ok()
    assert "restart pending" not in corral("list", "--all").ok().out
    corral("start", vm).ok()
    assert "restart pending" not in corral("list").ok().out


def test_a_taken_name_is_a_conflict(corral: Corral, vm: str) -> None:
    ran = corral("create", vm, "--image", "micro", "--memory", "128")
    assert ran.status == 4
    assert "[name-taken]" in ran.err


def test_control_c_ends_a_wait_with_130(corral: Corral, vm: str) -> None:
    process = corral.start("wait", vm, "--for", "shutoff", "--timeout", "60s")
    try:
        with pytest.raises(TimeoutError):
            _poll(process)
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
    finally:
        process.kill()
        process.communicate()


def _poll(process: object) -> None:
    import subprocess

    assert isinstance(process, subprocess.Popen)
    try:
        process.wait(1)
    except subprocess.TimeoutExpired as late:
        raise TimeoutError from late


def test_the_guest(corral: Corral, vm: str) -> None:
    corral("wait", vm, "--for", "agent").ok()
    ran = corral("exec", vm, "--", "echo", "hello")
    assert ran.status == 0, ran.err
    assert corral("guest", vm, "-o", "json").json["addresses"] is not None
    assert corral("document", vm).ok().out != ""
    assert corral("console", vm, "--log").status == 0
    usage = corral("top", "--once", vm, "-o", "json").json
    assert [item["name"] for item in usage["items"]] == [vm]
    assert corral("top", "--once").ok().out.splitlines()[0].startswith("NAME")


def test_the_console_carries_pipes(corral: Corral, vm: str) -> None:
    ran = corral("console", vm, stdin="hello\n")
    assert ran.status == 0, ran.err


def test_tab_completes_names_of_vms(corral: Corral, vm: str) -> None:
    corral.environment.update(_CORRAL_COMPLETE="bash_complete", COMP_WORDS=f"corral start {vm[:4]}", COMP_CWORD="2")
    try:
        assert corral().out.split() == [f"plain,{vm}"]
    finally:
        corral.environment.clear()
