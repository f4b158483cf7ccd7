"""Bandwidth of cards and networks as their specs have it, seen from the host's ends of them."""

from datetime import UTC, datetime

from corral.agent.shaping import devices_of, wished_shapes
from corral.model.bandwidth import Bandwidth
from corral.model.network import Network, NetworkSpec
from corral.model.vm import NicSpec, Vm, VmSpec
from corral.names import new_uid, tap_name
from corral.network.shaping import Queue, Shape, Share

NOW = datetime(2026, 1, 1, tzinfo=UTC)
FAST, SLOW = Bandwidth(average_bytes_per_s=9_000_000), Bandwidth(average_bytes_per_s=5_000)
MAC, OTHER = "52:54:00:00:00:02", "52:54:00:00:00:01"


def network(name: str, **spec: object) -> Network:
    made = NetworkSpec.model_validate({"subnet": "10.1.0.0/24", "bridge": f"crl{name}", **spec})
    return Network(name=name, uid=new_uid(), created_at=NOW, spec=made)


def vm(name: str, on: Network, **nic: object) -> Vm:
    fields = {"name": "net0", "network": on.name, "network_uid": on.uid, "mac": MAC, "address": "10.1.0.2", **nic}
    return Vm(name=name, uid=new_uid(), created_at=NOW, spec=VmSpec(nics=(NicSpec.model_validate(fields),)))


def test_what_comes_to_the_guest_leaves_the_host() -> None:
    lab = network("lab")
    web = vm("web", lab, bandwidth_in=FAST, bandwidth_out=SLOW)
    tap = tap_name(web.uid, "net0")
    assert list(wished_shapes([web], {lab.uid: lab})) == [Shape(tap, leaving=Queue(FAST), coming=Queue(SLOW))]
    assert devices_of([web], [lab]) == {tap, "crllab"}
    free = vm("free", lab)
    assert list(wished_shapes([free], {lab.uid: lab})) == []
    assert tap_name(free.uid, "net0") in devices_of([free], [lab])  # it may have had a limit


def test_promises_are_kept_where_the_networks_traffic_is_queued() -> None:
    lab = network("lab", bandwidth_in=FAST, bandwidth_out=FAST)
    into = vm("into", lab, bandwidth_in=Bandwidth(average_bytes_per_s=8_000, floor_bytes_per_s=7_000))
    both = vm(
        "both",
        lab,
        mac=OTHER,
        bandwidth_in=Bandwidth(floor_bytes_per_s=2_000),
        bandwidth_out=Bandwidth(floor_bytes_per_s=3_000),
    )
    found = {shape.device: shape for shape in wished_shapes([into, both], {lab.uid: lab})}
    assert found.keys() == {tap_name(into.uid, "net0"), "crllab"}
    assert found[tap_name(into.uid, "net0")].leaving == Queue(Bandwidth(average_bytes_per_s=8_000))
    assert found["crllab"].leaving == Queue(FAST, (Share(OTHER, 2_000), Share(MAC, 7_000)))
    assert found["crllab"].coming == Queue(FAST, (Share(OTHER, 3_000),))


def test_a_bridge_of_the_hosts_is_not_corrals_to_limit() -> None:
    lan = network("lan", mode="bridge", subnet="", bridge="br0", bandwidth_in=FAST)
    assert list(wished_shapes([], {lan.uid: lan})) == []
    assert devices_of([], [lan]) == frozenset()
