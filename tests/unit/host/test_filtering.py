"""What doctor says of who else filters packets."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path

from corral.host.filtering import check_filtering, check_others, check_ports
from corral.host.machine import Machine
from corral.model.doctor import Level
from corral.model.network import Network, NetworkSpec
from corral.model.vm import NicSpec, Vm, VmSpec, VmState, VmStatus
from corral.names import new_uid, tap_name
from corral.network.firewall.base import FirewallState

NOW = datetime(2026, 1, 1, tzinfo=UTC)
UIDS = (new_uid(), new_uid())


def chain(table: str, hook: str, policy: str, family: str = "ip") -> dict[str, dict[str, object]]:
    found = {"family": family, "table": table, "name": hook.upper(), "type": "filter", "hook": hook, "prio": 0}
    return {"chain": {**found, "policy": policy}}


def test_somebody_who_drops_what_is_forwarded_is_named() -> None:
    listed: list[dict[str, dict[str, object]]]
    listed = [{"metainfo": {}}, {"chain": {"family": "ip", "table": "filter", "name": "DOCKER"}}]
    (found,) = check_others([*listed, chain("filter", "forward", "drop"), chain("filter", "input", "accept")])
    assert (found.id, found.level) == ("forward-policy", Level.WARNING)
    assert "ip filter FORWARD" in found.found
    assert "DOCKER-USER" in found.action


def test_who_drops_by_default_what_comes_in_is_named() -> None:
    forward, inward = check_others([chain("ufw", "input", "drop", "inet")])
    assert (forward.level, inward.id) == (Level.OK, "input-policy")
    assert "inet ufw INPUT" in inward.found


def test_corrals_own_tables_and_bridges_of_others_fight_nobody() -> None:
    own = chain("corral-0badc0de", "forward", "drop", "inet")
    (found,) = check_others([own, chain("other", "forward", "drop", "bridge")])
    assert found.level is Level.OK


def test_where_nothing_is_filtered_that_is_a_warning() -> None:
    (found,) = asyncio.run(check_filtering(FirewallState(active=False, reason="the daemon does not run as root")))
    assert (found.id, found.level) == ("firewall", Level.WARNING)
    assert "does not run as root" in found.found


def test_a_running_card_on_a_port_of_another_name_is_told(tmp_path: Path) -> None:
    network = Network(name="n", uid=UIDS[0], created_at=NOW, spec=NetworkSpec(bridge="crl1"))
    nic = NicSpec(name="net0", network_uid=network.uid, mac="52:54:00:00:00:01", address="")
    vm = Vm(name="old", uid=UIDS[1], created_at=NOW, spec=VmSpec(nics=(nic,)), status=VmStatus(state=VmState.RUNNING))
    found = check_ports(Machine(tmp_path), [vm], [network])
    assert (found.level, "old net0" in found.found) == (Level.WARNING, True)
    (tmp_path / "sys/class/net" / tap_name(vm.uid, "net0")).mkdir(parents=True)
    assert check_ports(Machine(tmp_path), [vm], [network]).level is Level.OK
    (tmp_path / "sys/class/net" / tap_name(vm.uid, "net0")).rmdir()
    for place in ("crl1/brif/vnet7", "vnet7"):
        (tmp_path / "sys/class/net" / place).mkdir(parents=True)
    (tmp_path / "sys/class/net/vnet7/address").write_text("fe:54:00:00:00:01\n")
    found = check_ports(Machine(tmp_path), [vm], [network])
    assert (found.level, "old net0 (vnet7)" in found.found) == (Level.INFO, True)
