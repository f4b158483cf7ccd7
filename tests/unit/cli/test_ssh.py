"""The ssh command that is made: the VM's own host key, the user, the address, and coded errors instead of a hang."""

from pathlib import Path
from typing import Any

import pytest

from corral.cli.session import Session
from corral.cli.ssh import _hidden, _identities, ssh_argv
from corral.errors import CorralError

UID = "6b1c1a52-6b8a-4f1e-9f57-2f6f0f3d9f10"


def vm(state: str = "running", addresses: tuple[str, ...] = ("192.168.150.7",), reserved: str = "") -> dict[str, Any]:
    return {
        "name": "web",
        "uid": UID,
        "spec": {"nics": [{"address": reserved}]},
        "status": {"state": state, "addresses": list(addresses)},
    }


def argv(document: dict[str, Any], *command: str) -> list[str]:
    return ssh_argv(
        document,
        program="/usr/bin/ssh",
        user="debian",
        port=22,
        identities=["/k"],
        known_hosts=Path("/cache/x"),
        options=("LogLevel=ERROR",),
        command=command,
    )


def test_the_host_key_belongs_to_the_vm_and_not_to_its_address() -> None:
    made = argv(vm())
    assert made[0] == "/usr/bin/ssh"
    assert f"HostKeyAlias={UID}" in made
    assert "UserKnownHostsFile=/cache/x" in made
    assert "StrictHostKeyChecking=accept-new" in made
    assert made[-4:] == ["-l", "debian", "--", "192.168.150.7"]


def test_a_command_stands_behind_the_host() -> None:
    assert argv(vm(), "uname", "-a")[-4:] == ["--", "192.168.150.7", "uname", "-a"]


def test_what_a_guest_says_of_itself_is_no_option_of_ssh() -> None:
    hostile = "-oProxyCommand=touch /tmp/owned"
    made = argv(vm(addresses=(hostile,)), "id")
    assert made[made.index("--") + 1 :] == [hostile, "id"]
    assert argv(vm(addresses=(hostile,), reserved="10.0.0.5"))[-2:] == ["--", "10.0.0.5"]


def test_the_reserved_address_will_do() -> None:
    assert "10.0.0.5" in argv(vm(addresses=(), reserved="10.0.0.5"))


def test_an_address_that_somebody_else_has_here_is_not_used() -> None:
    document = vm()
    near, far = (
        {"address": "10.0.0.5", "network_uid": "near"},
        {"address": "10.0.0.6", "network_uid": "far", "network": "f"},
    )
    document["spec"]["nics"] = [far, near]
    more = {"program": "ssh", "user": "u", "port": 22, "identities": [], "known_hosts": Path("/x"), "options": ()}
    assert ssh_argv(document, **more, command=(), hidden=frozenset({"far"}))[-1] == "10.0.0.5"
    bridged = {"address": "", "network_uid": "bridged"}
    document["spec"]["nics"] = [far, bridged]
    document["status"]["addresses"] = ["10.0.0.6", "192.0.2.9"]
    assert ssh_argv(document, **more, command=(), hidden=frozenset({"far"}))[-1] == "192.0.2.9"
    document["status"]["addresses"] = []
    with pytest.raises(CorralError, match="no address yet"):
        ssh_argv(document, **more, command=(), hidden=frozenset({"far"}))
    document["spec"]["nics"] = [far]
    with pytest.raises(CorralError) as raised:
        ssh_argv(document, **more, command=(), hidden=frozenset({"far"}))
    assert (raised.value.code, "forward" in raised.value.hint) == ("wrong-state", True)


class Listed(Session):
    """What the daemon would say of networks and routers."""

    def client(self) -> Any:
        return self

    def list_networks(self) -> list[Any]:
        at = {"near": {}, "far": {"gateway_at": "router"}, "led": {"gateway_at": "router"}}
        return [{"uid": uid, "spec": spec} for uid, spec in at.items()]

    def list_routers(self) -> list[Any]:
        ways = {"routed": "led", "nat": "far", "none": "led"}
        return [{"spec": {"uplink": way, "ports": [{"network_uid": uid}]}} for way, uid in ways.items()]


def test_networks_that_no_router_leads_this_host_to_are_hidden() -> None:
    assert _hidden(Listed()) == {"far"}


@pytest.mark.parametrize("document", [vm(state="shut off"), vm(addresses=())])
def test_what_cannot_be_reached_says_so(document: dict[str, Any]) -> None:
    with pytest.raises(CorralError) as caught:
        argv(document)
    assert caught.value.code == "wrong-state"
    assert caught.value.hint.startswith("corral ")


def test_keys_of_another_home_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ssh itself looks into the home that passwd tells, `corral create` took the key from HOME."""
    monkeypatch.setenv("HOME", str(tmp_path))
    assert _identities(None) == []
    (tmp_path / ".ssh").mkdir()
    key = tmp_path / ".ssh" / "id_ed25519"
    key.write_text("a key")
    assert _identities(None) == [str(key)]
    assert _identities("/other") == ["/other"]


def test_under_sudo_the_askers_key_is_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`make up` gave the guest the key of who ran it; `sudo corral ssh` offered root's alone, and was denied."""
    from types import SimpleNamespace

    from corral.cli import ssh

    asker, root = tmp_path / "asker", tmp_path / "root"
    (asker / ".ssh").mkdir(parents=True)
    (asker / ".ssh/id_ed25519").write_text("private")
    homes = {0: str(root), 1000: str(asker)}
    monkeypatch.setattr(ssh.pwd, "getpwuid", lambda uid: SimpleNamespace(pw_dir=homes[uid]))
    monkeypatch.setattr(ssh.os, "geteuid", lambda: 0)
    monkeypatch.setenv("HOME", str(root))
    monkeypatch.setenv("SUDO_UID", "1000")
    assert _identities(None) == [str(asker / ".ssh/id_ed25519")]
    monkeypatch.delenv("SUDO_UID")
    assert _identities(None) == []
