"""Admission: whether a host can promise what is asked of it. Pure functions over figures."""

from dataclasses import dataclass
from typing import Final

from corral.errors import CorralError
from corral.model.vm import Power, Vm, VmSpec, VmState
from corral.names import MIB, format_bytes
from corral.settings import Settings

_OCCUPYING: Final = frozenset({VmState.RUNNING, VmState.PAUSED, VmState.SHUTTING_DOWN, VmState.SUSPENDED})


@dataclass(frozen=True)
class Demand:
    """What one VM takes of a host while it runs, or should run."""

    vcpus: int = 0
    memory_mib: int = 0
    reserved_cpu_percent: int = 0
    """Of these, so much of one host CPU, and so much memory, is never promised twice."""
    reserved_memory_mib: int = 0

    def __add__(self, other: "Demand") -> "Demand":
        return Demand(
            self.vcpus + other.vcpus,
            self.memory_mib + other.memory_mib,
            self.reserved_cpu_percent + other.reserved_cpu_percent,
            self.reserved_memory_mib + other.reserved_memory_mib,
        )

    def __sub__(self, other: "Demand") -> "Demand":
        return self + Demand(-other.vcpus, -other.memory_mib, -other.reserved_cpu_percent, -other.reserved_memory_mib)

    @property
    def further(self) -> "Demand":
        """What of a difference is more, and none of what is less."""
        return Demand(
            max(0, self.vcpus),
            max(0, self.memory_mib),
            max(0, self.reserved_cpu_percent),
            max(0, self.reserved_memory_mib),
        )


NOTHING: Final = Demand()


@dataclass(frozen=True)
class Capacity:
    """What a host has, and how much of it may be promised."""

    cpus: int
    memory_mib: int
    reserved_memory_mib: int
    cpu_overcommit: float
    memory_overcommit: float

    @classmethod
    def under(cls, settings: Settings, cpus: int, memory_mib: int) -> "Capacity":
        """A host's that has so much, as its settings let it be promised."""
        return cls(
            cpus=cpus,
            memory_mib=memory_mib,
            reserved_memory_mib=settings.host_reserved_memory_mib,
            cpu_overcommit=settings.cpu_overcommit,
            memory_overcommit=settings.memory_overcommit,
        )

    @property
    def memory_limit_mib(self) -> int:
        """What all guests together may be promised: (memory - reserved) * overcommit."""
        return int(max(0, self.memory_mib - self.reserved_memory_mib) * self.memory_overcommit)

    @property
    def vcpu_limit(self) -> int:
        return int(self.cpus * self.cpu_overcommit)


def full_demand(spec: VmSpec) -> Demand:
    """What a VM takes while it runs. One that shares a template's memory may come to need all of its own: what it writes
    it shares no more, and nothing says what it will not write."""
    reserved = spec.hardware.cpu.reserved_percent, spec.hardware.memory.reserved_mib
    return Demand(spec.vcpus, spec.memory_mib, *reserved)


