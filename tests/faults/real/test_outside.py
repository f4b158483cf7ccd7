"""What happens to a guest beside Corral: its QEMU killed, powered off from within, changed by virsh, copied, in the way."""

import os
import re
import signal

import pytest
from real_world import World, body, until

from corral.client import raise_for_operation
from corral.errors import CorralError
from corral.names import new_uid

NAME = "flt-outside"


def kill_qemu(world: World) -> int:
    pid = world.pid(NAME)
    os.kill(pid, signal.SIGKILL)
    return pid


def test_a_killed_qemu_is_started_again_unless_told_otherwise(world: World) -> None:
    world.create(NAME)
    killed = kill_qemu(world)
    until("it runs again", lambda: world.qemus() not in ([], [killed]))
    world.until_state(NAME, "on", "running")
    assert any(NAME in message for message in world.events("VmRestarted"))
    with world.client() as client:
        world.done(client.update_vm(NAME, {"run_policy": "manual"}))
    kill_qemu(world)
    world.until_state(NAME, "off", "shut off")
    assert world.qemus() == []
    world.delete(NAME)
    world.no_leftovers()


def test_what_the_guest_and_virsh_do_is_adopted(world: World) -> None:
    world.create(NAME)
    before = len(world.events("ExternalChange"))
    world.wait_agent(NAME)
    with world.client() as client:
        list(client.exec(NAME, ["sh", "-c", "(sleep 1; poweroff -f) >/dev/null 2>&1 &"]))
    world.until_state(NAME, "off", "shut off")
    assert any(NAME in message for message in world.events("GuestPoweredOff"))
    for verb, power, state in (
        ("start", "on", "running"),
        ("suspend", "paused", "paused"),
        ("resume", "on", "running"),
        ("destroy", "off", "shut off"),
    ):
        world.virsh(verb, NAME)
        world.until_state(NAME, power, state)
    assert len(world.events("ExternalChange")) == before + 4
    world.delete(NAME)
    world.no_leftovers()


def test_a_copy_of_our_document_is_not_ours(world: World) -> None:
    world.create(NAME, start=False)
    uid, copy = world.vm(NAME)["uid"], f"{NAME}-copy"
    document = world.virsh("dumpxml", "--inactive", NAME).replace(uid, new_uid(), 1)
    document = document.replace(f"<name>{NAME}</name>", f"<name>{copy}</name>", 1)
    document = re.sub(r"<mac address='[^']*'/>", "", document)
    path = world.root / "copy.xml"
    path.write_text(document)
    world.virsh("define", str(path))
    with world.client() as client:
        until("it is listed", lambda: [found for found in client.list_domains() if found["name"] == copy])
        assert [vm["name"] for vm in client.list_vms()] == [NAME]
    world.delete(NAME)
    assert world.domains() == {copy}
    world.no_leftovers(frozenset({copy}))
    world.virsh("undefine", copy, "--nvram")
    assert world.leftovers() == []


def test_a_foreign_domain_of_that_name_is_in_the_way(world: World) -> None:
    path = world.root / "foreign.xml"
    path.write_text(
        f"<domain type='qemu'><name>{NAME}</name><memory unit='MiB'>64</memory><os><type>hvm</type></os></domain>"
    )
    world.virsh("define", str(path))
    before = world.virsh("dumpxml", NAME)
    with pytest.raises(CorralError) as refused, world.client() as client:
        raise_for_operation(client.wait_operation(client.create_vm(body(NAME))["operation"]["uid"], timeout_s=60))
    assert refused.value.code == "domain-name-taken"
    assert refused.value.exit_status == 4
    world.no_leftovers(frozenset({NAME}))
    assert world.virsh("dumpxml", NAME) == before
    world.virsh("undefine", NAME)
    world.create(NAME)
    world.delete(NAME)
    world.no_leftovers()
