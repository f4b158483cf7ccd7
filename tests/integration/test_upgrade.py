"""The daemon replaced, and its database lost, under guests that run on real libvirt and never notice."""

import os
from collections.abc import Iterator

import pytest
from real_world import World, real_world, until

NAME = "flt-up"
OTHER = "flt-off"


@pytest.fixture(scope="module")
def whole_world() -> Iterator[World]:
    with real_world(1) as world:
        yield world


@pytest.fixture
def world(whole_world: World, request: pytest.FixtureRequest) -> Iterator[World]:
    failed = request.session.testsfailed
    yield whole_world
    if request.session.testsfailed > failed:
        print(*(f"---- {title}\n{text}" for title, text in whole_world.report()), sep="\n")
        whole_world.clear()


def uptime_s(world: World) -> float:
    return float(world.run_in(NAME, "cat", "/proc/uptime").split()[0])


def console(world: World) -> bytes:
    with world.client() as client:
        return client.console_log(NAME)


def say(world: World, word: str) -> None:
    world.run_in(NAME, "sh", "-c", f"echo {word} > /dev/console")
    until(f"the console's log has {word}", lambda: word.encode() in console(world))


def test_a_replaced_daemon_finds_its_guests_as_they_were(world: World) -> None:
    world.create(NAME)
    world.wait_agent(NAME)
    pid, address = world.pid(NAME), world.vm(NAME)["spec"]["nics"][0]["address"]
    say(world, "before")
    up_s = uptime_s(world)
    for replace in ("terminate", "kill"):
        if replace == "terminate":
            assert world.terminate() == 0
        else:
            world.kill()
        os.kill(pid, 0)
        world.start()
        assert world.pid(NAME) == pid
        assert world.state_of(NAME) == ("on", "running")
        world.wait_agent(NAME)
        assert (before := up_s) < (up_s := uptime_s(world)), f"{before} then {up_s}: it was started anew"
        say(world, replace)
        assert b"before" in console(world)
        assert world.vm(NAME)["spec"]["nics"][0]["address"] == address
    assert world.events("VmRestarted") == []
    world.delete(NAME)
    world.no_leftovers()


def test_a_lost_database_is_rebuilt_under_running_guests(world: World) -> None:
    world.create(NAME, labels={"tier": "web"}, description="the shop")
    world.create(OTHER, start=False)
    world.wait_agent(NAME)
    pid, uid, before = world.pid(NAME), world.vm(NAME)["uid"], world.vm(NAME)["spec"]
    up_s = uptime_s(world)
    with world.client() as client:
        volumes = {(volume["uid"], volume["name"]) for volume in client.list_volumes()}
    assert world.terminate() == 0
    for path in world.seen(world.state).glob("corral.db*"):
        path.unlink()
    world.start()
    assert world.pid(NAME) == pid
    with world.client() as client:
        report = client.recover()
        assert sorted(report["vms"]) == sorted([NAME, OTHER])
        assert report["images"] == ["micro"]
        assert {(volume["uid"], volume["name"]) for volume in client.list_volumes()} == volumes
        assert client.get_image("micro")["status"]["state"] == "ready"
    world.settled()
    world.until_state(NAME, "on", "running")
    world.until_state(OTHER, "off", "shut off")
    after = world.vm(NAME)
    assert (after["uid"], after["labels"], after["spec"]["description"]) == (
        uid,
        {"tier": "web"},
        "the shop",
    )
    assert (after["spec"]["nics"], after["spec"]["disks"]) == (before["nics"], before["disks"])
    world.wait_agent(NAME)
    assert world.pid(NAME) == pid
    assert uptime_s(world) > up_s
    world.act(NAME, "shutdown")
    world.until_state(NAME, "off", "shut off")
    for name in (NAME, OTHER):
        world.act(name, "start")
        world.until_state(name, "on", "running")
    assert len(world.qemus()) == 2
    world.create("flt-new", start=False)
    addresses = [world.vm(name)["spec"]["nics"][0]["address"] for name in (NAME, OTHER, "flt-new")]
    assert len(set(addresses)) == 3
    for name in (NAME, OTHER, "flt-new"):
        world.delete(name)
    world.no_leftovers()
