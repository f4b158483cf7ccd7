"""The daemon dies by SIGKILL while a disk is plugged into a running guest, or taken out; started again, it goes on.

A sample of instants in an ordinary run, every one in a soak.
"""

import pytest
from real_world import World, until

from corral.errors import CorralError

NAME = "flt-hot"
SIZE = 48 << 20
ATTACH = ("make-volume", "define", "apply-live")
DETACH = ("define", "apply-live")


def moments(steps: tuple[str, ...]) -> list[str]:
    return [f"{when} {step}" for step in steps for when in ("before", "after")]


def attach(world: World) -> None:
    with world.client() as client:
        client.attach_disk(NAME, {"size_bytes": SIZE, "name": "data"})


def detach(world: World) -> None:
    with world.client() as client:
        client.detach_disk(NAME, "data")


def die(world: World, moment: str, *, out: bool) -> None:
    """Whoever asked may have got no answer; what was accepted is done all the same."""
    world.fault("kill", moment)
    try:
        (detach if out else attach)(world)
    except CorralError as error:
        if error.code != "daemon-unreachable":
            raise
    assert world.daemon is not None
    until("it is dead", lambda: world.daemon.poll() is not None)
    world.no_fault()
    world.start()
    world.settled()


def disks_in(world: World) -> list[str]:
    """What the guest has: sizes of its disks in sectors of 512 bytes, the new one among them or not."""
    told = world.run_in(NAME, "sh", "-c", "cat /sys/block/vd*/size")
    return [line for line in told.split() if line == str(SIZE // 512)]


def volumes(world: World) -> list[bool]:
    """Whether each volume beside the root disk is a VM's."""
    with world.client() as client:
        return [bool(v["spec"].get("vm_uid")) for v in client.list_volumes() if v["spec"]["size_bytes"] == SIZE]


def through(world: World, into: str, out: str) -> None:
    world.create(NAME)
    world.wait_agent(NAME)
    qemu = world.pid(NAME)
    die(world, into, out=False)
    until("the guest has it", lambda: len(disks_in(world)) == 1)
    assert volumes(world) == [True]
    assert not world.vm(NAME)["status"].get("pending_restart")
    die(world, out, out=True)
    until("the guest has let it go", lambda: not disks_in(world))
    until("it is nobody's", lambda: volumes(world) == [False])
    assert world.pid(NAME) == qemu
    assert [disk["name"] for disk in world.vm(NAME)["spec"]["disks"]] == ["root"]
    with world.client() as client:
        [volume] = [v for v in client.list_volumes() if v["spec"]["size_bytes"] == SIZE]
        world.done(client.delete_volume(volume["name"]))
    world.delete(NAME)
    world.no_leftovers()


def test_a_sample_of_instants(world: World) -> None:
    through(world, world.random.choice(moments(ATTACH[1:3])), world.random.choice(moments(DETACH[:2])))


@pytest.mark.soak
@pytest.mark.parametrize("number", range(len(moments(ATTACH))))
def test_every_instant(world: World, number: int) -> None:
    through(world, moments(ATTACH)[number], moments(DETACH)[number % len(moments(DETACH))])
