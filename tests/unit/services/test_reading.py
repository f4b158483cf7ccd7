"""Reading: lists as stored bytes, selectors, fields, pages, watches, events, waiting."""

import asyncio
import json
from contextlib import aclosing
from typing import Any

import pytest

from corral.errors import CorralError
from corral.hypervisor.fake import FakeDomain
from corral.model.identity import Project, Role
from corral.model.operation import Operation, OperationState
from corral.model.requests import CreateVmRequest, ListRequest, WaitCondition
from corral.model.vm import DAC_UID_FIRST, CloudInitStatus, Vm, VmState
from corral.names import new_uid
from corral.services.documents import in_projects, without_secrets
from corral.services.ledger import DAC_UIDS, Ledger
from corral.services.selectors import matches, parse_fields, parse_selector, select_fields
from corral.store.memory import MemoryStore
from corral.store.objects import Objects, encode


async def make(world: Any, name: str, project: str = "default", **request: Any) -> None:
    body = CreateVmRequest.model_validate({"name": name, "start": False, "nics": [], **request})
    await world.vms.create(world.admin(), project, body)


async def names(world: Any, **request: Any) -> list[str]:
    listing = await world.vms.list(world.caller(), "default", ListRequest(**request))
    return [json.loads(document)["name"] for document in listing.documents]


@pytest.mark.parametrize(
    ("selector", "found"),
    [
        ("", {"a", "b", "c"}),
        ("env=prod", {"a", "b"}),
        ("env==prod", {"a", "b"}),
        ("env!=prod", {"c"}),
        ("tier", {"b"}),
        ("!tier", {"a", "c"}),
        ("env=prod,!tier", {"a"}),
        ("env=prod, tier=db", {"b"}),
        ("env=", set()),
    ],
)
def test_selectors_choose_by_labels(selector: str, found: set[str]) -> None:
    labels = {"a": {"env": "prod"}, "b": {"env": "prod", "tier": "db"}, "c": {"env": "test"}}
    terms = parse_selector(selector)
    assert {name for name, held in labels.items() if matches(terms, held)} == found


@pytest.mark.parametrize("text", ["=", "a b", "a=b,,c", "A=b", "!", "a=" + "x" * 300, ",".join(["a"] * 40)])
def test_a_selector_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(CorralError, match="invalid-selector"):
        parse_selector(text)


def test_fields_are_cut_out_and_unknown_ones_left_out() -> None:
    document = {"name": "a", "status": {"state": "running", "x": 1}, "labels": {}}
    assert select_fields(document, parse_fields("name,status.state,nonesuch,status.none")) == {
        "name": "a",
        "status": {"state": "running"},
    }
    for bad in ("a..b", "a.", "A", "a b", "__class__;"):
        with pytest.raises(CorralError, match="invalid-selector"):
            parse_fields(bad)


def test_stored_bytes_begin_as_the_project_filter_expects(play: Any) -> None:
    async def scene(world: Any) -> None:
        await make(world, "web", image="micro")
        vm = await world.vm("web")
        assert in_projects(encode(vm), "vm", ("default",))
        assert not in_projects(encode(vm), "vm", ("other",))
        (operation,) = await world.objects.list(Operation)
        assert in_projects(encode(operation), "operation", ("other", "default"))

    play(scene)


def test_secrets_are_blanked_in_members_and_never_in_text() -> None:
    content = json.dumps(
        {"password_hash": '$6$a\\b"c', "user_data": 'x"y', "description": '"user_data":"kept"', "secret_hash": ""},
        separators=(",", ":"),
    ).encode()
    shown = json.loads(without_secrets(content))
    assert shown == {
        "password_hash": "***",
        "user_data": "***",
        "description": '"user_data":"kept"',
        "secret_hash": "",
    }


def test_pages_are_whole_and_follow_each_other(play: Any) -> None:
    async def scene(world: Any) -> None:
        for index in range(7):
            await make(world, f"vm-{index}", labels={"odd": str(index % 2)})
        seen: list[str] = []
        after, revision = "", None
        while True:
            request = ListRequest(limit=2, after=after, revision=revision)
            page = await world.vms.list(world.caller(Role.VIEWER), "default", request)
            seen += [json.loads(document)["name"] for document in page.documents]
            revision = page.revision
            if page.next is None:
                break
            after = page.next
            await make(world, f"late-{len(seen)}")  # not in the state that is being read
        assert sorted(seen) == [f"vm-{index}" for index in range(7)]
        assert len(await names(world, selector="odd=1", limit=2)) == 2

    play(scene)


def test_projects_do_not_see_each_other(play: Any) -> None:
    async def scene(world: Any) -> None:
        await world.put(Project(name="tenant", uid=new_uid(), created_at=world.clock.now()))
        await make(world, "mine")
        await make(world, "theirs", "tenant")
        assert await names(world) == ["mine"]
        everything = await world.vms.list(world.admin(), "", ListRequest())
        assert len(everything.documents) == 2
        tenant = world.caller(Role.ADMIN, "tenant")
        assert len((await world.vms.list(tenant, "", ListRequest())).documents) == 1
        for call in (
            world.vms.list(tenant, "default", ListRequest()),
            world.vms.get(tenant, "default", "mine"),
            world.events.watch(tenant, "vms", "default", since=0),
            world.events.list(tenant, "default"),
            world.operations.list(tenant, "default", ListRequest()),
        ):
            with pytest.raises(CorralError, match="forbidden"):
                await call

    play(scene)


