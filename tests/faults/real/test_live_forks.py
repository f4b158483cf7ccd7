"""The daemon dies by SIGKILL while a running guest is forked: that one goes on, its copies are whole or not there, and nothing of
what they were made with is left."""

import contextlib
import threading
import time

import pytest
from real_world import World, until

from corral.errors import CorralError

NAME, COPY = "flt-par", "flt-copy"
THOUGHT = "/tmp/thought"


def through(world: World, rounds: int) -> None:
    world.create(NAME)
    world.wait_agent(NAME)
    world.run_in(NAME, "sh", "-c", f"echo remembered > {THOUGHT}")
    pid = world.pid(NAME)
    for number in range(rounds):
        copy = f"{COPY}-{number}"
        asking = threading.Thread(target=_fork, args=(world, copy), daemon=True)
        asking.start()
        time.sleep(world.random.uniform(0, 8))
        world.kill()
        asking.join(60)
        world.start()
        world.settled()
        assert world.state_of(NAME) == ("on", "running")
        assert world.pid(NAME) == pid
        assert world.run_in(NAME, "cat", THOUGHT).strip() == "remembered"
        with world.client() as client:
            until("its template is gone", lambda client=client: not client.list_templates())
        if copy in world.names():
            world.wait_agent(copy)
            assert world.run_in(copy, "cat", THOUGHT, "/etc/hostname").split() == ["remembered", copy]
            world.delete(copy)
    world.delete(NAME)
    world.no_leftovers()
    assert not list(world.seen(world.state / "templates").iterdir())


def _fork(world: World, copy: str) -> None:
    with contextlib.suppress(CorralError), world.client() as client:
        client.fork_vm(NAME, {"names": [copy]})


def test_a_sample_of_instants(world: World) -> None:
    through(world, 1)


@pytest.mark.soak
def test_many_instants(world: World) -> None:
    through(world, 20)
