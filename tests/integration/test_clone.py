"""`corral clone` against a daemon: many at once, refusals before anything is made, and a daemon that dies on the way."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from corral.client import Client
from corral.errors import CorralError

Done = Callable[[Client, Any], Any]


@pytest.fixture
def daemon(daemons: Callable[..., Any], with_micro: Callable[[Any], None], done: Done) -> Iterator[Any]:
    found = daemons().start()
    with_micro(found)
    with found.client() as client:
        done(client, client.create_vm({"name": "web", "image": "micro", "labels": {"tier": "front"}}))
        yield found


def ended(client: Client, accepted: Any) -> list[str]:
    final = [client.wait_operation(operation["uid"], timeout_s=60) for operation in accepted["operations"]]
    return [operation["status"]["state"] for operation in final]


def hidden(daemon: Any) -> list[str]:
    """What is left of points in time, on disk."""
    return sorted(path.name for path in Path(daemon.state_dir, "snapshots").glob("*/snapshot.json"))


def until(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def test_each_clone_is_a_vm_of_its_own(daemon: Any, done: Done) -> None:
    with daemon.client() as client:
        accepted = client.clone_vm("web", {"names": ["a", "b", "c"], "start": True})
        assert [vm["name"] for vm in accepted["vms"]] == ["a", "b", "c"]
        assert ended(client, accepted) == ["succeeded"] * 3
        vms = [client.get_vm(name) for name in ("web", "a", "b", "c")]
        cards = [vm["spec"]["nics"][0] for vm in vms]
        for values in (
            [vm["uid"] for vm in vms],
            [card["mac"] for card in cards],
            [card["address"] for card in cards],
            [vm["spec"]["disks"][0]["volume_uid"] for vm in vms],
        ):
            assert len(set(values)) == len(vms)
        assert {vm["status"]["state"] for vm in vms} == {"running"}
        assert vms[1]["labels"] == {"tier": "front"}
        assert client.list_snapshots("web") == []
        # They outlive what they come from.
        done(client, client.delete_vm("web"))
        done(client, client.vm_action("a", "destroy"))
        done(client, client.vm_action("a", "start"))
        assert ended(client, client.clone_vm("a", {"names": ["d"], "full": True})) == ["succeeded"]
        for name in ("a", "b", "c", "d"):
            done(client, client.delete_vm(name))
        until(lambda: client.list_volumes() == [], "volumes are left")


def test_a_clone_of_then_is_not_one_of_now(daemon: Any, done: Done) -> None:
    with daemon.client() as client:
        done(client, client.create_snapshot("web", {"name": "then"}))
        accepted = client.clone_vm("web", {"names": ["old"], "from_snapshot": "then"})
        assert ended(client, accepted) == ["succeeded"]
        assert client.get_vm("old")["status"]["state"] == "shut off"
        # The point in time may go: the clone stands on what it was all the same.
        done(client, client.delete_snapshot("web", "then"))
        done(client, client.vm_action("old", "start"))
        with pytest.raises(CorralError, match="snapshot-not-found"):
            client.clone_vm("web", {"names": ["older"], "from_snapshot": "then"})


def test_what_cannot_be_is_refused_before_anything_is_made(daemon: Any) -> None:
    with daemon.client() as client:
        for names, code in (
            (["web"], "name-taken"),
            (["x", "x"], "invalid-argument"),
            (["x", "../y"], "invalid-name"),
            (["x", "n" * 300], "invalid-name"),
            ([], "invalid"),
        ):
            with pytest.raises(CorralError, match=code):
                client.clone_vm("web", {"names": names})
        many = [f"m-{number}" for number in range(100)]
        with pytest.raises(CorralError, match="insufficient-"):
            client.clone_vm("web", {"names": many, "start": True})
        with pytest.raises(CorralError, match="vm-not-found"):
            client.clone_vm("nobody", {"names": ["x"]})
        assert [vm["name"] for vm in client.list_vms()] == ["web"]
        assert len(client.list_volumes()) == 1


def test_a_repeated_request_makes_them_once(daemon: Any) -> None:
    with daemon.client() as client:
        body: Any = {"names": ["a", "b"], "start": True}
        first = client.clone_vm("web", body, idempotency_key="k1")
        assert ended(client, first) == ["succeeded"] * 2
        again = client.clone_vm("web", body, idempotency_key="k1")
        assert [one["uid"] for one in again["operations"]] == [one["uid"] for one in first["operations"]]
        assert sorted(vm["name"] for vm in client.list_vms()) == ["a", "b", "web"]


@pytest.mark.parametrize("pause_s", [0.0, 0.01, 0.03, 0.06, 0.1])
def test_a_daemon_that_dies_leaves_a_clone_or_nothing(daemon: Any, pause_s: float) -> None:
    def ask() -> None:
        with suppress(CorralError, OSError), daemon.client() as client:
            client.clone_vm("web", {"names": ["a"], "start": True})

    asking = threading.Thread(target=ask)
    asking.start()
    time.sleep(pause_s)
    daemon.kill()
    asking.join(30)
    daemon.start()
    with daemon.client() as client:
        until(
            lambda: not any(o["status"]["state"] in ("accepted", "running") for o in client.list_operations()),
            "something is still under way",
        )
        names = sorted(vm["name"] for vm in client.list_vms())
        assert names in (["web"], ["a", "web"])
        for name in names:
            assert client.get_vm(name)["status"]["state"] == "running"
        until(lambda: hidden(daemon) == [], "a hidden point in time is left")
        assert len(client.list_volumes()) == len(names)
        assert client.verify_audit()["valid"]
