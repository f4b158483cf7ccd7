"""A running VM is forked while it goes on: its copies know what it knew, and are each somebody else."""

import subprocess
from pathlib import Path

import pytest
from walk import PATIENCE, Walk

pytestmark = pytest.mark.timeout(1800)

COUNT = "(i=0; while :; do i=$((i+1)); echo $i >/tmp/n.new; mv /tmp/n.new /tmp/n; sleep 0.1; done) >/dev/null 2>&1 &"
WHO = "hostname; cat /sys/class/net/eth0/address; ip -4 -o addr show eth0 | tr -s ' ' | cut -d' ' -f4"


@pytest.fixture(scope="module")
def parent(walk: Walk) -> str:
    name = walk.name("par")
    walk("create", "--name", name, "--image", "micro", "--memory", "128", "--wait", "agent").ok()
    walk.guest(name, f"echo precious >/tmp/kept; printf disk | dd of=/dev/vda 2>/dev/null; sync; {COUNT}")
    return name


def process(name: str) -> tuple[str, str]:
    """Of the VM's domain: its UUID and its QEMU."""
    uuid = subprocess.run(
        ["virsh", "-c", "qemu:///system", "domuuid", name], check=True, capture_output=True, text=True
    )
    return uuid.stdout.strip(), Path(f"/run/libvirt/qemu/{name}.pid").read_text()


def test_a_vm_goes_on_and_so_do_its_forks(walk: Walk, parent: str) -> None:
    before, counted = process(parent), int(walk.guest(parent, "cat /tmp/n"))
    one, two = walk.name("one"), walk.name("two")
    said = walk("fork", "--live", parent, one, two).ok()
    assert f"{parent}: stood still for " in said
    assert process(parent) == before
    assert int(walk.guest(parent, "echo changed >/tmp/kept; cat /tmp/n")) > counted
    who = {walk.guest(parent, WHO)}
    for name in (one, two):
        told = walk.guest(name, WHO)
        who.add(told)
        hostname, mac, address = told.splitlines()
        nic = walk.info(name)["spec"]["nics"][0]
        assert (hostname, mac, address.partition("/")[0]) == (name, nic["mac"], nic["address"])
        assert walk.guest(name, "cat /tmp/kept; dd if=/dev/vda bs=4 count=1 2>/dev/null") == "precious\ndisk"
        at = int(walk.guest(name, "cat /tmp/n"))
        assert at >= counted
        assert int(walk.guest(name, "sleep 1; cat /tmp/n")) > at, "what it was doing does not go on"
        assert process(name)[0] == walk.info(name)["uid"]
    assert len(who) == 3
    walk.guest(one, "echo mine >/tmp/kept; printf mine | dd of=/dev/vda 2>/dev/null; sync")
    assert walk.guest(two, "cat /tmp/kept; dd if=/dev/vda bs=4 count=1 2>/dev/null") == "precious\ndisk"
    assert walk.guest(parent, "cat /tmp/kept; dd if=/dev/vda bs=4 count=1 2>/dev/null") == "changed\ndisk"
    # Citizens like all others: off and on again, from a disk of its own.
    walk("destroy", one).ok()
    walk("start", one).ok()
    walk("wait", one, "--for", "agent", "--timeout", PATIENCE).ok()
    assert walk.guest(one, "cat /tmp/kept 2>/dev/null; dd if=/dev/vda bs=4 count=1 2>/dev/null") == "mine"


def test_nothing_is_left_of_it(walk: Walk, parent: str) -> None:
    assert "live-" not in walk("template", "list").ok()
    assert not list((walk.state_dir / "templates").iterdir())
    assert "hidden" not in walk("snapshot", "list", parent).ok()


def test_what_is_refused(walk: Walk, parent: str) -> None:
    walk("fork", "--live", parent, parent).ends(4, "name-taken")
    walk("fork", "--live", "no-such-vm", "x").ends(3, "vm-not-found")
    walk("fork", "--live", "--boot", parent, "x").ends(2)
    off = walk.name("live-off")
    walk("create", "--name", off, "--image", "micro", "--memory", "128", "--no-start").ok()
    walk("fork", "--live", off, "x").ends(4, "wrong-state")
    walk("delete", off, "--yes").ok()
