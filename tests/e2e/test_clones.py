"""Clones of a running guest: what its disk held at that instant, and from then on each its own."""

import pytest
from walk import PATIENCE, Walk

pytestmark = pytest.mark.timeout(1200)

READ = "dd if=/dev/vda bs=8 count=1 2>/dev/null | tr -d '\\0'"


def write(walk: Walk, name: str, text: str) -> None:
    walk.guest(name, f"printf %-8s {text} | dd of=/dev/vda conv=notrunc,fsync 2>/dev/null")


def test_clones_of_a_running_guest(walk: Walk) -> None:
    source, linked, whole = walk.name("org"), walk.name("lnk"), walk.name("full")
    walk("create", "--name", source, "--image", "micro", "--memory", "128", "--wait", "agent").ok()
    write(walk, source, "then")
    walk("clone", source, linked, "--wait", "agent", "--timeout", PATIENCE).ok()
    walk("clone", source, whole, "--full").ok()
    write(walk, source, "now")
    assert walk.guest(linked, READ).strip() == "then"
    assert walk.guest(source, READ).strip() == "now"
    write(walk, linked, "own")
    walk("destroy", linked).ok()

    # Whoever stands on nothing of the original's is as well off without it.
    walk("delete", source, "--yes").ok()
    for name, text in ((whole, "then"), (linked, "own")):
        walk("start", name).ok()
        walk("wait", name, "--for", "agent", "--timeout", PATIENCE).ok()
        assert walk.guest(name, READ).strip() == text
        walk("delete", name, "--yes").ok()


WHO = "hostname; cat /etc/machine-id; cat /etc/ssh/ssh_host_ed25519_key.pub; cat /sys/class/dmi/id/product_uuid"


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_a_clone_of_debian_is_somebody_else(walk: Walk, debian_image: str) -> None:
    source, other, same = walk.name("deb"), walk.name("deb2"), walk.name("deb3")
    walk(
        "create",
        "--name",
        source,
        "--image",
        debian_image,
        "--memory",
        "1024",
        "--wait",
        "cloud-init",
        "--timeout",
        "900s",
    ).ok()
    walk("clone", source, other, "--start").ok()
    walk("wait", other, "--for", "cloud-init", "--timeout", "900s").ok()
    ours, theirs = walk.guest(source, WHO).splitlines(), walk.guest(other, WHO).splitlines()
    assert (ours[0], theirs[0]) == (source, other)
    assert not set(ours) & set(theirs)
    walk("delete", other, "--yes").ok()
    walk("clone", source, same, "--keep-identity", "--start").ok()
    walk("wait", same, "--for", "agent", "--timeout", "900s").ok()
    kept = walk.guest(same, WHO).splitlines()
    assert kept[:3] == ours[:3]
    assert kept[3] != ours[3]
    walk("delete", source, same, "--yes").ok()
