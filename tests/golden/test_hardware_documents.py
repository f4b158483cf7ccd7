"""The document of every knob of the hardware against golden files; CORRAL_UPDATE_GOLDEN=1 writes them anew."""

import os
import types
import typing
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path

import pytest
from hardware_cases import BASE, CASES, exercised
from pydantic import BaseModel

from corral.hypervisor.base import DomainDisk, DomainNic
from corral.hypervisor.libvirt import knobs
from corral.hypervisor.libvirt.document import Host, build_document
from corral.hypervisor.libvirt.metadata import parse_document, parse_metadata
from corral.hypervisor.libvirt.owned import owned_by, owned_in
from corral.hypervisor.libvirt.reading import target
from corral.hypervisor.libvirt.redefinition import redefine
from corral.model.hardware import PLAIN, HardwareSpec

GOLDEN = Path(__file__).parent / "hardware"
HOST = Host(privileged=True, dac_gid=64055)
# The scheduler's alone: they stand in no document.
NOT_IN_THE_DOCUMENT = {"cpu.reserved_percent", "memory.reserved_mib"}


@pytest.mark.parametrize("name", CASES)
def test_document(name: str) -> None:
    text = build_document(CASES[name], HOST)
    path = GOLDEN / f"{name}.xml"
    if os.environ.get("CORRAL_UPDATE_GOLDEN"):
        path.write_text(text + "\n")
    assert path.read_text() == text + "\n", "CORRAL_UPDATE_GOLDEN=1 writes the golden files anew"
    document = parse_document(text)
    assert owned_in(document) == owned_by(CASES[name])
    assert parse_metadata(document, BASE.uid) == CASES[name].metadata


def test_every_golden_file_has_its_case() -> None:
    assert {path.stem for path in GOLDEN.glob("*.xml")} == set(CASES)


# ---- every field is exercised --------------------------------------------------------------------------------------


def every_field(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield f"{prefix}{name}"
        for inner in models_in(field.annotation):
            yield from every_field(inner, f"{prefix}{name}.")


def models_in(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is not None:
        for part in typing.get_args(annotation):
            yield from models_in(part)


def test_every_knob_is_turned_in_some_golden_case() -> None:
    turned = {name for case in CASES.values() for name in exercised(case.hardware)}
    constant = {"host_devices.kind"}
    missing = set(every_field(HardwareSpec)) - turned - NOT_IN_THE_DOCUMENT - constant
    assert not missing, f"turn them in tests/fixtures/hardware_cases.py: {sorted(missing)}"


@pytest.mark.parametrize("kind", [DomainDisk, DomainNic])
def test_every_field_of_disks_and_cards_is_in_some_golden_case(kind: type) -> None:
    things = [thing for case in CASES.values() for thing in (*case.disks, *case.nics) if isinstance(thing, kind)]
    plain = kind("x", "x", "raw")
    same = {
        field.name for field in fields(plain) if all(vars(one)[field.name] == vars(plain)[field.name] for one in things)
    }
    assert same <= {"shared_image"}


def test_every_knob_has_its_place() -> None:
    """A new field of HardwareSpec is compared, or is listed as compared elsewhere."""
    leaves = set(every_field(HardwareSpec))
    covered = {field for knob in knobs.KNOBS for field in knob.fields} | knobs.ELSEWHERE
    roots = {name for name in leaves if "." not in name} - {"cpu", "memory"}
    roots |= {name for name in leaves if name.count(".") == 1 and name.split(".")[0] in ("cpu", "memory")}
    assert roots == covered


# ---- changes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_each_case_changes_the_hash(name: str) -> None:
    assert owned_by(CASES[name]).digest() != owned_by(BASE).digest()


@pytest.mark.parametrize("name", CASES)
def test_a_vm_is_turned_into_each_case_and_back(name: str) -> None:
    plain, turned = (parse_document(build_document(case, HOST)) for case in (BASE, CASES[name]))
    there = parse_document(redefine(turned, plain))
    assert owned_in(there) == owned_by(CASES[name])
    assert redefine(turned, there) == redefine(turned, parse_document(redefine(turned, there)))
    back = parse_document(redefine(plain, there))
    assert owned_in(back) == owned_by(BASE)


@pytest.mark.parametrize("knob", knobs.KNOBS, ids=lambda knob: knob.name)
def test_each_turned_knob_is_seen_when_somebody_takes_it_out(knob: knobs.Knob) -> None:
    for case in CASES.values():
        document = parse_document(build_document(case, HOST))
        if knob not in knobs.turned(case.hardware) or not (found := knob.elements(document)):
            continue
        parent = found[0].getparent()
        assert parent is not None
        parent.remove(found[0])
        assert owned_in(document).digest() != owned_by(case).digest()
        return
    assert knob.name in {"rng", "panic"}  # turned means that they are not there


def test_what_nobody_wished_is_left_alone() -> None:
    """Pins, a watchdog and huge pages by hand: not drift, and still there after a change of something else."""
    document = parse_document(build_document(BASE, HOST))
    tuned = parse_document(
        build_document(replace(CASES["cpu"], vcpus=2, hardware=CASES["cpu"].hardware.model_copy()), HOST)
    )
    pins = tuned.findall("cputune/vcpupin")
    tuning = document.find("cputune")
    assert tuning is not None
    tuning.extend(pins)
    assert owned_in(document) == owned_by(BASE)
    changed = replace(BASE, description="another", hardware=PLAIN.model_copy(update={"serials": 2}))
    after = parse_document(redefine(parse_document(build_document(changed, HOST)), document))
    assert len(after.findall("cputune/vcpupin")) == len(pins)
    assert owned_in(after) == owned_by(changed)


def test_a_disk_taken_away_renames_no_other() -> None:
    disks = tuple(
        DomainDisk(name, f"/v/{name}.raw", "raw", slot=slot) for slot, name in enumerate(("root", "one", "two"))
    )
    before = parse_document(build_document(replace(BASE, disks=disks), HOST))
    fewer = replace(BASE, disks=(disks[0], disks[2]))
    after = parse_document(redefine(parse_document(build_document(fewer, HOST)), before))
    assert owned_in(after) == owned_by(fewer)
    found = [(element.findtext("serial"), target(element)) for element in after.iterfind("devices/disk")]
    assert found == [("root", "vda"), ("two", "vdc")]
