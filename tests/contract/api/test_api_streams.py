"""Answers that go on: watches that resume exactly, events, exec, waits, and how they end."""

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from corral.client import Client, ExecEnd, ExecOutput
from corral.client_http import Stream
from corral.client_stream import frames
from corral.errors import CorralError
from corral.hypervisor.base import ExecResult
from corral.model.operation import OperationState
from corral.model.vm import Vm

from .conftest import WAIT_S, World


def _raw(client: Client, path: str, query: dict[str, Any], headers: dict[str, str] | None = None) -> Iterator[Stream]:
    with client._transport.stream("GET", path, query=query, headers=headers, timeout_s=WAIT_S) as stream:
        yield stream


def _ids(client: Client, count: int, query: dict[str, Any], last: str = "") -> list[str]:
    """The ids of the next events of a watch."""
    headers = {"Last-Event-ID": last} if last else None
    found: list[str] = []
    for stream in _raw(client, "/v1/watch", query, headers):
        for frame in frames(stream):
            if frame is not None:
                found.append(frame.id)
            if len(found) == count:
                return found
    return found


def test_a_watch_shows_every_change_after_the_list(client: Client) -> None:
    revision = client.request("GET", "/v1/vms")["revision"]
    client.create_vm({"name": "a", "memory_mib": 64})
    client.create_vm({"name": "b", "memory_mib": 64})
    watch = client.watch("vms", since=revision)
    assert [next(watch).document["name"] for _ in range(2)] == ["a", "b"]
    client.update_vm("a", {"description": "x"})
    event = next(watch)
    assert (event.type, event.document["spec"]["description"]) == ("put", "x")
    assert event.revision == event.document["revision"] > revision
    watch.close()


def test_a_watch_of_one_object_shows_that_one_and_its_deletion(world: World, client: Client) -> None:
    client.create_vm({"name": "a", "memory_mib": 64})
    client.create_vm({"name": "b", "memory_mib": 64})
    watch = client.watch("vms", since=client.get_vm("b")["revision"], name="a")

    async def remove() -> None:
        objects = world.context.objects
        transaction = objects.transaction()
        transaction.delete(await objects.require(Vm, "default", "a"))
        await transaction.commit()

    client.update_vm("b", {"description": "not shown"})
    world.run(remove())
    event = next(watch)
    assert (event.type, event.document["name"]) == ("delete", "a")
    watch.close()


def test_a_watch_resumes_inside_a_transaction(world: World, client: Client) -> None:
    """Volumes of one VM are written at one revision; a connection may break between them."""
    since = client.request("GET", "/v1/volumes")["revision"]
    disks: list[Any] = [{"size_bytes": 2**20} for _ in range(3)]
    client.create_vm({"name": "a", "memory_mib": 64, "disks": disks})
    query = {"kind": "volumes", "since": since}
    every = _ids(client, 3, query)
    assert len({text.split(".")[0] for text in every}) == 1
    for seen in range(1, 3):
        assert _ids(client, 3 - seen, query, last=every[seen - 1]) == every[seen:]


def test_history_that_is_gone_is_said(world: World, client: Client) -> None:
    for number in range(5):
        client.create_vm({"name": f"vm-{number}", "memory_mib": 64})
    world.run(world.context.objects.store.compact(world.context.objects.store.revision))
    with pytest.raises(CorralError) as refused:
        next(client.watch("vms", since=1))
    assert refused.value.code == "compacted"


def test_refusals_of_streams_are_answers_of_their_own(client: Client) -> None:
    for kind, name, code in (("vms", "nope", "vm-not-found"), ("gremlins", "", "invalid-argument")):
        with pytest.raises(CorralError) as refused:
            next(client.watch(kind, name=name))
        assert refused.value.code == code


def test_events_are_listed_and_followed(client: Client) -> None:
    client.create_vm({"name": "a", "memory_mib": 64})
    listed = client.events()
    assert [event["object_name"] for event in listed] == ["a"]
    following = client.follow_events(after=0)
    assert next(following) == listed[0]
    client.create_vm({"name": "b", "memory_mib": 64})
    event = next(following)
    assert event["object_name"] == "b"
    assert event["sequence"] > listed[-1]["sequence"]
    following.close()
    for stream in _raw(client, "/v1/events", {"follow": "1"}, {"Last-Event-ID": str(listed[0]["sequence"])}):
        frame = next(frame for frame in frames(stream) if frame is not None)
        assert json.loads(frame.data)["object_name"] == "b"


def test_streams_end_when_the_daemon_stops(world: World, client: Client) -> None:
    watch, following = client.watch("vms", since=0), client.follow_events(after=0)
    client.create_vm({"name": "a", "memory_mib": 64})
    next(watch)
    next(following)
    world.loop.call_soon_threadsafe(world.stop.set)
    assert list(watch) == []
    assert list(following) == []


