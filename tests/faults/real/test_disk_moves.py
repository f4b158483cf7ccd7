"""A real guest's disk is moved to another pool while it writes, and made to lean on nothing; the daemon, or QEMU, dies by
SIGKILL on the way. What the guest was told is on disk is there afterwards; the disk lies in one place, and nothing else anywhere.
"""

import hashlib
import os
import signal
from typing import Any

import pytest
from real_world import World, until

from corral.errors import CorralError

NAME = "flt-move"
BLOCK = 65536
BLOCKS = 64
# Each block in turn gets the next number; what is in /tmp/acked was written through all caches.
WRITER = (
    f"i=0; while [ ! -e /tmp/stop ]; do i=$((i+1)); printf %-16s $i | "
    f"dd of=/dev/vda bs={BLOCK} seek=$((i%{BLOCKS})) conv=notrunc,fsync 2>/dev/null && echo $i > /tmp/acked.new && "
    "mv /tmp/acked.new /tmp/acked; done; touch /tmp/stopped"
)
KILLS = ("begin-disk-work", "switch-disk", "seal-disk", "remove-copy")


def prepared(world: World) -> str:
    """A guest that writes without an end; its volume's name."""
    with world.client() as client:
        if all(pool["name"] != "fast" for pool in client.list_pools()):
            client.create_pool({"name": "fast", "path": str(world.root / "fast")})
    world.create(NAME)
    world.wait_agent(NAME)
    world.run_in(NAME, "sh", "-c", f"({WRITER}) >/dev/null 2>&1 &")
    until("the guest writes", lambda: acked(world) > 2 * BLOCKS)
    with world.client() as client:
        [volume] = client.list_volumes()
    return str(volume["name"])


def acked(world: World) -> int:
    return int(world.run_in(NAME, "cat", "/tmp/acked").strip() or 0)


def stop_writing(world: World) -> int:
    world.run_in(NAME, "sh", "-c", "touch /tmp/stop; while [ ! -e /tmp/stopped ]; do sleep 0.1; done")
    return acked(world)


def check_written(world: World, last: int, *, at_least: bool = False) -> None:
    """Every block holds the newest number that was written there; with `at_least` that, or a newer one."""
    world.wait_agent(NAME)
    script = f"echo 3 > /proc/sys/vm/drop_caches; for b in $(seq 0 {BLOCKS - 1}); do "
    script += f"dd if=/dev/vda bs=16 count=1 skip=$((b*{BLOCK // 16})) 2>/dev/null; echo; done"
    found = [int(line.strip()) for line in world.run_in(NAME, "sh", "-c", script).split()]
    wanted = [last - (last - block) % BLOCKS for block in range(BLOCKS)]
    if at_least:
        assert all(got >= want for got, want in zip(found, wanted, strict=True)), (found, wanted)
    else:
        assert found == wanted


def checksum(world: World, name: str) -> str:
    """Of all that is read through the volume's file."""
    with world.client() as client:
        path = client.get_volume(name)["status"]["path"]
    raw = world.root / "whole.raw"
    world.inside("qemu-img", "convert", "-U", "-f", "qcow2", "-O", "raw", path, raw)
    with raw.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def files(world: World) -> set[str]:
    """Where disks lie, by pool."""
    places = {"default": world.state / "volumes", "fast": world.root / "fast"}
    return {f"{pool}/{path.suffix}" for pool, place in places.items() for path in world.seen(place).glob("*.qcow2")}


def move(world: World, name: str, pool: str = "fast", **more: Any) -> Any:
    with world.client() as client:
        return client.move_volume(name, {"pool": pool, **more})


def in_one_place(world: World, name: str, pool: str) -> None:
    with world.client() as client:
        volume = client.get_volume(name)
    assert volume["spec"]["pool"] == pool
    assert files(world) == {f"{pool}/.qcow2"}
    conditions = {found["type"]: found["status"] for found in world.vm(NAME)["status"]["conditions"]}
    assert conditions.get("Drifted", "false") == "false"


def test_a_guest_writes_on_while_its_disk_moves(world: World) -> None:
    name = prepared(world)
    began = acked(world)
    world.done(move(world, name))
    assert acked(world) > began
    in_one_place(world, name, "fast")
    check_written(world, stop_writing(world))
    assert world.vm(NAME)["status"]["state"] == "running"
    world.act(NAME, "destroy")
    before = checksum(world, name)
    world.done(move(world, name, "default"))  # off
    in_one_place(world, name, "default")
    assert checksum(world, name) == before
    world.act(NAME, "start")
    world.wait_agent(NAME)
    world.act(NAME, "destroy")
    world.delete(NAME)
    world.no_leftovers()


