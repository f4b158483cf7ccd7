"""Admission: figures in, yes or a coded no out."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from corral.errors import CorralError
from corral.model.vm import Power, Vm, VmSpec, VmState, VmStatus
from corral.names import GIB, new_uid
from corral.scheduler.admission import NOTHING, Capacity, Demand, admit, admit_disk, demand_of, further_demand

HOST = Capacity(cpus=2, memory_mib=8192, reserved_memory_mib=1024, cpu_overcommit=2.0, memory_overcommit=1.0)


def test_limits_are_what_is_left_after_the_reserve_times_the_overcommit() -> None:
    assert HOST.memory_limit_mib == 7168
    assert HOST.vcpu_limit == 4
    doubled = Capacity(2, 8192, 1024, 2.0, 2.0)
    assert doubled.memory_limit_mib == 2 * 7168


def test_a_host_smaller_than_its_reserve_promises_nothing() -> None:
    assert Capacity(1, 512, 1024, 1.0, 1.0).memory_limit_mib == 0


def test_the_last_mebibyte_is_given_and_not_one_more() -> None:
    admit(Demand(1, 1024), Demand(1, 6144), HOST, "create VM 'a'")
    with pytest.raises(CorralError) as refused:
        admit(Demand(1, 1025), Demand(1, 6144), HOST, "create VM 'a'")
    assert refused.value.code == "insufficient-memory"
    assert refused.value.context["wanted_mib"] == 1025
    assert refused.value.context["limit_mib"] == 7168
    assert "1024 MiB are left" in refused.value.reason


def test_vcpus_are_limited_by_overcommit() -> None:
    admit(Demand(4, 64), NOTHING, HOST, "")
    with pytest.raises(CorralError) as refused:
        admit(Demand(2, 64), Demand(3, 64), HOST, "")
    assert refused.value.code == "insufficient-cpu"


def test_promises_above_a_lowered_limit_leave_nothing_negative_to_read() -> None:
    with pytest.raises(CorralError) as refused:
        admit(Demand(1, 1), Demand(1, 9000), HOST, "")
    assert " 0 MiB are left" in refused.value.reason


@pytest.mark.parametrize(
    ("power", "state", "takes"),
    [
        (Power.ON, VmState.PENDING, True),
        (Power.ON, VmState.RUNNING, True),
        (Power.PAUSED, VmState.PAUSED, True),
        (Power.OFF, VmState.SHUT_OFF, False),
        (Power.OFF, VmState.RUNNING, True),
        (Power.OFF, VmState.SHUTTING_DOWN, True),
        (Power.OFF, VmState.CRASHED, False),
    ],
)
def test_a_vm_takes_memory_while_it_should_run_or_does(power: Power, state: VmState, takes: bool) -> None:
    assert demand_of(power, state, Demand(2, 512)) == (Demand(2, 512) if takes else NOTHING)


def test_disks_are_held_against_free_space_less_the_reserve() -> None:
    admit_disk(9 * GIB, 10 * GIB, GIB, "")
    with pytest.raises(CorralError) as refused:
        admit_disk(9 * GIB + 1, 10 * GIB, GIB, "create VM 'a'")
    assert refused.value.code == "insufficient-disk"
    assert refused.value.context["free_bytes"] == 10 * GIB
    assert "--force" in refused.value.hint


def test_what_is_reserved_is_never_promised_twice() -> None:
    roomy = replace(HOST, memory_overcommit=10.0, cpu_overcommit=100.0)
    most_mib = roomy.memory_mib - roomy.reserved_memory_mib
    half = Demand(1, 512, reserved_memory_mib=most_mib // 2)
    admit(half, half, roomy, "start VM 'a'")
    with pytest.raises(CorralError, match="insufficient-memory") as refused:
        admit(half, half + half, roomy, "start VM 'a'")
    assert str(most_mib) in refused.value.reason
    all_cpus = Demand(1, 512, reserved_cpu_percent=100 * roomy.cpus)
    admit(all_cpus, Demand(8, 512), roomy, "start VM 'a'")
    with pytest.raises(CorralError, match="insufficient-cpu"):
        admit(Demand(1, 512, reserved_cpu_percent=1), all_cpus, roomy, "start VM 'a'")


def test_a_wish_to_run_takes_what_a_wish_to_rest_does_not() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    status = VmStatus(state=VmState.SHUT_OFF)
    off = Vm(name="a", uid=new_uid(), created_at=now, spec=VmSpec(power=Power.OFF, memory_mib=512), status=status)
    on = off.model_copy(update={"spec": off.spec.model_copy(update={"power": Power.ON, "memory_mib": 768})})
    assert further_demand(off, on) == Demand(1, 768)
    assert further_demand(on, off) == NOTHING
    more = on.model_copy(update={"spec": on.spec.model_copy(update={"memory_mib": 1024})})
    assert further_demand(on, more) == Demand(0, 256)