def test_who_waits_when_the_daemon_stops_is_told_to_ask_again(world: World, client: Client) -> None:
    uid = client.create_vm({"name": "a", "memory_mib": 64})["operation"]["uid"]
    timer = threading.Timer(0.3, world.loop.call_soon_threadsafe, (world.stop.set,))
    timer.start()
    with pytest.raises(CorralError) as told:
        client.get_operation(uid, wait_s=30)
    timer.join()
    assert told.value.code == "daemon-unreachable"
    assert "stops" in told.value.reason


def test_a_client_that_leaves_frees_its_watch(world: World, client: Client) -> None:
    watch = client.watch("vms", since=0)
    client.create_vm({"name": "a", "memory_mib": 64})
    next(watch)
    watch.close()
    deadline = time.monotonic() + WAIT_S

    async def streams() -> int:
        return sum("LiveResponse" in repr(task.get_coro()) or "_next" in repr(task) for task in asyncio.all_tasks())

    while world.run(streams()):
        assert time.monotonic() < deadline, "the stream outlived its client"
        time.sleep(0.05)


def test_exec_brings_both_streams_and_the_exit_code(world: World, client: Client) -> None:
    client.create_vm({"name": "a", "memory_mib": 64})
    with pytest.raises(CorralError) as refused:
        next(client.exec("a", ["echo", "hi"]))
    assert refused.value.code in ("wrong-state", "guest-agent-unavailable")
    world.boot("a")
    said = list(client.exec("a", ["cat"], stdin=b"\x00\xff" * 50_000))
    assert b"".join(part.data for part in said if isinstance(part, ExecOutput)) == b"\x00\xff" * 50_000
    assert said[-1] == ExecEnd(0, None, False)


def test_exec_shows_what_is_written_when_it_is_written(
    world: World, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And whoever leaves before the end has it stopped."""
    client.create_vm({"name": "a", "memory_mib": 64})
    world.boot("a")
    go_on, stopped = threading.Event(), threading.Event()

    async def slow(uid: str, argv: Any, *, on_output: Any, **_: Any) -> ExecResult:
        on_output("stdout", b"first")
        try:
            while not go_on.is_set():
                await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            stopped.set()
            raise
        on_output("stderr", b"second")
        return ExecResult(None, 9, b"first", b"second", True, streamed=False)

    monkeypatch.setattr(world.context.hypervisor, "guest_exec", slow)
    running = client.exec("a", ["job"])
    assert next(running) == ExecOutput("stdout", b"first")
    go_on.set()
    assert list(running) == [ExecOutput("stderr", b"second"), ExecEnd(None, 9, True, False)]

    go_on.clear()
    running = client.exec("a", ["job"])
    assert next(running) == ExecOutput("stdout", b"first")
    running.close()
    assert stopped.wait(WAIT_S)


@pytest.mark.parametrize("watched", [False, True])
def test_an_operation_is_waited_for_with_and_without_progress(world: World, client: Client, watched: bool) -> None:
    uid = client.create_vm({"name": "a", "memory_mib": 64})["operation"]["uid"]
    seen: list[str] = []

    def look(operation: Any) -> None:
        seen.append(operation["status"]["state"])

    timer = threading.Timer(0.2, world.finish, (uid,))
    timer.start()
    done = client.wait_operation(uid, on_progress=look if watched else None, timeout_s=WAIT_S)
    timer.join()
    assert done["status"]["state"] == "succeeded"
    assert seen == (["accepted", "succeeded"] if watched else [])


@pytest.mark.parametrize("watched", [False, True])
def test_waiting_for_an_operation_ends_in_time(client: Client, watched: bool) -> None:
    uid = client.create_vm({"name": "a", "memory_mib": 64})["operation"]["uid"]
    with pytest.raises(CorralError) as late:
        client.wait_operation(uid, on_progress=(lambda _it: None) if watched else None, timeout_s=0.3)
    assert late.value.code == "wait-timeout"


def test_an_ended_operation_needs_no_waiting(world: World, client: Client) -> None:
    uid = client.create_vm({"name": "a", "memory_mib": 64})["operation"]["uid"]
    world.finish(uid, OperationState.CANCELLED)
    assert client.wait_operation(uid)["status"]["state"] == "cancelled"
    assert client.get_operation(uid[:8])["uid"] == uid


def test_a_vm_is_waited_for(world: World, client: Client) -> None:
    client.create_vm({"name": "a", "memory_mib": 64})
    with pytest.raises(CorralError) as late:
        client.wait_vm("a", "running", 0.2)
    assert late.value.code == "wait-timeout"
    world.boot("a")
    assert client.wait_vm("a", "running", WAIT_S)["state"] == "running"


def test_a_backup_arrives_whole_and_leaves_nothing(world: World, client: Client) -> None:
    assert b"".join(client.backup()) == b"database" * 100_000
    deadline = time.monotonic() + WAIT_S
    while list(world.settings.state_dir.glob(".backup-*")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
