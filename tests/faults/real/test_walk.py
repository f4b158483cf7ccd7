"""A random walk: any verb on any of three guests while anything dies, and at each rest Corral and libvirt agree."""

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress

import pytest
from real_world import HYPERVISOR_TIMEOUT_S, World, body, moments, until

from corral.client import Client
from corral.errors import CorralError

NAMES = ("flt-walk-a", "flt-walk-b", "flt-walk-c")
ROUNDS = 40
ENDED = {"succeeded", "failed", "cancelled", "superseded", "interrupted"}
VERBS: dict[str, Callable[[Client, str], object]] = {
    "create": lambda client, name: client.create_vm(body(name)),
    "start": lambda client, name: client.vm_action(name, "start"),
    "shutdown": lambda client, name: client.vm_action(name, "shutdown", {"force_after_s": 5}),
    "destroy": lambda client, name: client.vm_action(name, "destroy"),
    "pause": lambda client, name: client.vm_action(name, "pause"),
    "save": lambda client, name: client.vm_action(name, "save"),
    "reset": lambda client, name: client.vm_action(name, "reset"),
    "delete": lambda client, name: client.delete_vm(name),
}


def kill_daemon(world: World) -> None:
    """At the told instant, or a moment later by the clock."""
    time.sleep(world.random.uniform(0, 1))
    world.kill()
    world.no_fault()
    world.start()


def hang_libvirtd(world: World) -> None:
    world.libvirtd.hang()
    world.answers_for(HYPERVISOR_TIMEOUT_S)
    world.libvirtd.resume()


def kill_libvirtd(world: World) -> None:
    world.libvirtd.kill()
    world.answers()
    world.libvirtd.start()


def kill_qemu(world: World) -> None:
    for pid in world.qemus()[:1]:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


FAULTS: tuple[Callable[[World], None], ...] = (
    kill_daemon,
    hang_libvirtd,
    kill_libvirtd,
    lambda world: world.libvirtd.restart(),
    kill_qemu,
    lambda _: None,
)


def agreed(world: World) -> bool:
    """Every VM has its domain, in the state that Corral tells, as wished; and there is nothing else."""
    with world.client() as client:
        vms = client.list_vms()
    if {vm["name"] for vm in vms} != world.domains():
        return False
    states = {vm["name"]: vm["status"]["state"] for vm in vms}
    wished = {"on": {"running"}, "off": {"shut off"}, "paused": {"paused"}}
    return (
        all(states[vm["name"]] in wished[vm["spec"]["power"]] for vm in vms)
        and all(world.virsh("domstate", name).strip() == state for name, state in states.items())
        and len(world.qemus()) == sum(state != "shut off" for state in states.values())
    )


@pytest.mark.soak
def test_whatever_dies_everything_ends(world: World) -> None:
    for number in range(ROUNDS):
        verb, name = world.random.choice(list(VERBS)), world.random.choice(NAMES)
        fault = world.random.choice(FAULTS)
        print(f"round {number}: {verb} {name}")
        if fault is kill_daemon and verb in ("create", "start", "shutdown", "delete"):
            world.fault("kill", world.random.choice(moments(verb)))
        with suppress(CorralError), world.client() as client:  # many are refused: that is no fault
            VERBS[verb](client, name)
        fault(world)
        world.settled()
        until("Corral and libvirt agree", lambda: agreed(world))
        with world.client() as client:
            assert {operation["status"]["state"] for operation in client.list_operations()} <= ENDED
    for name in world.names():
        world.delete(name)
    world.no_leftovers()
