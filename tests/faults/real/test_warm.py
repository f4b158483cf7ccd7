"""The daemon, a waiting QEMU, the holder of the memory and libvirtd die while domains wait and while one is taken: each fork
runs and knows what the template knew, and nothing is left over."""

import contextlib
import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest
from real_world import World, until

from corral.errors import CorralError

NAME, TEMPLATE = "flt-src", "flt-base"
THOUGHT = "/tmp/thought"
READ_READY = """
import json, sqlite3, sys
slots = sqlite3.connect(sys.argv[1]).execute("SELECT value FROM records WHERE key LIKE '/slots/%'")
found = [json.loads(value) for (value,) in slots]
print(json.dumps([slot["uid"] for slot in found if slot.get("status", {}).get("ready")]))
"""


def prepare(world: World) -> None:
    world.create(NAME)
    world.wait_agent(NAME)
    world.run_in(NAME, "sh", "-c", f"echo remembered > {THOUGHT}")
    with world.client() as client:
        world.done(client.create_template({"name": TEMPLATE, "source": NAME, "hot": True, "warm": 1}))
    world.virsh("destroy", NAME)
    filled(world)


def waiting(world: World) -> set[str]:
    return {name for name in world.virsh("list", "--name", "--state-paused").split() if name.startswith("corral-warm-")}


def filled(world: World) -> str:
    """One waits, and is known; its name. What a template tells of its slots may be older than the daemon: one that is being
    thrown away since is on record as not ready, and no fork takes it."""

    def one_waits() -> str:
        with contextlib.suppress(CorralError), world.client() as client:
            told, found = client.get_template(TEMPLATE)["status"].get("waiting"), waiting(world)
            if told == 1 and len(found) == 1 and ready(world) == [uid_of(world, *found)]:
                return found.pop()
        return ""

    return until("a domain waits", one_waits)


def ready(world: World) -> list[str]:
    """Slots that a fork may take, by their uids."""
    told: list[str] = json.loads(world.inside(sys.executable, "-c", READ_READY, world.state / "corral.db"))
    return told


def uid_of(world: World, domain: str) -> str:
    """Empty where it is gone meanwhile."""
    return dict(line.split()[::-1] for line in world.virsh("list", "--uuid", "--name").splitlines() if line).get(
        domain, ""
    )


def ask(world: World, name: str) -> None:
    with world.client() as client:
        client.fork_template(TEMPLATE, {"names": [name]})


def judge(world: World, name: str, *, uid: str = "", slot: str = "") -> None:
    """It is itself, on the template's memory; its uid is that of the slot that it took. It runs in the slot's domain, unless the
    daemon died while that was loaded: then it was made anew, under its own name."""
    world.settled()
    assert world.state_of(name) == ("on", "running")
    world.wait_agent(name)
    assert world.run_in(name, "cat", THOUGHT, "/etc/hostname").split() == ["remembered", name]
    if uid:
        assert world.vm(name)["uid"] == uid
    if slot:
        assert uid_of(world, slot) == uid
    assert len(waiting(world)) <= 1
    world.delete(name)


def end(world: World) -> None:
    world.delete(NAME)
    with world.client() as client:
        world.done(client.delete_template(TEMPLATE))
    assert not waiting(world)
    world.no_leftovers()
    assert not list(world.seen(world.state / "templates").iterdir())


def killed_daemon(world: World, rounds: int) -> None:
    prepare(world)
    for number in range(rounds):
        uid = uid_of(world, filled(world))
        ask(world, f"flt-fork-{number}")
        time.sleep(world.random.uniform(0, 0.4))
        world.kill()
        world.start()
        judge(world, f"flt-fork-{number}", uid=uid)
        with world.client() as client:  # while it is emptied and filled
            client.set_warm(TEMPLATE, number % 2)
            client.set_warm(TEMPLATE, 1)
        time.sleep(world.random.uniform(0, 1))
        world.kill()
        world.start()
    filled(world)
    end(world)


def test_a_sample_of_instants(world: World) -> None:
    killed_daemon(world, 2)


@pytest.mark.soak
def test_many_instants(world: World) -> None:
    killed_daemon(world, 20)


def test_what_waits_outlives_the_holder_and_libvirtd(world: World) -> None:
    prepare(world)
    slot = filled(world)
    os.kill(holder(world), signal.SIGKILL)
    world.libvirtd.restart()
    until("libvirtd is back", lambda: _ready(world))
    assert filled(world) == slot
    uid = uid_of(world, slot)
    ask(world, "flt-kept")
    judge(world, "flt-kept", uid=uid, slot=slot)
    slot = filled(world)  # another holder was started for it
    os.kill(world.pid(slot), signal.SIGKILL)
    until("another one waits", lambda: waiting(world) - {slot})
    filled(world)
    # Where it dies in the same instant as it is taken, the fork is a cold one.
    slot = filled(world)
    os.kill(world.pid(slot), signal.SIGKILL)
    ask(world, "flt-cold")
    judge(world, "flt-cold")
    end(world)


def holder(world: World) -> int:
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (entry / "cmdline").read_bytes().split(b"\0")
            if any(word.endswith(b"holder_process.py") for word in words) and os.fsencode(world.root) in b" ".join(
                words
            ):
                return int(entry.name)
    raise AssertionError("nobody holds the memory")


def _ready(world: World) -> bool:
    with world.client() as client:
        return bool(client.ready()["ready"])
