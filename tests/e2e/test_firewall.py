"""Security groups on running guests: what is let through, what is not, changed without a restart, explained and counted."""

import pytest
from walk import PATIENCE, Walk

pytestmark = pytest.mark.timeout(600)
SERVED, OTHER = 8080, 8081


def fetches(walk: Walk, vm: str, address: str, port: int) -> bool:
    """The guest gets an answer from that port, whatever it says."""
    asked = f"printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 3 {address} {port}"
    return "HTTP/1" in walk.guest(vm, f"({asked}) 2>&1; true")


def explained(walk: Walk, target: str, source: str, port: int) -> bool:
    ran = walk("firewall", "explain", target, "--from", source, "--port", str(port), "-o", "name")
    assert ran.status in (0, 1), ran
    return ran.out.strip() == "allowed"


def test_groups_decide_and_change_while_guests_run(walk: Walk) -> None:
    served, shut = walk.name("served"), walk.name("shut")
    client, server = walk.name("fw-1"), walk.name("fw-2")
    walk("sg", "create", served, "--rule", f"in tcp/{SERVED} from group:default").ok()
    walk("sg", "create", shut).ok()
    micro = ("--image", "micro", "--memory", "128", "--wait", "agent")
    try:
        walk("create", "--name", client, *micro).ok()
        walk("create", "--name", server, *micro, "--network", f"default,groups={served}").ok()
        for vm in (client, server):
            walk("wait", vm, "--for", "ip", "--timeout", PATIENCE).ok()
        before = walk.info(server)
        address = before["spec"]["nics"][0]["address"]
        for port in (SERVED, OTHER):
            walk.guest(server, f"httpd -p {port} -h /")

        def seen() -> tuple[bool, bool]:
            found = tuple(fetches(walk, client, address, port) for port in (SERVED, OTHER))
            assert found == tuple(explained(walk, server, client, port) for port in (SERVED, OTHER))
            return found

        assert seen() == (True, False)
        assert fetches(walk, server, walk.info(client)["spec"]["nics"][0]["address"], SERVED) is False
        walk("nic", "set", server, "net0", "--groups", shut).ok()
        assert seen() == (False, False)
        walk("sg", "rule", "add", shut, "in", f"tcp/{OTHER}").ok()
        assert seen() == (False, True)
        walk("nic", "set", server, "net0", "--groups", f"{shut}+{served}").ok()
        assert seen() == (True, True)
        after = walk.info(server)
        assert after["status"]["started_at"] == before["status"]["started_at"]
        assert not after["status"].get("pending_restart")
        walk("sg", "delete", shut).ends(4, "security-group-in-use")
        log = walk.json("firewall", "log")
        denied = [one for one in log if one["card_out"] == f"{server}/net0" and one["port"] == OTHER]
        assert {one["reason"] for one in denied} == {"deny-in"}
        counted = {one["rule"]: one["packets"] for one in walk.json("firewall", "counters") if one["group"] == shut}
        assert counted[f"in tcp/{OTHER} from any"] > 0
        assert walk.json("firewall", "status")["active"] is True
    finally:
        walk("delete", client, server, "--yes")
        walk("sg", "delete", served, shut)


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (("sg", "create", "x;reboot"), "invalid-document"),
        (("sg", "create", "web", "--rule", "in tcp/70000"), "invalid-rule"),
        (("sg", "create", "web", "--rule", "in tcp/80 from 10.0.0.1/8"), "invalid-rule"),
        (("sg", "create", "web", "--rule", "in tcp/80; flush ruleset"), "invalid-rule"),
        (("sg", "create", "web", "--rule", "in any from group:nobody"), "security-group-not-found"),
        (("sg", "delete", "default"), "security-group-in-use"),
        (("network-policy", "create", "p", "--tier", "network:default", "--tier", "network:default"), "invalid-rule"),
        (
            ("create", "--name", "x", "--image", "micro", "--network", "default,groups=nobody"),
            "security-group-not-found",
        ),
    ],
)
def test_bad_input_is_refused_with_its_code(walk: Walk, command: tuple[str, ...], code: str) -> None:
    ran = walk(*command)
    assert ran.status != 0
    assert code in ran.err