def test_a_watch_shows_each_change_once_and_without_secrets(play: Any) -> None:
    async def scene(world: Any) -> None:
        since = world.objects.store.revision
        await make(world, "web", image="micro", password="x", user="ann")
        vm = await world.see("web", VmState.SHUT_OFF)
        transaction = world.objects.transaction()
        transaction.delete(vm)
        await transaction.commit()
        seen = []
        async with aclosing(await world.events.watch(world.caller(), "vms", "default", since=since)) as changes:
            async for change in changes:
                document = json.loads(change.content)
                seen.append((change.type, document["status"]["state"]))
                assert document["revision"] == change.revision
                assert document["spec"]["cloud_init"]["users"][0]["password_hash"] == "***"
                if change.type == "delete":
                    break
        assert seen == [("put", "pending"), ("put", "shut off"), ("delete", "shut off")]
        for kind, name in (("nonesuch", ""), ("vms", "nonesuch")):
            with pytest.raises(CorralError):
                await world.events.watch(world.caller(), kind, "default", since=None, name=name)
        with pytest.raises(CorralError, match="forbidden"):
            await world.events.watch(world.caller(), "tokens", "default", since=None)

    play(scene)


def test_events_are_followed_from_where_one_stopped(play: Any) -> None:
    async def scene(world: Any) -> None:
        await make(world, "one")
        (first,) = await world.events.list(world.caller(), "default")
        assert json.loads(first.value)["object_name"] == "one"
        await make(world, "two")
        async with aclosing(await world.events.follow(world.caller(), "default", after=first.sequence)) as entries:
            async for entry in entries:
                assert json.loads(entry.value)["object_name"] == "two"
                break
        assert await world.events.last(world.caller()) == entry.sequence

    play(scene)


@pytest.mark.parametrize(
    ("condition", "state", "status"),
    [
        (WaitCondition.RUNNING, VmState.RUNNING, {}),
        (WaitCondition.AGENT, VmState.RUNNING, {"agent_connected": True}),
        (WaitCondition.IP, VmState.RUNNING, {"addresses": ("10.0.0.2",)}),
        (WaitCondition.SHUTOFF, VmState.SHUT_OFF, {}),
        (WaitCondition.CLOUD_INIT, VmState.RUNNING, {"cloud_init": CloudInitStatus.ERROR}),
    ],
)
def test_waiting_ends_when_the_condition_holds(
    play: Any, condition: WaitCondition, state: VmState, status: dict[str, Any]
) -> None:
    async def scene(world: Any) -> None:
        await make(world, "web", image="micro")
        waiting = asyncio.create_task(world.vms.wait(world.caller(), "default", "web", condition, 10))
        await asyncio.sleep(0)
        await world.see("web", VmState.PAUSED)
        await asyncio.sleep(0)
        assert not waiting.done()
        await world.see("web", state, **status)
        if condition is WaitCondition.AGENT:
            await asyncio.sleep(0.2)
            assert not waiting.done(), "the channel looks connected, but nobody answers"
            uid = (await world.vm("web")).uid
            world.hypervisor.add_foreign(FakeDomain(uid, "web", 1, 128, None, state=state, agent_connected=True))
        answer = await asyncio.wait_for(waiting, 5)
        assert answer.condition is condition

    play(scene)


def test_waiting_says_what_was_seen_or_that_it_is_gone(play: Any) -> None:
    async def scene(world: Any) -> None:
        await make(world, "web")
        with pytest.raises(CorralError) as late:
            await world.vms.wait(world.caller(), "default", "web", WaitCondition.RUNNING, 0.01)
        assert (late.value.code, late.value.context["state"]) == ("wait-timeout", "pending")
        with pytest.raises(CorralError, match="invalid-argument"):
            await world.vms.wait(world.caller(), "default", "web", WaitCondition.RUNNING, 1e9)
        waiting = asyncio.create_task(world.vms.wait(world.caller(), "default", "web", WaitCondition.RUNNING, 10))
        await asyncio.sleep(0)
        transaction = world.objects.transaction()
        transaction.delete(await world.vm("web"))
        await transaction.commit()
        with pytest.raises(CorralError, match="vm-not-found"):
            await asyncio.wait_for(waiting, 5)

    play(scene)


def test_an_operation_is_waited_for_found_by_prefix_and_cancelled(play: Any) -> None:
    async def scene(world: Any) -> None:
        await make(world, "web")
        (operation,) = await world.objects.list(Operation)
        short = await world.operations.get(world.caller(), operation.uid[:8])
        assert short.uid == operation.uid
        waiting = asyncio.create_task(world.operations.get(world.caller(), operation.uid, wait_s=10))
        await asyncio.sleep(0)
        asked = await world.operations.cancel(world.caller(), operation.uid)
        assert asked.spec.cancel_requested_at is not None
        assert (await world.operations.cancel(world.caller(), operation.uid)).revision == asked.revision
        ended = asked.model_copy(update={"status": asked.status.model_copy(update={"state": OperationState.CANCELLED})})
        await world.put(ended)
        document = await asyncio.wait_for(waiting, 5)
        assert json.loads(document.content)["status"]["state"] == "cancelled"
        with pytest.raises(CorralError, match="operation-finished"):
            await world.operations.cancel(world.caller(), operation.uid)
        for unknown in (new_uid(), "../vms/", "x", ""):
            with pytest.raises(CorralError, match="operation-not-found"):
                await world.operations.get(world.caller(), unknown)
        assert await world.objects.list(Vm)

    play(scene)


def test_uids_of_guests_stay_below_those_of_system_containers() -> None:
    assert DAC_UID_FIRST + DAC_UIDS <= 10**9
    pool = Ledger(Objects(MemoryStore()), DAC_UIDS - 1).dac_uids
    assert [pool.hold_next(), pool.hold_next()] == [DAC_UIDS - 1, 0]
