"""The daemon as a process: a VM's life through it, its death and return, its neighbours and its end."""

import json
import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from corral.errors import CorralError


def test_a_vm_is_made_runs_and_is_gone(shared_daemon: Any, done: Callable[..., Any]) -> None:
    with shared_daemon.client() as client:
        made = client.create_vm({"name": "life", "image": "micro", "memory_mib": 128})
        assert made["vm"]["status"]["state"] == "pending"
        done(client, made)
        assert client.get_vm("life")["status"]["state"] == "running"
        assert client.wait_vm("life", "agent", 30)["condition"] == "agent"
        done(client, client.vm_action("life", "pause"))
        assert client.get_vm("life")["status"]["state"] == "paused"
        done(client, client.vm_action("life", "resume"))
        done(client, client.vm_action("life", "shutdown", {"deadline_s": 30}))
        assert client.get_vm("life")["status"]["state"] == "shut off"
        done(client, client.update_vm("life", {"name": "after-life", "description": "renamed"}))
        done(client, client.vm_action("after-life", "start"))
        done(client, client.vm_action("after-life", "reset"))
        done(client, client.vm_action("after-life", "destroy"))
        done(client, client.delete_vm("after-life"))
        with pytest.raises(CorralError, match="vm-not-found"):
            client.get_vm("after-life")
        assert [volume["name"] for volume in client.list_volumes() if volume["name"].startswith("life")] == []
        assert client.verify_audit()["valid"]


def test_kept_disks_outlive_their_vm(shared_daemon: Any, done: Callable[..., Any]) -> None:
    with shared_daemon.client() as client:
        done(client, client.create_vm({"name": "keeper", "image": "micro", "memory_mib": 128, "start": False}))
        done(client, client.delete_vm("keeper", keep_disks=True))
        (volume,) = [volume for volume in client.list_volumes() if volume["name"].startswith("keeper-")]
        assert volume["spec"]["vm_uid"] is None
        done(client, client.create_vm({"name": "keeper", "image": "micro", "memory_mib": 128, "start": False}))
        done(client, client.delete_vm("keeper"))


def test_sessions_with_a_running_guest(shared_daemon: Any, done: Callable[..., Any]) -> None:
    with shared_daemon.client() as client:
        done(client, client.create_vm({"name": "talker", "image": "micro", "memory_mib": 128}))
        client.wait_vm("talker", "agent", 30)
        ends = list(client.exec("talker", ["echo", "hello"]))
        assert b"hello" in b"".join(getattr(part, "data", b"") for part in ends)
        assert client.guest("talker")["hostname"] == "talker"
        assert "talker" in client.document("talker")
        assert [item["name"] for item in client.usage()["items"]].count("talker") == 1
        client.console_log("talker")
        done(client, client.delete_vm("talker"))
        assert {("vm.exec", "accepted"), ("vm.console-log", "accepted")} <= {
            (entry["action"], entry["outcome"]) for entry in client.list_audit()
        }


def test_killed_and_started_again_it_finds_its_vms_and_ends_what_was_begun(
    daemons: Callable[..., Any], done: Callable[..., Any], with_micro: Callable[..., None]
) -> None:
    daemon = daemons().start()
    with_micro(daemon)
    with daemon.client() as client:
        done(client, client.create_vm({"name": "stays", "image": "micro", "memory_mib": 128}))
        uid = client.get_vm("stays")["uid"]
        begun = [client.create_vm({"name": f"begun-{n}", "image": "micro", "memory_mib": 64}) for n in range(5)]
    daemon.kill()
    daemon.start()
    with daemon.client() as client:
        for accepted in begun:
            done(client, accepted)
        assert client.get_vm("stays")["uid"] == uid
        assert {vm["status"]["state"] for vm in client.list_vms()} == {"running"}
        addresses = [vm["spec"]["nics"][0]["address"] for vm in client.list_vms()]
        assert len(set(addresses)) == 6


def test_killed_at_once_it_loses_no_vm(
    daemons: Callable[..., Any], done: Callable[..., Any], with_micro: Callable[..., None]
) -> None:
    """The pretended host kept its changes for a moment before it wrote them: a VM whose creation had ended was off."""
    daemon = daemons().start()
    with_micro(daemon)
    for turn in range(3):
        with daemon.client() as client:
            begun = [client.create_vm({"name": f"vm-{turn}-{n}", "image": "micro", "memory_mib": 64}) for n in range(3)]
            done(client, begun[turn])
        daemon.kill()
        daemon.start()
        with daemon.client() as client:
            for accepted in begun:
                done(client, accepted)
            assert {vm["status"]["state"] for vm in client.list_vms()} == {"running"}
    with daemon.client() as client:
        assert len(client.list_vms()) == 9
        assert client.wait_vm("vm-2-0", "agent", 30)["condition"] == "agent"


def test_sigterm_ends_it_well_and_leaves_no_socket(daemons: Callable[..., Any]) -> None:
    daemon = daemons().start()
    assert stat.S_ISSOCK(daemon.socket.stat().st_mode)
    assert daemon.terminate() == 0
    assert not daemon.socket.exists()
    with pytest.raises(CorralError, match="daemon-unreachable"), daemon.client() as client:
        client.daemon()


