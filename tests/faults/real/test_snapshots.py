"""Points in time of a real guest: there and back again, with and without its memory; and the daemon dies by SIGKILL on the way.

A sample of instants in an ordinary run, every one in a soak.
"""

import threading
import time
from contextlib import suppress
from typing import Any

import pytest
from real_world import World, until

from corral.errors import CorralError

NAME = "flt-time"
BLOCK = 65536
TAKE = ("make-heads", "take-point", "seal-point")
REVERT = ("destroy", "make-heads", "place-disks", "start-reverted", "seal-point")
MEMORY = ("destroy", "make-heads", "place-disks", "restore-point", "seal-point")
TIDY = ("remove-point", "merge-layer", "place-disks", "remove-layer")


def write(world: World, block: int, text: str) -> None:
    """Into the guest's disk, and through all caches."""
    script = f"printf %-16s {text} | dd of=/dev/vda bs={BLOCK} seek={block} conv=notrunc,fsync 2>/dev/null"
    world.run_in(NAME, "sh", "-c", script)


def reads(world: World, *blocks: int) -> list[str]:
    world.wait_agent(NAME)
    script = ";".join(f"dd if=/dev/vda bs=16 count=1 skip={block * BLOCK // 16} 2>/dev/null" for block in blocks)
    told = world.run_in(NAME, "sh", "-c", script)
    return [told[at : at + 16].strip(" \0") for at in range(0, 16 * len(blocks), 16)]


def take(world: World, name: str, **more: Any) -> Any:
    with world.client() as client:
        world.done(client.create_snapshot(NAME, {"name": name, **more}))
        return client.get_snapshot(NAME, name)


def revert(world: World, name: str) -> None:
    with world.client() as client:
        world.done(client.revert_to_snapshot(NAME, name))


def forget(world: World, name: str) -> None:
    with world.client() as client:
        world.done(client.delete_snapshot(NAME, name))


def layers(world: World) -> set[str]:
    return {path.name.removesuffix(".qcow2") for path in world.seen(world.state / "volumes").glob("*.qcow2")}


def test_a_guest_goes_back_and_forth(world: World) -> None:
    world.create(NAME)
    world.wait_agent(NAME)
    write(world, 0, "one")
    first = take(world, "first", quiesce=False)
    assert first["status"]["pause_ms"] < 1000
    write(world, 0, "two")
    world.run_in(NAME, "sh", "-c", "echo remembered > /tmp/thought")
    alive = take(world, "alive", memory=True)
    assert alive["status"]["memory_bytes"] > 1 << 20
    write(world, 1, "three")
    world.run_in(NAME, "sh", "-c", "rm /tmp/thought")
    assert reads(world, 0, 1) == ["two", "three"]
    revert(world, "first")
    assert reads(world, 0, 1) == ["one", ""]
    revert(world, "alive")
    assert reads(world, 0, 1) == ["two", ""]
    assert world.run_in(NAME, "cat", "/tmp/thought").strip() == "remembered"
    until("its clock is right", lambda: abs(int(world.run_in(NAME, "date", "+%s")) - time.time()) < 3)
    assert not world.vm(NAME)["status"].get("pending_restart")
    conditions = {found["type"]: found["status"] for found in world.vm(NAME)["status"]["conditions"]}
    assert conditions.get("Drifted", "false") == "false"
    write(world, 1, "four")
    forget(world, "first")
    forget(world, "alive")
    until("all is in one layer", lambda: len(layers(world)) == 1)
    assert reads(world, 0, 1) == ["two", "four"]
    world.act(NAME, "destroy")
    world.act(NAME, "start")
    assert reads(world, 0, 1) == ["two", "four"]
    world.delete(NAME)
    world.no_leftovers()


