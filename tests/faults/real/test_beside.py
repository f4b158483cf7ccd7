"""What lies beside a VM's disks, UEFI variables and a TPM's state, in the VMs that come from it. No guest is started."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from real_world import World

NAME = "flt-uefi"
MARK = b"the user's own boot entry"
KEYS = b"keys that a guest sealed with"


def variables(world: World, name: str) -> Path:
    uid = world.vm(name)["uid"]
    return Path(world.libvirtd.root, "var/lib/libvirt/qemu/nvram", f"{uid}_VARS.fd")


def tpm(world: World, name: str) -> Path:
    return Path(world.libvirtd.root, "var/lib/libvirt/swtpm", world.vm(name)["uid"], "tpm2-00.permall")


def mark(world: World, name: str, text: bytes) -> None:
    """As the guest's firmware does."""
    path = variables(world, name)
    with path.open("r+b") as stream:
        stream.seek(4096)
        stream.write(text)


def is_marked(world: World, name: str, text: bytes = MARK) -> bool:
    return variables(world, name).read_bytes()[4096:].startswith(text)


def each(world: World, accepted: Any) -> None:
    for operation in accepted["operations"]:
        world.done({"operation": operation})


@pytest.fixture
def source(world: World) -> Iterator[str]:
    world.create(NAME, firmware="uefi", start=False, hardware={"tpm": True})
    mark(world, NAME, MARK)
    state = tpm(world, NAME)
    state.parent.mkdir(parents=True)
    state.write_bytes(KEYS)
    yield NAME
    for name in world.names():
        world.delete(name)
    world.no_leftovers()


def test_a_clone_has_its_originals_variables_and_a_tpm_of_its_own(world: World, source: str) -> None:
    with world.client() as client:
        world.done(client.create_snapshot(source, {"name": "then"}))
        mark(world, source, b"something that came later")
        each(world, client.clone_vm(source, {"names": ["flt-old"], "from_snapshot": "then"}))
        each(world, client.clone_vm(source, {"names": ["flt-new"]}))
        each(world, client.clone_vm(source, {"names": ["flt-same"], "from_snapshot": "then", "keep_identity": True}))
        world.done(client.delete_snapshot(source, "then"))
    assert is_marked(world, "flt-old")
    assert is_marked(world, "flt-new", b"something that came later")
    assert is_marked(world, "flt-same")
    assert [tpm(world, name).exists() for name in ("flt-old", "flt-new", "flt-same")] == [False, False, True]
    assert tpm(world, "flt-same").read_bytes() == KEYS
    owner = {variables(world, "flt-same").stat().st_uid, tpm(world, "flt-same").stat().st_uid}
    assert owner == {int(world.vm("flt-same")["annotations"]["corral/dac-uid"])}
    assert list(world.seen(world.state / "inherited").iterdir()) == []


def test_so_has_a_vm_that_boots_from_a_template(world: World, source: str) -> None:
    with world.client() as client:
        world.done(client.create_template({"name": "flt-base", "source": source}))
        mark(world, source, b"something that came later")
        each(world, client.fork_template("flt-base", {"names": ["flt-fork"]}))
        world.act("flt-fork", "destroy")
        assert is_marked(world, "flt-fork")
        world.delete("flt-fork")
        world.done(client.delete_template("flt-base"))


@pytest.mark.parametrize(
    "moment",
    ["before define", *(pytest.param(at, marks=pytest.mark.soak) for at in ("after define", "before commit 2"))],
)
def test_a_daemon_that_dies_on_the_way_loses_none(world: World, source: str, moment: str) -> None:
    """It finds what was kept; what was kept for nobody goes."""
    with world.client() as client:
        world.done(client.create_snapshot(source, {"name": "then"}))
        world.fault("kill", moment)
        with pytest.raises(Exception, match="daemon"):
            each(world, client.clone_vm(source, {"names": ["flt-cut"], "from_snapshot": "then"}))
    assert world.daemon is not None
    world.daemon.wait(20)
    world.no_fault()
    world.start()
    world.settled()
    if "flt-cut" in world.names():
        assert is_marked(world, "flt-cut")
    else:
        assert moment == "before commit 2"
    assert list(world.seen(world.state / "inherited").iterdir()) == []
