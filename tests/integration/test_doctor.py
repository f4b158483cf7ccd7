"""The examination of the machine that the tests run on: every check answers, in time, and changes nothing."""

import asyncio
import time
from pathlib import Path

from corral.host.doctor import Subject, examine
from corral.model.doctor import Level


def test_every_check_answers(tmp_path: Path) -> None:
    began = time.monotonic()
    findings = asyncio.run(examine(Subject(state_dir=tmp_path)))
    assert time.monotonic() - began < 30
    ids = [finding.id for finding in findings]
    assert len(ids) == len(set(ids))
    assert {"kvm-device", "hypervisor", "disk-space", "subnets", "cgroups", "nftables", "security-updates"} <= set(ids)
    assert all(finding.action for finding in findings if finding.level in (Level.WARNING, Level.ERROR))


def test_a_driver_that_does_not_answer_is_an_error_with_a_way_out(tmp_path: Path) -> None:
    findings = asyncio.run(examine(Subject(state_dir=tmp_path)))
    hypervisor = next(finding for finding in findings if finding.id == "hypervisor")
    assert hypervisor.level is Level.ERROR
    assert "libvirtd" in hypervisor.action
