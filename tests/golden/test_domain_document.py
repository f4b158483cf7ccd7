"""Domain documents against golden files; CORRAL_UPDATE_GOLDEN=1 writes them anew."""

import os
from pathlib import Path

import pytest

from corral.hypervisor.base import DirectKernel, DomainDefinition, DomainDisk, DomainMetadata, DomainNic
from corral.hypervisor.libvirt.document import Host, build_document
from corral.hypervisor.libvirt.metadata import parse_document, parse_metadata
from corral.hypervisor.libvirt.owned import owned_by, owned_in
from corral.hypervisor.libvirt.redefinition import redefine

GOLDEN = Path(__file__).parent / "domains"
UID = "0b5e6f0a-53b4-4c6e-9a52-000000000001"
HOST = Host(privileged=True, dac_gid=64055)

BASE = DomainDefinition(
    uid=UID,
    name="web",
    description="",
    vcpus=2,
    memory_mib=1024,
    cpu_shares=2048,
    accelerator="tcg",
    firmware="bios",
    disks=(DomainDisk("root", "/v/root.qcow2", "qcow2", backing=(("/i/base.qcow2", "qcow2"),)),),
    nics=(DomainNic("net0", "52:54:00:00:00:01", "corral-abcdef-default"),),
    seed_path="/s/seed.iso",
    kernel=None,
    graphics="vnc",
    run_dir="/run/corral/vm/0b5e6f0a",
    console_log="/v/console.log",
    dac_uid=200001,
    metadata=DomainMetadata("7e57ab1e-0000-4000-8000-000000000001", UID, "default", "web", 1, 1, '{"name":"web"}'),
)


def changed(**update: object) -> DomainDefinition:
    return DomainDefinition(**{**BASE.__dict__, **update})  # type: ignore[arg-type]


CASES = {
    "plain": (BASE, HOST),
    "kvm-uefi": (changed(accelerator="kvm", firmware="uefi"), HOST),
    "direct-kernel": (
        changed(
            disks=(),
            seed_path=None,
            graphics="none",
            kernel=DirectKernel("/i/kernel", "/i/initrd", "console=ttyS0 a=<&>"),
        ),
        HOST,
    ),
    "many-disks": (
        changed(
            disks=(
                *BASE.disks,
                DomainDisk("data", "/v/data.qcow2", "qcow2"),
                DomainDisk("old", "/dev/disk", "raw", bus="sata", read_only=True),
                DomainDisk("fast", "/v/fast.raw", "raw", bus="scsi"),
            )
        ),
        HOST,
    ),
    "libvirts-own-user": (changed(dac_uid=None), HOST),
    "session": (BASE, Host(privileged=False)),
    "hostile-text": (changed(description="<x>&amp;\x00\x1b]]>\r\nline"), HOST),
}


def compare(name: str, text: str) -> None:
    path = GOLDEN / f"{name}.xml"
    if os.environ.get("CORRAL_UPDATE_GOLDEN"):
        path.write_text(text + "\n")
    assert path.read_text() == text + "\n", "CORRAL_UPDATE_GOLDEN=1 writes the golden files anew"


@pytest.mark.parametrize("name", CASES)
def test_document(name: str) -> None:
    definition, host = CASES[name]
    text = build_document(definition, host)
    compare(name, text)
    document = parse_document(text)
    assert owned_in(document) == owned_by(definition)
    assert parse_metadata(document, UID) == definition.metadata
    assert parse_metadata(document, UID.replace("1", "2")) is None


def test_every_golden_file_has_its_case() -> None:
    assert {path.stem for path in GOLDEN.glob("*.xml")} == set(CASES)


@pytest.mark.parametrize(
    "update",
    [
        {"name": "other"},
        {"description": "other"},
        {"vcpus": 3},
        {"memory_mib": 2048},
        {"cpu_shares": 7},
        {"accelerator": "kvm"},
        {"firmware": "uefi"},
        {"disks": ()},
        {"nics": ()},
        {"seed_path": None},
        {"kernel": DirectKernel("/k", "/i", "")},
        {"graphics": "none"},
    ],
    ids=lambda update: next(iter(update)),
)
def test_each_owned_field_changes_the_hash(update: dict[str, object]) -> None:
    assert owned_by(changed(**update)).digest() != owned_by(BASE).digest()


# ---- defined anew --------------------------------------------------------------------------------------------------

PLACES = Path(__file__).parent / "redefinition"
BEFORE = PLACES / "before.xml"
SECOND = DomainNic("net1", "52:54:00:00:00:02", "corral-abcdef-default")
NEW = changed(
    description="the shop's front end",
    memory_mib=2048,
    vcpus=4,
    cpu_shares=4096,
    disks=(*BASE.disks, DomainDisk("data", "/v/data.raw", "raw", bus="scsi")),
    nics=(SECOND,),
)


def test_what_is_owned_changes_and_the_rest_stays() -> None:
    """`before.xml` is as libvirt kept it and a person tuned it: a pinned processor, a watchdog."""
    text = redefine(parse_document(build_document(NEW, HOST)), parse_document(BEFORE.read_text()))
    after = PLACES / "after.xml"
    if os.environ.get("CORRAL_UPDATE_GOLDEN"):
        after.write_text(text + "\n")
    assert after.read_text() == text + "\n", "CORRAL_UPDATE_GOLDEN=1 writes the golden files anew"
    document = parse_document(text)
    assert owned_in(document) == owned_by(NEW)
    assert parse_metadata(document, NEW.uid) == NEW.metadata
    before = parse_document(BEFORE.read_text())
    for path in ("devices/interface[2]/address", "devices/disk/address", "os/type", "cputune/vcpupin"):
        kept = before.find(path)
        assert kept is not None
        now = document.find(path.replace("[2]", ""))
        assert now is not None
        assert dict(now.attrib) == dict(kept.attrib)


def test_a_definition_that_is_in_force_changes_nothing() -> None:
    both = changed(nics=(*BASE.nics, SECOND))
    once = redefine(parse_document(build_document(both, HOST)), parse_document(BEFORE.read_text()))
    twice = redefine(parse_document(build_document(both, HOST)), parse_document(once))
    assert once == twice
    assert owned_in(parse_document(once)) == owned_in(parse_document(BEFORE.read_text()))
