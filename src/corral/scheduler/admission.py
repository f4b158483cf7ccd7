"""Admission: whether a host can promise what is asked of it. Pure functions over figures."""

from dataclasses import dataclass
from typing import Final

from corral.errors import CorralError
from corral.model.vm import Power, VmState
from corral.names import MIB, format_bytes

_OCCUPYING: Final = frozenset({VmState.RUNNING, VmState.PAUSED, VmState.SHUTTING_DOWN, VmState.SUSPENDED})


@dataclass(frozen=True)
class Demand:
    """What one VM takes of a host while it runs, or should run."""

    vcpus: int = 0
    memory_mib: int = 0

    def __add__(self, other: "Demand") -> "Demand":
        return Demand(self.vcpus + other.vcpus, self.memory_mib + other.memory_mib)

    def __sub__(self, other: "Demand") -> "Demand":
        return Demand(self.vcpus - other.vcpus, self.memory_mib - other.memory_mib)


NOTHING: Final = Demand()


@dataclass(frozen=True)
class Capacity:
    """What a host has, and how much of it may be promised."""

    cpus: int
    memory_mib: int
    reserved_memory_mib: int
    cpu_overcommit: float
    memory_overcommit: float

    @property
    def memory_limit_mib(self) -> int:
        """What all guests together may be promised: (memory - reserved) * overcommit."""
        return int(max(0, self.memory_mib - self.reserved_memory_mib) * self.memory_overcommit)

    @property
    def vcpu_limit(self) -> int:
        return int(self.cpus * self.cpu_overcommit)


def demand_of(power: Power | str, state: VmState | str, vcpus: int, memory_mib: int) -> Demand:
    """What a VM takes: everything while it should run or still does, nothing while it is off."""
    occupies = power != Power.OFF or state in _OCCUPYING
    return Demand(vcpus, memory_mib) if occupies else Demand()


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