def test_a_host_that_goes_down_takes_its_guests_along_and_brings_them_back(
    daemons: Callable[..., Any], done: Callable[..., Any], with_micro: Callable[..., None], tmp_path: Path
) -> None:
    systemctl = tmp_path / "systemctl"
    systemctl.write_text("#!/bin/sh\necho stopping\nexit 1\n")
    systemctl.chmod(0o755)
    daemon = daemons(PATH=f"{tmp_path}:{os.environ['PATH']}").start()
    with_micro(daemon)
    with daemon.client() as client:
        for name in ("first", "second"):
            done(client, client.create_vm({"name": name, "image": "micro", "memory_mib": 64}))
    assert daemon.terminate() == 0
    log = daemon.log.read_text()
    assert "first is off" in log
    assert "second is off" in log
    assert '"running"' not in (daemon.state_dir / "fake-world.jsonl").read_text()
    daemon.start()
    with daemon.client() as client:
        for name in ("first", "second"):
            assert client.wait_vm(name, "running", 30)["condition"] == "running"


def test_a_second_daemon_on_the_same_directory_is_refused(shared_daemon: Any) -> None:
    second = shared_daemon.spawn()
    assert second.wait(30) == 4
    assert "daemon-already-running" in shared_daemon.log.read_text()
    with shared_daemon.client() as client:
        assert client.ready()["ready"]


def test_two_daemons_live_side_by_side(
    shared_daemon: Any, daemons: Callable[..., Any], done: Callable[..., Any], with_micro: Callable[..., None]
) -> None:
    other = daemons().start()
    with_micro(other)
    with shared_daemon.client() as first, other.client() as second:
        for client in (first, second):
            done(client, client.create_vm({"name": "twin", "image": "micro", "memory_mib": 64}))
        assert first.get_vm("twin")["uid"] != second.get_vm("twin")["uid"]
        assert first.daemon()["installation_id"] != second.daemon()["installation_id"]
        done(first, first.delete_vm("twin"))
        assert second.get_vm("twin")["status"]["state"] == "running"


def test_a_damaged_database_is_said_and_not_written_over(daemons: Callable[..., Any]) -> None:
    daemon = daemons()
    daemon.state_dir.mkdir()
    (daemon.state_dir / "corral.db").write_bytes(b"this is no database" * 1000)
    process = daemon.spawn()
    assert process.wait(30) == 1
    assert "store-corrupt" in daemon.log.read_text()
    assert (daemon.state_dir / "corral.db").read_bytes().startswith(b"this is no database")


def test_bad_settings_end_the_start_with_a_code(daemons: Callable[..., Any]) -> None:
    daemon = daemons(CORRAL_RELIST_INTERVAL_S="1")
    assert daemon.spawn().wait(30) == 2
    assert "invalid-argument" in daemon.log.read_text()


def test_no_secret_reaches_the_log_the_process_list_or_the_database_in_clear(
    daemons: Callable[..., Any], done: Callable[..., Any], with_micro: Callable[..., None]
) -> None:
    daemon = daemons(CORRAL_LOG_LEVEL="debug").start()
    with_micro(daemon)
    secret = "correct-horse-battery"
    with daemon.client() as client:
        made = client.create_vm({"name": "hush", "image": "micro", "memory_mib": 64, "password": secret})
        done(client, made)
        token = client.create_token({"name": "ci", "role": "viewer"})["secret"]
        told = json.dumps([made, client.list_vms(), client.list_tokens(), client.list_audit()])
    assert daemon.terminate() == 0
    for text in (secret, token.split("_", 2)[2]):  # corral_UID_SECRET, which may have a _ of its own
        assert text not in told
        assert text.encode() not in daemon.log.read_bytes()
        for path in daemon.state_dir.glob("*.db*"):
            assert text.encode() not in path.read_bytes()


def test_a_lost_database_is_recovered(
    daemons: Callable[..., Any], done: Callable[..., Any], with_micro: Callable[..., None]
) -> None:
    daemon = daemons().start()
    with_micro(daemon)
    with daemon.client() as client:
        body = {"name": "phoenix", "image": "micro", "memory_mib": 64, "labels": {"tier": "db"}, "description": "kept"}
        done(client, client.create_vm(body))
        done(client, client.create_vm({"name": "off", "image": "micro", "memory_mib": 64, "start": False}))
        before = {vm["name"]: vm for vm in client.list_vms()}
    daemon.terminate()
    for path in daemon.state_dir.glob("corral.db*"):
        path.unlink()
    daemon.start()
    with daemon.client() as client:
        assert client.list_vms() == []
        report = client.recover()
        assert sorted(report["vms"]) == ["off", "phoenix"]
        after = {vm["name"]: vm for vm in client.list_vms()}
        for name, vm in before.items():
            assert after[name]["uid"] == vm["uid"]
            assert after[name]["spec"]["nics"] == vm["spec"]["nics"]
            assert after[name]["spec"]["disks"] == vm["spec"]["disks"]
            assert after[name]["status"]["state"] == vm["status"]["state"]
        assert after["phoenix"]["labels"] == {"tier": "db"}
        assert client.recover()["vms"] == []
        done(client, client.vm_action("off", "start"))
        done(client, client.delete_vm("phoenix"))
        done(client, client.delete_vm("off"))
        assert client.list_volumes() == []


def test_it_tells_systemd_when_it_is_ready_and_when_it_stops_and_is_small(
    daemons: Callable[..., Any], tmp_path: Any
) -> None:
    address = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(address))
        listener.settimeout(30)
        daemon = daemons(NOTIFY_SOCKET=str(address)).start()
        assert listener.recv(100) == b"READY=1"
        status = Path(f"/proc/{daemon.process.pid}/status").read_text()
        resident = next(line for line in status.splitlines() if line.startswith("VmRSS"))
        assert int(resident.split()[1]) < 100 * 1024  # kB
        assert daemon.terminate() == 0
        assert listener.recv(100) == b"STOPPING=1"
