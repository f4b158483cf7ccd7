"""The accelerator probe runs guest code: what it calls usable has run some."""

import asyncio

from corral.hypervisor.libvirt.accelerator import probe_accelerators


def test_emulation_is_usable_and_kvm_only_where_it_runs_guest_code() -> None:
    findings = {finding.name: finding for finding in asyncio.run(probe_accelerators())}
    assert findings["tcg"].usable, findings["tcg"].reason
    assert findings["tcg"].instructions_per_s > 1_000_000
    kvm = findings["kvm"]
    assert kvm.reason
    assert kvm.usable == (kvm.instructions_per_s > findings["tcg"].instructions_per_s)
