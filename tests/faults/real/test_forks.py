"""The daemon dies by SIGKILL while a real guest is frozen and while others are forked from it: memory is loaded once, and
nothing is left over."""

import contextlib
import time

import pytest
from real_world import World, until

from corral.errors import CorralError

NAME, TEMPLATE = "flt-src", "flt-base"
THOUGHT = "/tmp/thought"


def through(world: World, rounds: int) -> None:
    world.create(NAME)
    world.wait_agent(NAME)
    world.run_in(NAME, "sh", "-c", f"echo remembered > {THOUGHT}")
    for number in range(rounds):
        template = f"{TEMPLATE}-{number}"
        with world.client() as client:
            accepted = client.create_template({"name": template, "source": NAME, "hot": True})
        _killed_after(world, world.random.uniform(0, 4))
        world.done(accepted)
        with world.client() as client:
            assert client.get_template(template)["status"]["ready"]
        fork = f"flt-fork-{number}"
        with world.client() as client:
            client.fork_template(template, {"names": [fork]})
        _killed_after(world, world.random.uniform(0, 2))
        assert world.state_of(fork) == ("on", "running")
        world.wait_agent(fork)
        assert world.run_in(fork, "cat", THOUGHT, "/etc/hostname").split() == ["remembered", fork]
        assert world.run_in(NAME, "cat", THOUGHT).strip() == "remembered"
        world.delete(fork)
        with world.client() as client:
            world.done(client.delete_template(template))
    world.delete(NAME)
    world.no_leftovers()
    assert not list(world.seen(world.state / "templates").iterdir())


def _killed_after(world: World, seconds: float) -> None:
    time.sleep(seconds)
    world.kill()
    world.start()
    world.settled()


def refreshed(world: World, rounds: int) -> None:
    """The daemon dies twice in each."""
    world.create(NAME)
    world.wait_agent(NAME)
    with world.client() as client:
        world.done(client.create_template({"name": TEMPLATE, "source": NAME, "hot": True}))
        client.fork_template(TEMPLATE, {"names": ["flt-old"]})
    world.settled()
    for _ in range(rounds):
        with world.client() as client:
            before = client.get_template(TEMPLATE)
            operation = client.refresh_template(TEMPLATE, {"deadline_s": 600})["operation"]
        time.sleep(world.random.uniform(0, 3))
        world.kill()
        world.start()
        _killed_after(world, world.random.uniform(0, 12))
        with world.client() as client:
            ended = client.wait_operation(operation["uid"], timeout_s=1)["status"]
            after = client.get_template(TEMPLATE)
            assert ended["state"] == "succeeded", ended["error"]
            assert after["uid"] != before["uid"]
            assert after["status"]["ready"]
            assert [found["name"] for found in client.list_templates()] == [TEMPLATE]
        assert world.names() == {NAME, "flt-old"}
        assert world.run_in("flt-old", "hostname").strip() == "flt-old"
    with world.client() as client:
        client.fork_template(TEMPLATE, {"names": ["flt-new"]})
    world.settled()
    world.wait_agent("flt-new")
    for name in ("flt-old", "flt-new", NAME):
        world.delete(name)
    with world.client() as client:
        world.done(client.delete_template(TEMPLATE))
    world.no_leftovers()
    assert not list(world.seen(world.state / "templates").iterdir())


def test_a_sample_of_instants(world: World) -> None:
    through(world, 1)


def test_a_sample_of_instants_of_a_refresh(world: World) -> None:
    refreshed(world, 1)


@pytest.mark.soak
def test_many_instants_of_refreshes(world: World) -> None:
    refreshed(world, 10)


@pytest.mark.soak
def test_many_instants(world: World) -> None:
    through(world, 20)


def test_a_fork_ends_as_others_do_when_its_qemu_is_killed(world: World) -> None:
    """Its policy starts it again, from its own disk."""
    world.create(NAME)
    world.wait_agent(NAME)
    with world.client() as client:
        world.done(client.create_template({"name": TEMPLATE, "source": NAME, "hot": True}))
        [operation] = client.fork_template(TEMPLATE, {"names": ["flt-fork"]})["operations"]
        world.done({"operation": operation})
    world.virsh("destroy", NAME)
    pid = world.pid("flt-fork")
    world.inside("kill", "-9", str(pid))

    def again() -> bool:
        with contextlib.suppress(FileNotFoundError):  # it is off in this instant
            return world.pid("flt-fork") != pid and world.state_of("flt-fork") == ("on", "running")
        return False

    until("it runs again", again)
    world.wait_agent("flt-fork")
    assert "commandline" not in world.virsh("dumpxml", "flt-fork")
    for name in ("flt-fork", NAME):
        world.delete(name)
    with world.client() as client:
        world.done(client.delete_template(TEMPLATE))
        with pytest.raises(CorralError):
            client.get_template(TEMPLATE)
    world.no_leftovers()
