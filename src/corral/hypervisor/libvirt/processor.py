"""A domain's processors: how many, which model, how the guest sees them, and what of the host they may use."""

from typing import Final

from lxml.etree import Element, SubElement, _Element

from corral.hypervisor.base import DomainDefinition
from corral.model.hardware import CpuSpec

# The virtual CPU under emulation: one of AMD's, since for Intel's of before 2019 kernels unmap themselves at each return
# to a program (page-table isolation, against Meltdown), which costs an emulated guest a fifth of its time, and no emulated
# processor speculates. x86-64-v3, for guests that ask for it. `max` changes with each QEMU, and a VM saved before an
# upgrade could not resume.
TCG_CPU_MODEL: Final = "EPYC"
# AMD's tell of threads in a core by a leaf (`topoext`) that QEMU's emulator lacks; Intel's by one that it has.
TCG_CPU_MODEL_WITH_THREADS: Final = "Nehalem"
# The scheduler's period for the quota; the kernel's own default, in microseconds.
QUOTA_PERIOD_US: Final = 100_000
NESTED_FEATURES: Final = frozenset({"vmx", "svm"})


def vcpus_max(definition: DomainDefinition) -> int:
    """How many it can have while it runs."""
    return definition.hardware.cpu.vcpus_max or definition.vcpus


def build_vcpu(definition: DomainDefinition) -> _Element:
    element = Element("vcpu", placement="static")
    element.text = str(vcpus_max(definition))
    if vcpus_max(definition) != definition.vcpus:
        element.set("current", str(definition.vcpus))
    return element


def build_tuning(definition: DomainDefinition) -> _Element:
    """Weight, limit and places on the host's CPUs."""
    cpu = definition.hardware.cpu
    tuning = Element("cputune")
    SubElement(tuning, "shares").text = str(definition.cpu_shares)
    if cpu.quota_percent is not None:
        SubElement(tuning, "global_period").text = str(QUOTA_PERIOD_US)
        SubElement(tuning, "global_quota").text = str(cpu.quota_percent * QUOTA_PERIOD_US // 100)
    for pin in cpu.pins:
        SubElement(tuning, "vcpupin", vcpu=str(pin.vcpu), cpuset=pin.cpus)
    if cpu.emulator_cpus is not None:
        SubElement(tuning, "emulatorpin", cpuset=cpu.emulator_cpus)
    return tuning


def build_cpu(definition: DomainDefinition, nested_feature: str) -> _Element:
    """The host's own model on hardware, a fixed one under emulation, unless another is wished."""
    wish = definition.hardware.cpu
    threads = wish.topology is not None and wish.topology.threads > 1
    emulated = TCG_CPU_MODEL_WITH_THREADS if threads else TCG_CPU_MODEL
    cpu = _build_model(wish.model, emulated if definition.accelerator == "tcg" else "")
    features = dict(_feature(word) for word in wish.features)
    if wish.nested:
        features.setdefault("svm" if definition.accelerator == "tcg" else nested_feature, "require")
    if wish.topology is not None:
        SubElement(
            cpu,
            "topology",
            sockets=str(wish.topology.sockets),
            cores=str(wish.topology.cores),
            threads=str(wish.topology.threads),
        )
    for name, policy in features.items():
        SubElement(cpu, "feature", policy=policy, name=name)
    _add_cells(cpu, definition, wish)
    return cpu


def _feature(word: str) -> tuple[str, str]:
    return word[1:], "require" if word[0] == "+" else "disable"


def _build_model(model: str, emulated: str) -> _Element:
    """`emulated`: the model under emulation where none is wished; empty on hardware. Emulation cannot be held to a model's every feature (`check='none'`): it leaves out what it lacks, and says so."""
    if model in ("host-passthrough", "maximum"):
        return Element("cpu", mode=model, check="none", migratable="on")
    if model == "host-model" or (not model and not emulated):
        return Element("cpu", mode="host-model", check="partial")
    cpu = Element("cpu", mode="custom", match="exact", check="none" if emulated else "partial")
    SubElement(cpu, "model", fallback="forbid").text = model or emulated
    return cpu


def _add_cells(cpu: _Element, definition: DomainDefinition, wish: CpuSpec) -> None:
    """NUMA cells; memory that can be plugged in needs at least one."""
    memory = definition.hardware.memory
    cells = [(cell.vcpus, cell.memory_mib) for cell in memory.numa]
    if not cells and memory.max_mib is not None:
        last = (wish.vcpus_max or definition.vcpus) - 1
        cells = [(f"0-{last}" if last else "0", definition.memory_mib)]
    if not cells:
        return
    numa = SubElement(cpu, "numa")
    for index, (cpus, size_mib) in enumerate(cells):
        SubElement(numa, "cell", id=str(index), cpus=cpus, memory=str(size_mib), unit="MiB")
