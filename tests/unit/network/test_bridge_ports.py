"""Ports under other names than ours are known by the guest's MAC, as long as ours are not there."""

from datetime import UTC, datetime
from pathlib import Path

from corral.model.network import Network, NetworkSpec
from corral.model.vm import NicSpec, Vm, VmSpec
from corral.names import new_uid, tap_name
from corral.network.bridge_ports import named_otherwise

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def port(sys_net: Path, bridge: str, name: str, mac: str) -> None:
    for path in (sys_net / bridge / "brif" / name, sys_net / name):
        path.mkdir(parents=True)
    (sys_net / name / "address").write_text(f"{mac}\n")


def test_a_port_of_another_name_is_found_by_its_mac(tmp_path: Path) -> None:
    lab = Network(name="lab", uid=new_uid(), created_at=NOW, spec=NetworkSpec(bridge="crllab"))
    other = Network(name="m", uid=new_uid(), created_at=NOW, spec=NetworkSpec(mode="macvtap", bridge="", nic="eth0"))
    nics = (
        NicSpec(name="net0", network_uid=lab.uid, mac="52:54:00:00:00:01", address=""),
        NicSpec(name="net1", network_uid=lab.uid, mac="52:54:00:00:00:02", address=""),
        NicSpec(name="net2", network_uid=other.uid, mac="52:54:00:00:00:03", address=""),
    )
    vm = Vm(name="old", uid=new_uid(), created_at=NOW, spec=VmSpec(nics=nics))
    networks = {one.uid: one for one in (lab, other)}
    assert named_otherwise([vm], networks, tmp_path) == {}
    port(tmp_path, "crllab", "eth1", "52:54:00:00:00:02")  # the host's own card, or a router: no tap
    port(tmp_path, "crllab", "crr000000000001", "fe:54:00:00:00:02")
    port(tmp_path, "crlelse", "vnet3", "fe:54:00:00:00:01")
    assert named_otherwise([vm], networks, tmp_path) == {}
    port(tmp_path, "crllab", "vnet7", "fe:54:00:00:00:01")
    assert named_otherwise([vm], networks, tmp_path) == {tap_name(vm.uid, "net0"): "vnet7"}
    port(tmp_path, "crllab", tap_name(vm.uid, "net0"), "fe:54:00:00:00:01")
    assert named_otherwise([vm], networks, tmp_path) == {}, "its own is there: the other one is somebody else's"
