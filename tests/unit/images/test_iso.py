"""ISO 9660 images: what they say of themselves, files out of them, and images that lie about their own sizes."""

import io
import random
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from corral.errors import CorralError
from corral.images import iso
from corral.images.iso import SECTOR_BYTES, IsoDescription, IsoReader
from corral.images.os_table import OsTable, host_table, load_table, parse_table
from corral.images.osinfo import load_osinfo
from corral.model.os import OsFamily, Unattended
from corral.model.vm import Bus, Firmware
from corral.storage.seed import build_seed


@pytest.fixture(scope="module")
def plain() -> bytes:
    return build_seed({"user-data": b"#cloud-config\n", "a-rather-long-name.txt": b"x" * 5000}, "Debian 12.5.0 n")


def reader(content: bytes) -> IsoReader:
    return IsoReader(io.BytesIO(content), "x.iso")


def with_el_torito(content: bytes, *platforms: int) -> bytes:
    """The image with a boot record, and a boot catalogue behind its end."""
    catalogue_sector = len(content) // SECTOR_BYTES
    catalogue = bytearray(SECTOR_BYTES)
    catalogue[0], catalogue[1], catalogue[30:32] = 1, platforms[0], b"\x55\xaa"
    catalogue[32] = 0x88
    for number, platform in enumerate(platforms[1:]):
        at = 64 + number * 64
        catalogue[at], catalogue[at + 1], catalogue[at + 32] = 0x91, platform, 0x88
    boot = bytearray(SECTOR_BYTES)
    boot[0], boot[1:6], boot[6] = 0, b"CD001", 1
    boot[7:30] = b"EL TORITO SPECIFICATION"
    struct.pack_into("<I", boot, 71, catalogue_sector)
    # The second descriptor (Joliet, or the terminator) gives way to the boot record.
    return content[: 17 * SECTOR_BYTES] + bytes(boot) + content[18 * SECTOR_BYTES :] + bytes(catalogue)


def test_labels_are_read(plain: bytes) -> None:
    found = reader(plain).describe()
    assert (found.volume_id, found.bios, found.uefi, found.bootable) == ("Debian 12.5.0 n", False, False, False)


@pytest.mark.parametrize(
    ("platforms", "bios", "uefi"), [((0,), True, False), ((0xEF,), False, True), ((0, 0xEF), True, True)]
)
def test_the_boot_catalogue_says_what_it_boots_by(
    plain: bytes, platforms: tuple[int, ...], bios: bool, uefi: bool
) -> None:
    found = reader(with_el_torito(plain, *platforms)).describe()
    assert (found.bios, found.uefi) == (bios, uefi)


@pytest.mark.parametrize("path", ["user-data", "/USER-DATA", "a-rather-long-name.txt"])
def test_files_are_found_by_their_long_names_in_any_case(plain: bytes, path: str) -> None:
    target = io.BytesIO()
    assert reader(plain).has(path)
    length = reader(plain).extract(path, target, 10_000)
    assert length == len(target.getvalue()) > 10


@pytest.mark.parametrize("path", ["nothing", "user-data/below", "../etc/passwd", "", "/", "a/" * 40])
def test_what_is_not_there_is_said(plain: bytes, path: str) -> None:
    assert not reader(plain).has(path)
    with pytest.raises(CorralError) as caught:
        reader(plain).extract(path, io.BytesIO(), 100)
    assert caught.value.code == "image-invalid"


def test_a_file_larger_than_expected_is_not_taken(plain: bytes) -> None:
    with pytest.raises(CorralError, match="5000 bytes"):
        reader(plain).extract("a-rather-long-name.txt", io.BytesIO(), 4999)


def _set(offset: int, value: bytes) -> Callable[[bytearray], None]:
    def change(content: bytearray) -> None:
        content[offset : offset + len(value)] = value

    return change


_PVD = 16 * SECTOR_BYTES


@pytest.mark.parametrize(
    "change",
    [
        _set(_PVD + 1, b"XX001"),
        _set(_PVD, b"\x03"),
        _set(_PVD + 156 + 2, struct.pack("<I", 2**31)),
        _set(_PVD + 156 + 10, struct.pack("<I", 2**32 - 1)),
        _set(_PVD + 156 + 10, struct.pack("<I", iso.DIRECTORY_MAX_BYTES + 1)),
    ],
)
def test_lies_are_found_out(plain: bytes, change: Callable[[bytearray], None]) -> None:
    content = bytearray(plain)
    change(content)
    with pytest.raises(CorralError) as caught:
        reader(bytes(content)).extract("user-data", io.BytesIO(), 100)
    assert caught.value.code == "image-invalid"


@pytest.mark.parametrize("length", [0, 1, 2048, 32 * 1024, 34 * 1024, 40 * 1024])
def test_images_that_are_cut_short_are_refused(plain: bytes, length: int) -> None:
    with pytest.raises(CorralError) as caught:
        reader(plain[:length]).extract("user-data", io.BytesIO(), 100)
    assert caught.value.code == "image-invalid"


def test_noise_in_an_image_never_does_more_than_be_refused(plain: bytes) -> None:
    chance = random.Random(5)
    whole = with_el_torito(plain, 0, 0xEF)
    for _ in range(150):
        content = bytearray(whole)
        for _ in range(chance.randint(1, 40)):
            content[chance.randrange(_PVD, min(len(content), _PVD + 40 * SECTOR_BYTES))] = chance.randrange(256)
        assert _outcome(bytes(content)) in ("", "image-invalid")


def _outcome(content: bytes) -> str:
    """The code of the refusal; anything else that is raised fails the test."""
    try:
        found = reader(content)
        found.describe()
        found.extract("user-data", io.BytesIO(), 100)
    except CorralError as error:
        return error.code
    return ""


