"""A host: a server that runs VMs."""

from typing import ClassVar, Literal

from corral.model.base import Condition, Model, Object


class HostSpec(Model):
    cpu_overcommit: float
    memory_overcommit: float
    reserved_memory_mib: int


class AcceleratorFinding(Model):
    """What running guest code under one accelerator showed."""

    name: Literal["kvm", "tcg"]
    usable: bool
    instructions_per_s: float = 0.0
    reason: str
    """For people: `ran 40 million instructions in 0.06 s`, `the guest never finished within 5 s`."""


class HostStatus(Model):
    """Measured by the agent."""

    boot_id: str = ""
    accelerator: Literal["kvm", "tcg", ""] = ""
    accelerators: tuple[AcceleratorFinding, ...] = ()
    cpus: int = 0
    cpu_model: str = ""
    memory_mib: int = 0
    kernel: str = ""
    os: str = ""
    libvirt_version: str = ""
    qemu_version: str = ""
    hypervisor_connected: bool = False
    committed_vcpus: int = 0
    committed_memory_mib: int = 0
    """Promised to VMs that run or should run; `memory_limit_mib` bounds it."""
    forks_memory_mib: int = 0
    """Of that, for VMs made of templates. All of their memory: a page that one writes is its own, and it may write all."""
    templates_memory_mib: int = 0
    """Of that, for the memory of hot templates, which is held once for all VMs of each, as long as one runs."""
    memory_limit_mib: int = 0
    vcpu_limit: int = 0
    disk_free_bytes: int = 0
    disk_total_bytes: int = 0
    vms_running: int = 0
    conditions: tuple[Condition, ...] = ()


class Host(Object):
    KIND: ClassVar[str] = "host"
    PLURAL: ClassVar[str] = "hosts"

    kind: Literal["host"] = "host"
    spec: HostSpec
    status: HostStatus = HostStatus()
