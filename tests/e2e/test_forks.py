"""A template of a running guest, and guests that go on from it: each its own, and as good as any other."""

import json

import pytest
from walk import PATIENCE, Walk

pytestmark = pytest.mark.timeout(1800)

WHO = "hostname; cat /sys/class/net/eth0/address; ip -4 -o addr show eth0 | tr -s ' ' | cut -d' ' -f4; cat /etc/hosts"


@pytest.fixture(scope="module")
def source(walk: Walk) -> str:
    name = walk.name("src")
    walk("create", "--name", name, "--image", "micro", "--memory", "128", "--wait", "agent").ok()
    walk.guest(name, "echo precious >/tmp/kept; printf disk | dd of=/dev/vda 2>/dev/null; sync")
    return name


@pytest.fixture(scope="module")
def template(walk: Walk, source: str) -> str:
    name = walk.name("base")
    walk("template", "create", name, "--from", source, "--hot").ok()
    return name


def test_forks_go_on_from_memory_and_differ(walk: Walk, source: str, template: str) -> None:
    assert template in walk("template", "list").ok()
    assert "hot" in walk("template", "show", template).ok()
    walk("fork", template, "--count", "2", "--wait", "ip", "--timeout", PATIENCE).ok()
    names = [f"{template}-1", f"{template}-2"]
    said = {name: walk.guest(name, WHO) for name in (source, *names)}
    for name in names:
        hostname, mac, address, *hosts = said[name].splitlines()
        found = walk.info(name)
        assert hostname == name
        assert mac == found["spec"]["nics"][0]["mac"]
        assert address.partition("/")[0] == found["spec"]["nics"][0]["address"]
        assert any(name in line for line in hosts)
        assert source not in "".join(hosts)
        assert walk.guest(name, "cat /tmp/kept; dd if=/dev/vda bs=4 count=1 2>/dev/null") == "precious\ndisk"
        conditions = {found["type"]: found["status"] for found in walk.info(name)["status"]["conditions"]}
        assert "IdentityShared" not in conditions
        assert not walk.info(name)["status"].get("pending_restart")
    assert len(set(said.values())) == len(said)
    assert "saved by that" in walk("info", names[0]).ok()
    shown = {one["name"]: one for one in json.loads(walk("top", "--once", "-o", "json").ok())["items"]}
    assert shown[names[0]]["memory_saved_bytes"] > 0
    assert "since they may come to write it all" in walk("host", "info").ok()
    # The same instant for all: none of them sees what another does afterwards.
    walk.guest(names[0], "echo mine >/tmp/kept")
    assert walk.guest(names[1], "cat /tmp/kept") == "precious\n"
    assert walk.guest(source, "cat /tmp/kept") == "precious\n"


def test_a_fork_is_saved_and_goes_back_in_time(walk: Walk, template: str) -> None:
    name = walk.name("life")
    walk("fork", template, name).ok()
    walk("snapshot", "create", name, "there", "--memory").ok()
    walk.guest(name, "echo changed >/tmp/kept")
    walk("save", name).ok()
    walk("start", name).ok()
    walk("wait", name, "--for", "agent", "--timeout", PATIENCE).ok()
    assert walk.guest(name, "cat /tmp/kept; hostname") == f"changed\n{name}\n"
    walk("snapshot", "revert", name, "there").ok()
    walk("wait", name, "--for", "agent", "--timeout", PATIENCE).ok()
    assert walk.guest(name, "cat /tmp/kept; hostname") == f"precious\n{name}\n"
    walk("destroy", name).ok()
    walk("start", name).ok()
    walk("wait", name, "--for", "agent", "--timeout", PATIENCE).ok()
    assert walk.guest(name, "cat /tmp/kept 2>/dev/null; dd if=/dev/vda bs=4 count=1 2>/dev/null") == "disk"
    walk("delete", name, "--yes").ok()


def test_a_fork_of_a_fork(walk: Walk, template: str) -> None:
    first, second, again = walk.name("f1"), walk.name("f2"), walk.name("base2")
    walk("fork", template, first).ok()
    walk.guest(first, "echo second >/tmp/kept")
    walk("template", "create", again, "--from", first, "--hot").ok()
    walk("delete", first, "--yes").ok()
    walk("create", second, "--template", again).ok()
    assert walk.guest(second, "cat /tmp/kept; hostname") == f"second\n{second}\n"
    walk("delete", second, "--yes").ok()
    walk("template", "delete", again).ok()


def test_a_template_is_refreshed_and_forks_of_the_old_one_go_on(walk: Walk, template: str) -> None:
    old, new = walk.name("old"), walk.name("new")
    walk("fork", template, old).ok()
    before = json.loads(walk("template", "show", template, "-o", "json").ok())
    walk("template", "refresh", template).ok()
    after = json.loads(walk("template", "show", template, "-o", "json").ok())
    assert after["uid"] != before["uid"]
    assert after["spec"]["source"] == before["spec"]["source"]
    assert walk.guest(old, "cat /tmp/kept; hostname") == f"precious\n{old}\n"
    walk("fork", template, new, "--wait", "ip", "--timeout", PATIENCE).ok()
    # It was booted: what lay in memory alone is gone, what was on its disk is there.
    said = walk.guest(new, "cat /tmp/kept 2>/dev/null; dd if=/dev/vda bs=4 count=1 2>/dev/null; hostname")
    assert said == f"disk{new}\n"
    assert not [name for name in walk("list", "--all", "-o", "name").ok().split() if name.startswith("refresh-")]
    walk("delete", old, new, "--yes").ok()
    findings = {one["id"]: one for one in json.loads(walk("doctor", "-o", "json").out)}
    assert findings["memory-permissions"]["level"] == "ok", findings["memory-permissions"]
    assert f"template {template}" in findings["memory-at-rest"]["found"]


def test_what_is_refused(walk: Walk, source: str, template: str) -> None:
    walk("template", "create", template, "--from", source, "--hot").ends(4, "name-taken")
    walk("fork", "no-such-template", "x").ends(3, "template-not-found")
    walk("fork", template, source).ends(4, "name-taken")
    walk("create", "x", "--template", template, "--memory", "1G").ends(2)
    off = walk.name("off")
    walk("create", "--name", off, "--image", "micro", "--memory", "128", "--no-start").ok()
    walk("template", "create", walk.name("cold"), "--from", off, "--hot").ends(4, "wrong-state")


def test_forks_outlive_their_template_and_nothing_is_left(walk: Walk, template: str) -> None:
    """Last: everything goes."""
    walk("template", "delete", template).ok()
    assert walk.guest(f"{template}-2", "cat /tmp/kept") == "precious\n"
    walk("delete", f"{template}-1", f"{template}-2", "--yes").ok()
    assert template not in walk("template", "list").ok()
    assert not list((walk.state_dir / "templates").iterdir())
