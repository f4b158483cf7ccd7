"""A network's files for dnsmasq: of a write that failed or was cut off nothing stays."""

from pathlib import Path

import pytest

from corral.errors import CorralError
from corral.hypervisor.libvirt.network_files import NetworkFiles
from corral.model.network import Reservation
from corral.names import new_mac, new_uid


@pytest.fixture
def files(tmp_path: Path) -> NetworkFiles:
    made = NetworkFiles(tmp_path, new_uid())
    made.prepare()
    return made


def reservation() -> Reservation:
    return Reservation(mac=new_mac(), address="10.0.0.2", hostname="web", vm_uid=new_uid())


def lying(files: NetworkFiles) -> list[str]:
    return [path.name for directory in files.directories for path in directory.iterdir()]


def test_a_reservation_that_was_written_by_half_is_dropped(files: NetworkFiles) -> None:
    wanted = reservation()
    assert files.known() == ()
    in_the_way = files.hosts / wanted.mac.replace(":", "-")
    in_the_way.mkdir()
    with pytest.raises(CorralError) as refused:
        files.put(wanted, ())
    assert refused.value.code == "storage-error"
    in_the_way.rmdir()
    assert lying(files) == [in_the_way.name]
    assert files.drop(wanted.mac)
    assert lying(files) == []
    assert not files.drop(wanted.mac)


def test_what_a_crash_left_goes_when_all_are_made_so(files: NetworkFiles) -> None:
    wanted, gone = reservation(), reservation()
    name = gone.mac.replace(":", "-")
    for left in (files.names / name, files.names / f".{name}.tmp", files.hosts / f".{name}.tmp"):
        left.write_text("")
    assert files.sync([wanted])
    assert lying(files) == 2 * [wanted.mac.replace(":", "-")]
    assert not files.sync([wanted])
    assert files.known()[0].mac == wanted.mac


def test_one_without_its_name_is_written_again(files: NetworkFiles) -> None:
    wanted = reservation()
    files.sync([wanted])
    (files.names / wanted.mac.replace(":", "-")).unlink()
    assert files.sync([wanted])
    assert len(lying(files)) == 2