def test_what_was_written_is_told(world: World) -> None:
    """Of a guest that runs, too, and whose QEMU keeps its tables in memory."""
    world.create(NAME)
    world.wait_agent(NAME)
    write(world, 0, "a")
    take(world, "one")
    write(world, 5, "b")
    write(world, 6, "c")
    take(world, "two")
    write(world, 9, "d")

    def blocks(one: str, other: str) -> list[tuple[int, int]]:
        with world.client() as client:
            [disk] = client.diff_snapshots(NAME, one, other)["disks"]
        assert disk["changed_bytes"] == sum(extent["length"] for extent in disk["extents"])
        return [(extent["start"] // BLOCK, extent["length"] // BLOCK) for extent in disk["extents"]]

    assert blocks("one", "two") == [(5, 2)]
    assert blocks("two", "now") == [(9, 1)]
    assert blocks("one", "now") == [(5, 2), (9, 1)]
    revert(world, "one")
    assert blocks("two", "now")[:1] == [(5, 2)]
    world.delete(NAME)
    world.no_leftovers()


def test_one_that_is_off_goes_back_and_its_layers_are_merged(world: World) -> None:
    world.create(NAME)
    world.wait_agent(NAME)
    for number, name in enumerate(("a", "b", "c")):
        write(world, number, name)
        take(world, name)
    world.act(NAME, "destroy")
    take(world, "off")
    revert(world, "b")
    assert world.state_of(NAME) == ("off", "shut off")
    forget(world, "a")
    world.act(NAME, "start")
    assert reads(world, 0, 1, 2) == ["a", "b", ""]
    revert(world, "off")
    assert reads(world, 0, 1, 2) == ["a", "b", "c"]
    world.delete(NAME)
    world.no_leftovers()


def test_the_middle_of_a_running_guests_chain_is_merged(world: World) -> None:
    world.create(NAME)
    world.wait_agent(NAME)
    for number, name in enumerate(("a", "b", "c")):
        write(world, number, name)
        take(world, name)
    write(world, 3, "now")
    for left, name in ((3, "a"), (2, "b")):
        forget(world, name)
        until("its layer is in another one", lambda left=left: len(layers(world)) == left)
        assert reads(world, 0, 1, 2, 3) == ["a", "b", "c", "now"]
    conditions = {found["type"]: found["status"] for found in world.vm(NAME)["status"]["conditions"]}
    assert conditions.get("Drifted", "false") == "false"
    revert(world, "c")
    assert reads(world, 0, 1, 2, 3) == ["a", "b", "c", ""]
    world.delete(NAME)
    world.no_leftovers()


def through(world: World, verb: str, moment: str) -> None:
    """Whoever asked may have got no answer; what was accepted is done all the same, and nothing else is lost."""
    world.create(NAME)
    world.wait_agent(NAME)
    write(world, 0, "one")
    take(world, "first")
    write(world, 1, "two")
    take(world, "second", memory=True)
    write(world, 2, "three")
    world.fault("kill", moment)
    asked = {
        "take": lambda: take(world, "third"),
        "take with memory": lambda: take(world, "third", memory=True),
        "revert": lambda: revert(world, "first"),
        "revert to memory": lambda: revert(world, "second"),
        "forget": lambda: forget(world, "first"),
    }[verb]
    try:
        asked()
    except CorralError as error:
        if not error.code.startswith("daemon-"):
            raise
    until("it is dead", lambda: world.is_dead(may_miss=moment.startswith("after")))
    world.no_fault()
    world.start()
    world.settled()
    now = {"revert": ["one", "", ""], "revert to memory": ["one", "two", ""]}.get(verb, ["one", "two", "three"])
    assert reads(world, 0, 1, 2) == now
    with world.client() as client:
        names = {found["name"] for found in client.list_snapshots(NAME) if found["status"]["ready"]}
    assert names == {"first", "second", "third"} - ({"first"} if verb == "forget" else set()) - (
        {"third"} if not verb.startswith("take") else set()
    )
    revert(world, "second")
    assert reads(world, 0, 1, 2) == ["one", "two", ""]
    if "first" in names:
        revert(world, "first")
        assert reads(world, 0, 1, 2) == ["one", "", ""]
    if "third" in names:
        revert(world, "third")
        assert reads(world, 0, 1, 2) == ["one", "two", "three"]
    world.delete(NAME)
    world.no_leftovers()


MOMENTS = [
    *(("take", f"{when} {step}") for step in TAKE for when in ("before", "after")),
    *(("take with memory", f"{when} {step}") for step in TAKE for when in ("before", "after")),
    *(("take with memory", amid) for amid in ("amid memory", "before the switch", "after the switch")),
    *(("revert", f"{when} {step}") for step in REVERT for when in ("before", "after")),
    *(("revert to memory", f"{when} {step}") for step in MEMORY for when in ("before", "after")),
    *(("forget", f"{when} {step}") for step in TIDY[:1] for when in ("before", "after")),
]


def test_a_sample_of_instants(world: World) -> None:
    for kind in ("take", "revert"):
        through(world, *world.random.choice([found for found in MOMENTS if found[0].startswith(kind)]))


@pytest.mark.parametrize("amid", ["amid memory", "before the switch", "after the switch"])
def test_a_guest_whose_memory_is_being_kept(world: World, amid: str) -> None:
    """It runs on by itself; between its last byte and the switch of its disks, once the daemon is back."""
    through(world, "take with memory", amid)


@pytest.mark.soak
@pytest.mark.parametrize("number", range(len(MOMENTS)))
def test_every_instant(world: World, number: int) -> None:
    through(world, *MOMENTS[number])


@pytest.mark.soak
@pytest.mark.parametrize("number", range(5))
def test_a_guest_is_thawed_though_its_daemon_stays_dead(world: World, number: int) -> None:
    """libvirt freezes, switches and thaws in one call, which goes on without its caller."""
    world.create(NAME)
    world.wait_agent(NAME)
    write(world, 0, "one")

    def ask() -> None:
        with suppress(CorralError), world.client() as client:
            client.create_snapshot(NAME, {"name": "quiet", "quiesce": True})

    asking = threading.Thread(target=ask)
    asking.start()
    time.sleep(world.random.uniform(0, 0.4))
    world.kill()
    asking.join(30)
    status = '{"execute": "guest-fsfreeze-status"}'
    until("it is thawed", lambda: '"thawed"' in world.virsh("qemu-agent-command", NAME, status), 30)
    world.start()
    world.settled()
    assert world.state_of(NAME) == ("on", "running")
    write(world, 1, "two")
    assert reads(world, 0, 1) == ["one", "two"]
    with world.client() as client:
        assert all(found["status"]["ready"] for found in client.list_snapshots(NAME))
    world.delete(NAME)
    world.no_leftovers()
