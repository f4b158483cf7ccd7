"""The daemon dies by SIGKILL at an instant of a verb; started again, it finishes what it had accepted.

A sample of instants in an ordinary run, every one in a soak.
"""

import time
from collections.abc import Callable
from typing import Any

import pytest
from real_world import COMMITS, STEPS, VERBS, World, body, moments, until

from corral.client import Client
from corral.errors import CorralError

NAME = "flt-killed"


def request(verb: str, key: str) -> Callable[[Client], Any]:
    if verb == "create":
        return lambda client: client.create_vm(body(NAME), idempotency_key=key)
    if verb == "delete":
        return lambda client: client.delete_vm(NAME)
    return lambda client: client.vm_action(NAME, verb)


def ask(world: World, verb: str, key: str, *, but: str) -> bool:
    """Whether it was accepted; `but` is the one error that may come instead."""
    try:
        with world.client() as client:
            request(verb, key)(client)
    except CorralError as error:
        if error.code != but:
            raise
        return False
    return True


def die(world: World, verb: str, moment: str) -> None:
    """Ask for `verb`; die at `moment`; come back; whoever got no answer asks again, as a client does."""
    world.fault("kill", moment)
    key = f"{verb}-{time.monotonic_ns()}"
    answered = ask(world, verb, key, but="daemon-unreachable")
    may_miss = answered and ("commit" in moment or moment.startswith("after"))
    until("it is dead", lambda: world.is_dead(may_miss=may_miss))
    world.no_fault()
    world.start()
    if not answered:
        ask(
            world, verb, key, but="vm-not-found" if verb == "delete" else ""
        )  # it had been accepted, and was done since
    world.settled()


def through(world: World, moment_of: dict[str, str]) -> None:
    """One life of a VM, dying once in each verb."""
    die(world, "create", moment_of["create"])
    until("it runs", lambda: world.state_of(NAME) == ("on", "running"))
    pid = world.pid(NAME)
    world.wait_agent(NAME)
    die(world, "shutdown", moment_of["shutdown"])
    world.until_state(NAME, "off", "shut off")
    assert pid not in world.qemus()
    die(world, "start", moment_of["start"])
    world.until_state(NAME, "on", "running")
    assert world.qemus() == [world.pid(NAME)]
    die(world, "delete", moment_of["delete"])
    until("it is gone", lambda: NAME not in world.names())
    world.no_leftovers()


def test_a_sample_of_instants(world: World) -> None:
    through(world, {verb: world.random.choice(moments(verb)) for verb in VERBS})


def test_at_any_time(world: World) -> None:
    """By the clock, for whatever lies between two steps."""
    for verb in ("create", "delete"):
        with world.client() as client:
            accepted = request(verb, "")(client)
            client.get_operation(accepted["operation"]["uid"], wait_s=world.random.uniform(0, 1))
        world.kill()
        world.start()
        world.settled()
        assert world.names() == ({NAME} if verb == "create" else set())
    world.no_leftovers()


@pytest.mark.soak
@pytest.mark.parametrize("number", range(max(2 * (len(steps) + COMMITS) for steps in STEPS.values())))
def test_every_instant(world: World, number: int) -> None:
    through(world, {verb: moments(verb)[number % len(moments(verb))] for verb in VERBS})