def test_until_the_switch_it_can_be_cancelled(world: World) -> None:
    name = prepared(world)
    accepted = move(world, name, bytes_per_s=65536)
    uid = accepted["operation"]["uid"]

    def progress() -> Any:
        with world.client() as client:
            return client.get_operation(uid)["status"]["phase"] == "copying the disk"

    until("it is being copied", progress)
    with world.client() as client:
        refused = world.done(client.create_snapshot(NAME, {"name": "no"}), "failed")
        assert refused["status"]["error"]["code"] == "wrong-state"
        with pytest.raises(CorralError) as in_use:
            client.detach_disk(NAME, "root")
        assert in_use.value.code == "volume-in-use"
        client.cancel_operation(uid)
    world.done(accepted, "cancelled")
    in_one_place(world, name, "default")
    check_written(world, stop_writing(world))
    world.delete(NAME)


def through(world: World, moment: str) -> None:
    name = prepared(world)
    world.fault("kill", moment)
    accepted = move(world, name)
    assert world.daemon is not None
    until("the daemon has died", lambda: world.daemon is not None and world.daemon.poll() is not None)
    world.start()
    world.done(accepted)
    in_one_place(world, name, "fast")
    assert world.vm(NAME)["status"]["state"] == "running"
    check_written(world, stop_writing(world))
    world.delete(NAME)
    world.no_leftovers()


@pytest.mark.parametrize("moment", ["after begin-disk-work", "before switch-disk", "after switch-disk"])
def test_the_daemon_dies_on_the_way(world: World, moment: str) -> None:
    through(world, moment)


@pytest.mark.soak
@pytest.mark.parametrize("moment", [f"{when} {step}" for step in KILLS for when in ("before", "after")])
def test_the_daemon_dies_at_every_step(world: World, moment: str) -> None:
    through(world, moment)


def test_qemu_dies_while_it_copies(world: World) -> None:
    """The old file counts. With it starts again, the copy begins anew."""
    name = prepared(world)
    accepted = move(world, name, bytes_per_s=262144)
    until("the copy grows", lambda: files(world) == {"default/.qcow2", "fast/.qcow2"})
    last = acked(world)
    os.kill(world.pid(NAME), signal.SIGKILL)
    world.done(accepted)
    in_one_place(world, name, "fast")
    until("it runs again", lambda: world.vm(NAME)["status"]["state"] == "running")
    check_written(world, last, at_least=True)
    world.delete(NAME)
    world.no_leftovers()


def test_a_clone_is_flattened_while_its_guest_writes(world: World) -> None:
    name = prepared(world)
    with world.client() as client:
        [accepted] = client.clone_vm(NAME, {"names": ["flt-clone"]})["operations"]
        world.done({"operation": accepted})
        [clone] = [volume["name"] for volume in client.list_volumes() if volume["name"] != name]
        before = checksum(world, clone)
        world.done(client.flatten_volume(clone, {}))
        assert checksum(world, clone) == before
        world.done(client.flatten_volume(name, {"bytes_per_s": 1 << 30}))
        backed = [volume["spec"]["image_uid"] for volume in client.list_volumes()]
    assert backed == [None, None]
    check_written(world, stop_writing(world))
    until("each has one file", lambda: len(list(world.seen(world.state / "volumes").glob("*.qcow2"))) == 2)
    world.delete(NAME)
    world.delete("flt-clone")
    world.no_leftovers()


@pytest.mark.parametrize("moment", ["before switch-disk", "after switch-disk"])
def test_the_daemon_and_qemu_die_at_the_switch(world: World, moment: str) -> None:
    """Whichever file the domain names then holds all that the guest was told is on disk."""
    name = prepared(world)
    world.fault("kill", moment)
    accepted = move(world, name)
    until("the daemon has died", lambda: world.daemon is not None and world.daemon.poll() is not None)
    os.kill(world.pid(NAME), signal.SIGKILL)
    until("QEMU is gone", lambda: NAME not in world.virsh("list", "--name").split())
    named = world.virsh("domblklist", "--inactive", NAME)
    assert (str(world.root / "fast") in named) is (moment == "after switch-disk")
    world.start()
    world.done(accepted)
    in_one_place(world, name, "fast")
    until("it runs again", lambda: world.vm(NAME)["status"]["state"] == "running")
    check_written(world, 2 * BLOCKS, at_least=True)
    world.delete(NAME)
    world.no_leftovers()


def test_libvirtd_dies_while_it_copies(world: World) -> None:
    """QEMU copies on; whoever comes back looks how far it is."""
    name = prepared(world)
    accepted = move(world, name, bytes_per_s=4 << 20)
    until("the copy grows", lambda: files(world) == {"default/.qcow2", "fast/.qcow2"})
    world.libvirtd.kill()
    world.answers_for(1)
    world.libvirtd.start()
    world.done(accepted)
    in_one_place(world, name, "fast")
    check_written(world, stop_writing(world))
    world.delete(NAME)
    world.no_leftovers()
