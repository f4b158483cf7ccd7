"""libvirtd stopped, killed or hung while a verb is under way: the API answers, says what it waits for, and ends the verb.

A sample in an ordinary run; every fault with every verb, and a minute of silence, in a soak.
"""

from typing import Any

import pytest
from real_world import HYPERVISOR_TIMEOUT_S, VERBS, World, body, until

from corral.client import Client

NAME = "flt-away"
FAULTS = ("stopped", "killed", "hung")
AWAY_S = 1.0
HUNG_S = HYPERVISOR_TIMEOUT_S + 2
WAITS = ("hypervisor-unavailable", "hypervisor-timeout")


def ask(client: Client, verb: str) -> Any:
    if verb == "create":
        return client.create_vm(body(NAME))
    return client.delete_vm(NAME) if verb == "delete" else client.vm_action(NAME, verb)


def prepare(world: World, verb: str) -> None:
    """The VM as `verb` wants to find it."""
    if verb == "start":
        world.create(NAME, start=False)
    elif verb != "create":
        world.create(NAME)
        world.wait_agent(NAME)


def suffer(world: World, fault: str, seconds: float) -> None:
    """Be without libvirtd for a while; the API answers all the time."""
    if fault == "hung":
        world.libvirtd.hang()
        world.answers_for(seconds)
        until("the daemon says that libvirt is away", lambda: said(world))
        world.libvirtd.resume()
        return
    world.libvirtd.kill() if fault == "killed" else world.libvirtd.stop()
    until("the daemon says that libvirt is away", lambda: said(world))
    world.answers_for(seconds)
    world.libvirtd.start()


def said(world: World) -> bool:
    with world.client() as client:
        return "the hypervisor is not connected" in client.ready()["reasons"]


def under_way(world: World, verb: str, fault: str, seconds: float) -> None:
    prepare(world, verb)
    pids = world.qemus()
    with world.client() as client:
        accepted = ask(client, verb)
        client.get_operation(accepted["operation"]["uid"], wait_s=world.random.uniform(0, 0.3))
    suffer(world, fault, seconds)
    world.done(accepted)
    expected = {"create": "running", "start": "running", "shutdown": "shut off"}.get(verb)
    if expected is not None:
        until(f"it is {expected}", lambda: world.state_of(NAME)[1] == expected)
        assert world.virsh("domstate", NAME).strip() == expected
        assert len(world.qemus()) == (expected == "running")
        assert not set(pids) & set(world.qemus())
        world.delete(NAME)
    world.no_leftovers()


def test_a_fault_for_each_verb(world: World) -> None:
    faults = list(FAULTS)
    world.random.shuffle(faults)
    for verb, fault in zip(world.random.sample(VERBS, len(faults)), faults, strict=True):
        under_way(world, verb, fault, HUNG_S if fault == "hung" else AWAY_S)


def test_asked_while_it_is_away(world: World) -> None:
    """Accepted all the same; the operation says what it waits for."""
    world.libvirtd.stop()
    with world.client() as client:
        until("it is said", lambda: said(world))
        accepted = client.create_vm(body(NAME))
        uid = accepted["operation"]["uid"]
        until("it says why", lambda: any(code in client.get_operation(uid)["status"]["phase"] for code in WAITS))
        assert client.list_vms()[0]["status"]["state"] != "running"
    world.libvirtd.start()
    world.done(accepted)
    world.delete(NAME)
    world.no_leftovers()


@pytest.mark.soak
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("verb", VERBS)
def test_every_fault_in_every_verb(world: World, verb: str, fault: str) -> None:
    for _ in range(3):
        under_way(world, verb, fault, HUNG_S if fault == "hung" else AWAY_S)


@pytest.mark.soak
def test_silent_for_a_minute(world: World) -> None:
    under_way(world, "start", "hung", 60)
