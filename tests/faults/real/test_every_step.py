"""A guest's QEMU killed, the disk full or the clock set at an instant of create, shutdown, start and delete: each request is
fulfilled or undone with a coded error, one that was undone succeeds when it is asked again, and nothing is left.

One life in an ordinary run, every instant in a soak.
"""

from typing import Any

import pytest
from real_world import COMMITS, STEPS, VERBS, World, body, moments, until

from corral.client import Client
from corral.errors import CorralError

NAME = "flt-step"
KINDS = ("kill guests", "fill", "set the clock")
CODES = {
    "kill guests": {"guest-crashed", "hypervisor-error", "wrong-state", "shutdown-timeout"},
    "fill": {"disk-full", "storage-error", "store-unavailable", "hypervisor-error", "insufficient-disk"},
    "set the clock": set(),
}
FULL_S = 8.0
WISHED = {"create": "running", "start": "running", "shutdown": "shut off", "delete": ""}


def ask(client: Client, verb: str) -> Any:
    if verb == "create":
        return client.create_vm(body(NAME, force=True))
    return client.delete_vm(NAME) if verb == "delete" else client.vm_action(NAME, verb)


def asked(world: World, verb: str, patience_s: float) -> str:
    """The code of its error, empty where it succeeded; the disk has room again once that lasts long."""
    with world.client() as client:
        try:
            uid = ask(client, verb)["operation"]["uid"]
        except CorralError as error:
            world.unfill()
            return error.code
        client.get_operation(uid, wait_s=patience_s)
        world.answers()
        world.unfill()
        status = client.wait_operation(uid, timeout_s=90)["status"]
    return status["error"]["code"] if status["error"] else ""


def state(world: World) -> str:
    """Of the domain; empty where there is none."""
    return world.virsh("domstate", NAME).strip() if NAME in world.domains() else ""


def suffer(world: World, kind: str, verb: str, moment: str) -> None:
    do = world.random.choice(("forward", "back")) if kind == "set the clock" else kind
    before = state(world)
    world.fault(do, moment)
    code = asked(world, verb, FULL_S if kind == "fill" else 0)
    world.no_fault()
    world.settled()
    assert code in CODES[kind] | {""}, (verb, moment, code)
    if code:
        until("it is as it was", lambda: state(world) in (before, WISHED[verb]))
        if state(world) != WISHED[verb]:
            assert asked(world, verb, 0) == ""


def is_as_wished(world: World, verb: str) -> bool:
    if NAME not in world.names():
        return verb == "delete" and not world.qemus()
    return world.state_of(NAME)[1] == WISHED[verb] == state(world) and len(world.qemus()) == (WISHED[verb] == "running")


def life(world: World, kind: str, moment_of: dict[str, str]) -> None:
    for verb in ("create", "shutdown", "start", "delete"):
        if verb == "shutdown":
            world.wait_agent(NAME)
        suffer(world, kind, verb, moment_of[verb])
        # One that was killed while it was known to run is started again: what is known meanwhile is older than that.
        until("it is known, and has a QEMU or none", lambda verb=verb: is_as_wished(world, verb))
    world.no_leftovers()
    if kind == "set the clock":  # and once more, to what it is for everybody else
        world.kill()
        world.start()


def test_a_sample_of_instants(world: World) -> None:
    life(world, world.random.choice(KINDS), {verb: world.random.choice(moments(verb)) for verb in VERBS})


@pytest.mark.soak
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("number", range(max(2 * (len(steps) + COMMITS) for steps in STEPS.values())))
def test_every_instant(world: World, kind: str, number: int) -> None:
    life(world, kind, {verb: moments(verb)[number % len(moments(verb))] for verb in VERBS})
