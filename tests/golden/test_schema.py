"""Our documents against libvirt's own schema, held against it here as the driver does."""

from pathlib import Path

import pytest
from hardware_cases import CASES

from corral.hypervisor.libvirt.document import Host, build_document
from corral.hypervisor.libvirt.schema import DOMAIN_SCHEMA, is_valid

HOST = Host(privileged=True, dac_gid=64055)


@pytest.mark.parametrize("name", CASES)
def test_every_document_of_ours_is_valid(name: str) -> None:
    assert is_valid(build_document(CASES[name], HOST))


def test_what_libvirt_does_not_know_is_left_to_it() -> None:
    document = build_document(next(iter(CASES.values())), HOST)
    assert not is_valid(document.replace("<devices>", "<devices><invented/>"))
    assert not is_valid(document.replace("<vcpu ", "<vcpu invented='yes' "))
    assert is_valid(document), "one that was refused spoils nothing for the next"


def test_without_a_schema_libvirt_is_to_judge(tmp_path: Path) -> None:
    document = build_document(next(iter(CASES.values())), HOST)
    broken = tmp_path / "broken.rng"
    broken.write_text(DOMAIN_SCHEMA.read_text()[:1000])
    assert not is_valid(document, tmp_path / "missing.rng")
    assert not is_valid(document, broken)