def held_mib(stored_bytes: int) -> int:
    """What a hot template's memory takes while it is held for VMs of it: what of it is not zero, once for all."""
    return -(-stored_bytes // MIB)


def demand_of(power: Power | str, state: VmState | str, running: Demand) -> Demand:
    """What a VM takes: everything while it should run or still does, nothing while it is off."""
    return running if power != Power.OFF or state in _OCCUPYING else NOTHING


def demand_of_vm(vm: Vm) -> Demand:
    """What it takes now, as it is wished and was last seen."""
    return demand_of(vm.spec.power, vm.status.seen_state, full_demand(vm.spec))


def further_demand(before: Vm, after: Vm) -> Demand:
    """What a changed wish takes beyond what the VM takes already; one that shrinks or stops gives back when it has."""
    return (demand_of_vm(after) - demand_of_vm(before)).further


def admit(wanted: Demand, committed: Demand, capacity: Capacity, asked: str) -> None:
    """Nothing if the host can promise `wanted` beside `committed`; `insufficient-memory` or `insufficient-cpu` else."""
    free_mib = capacity.memory_limit_mib - committed.memory_mib
    if wanted.memory_mib > free_mib:
        raise CorralError(
            "insufficient-memory",
            asked,
            f"{wanted.memory_mib} MiB are wanted and {max(0, free_mib)} MiB are left of the {capacity.memory_limit_mib}"
            f" MiB that this host may promise ({committed.memory_mib} MiB are promised already)",
            "shut a VM down, ask for less memory, or raise memory_overcommit in the daemon's settings",
            {
                "wanted_mib": wanted.memory_mib,
                "committed_mib": committed.memory_mib,
                "limit_mib": capacity.memory_limit_mib,
                "host_mib": capacity.memory_mib,
                "reserved_mib": capacity.reserved_memory_mib,
            },
        )
    free_vcpus = capacity.vcpu_limit - committed.vcpus
    if wanted.vcpus > free_vcpus:
        raise CorralError(
            "insufficient-cpu",
            asked,
            f"{wanted.vcpus} vCPUs are wanted and {max(0, free_vcpus)} are left of the {capacity.vcpu_limit} that this"
            f" host may promise ({capacity.cpus} CPUs, {committed.vcpus} vCPUs are promised already)",
            "shut a VM down, ask for fewer vCPUs, or raise cpu_overcommit in the daemon's settings",
            {"wanted": wanted.vcpus, "committed": committed.vcpus, "limit": capacity.vcpu_limit, "cpus": capacity.cpus},
        )
    _admit_reservations(wanted, committed, capacity, asked)


def _admit_reservations(wanted: Demand, committed: Demand, capacity: Capacity, asked: str) -> None:
    """What is reserved is there for each, whatever the overcommit of the rest."""
    memory_mib = max(0, capacity.memory_mib - capacity.reserved_memory_mib)
    free_mib = memory_mib - committed.reserved_memory_mib
    if wanted.reserved_memory_mib > free_mib:
        raise CorralError(
            "insufficient-memory",
            asked,
            f"{wanted.reserved_memory_mib} MiB are to be reserved and {max(0, free_mib)} MiB of this host's {memory_mib}"
            " MiB are not reserved yet",
            "reserve less, or shut down a VM with a reservation",
            {"wanted_mib": wanted.reserved_memory_mib, "reserved_mib": committed.reserved_memory_mib},
        )
    free_percent = 100 * capacity.cpus - committed.reserved_cpu_percent
    if wanted.reserved_cpu_percent > free_percent:
        raise CorralError(
            "insufficient-cpu",
            asked,
            f"{wanted.reserved_cpu_percent} % of a CPU are to be reserved and {max(0, free_percent)} % of this host's"
            f" {capacity.cpus} CPUs are not reserved yet",
            "reserve less, or shut down a VM with a reservation",
            {"wanted_percent": wanted.reserved_cpu_percent, "reserved_percent": committed.reserved_cpu_percent},
        )


def admit_disk(wanted_bytes: int, free_bytes: int, reserve_bytes: int, asked: str) -> None:
    """Nothing if disks of `wanted_bytes` fit, filled to the brim; `insufficient-disk` with the figures otherwise."""
    usable = max(0, free_bytes - reserve_bytes)
    if wanted_bytes > usable:
        raise CorralError(
            "insufficient-disk",
            asked,
            f"disks of {format_bytes(wanted_bytes)} are wanted and {format_bytes(usable)} are free"
            f" ({format_bytes(reserve_bytes)} are kept for the host)",
            "free space, ask for smaller disks, or use --force: a disk takes space only as it is written",
            {
                "wanted_bytes": wanted_bytes,
                "free_bytes": free_bytes,
                "reserve_bytes": reserve_bytes,
                "wanted_mib": wanted_bytes // MIB,
            },
        )