# ---- systems -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("label", "publisher", "os_id"),
    [
        ("Debian 12.5.0 amd64 n", "", "debian12"),
        ("Ubuntu-Server 22.04.1 LTS amd64", "", "ubuntu22.04"),
        ("Ubuntu 24.04.1 LTS amd64", "", "ubuntu24.04"),
        ("Fedora-S-dvd-x86_64-43", "", "fedora43"),
        ("RHEL-9-4-0-BaseOS-x86_64", "", "rhel9"),
        ("Rocky-9-4-x86_64-dvd", "", "rocky9"),
        ("alpine-virt 3.22.1 x86_64", "", "alpinelinux3.22"),
        ("CCCOMA_X64FRE_EN-US_DV9", "MICROSOFT CORPORATION", "win11"),
        ("CCCOMA_X64FRE_EN-US_DV9", "somebody", None),
        ("ISOIMAGE", "", None),
        ("", "", None),
    ],
)
def test_the_system_of_a_medium(label: str, publisher: str, os_id: str | None) -> None:
    found = OsTable(load_table()).of_iso(IsoDescription(label, publisher))
    assert (found.id if found else None) == os_id


def test_names_lead_to_systems() -> None:
    table = OsTable(load_table())
    for name in (
        "ubuntu22.04",
        "Ubuntu22.04",
        "debian12",
        "debianbookworm",
        "win11",
        "windows11",
        "generic",
        "win2022",
    ):
        assert table.find(name) is not None, name
    assert table.find("nothing") is None
    assert "ubuntu22.04" in table.similar("ubunto22")
    windows = table.find("win11")
    assert windows is not None
    assert (windows.firmware, windows.secure_boot, windows.tpm, windows.hyperv) == (Firmware.UEFI, True, True, True)
    assert (windows.disk_bus, windows.nic_model, windows.clock, windows.tablet) == (
        Bus.SATA,
        "e1000e",
        "localtime",
        "usb",
    )
    names = [name for info in table.builtin for name in (info.id, *info.aliases)]
    assert len(names) == len(set(names))


def test_every_system_of_the_catalogue_is_known() -> None:
    from corral.images.catalogue import load_catalogue

    table = OsTable(load_table())
    assert [entry.os_id for entry in load_catalogue() if entry.os_id and table.find(entry.os_id) is None] == []


def test_a_familys_defaults_are_an_entrys() -> None:
    (found,) = parse_table(
        {"family": {"windows": {"hyperv": True}}, "os": [{"id": "winx", "name": "X", "family": "windows"}]}
    )
    assert found.hyperv


_ENTRY = """<libosinfo version="0.0.1"><os id="http://x.org/{id}">
 <short-id>{id}</short-id><name>System {id}</name><family>{family}</family>{more}</os></libosinfo>"""


def entry(directory: Path, name: str, family: str = "linux", more: str = "") -> None:
    (directory / "x.org").mkdir(exist_ok=True)
    (directory / "x.org" / f"{name}.xml").write_text(_ENTRY.format(id=name, family=family, more=more))


def test_osinfo_inherits_devices_and_takes_minima(tmp_path: Path) -> None:
    virtio = '<devices><device id="http://pcisig.com/pci/1af4/1001"/><device id="http://pcisig.com/pci/1af4/1000"/></devices>'
    entry(tmp_path, "one", more=virtio)
    resources = (
        '<resources arch="all"><minimum><ram>536870912</ram><storage>10737418240</storage></minimum></resources>'
        '<resources arch="x86_64"><minimum><ram>1073741824</ram></minimum></resources>'
    )
    medium = '<media arch="x86_64"><iso><volume-id>Two [0-9]+</volume-id></iso></media>'
    script = '<installer><script id="http://x.org/preseed/desktop"/></installer>'
    entry(tmp_path, "two", more=f'<derives-from id="http://x.org/one"/>{resources}{medium}{script}')
    without = '<devices><device id="http://pcisig.com/pci/1af4/1000" supported="false"/></devices>'
    entry(tmp_path, "three", more=f'<derives-from id="http://x.org/two"/>{without}')
    table = {info.id: info for info in load_osinfo(tmp_path)}
    assert (table["two"].disk_bus, table["two"].nic_model) == (Bus.VIRTIO, "virtio")
    assert (table["two"].memory_min_mib, table["two"].disk_gib) == (1024, 10)
    assert table["two"].unattended is Unattended.PRESEED
    assert (table["three"].disk_bus, table["three"].nic_model) == (Bus.VIRTIO, "rtl8139")
    assert OsTable((), table.values).of_iso(IsoDescription("Two 7")) is table["two"]


def test_osinfo_survives_what_is_no_entry(tmp_path: Path) -> None:
    entry(tmp_path, "good", family="winnt")
    entry(tmp_path, "circle", more='<derives-from id="http://x.org/circle"/>')
    (tmp_path / "x.org" / "bad.xml").write_text("<libosinfo><os>")
    (tmp_path / "x.org" / "entity.xml").write_text(
        '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>'
        '<libosinfo><os id="e"><short-id>evil</short-id><name>&a;</name></os></libosinfo>'
    )
    (tmp_path / "x.org" / "large.xml").write_text(" " * 300_000)
    table = {info.id: info for info in load_osinfo(tmp_path)}
    assert sorted(table) == ["circle", "evil", "good"]
    assert table["good"].family is OsFamily.WINDOWS
    assert table["evil"].name == "evil"
    assert load_osinfo(tmp_path / "nowhere") == ()


def test_a_real_database_is_read_where_it_is_installed() -> None:
    more = host_table().all()
    assert len(more) >= len(load_table())
    assert {"generic", "win11", "debian12"} <= {info.id for info in more}
