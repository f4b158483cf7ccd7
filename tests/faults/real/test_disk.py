"""The state directory's disk full at an instant of a create, or read-only: coded errors, nothing left, no hand needed."""

import pytest
from real_world import STEPS, STOP_S, World, body

from corral.cli.supervisor import HOPELESS
from corral.errors import CorralError

NAME = "flt-full"
FULL_S = 8.0
CODES = {"disk-full", "storage-error", "store-unavailable", "hypervisor-error"}


def code_of(world: World) -> str:
    """What a create is answered, or how its operation ended."""
    with world.client() as client:
        try:
            accepted = client.create_vm(body(NAME, force=True))
        except CorralError as error:
            return error.code
        uid = accepted["operation"]["uid"]

        # It ends while the disk is full, unless even that cannot be written.
        client.get_operation(uid, wait_s=FULL_S)
        world.answers()
        world.unfill()
        status = client.wait_operation(uid, timeout_s=60)["status"]
        return status["error"]["code"] if status["error"] else ""


def full(world: World, moment: str) -> None:
    world.fault("fill", moment)
    code = code_of(world)
    world.no_fault()
    world.unfill()
    assert code in CODES | {""}, code
    if not code:  # it was done when there was room again
        world.delete(NAME)
    world.no_leftovers()


def test_full_before_it_is_asked(world: World) -> None:
    world.fill()
    world.answers()
    with pytest.raises(CorralError) as refused, world.client() as client:
        client.create_vm(body(NAME))
    assert refused.value.code in CODES | {"insufficient-disk"}
    assert world.names() == set()
    world.unfill()
    world.create(NAME)
    world.delete(NAME)
    world.no_leftovers()


def test_full_on_the_way(world: World) -> None:
    full(world, f"before {world.random.choice(STEPS['create'][:2])}")


@pytest.mark.soak
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", STEPS["create"])
def test_full_at_every_step(world: World, when: str, step: str) -> None:
    full(world, f"{when} {step}")


def test_a_lost_write_ends_the_daemon_and_nothing_else(world: World) -> None:
    """After a failed fsync nothing in memory can be trusted: the supervisor starts another daemon."""
    world.create(NAME)
    pid = world.pid(NAME)
    world.fault("lose", "before commit 1")
    with pytest.raises(CorralError) as refused, world.client() as client:
        client.vm_action(NAME, "pause")
    assert refused.value.code in {"store-unavailable", "daemon-unreachable"}
    assert world.daemon is not None
    assert world.daemon.wait(STOP_S) not in {0, *HOPELESS}
    world.start()
    assert world.state_of(NAME) == ("on", "running")
    assert world.qemus() == [pid]
    world.delete(NAME)
    world.no_leftovers()


def test_read_only(world: World) -> None:
    """The kernel makes the file system read-only; a daemon whose store has failed ends, for its supervisor to start."""
    world.break_disk()
    with pytest.raises(CorralError) as refused, world.client() as client:
        client.create_vm(body(NAME))
    assert refused.value.code in CODES | {"daemon-unreachable"}
    assert world.daemon is not None
    if world.daemon.poll() is None:
        world.answers()
        world.kill()
    again = world.spawn()
    assert again.wait(STOP_S) != 0  # it says why, and does not come up on such a disk
    world.mend_disk()
    world.start()
    world.create(NAME)
    world.delete(NAME)
    world.no_leftovers()


def test_started_on_a_full_disk(world: World) -> None:
    """It answers what it can, says that it is not ready, and is whole again when there is room."""
    world.create(NAME)
    pid = world.pid(NAME)
    world.fill()
    world.kill()
    world.start(ready=False)
    world.answers()
    assert world.state_of(NAME) == ("on", "running")
    assert world.qemus() == [pid]
    world.unfill()
    world.delete(NAME)
    world.no_leftovers()
