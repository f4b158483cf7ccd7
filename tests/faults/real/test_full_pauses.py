"""A guest writes more than its pool has: QEMU pauses it, its user is told, and with space again it goes on; nothing is lost."""

import os

import pytest
from real_world import World, until

from corral.errors import CorralError

NAME = "flt-space"
WRITTEN_MIB = 96
LEFT_MIB = 40
PIECES = f"for i in {' '.join(map(str, range(WRITTEN_MIB // 8)))}; do cat /tmp/piece; done"
# Found by its serial: the seed is a disk, too.
TARGET = "/dev/$(grep -l '^big$' /sys/block/vd*/serial | cut -d/ -f4)"
WRITE = f"dd if=/dev/urandom of=/tmp/piece bs=1M count=8 && ({PIECES}) >{TARGET} && sync && echo whole >/tmp/said || echo broken >/tmp/said"


def leave(world: World, mib: int) -> None:
    """So much of the file system stays free."""
    found = world.seen(world.state)
    status = os.statvfs(found)
    surplus = status.f_bavail * status.f_frsize - (mib << 20)
    with world.seen(world.ballast).open("ab", buffering=0) as ballast:
        ballast.write(b"\0" * max(0, surplus))


def state(world: World) -> tuple[str, str]:
    status = world.vm(NAME)["status"]
    return status["state"], status.get("state_reason", "")


def stands_still(world: World) -> bool:
    return state(world) == ("paused", "no space")


def test_it_stands_still_and_goes_on(world: World) -> None:
    world.create(NAME)
    world.wait_agent(NAME)
    with world.client() as client:
        size = 512 << 20
        world.done(client.create_volume({"name": "big", "size_bytes": size, "force": True}))
        world.done(client.attach_disk(NAME, {"volume": "big", "name": "big"}))
    qemu = world.pid(NAME)
    leave(world, LEFT_MIB)
    world.run_in(NAME, "sh", "-c", f"({WRITE}) </dev/null >/dev/null 2>&1 &")
    try:
        until("it stands still", lambda: stands_still(world))
        found = world.vm(NAME)
        assert found["spec"]["power"] == "on"
        [condition] = [known for known in found["status"]["conditions"] if known["type"] == "OutOfSpace"]
        assert condition["status"] == "true"
        with world.client() as client:
            assert world.events("VmOutOfSpace")
            until("the pool says so", lambda: client.get_pool("default")["status"]["level"] == "critical")
            with pytest.raises(CorralError, match="disk-full"):
                client.vm_action(NAME, "resume")
        world.kill()  # and whoever comes next finds it so
    finally:
        world.unfill()
    world.start()
    until("it runs", lambda: state(world)[0] == "running")
    assert world.pid(NAME) == qemu
    until("it has written all", lambda: world.run_in(NAME, "cat", "/tmp/said").strip() in ("whole", "broken"))
    assert world.run_in(NAME, "cat", "/tmp/said").strip() == "whole"
    wanted = world.run_in(NAME, "sh", "-c", f"({PIECES}) | md5sum")
    assert world.run_in(NAME, "sh", "-c", f"head -c {WRITTEN_MIB << 20} {TARGET} | md5sum") == wanted
    assert world.events("VmHasSpace")
    world.delete(NAME)
    with world.client() as client:
        world.done(client.delete_volume("big"))
    world.no_leftovers()
