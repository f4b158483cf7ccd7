"""Bad requests and many requests against a real daemon: coded answers before any effect, and exactly one winner."""

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from corral.errors import CorralError

CLIENTS = 16


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"name": "x" * 300, "image": "micro"}, "invalid-name"),
        ({"name": "../../etc", "image": "micro"}, "invalid-name"),
        ({"name": "a; reboot", "image": "micro"}, "invalid-name"),
        ({"name": "bad", "image": "nonesuch"}, "image-not-found"),
        ({"name": "bad", "image": "micro", "memory_mib": 0}, "invalid-document"),
        ({"name": "bad", "image": "micro", "memory_mib": 4 * 2**20}, "insufficient-memory"),
        ({"name": "bad", "image": "micro", "user_data": "#cloud-config\na: [1\n"}, "invalid-cloud-init"),
        ({"name": "bad", "image": "micro", "user_data": "x" * (10 * 2**20)}, "body-too-large"),
        ({"name": "bad", "image": "micro", "memroy_mib": 128}, "invalid-document"),
        ({"name": ["a", "list"]}, "invalid-document"),
        ([], "invalid-document"),
        ({"image": "micro"}, "invalid-document"),
        ({"name": "bad", "image": "micro", "ssh_keys": ["ssh-rsa x"]}, "invalid-ssh-key"),
        ({"name": "bad", "image": "micro", "disks": [{"size_bytes": 2**46}] * 16}, "insufficient-disk"),
    ],
)
def test_a_bad_create_is_refused_with_its_code_and_leaves_nothing(shared_daemon: Any, body: Any, code: str) -> None:
    with shared_daemon.client() as client:
        before = client.list_vms(), client.list_volumes(), client.list_operations()
        with pytest.raises(CorralError) as refused:
            client.create_vm(body)
        assert refused.value.code == code
        assert refused.value.reason
        assert (client.list_vms(), client.list_volumes(), client.list_operations()) == before


def test_a_stale_revision_and_a_reused_key(shared_daemon: Any, done: Callable[..., Any]) -> None:
    body = {"name": "careful", "image": "micro", "memory_mib": 64}
    with shared_daemon.client() as client:
        first = client.create_vm(body, idempotency_key="make-careful")
        again = client.create_vm(body, idempotency_key="make-careful")
        assert again["operation"]["uid"] == first["operation"]["uid"]
        with pytest.raises(CorralError, match="idempotency-key-reused"):
            client.create_vm({**body, "memory_mib": 128}, idempotency_key="make-careful")
        done(client, first)
        stale = f'"{first["vm"]["revision"]}"'
        with pytest.raises(CorralError, match="stale-revision"):
            client.update_vm("careful", {"description": "late"}, if_match=stale)
        current = f'"{client.get_vm("careful")["revision"]}"'
        done(client, client.update_vm("careful", {"protected": True}, if_match=current))
        with pytest.raises(CorralError, match="vm-protected"):
            client.delete_vm("careful")
        with pytest.raises(CorralError, match="wrong-state"):
            client.update_vm("careful", {"name": "careless"})
        done(client, client.update_vm("careful", {"protected": False}))
        done(client, client.delete_vm("careful"))


def test_a_thousand_creates_of_one_name_make_one_vm(shared_daemon: Any, done: Callable[..., Any]) -> None:
    def some(count: int) -> list[str]:
        ends = []
        with shared_daemon.client() as client:
            for _ in range(count):
                try:
                    client.create_vm({"name": "one", "image": "micro", "memory_mib": 64})
                    ends.append("made")
                except CorralError as error:
                    ends.append(error.code)
        return ends

    with ThreadPoolExecutor(CLIENTS) as pool:
        ends = Counter(end for part in pool.map(some, [1000 // CLIENTS + 1] * CLIENTS) for end in part)
    assert ends["made"] == 1
    assert set(ends) == {"made", "name-taken"}
    with shared_daemon.client() as client:
        assert [vm["name"] for vm in client.list_vms()].count("one") == 1
        assert len([volume for volume in client.list_volumes() if volume["name"].startswith("one-")]) == 1
        client.wait_vm("one", "running", 30)
        done(client, client.delete_vm("one"))


def test_many_creates_at_once_all_run(shared_daemon: Any, done: Callable[..., Any]) -> None:
    def one(index: int) -> Any:
        with shared_daemon.client() as client:
            made = client.create_vm({"name": f"many-{index}", "image": "micro", "memory_mib": 64})
            done(client, made)
            return made["vm"]

    with ThreadPoolExecutor(8) as pool:
        vms = list(pool.map(one, range(60)))
    for what in ("mac", "address"):
        assert len({vm["spec"]["nics"][0][what] for vm in vms}) == 60
    with shared_daemon.client() as client:
        mine = [vm for vm in client.list_vms() if vm["name"].startswith("many-")]
        assert Counter(vm["status"]["state"] for vm in mine) == {"running": 60}
        for vm in mine:
            client.delete_vm(vm["name"])
        for vm in mine:
            with pytest.raises(CorralError, match=r"vm-not-found|wait-timeout"):
                client.wait_vm(vm["name"], "ssh", 20)
        assert client.verify_audit()["valid"]


def test_lists_select_fields_and_pages(shared_daemon: Any, done: Callable[..., Any]) -> None:
    with shared_daemon.client() as client:
        for index in range(5):
            labels = {"set": "paged", "half": "first" if index < 2 else "second"}
            body = {"name": f"page-{index}", "image": "micro", "memory_mib": 64, "start": False, "labels": labels}
            done(client, client.create_vm(body))
        names = {vm["name"] for vm in client.list_vms("set=paged,half!=first")}
        assert names == {"page-2", "page-3", "page-4"}
        (only,) = client.list_vms("half=first,!nonesuch", "name,status.state")[:1]
        assert set(only) == {"name", "status"}
        assert set(only["status"]) == {"state"}
        page = client.request("GET", "/v1/vms", query={"selector": "set=paged", "limit": "2"})
        assert len(page["items"]) == 2
        rest = client.request("GET", "/v1/vms", query={"selector": "set=paged", "continue": page["continue"]})
        assert len(rest["items"]) == 3
        assert rest["continue"] is None
        with pytest.raises(CorralError, match="invalid-selector"):
            client.list_vms("=,")
        for index in range(5):
            done(client, client.delete_vm(f"page-{index}"))


def test_watching_sees_each_step_of_an_operation(shared_daemon: Any) -> None:
    with shared_daemon.client() as client, shared_daemon.client() as other:
        made = other.create_vm({"name": "seen", "image": "micro", "memory_mib": 64})
        uid = made["operation"]["uid"]
        states = []
        for event in client.watch("operations", since=made["operation"]["revision"] - 1, name=uid):
            states.append(event.document["status"]["state"])
            if states[-1] not in ("accepted", "running"):
                break
        assert states[0] == "accepted"
        assert states[-1] == "succeeded"
        other.delete_vm("seen")
