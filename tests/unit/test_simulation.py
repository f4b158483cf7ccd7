"""The pretended host's file: nothing that was answered is lost, nothing that was cut is believed."""

import asyncio
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from corral import simulation
from corral.errors import CorralError
from corral.hypervisor.fake import FakeDomain, FakeHypervisor
from corral.model.network import Network, NetworkSpec, Reservation
from corral.model.vm import VmState
from corral.names import new_mac, new_uid
from corral.network.fake import FakeNetworks
from corral.simulation import Simulation
from corral.storage.fake import FakeVolumes

TEXT = TypeAdapter(str)


def test_each_change_is_there_for_the_next_process(tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "world"
        first = FakeHypervisor(Simulation(path))
        first.add_foreign(FakeDomain("u", "web", 1, 128, None))
        first.add_foreign(FakeDomain("v", "gone", 1, 128, None))
        await first.start("u")
        await first.undefine("v")
        second = FakeHypervisor(Simulation(path), agent_delay_s=0.0)
        assert await second.observe("v") is None
        assert (await second.observe("u")).state is VmState.RUNNING
        await asyncio.sleep(0.01)
        assert (await second.observe("u")).agent_connected

    asyncio.run(main())


def test_a_line_that_was_cut_is_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "world"
    kept = Simulation(path).section("words", TEXT)
    kept.keep("a", "one")
    kept.keep("b", "two")
    with path.open("ab") as stream:
        stream.write(b'["words","a","th')
    again = Simulation(path).section("words", TEXT)
    assert again.restore() == {"a": "one", "b": "two"}
    again.keep("c", "four")
    assert Simulation(path).section("words", TEXT).restore() == {"a": "one", "b": "two", "c": "four"}


def test_it_is_written_anew_when_it_is_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulation, "COMPACT_BYTES", 1000)
    path = tmp_path / "world"
    kept = Simulation(path).section("words", TEXT)
    for number in range(1000):
        kept.keep("a", str(number))
        kept.keep(f"gone-{number}", "x")
        kept.keep(f"gone-{number}", None)
    assert path.stat().st_size < 2000
    assert Simulation(path).section("words", TEXT).restore() == {"a": "999"}


def test_a_full_disk_is_said(tmp_path: Path) -> None:
    kept = Simulation(tmp_path / "world").section("words", TEXT)
    with Path("/dev/full").open("wb") as full:
        kept._file._fd = full.fileno()  # type: ignore[union-attr]
        with pytest.raises(CorralError, match="disk-full"):
            kept.keep("a", "one")


def test_networks_and_volumes_are_kept(tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "world"
        world = Simulation(path)
        networks, volumes = FakeNetworks(world), FakeVolumes(world, tmp_path)
        network = _network()
        first, second = _reservation("web", "10.0.0.2"), _reservation("db", "10.0.0.3")
        await networks.ensure(network, (first,))
        await networks.reserve(network, second)
        await networks.release(network, first)
        await volumes.write_seed("vm", {})
        world = Simulation(path)
        networks, volumes = FakeNetworks(world), FakeVolumes(world, tmp_path)
        assert networks.networks[network.uid].reservations == {second.mac: second}
        assert await volumes.found_seeds() == ("vm",)
        await networks.remove(network)
        assert FakeNetworks(Simulation(path)).networks == {}

    asyncio.run(main())


def _network() -> Network:
    spec = NetworkSpec(subnet="10.0.0.0/24", domain="corral.internal", bridge="crl0")
    return Network.model_validate(
        {"name": "default", "uid": new_uid(), "created_at": "2026-01-01T00:00:00Z", "spec": spec.model_dump()}
    )


def _reservation(name: str, address: str) -> Reservation:
    return Reservation(mac=new_mac(), address=address, hostname=name, vm_uid=new_uid())
