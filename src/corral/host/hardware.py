"""Checks of processor, memory and accelerators."""

from collections.abc import Iterator
from typing import Final

from corral.host.machine import Machine, info, ok, warning
from corral.model.doctor import Finding
from corral.model.host import HostStatus

# Since Linux 5.18 the pool reports 256 once it is seeded (random(4)); below that it is not.
ENTROPY_SEEDED_BITS: Final = 256
MEMORY_LOW_MIB: Final = 512


def check_hardware(machine: Machine, status: HostStatus | None) -> Iterator[Finding]:
    """Everything about processor, memory and accelerators."""
    yield check_cpu(machine)
    yield check_kvm_device(machine)
    if status is not None:
        yield check_accelerator(status)
    yield check_nested(machine)
    yield check_iommu(machine)
    yield check_memory(machine)
    yield check_ksm(machine)
    yield check_entropy(machine)


def check_cpu(machine: Machine) -> Finding:
    words = set((machine.text("/proc/cpuinfo") or "").split())
    names = [name for flag, name in (("vmx", "Intel VT-x"), ("svm", "AMD-V"), ("sie", "s390x SIE")) if flag in words]
    if names:
        return ok("cpu-virtualization", f"the processor offers {names[0]}")
    return info(
        "cpu-virtualization",
        "the processor shows neither vmx nor svm",
        "on a server: switch virtualization on in the firmware; in a VM: let its host pass it on; else guests are emulated",
    )


def check_kvm_device(machine: Machine) -> Finding:
    if not machine.exists("/dev/kvm"):
        return info("kvm-device", "there is no /dev/kvm", "modprobe kvm_intel or kvm_amd, where the processor has it")
    if not machine.usable("/dev/kvm"):
        return warning("kvm-device", "/dev/kvm may not be opened by the daemon", "run the daemon as root")
    found = machine.owner_and_mode("/dev/kvm")
    shown = f"uid {found[0]}, gid {found[1]}, mode {found[2]:04o}" if found else "permissions unknown"
    return ok("kvm-device", f"/dev/kvm can be opened ({shown})")


def check_accelerator(status: HostStatus) -> Finding:
    """By measurement: what the agent saw when it ran guest code."""
    shown = "; ".join(f"{one.name}: {one.reason}" for one in status.accelerators)
    if status.accelerator == "kvm":
        return ok("accelerator", f"guests run under kvm ({shown})")
    if status.accelerator == "tcg":
        return warning(
            "accelerator",
            f"guests run under emulation (tcg), about ten times slower than hardware ({shown})",
            "give this machine hardware virtualization that works; a /dev/kvm alone is not enough",
        )
    return info("accelerator", "not measured yet", "wait for the daemon to finish its probe, then ask again")


def check_nested(machine: Machine) -> Finding:
    for module in ("kvm_intel", "kvm_amd"):
        value = machine.text(f"/sys/module/{module}/parameters/nested")
        if value is not None:
            on = value in ("Y", "1")
            return info("nested-virtualization", f"nested virtualization is {'on' if on else 'off'} ({module})")
    return info("nested-virtualization", "nested virtualization: the kernel's KVM module does not tell")


def check_iommu(machine: Machine) -> Finding:
    if machine.names("/sys/class/iommu"):
        return ok("iommu", "an IOMMU is active: devices can be passed to guests")
    return info("iommu", "no IOMMU is active", "needed for passing devices to guests: intel_iommu=on or amd_iommu=on")


def check_memory(machine: Machine) -> Finding:
    lines = (machine.text("/proc/meminfo") or "").splitlines()
    fields = {key: value.split()[0] for key, _, value in (line.partition(":") for line in lines) if value.split()}
    if "MemAvailable" not in fields:
        return info("memory", "/proc/meminfo tells nothing")
    free_mib, total_mib = int(fields["MemAvailable"]) // 1024, int(fields.get("MemTotal", "0")) // 1024
    if free_mib < MEMORY_LOW_MIB:
        return warning("memory", f"{free_mib} of {total_mib} MiB are available", "shut down VMs or add memory")
    return ok("memory", f"{free_mib} of {total_mib} MiB are available")


def check_ksm(machine: Machine) -> Finding:
    value = machine.text("/sys/kernel/mm/ksm/run")
    if value == "1":
        return info(
            "ksm",
            "same-page merging is on: it saves memory, and lets a guest find out what its neighbours hold by timing",
            "echo 2 > /sys/kernel/mm/ksm/run, where guests do not trust each other",
        )
    return ok("ksm", "same-page merging is off" if value is not None else "the kernel has no same-page merging")


def check_entropy(machine: Machine) -> Finding:
    value = machine.text("/proc/sys/kernel/random/entropy_avail")
    if value is None or not value.isdigit():
        return info("entropy", "the kernel does not tell how much entropy it has")
    if int(value) < ENTROPY_SEEDED_BITS:
        return warning("entropy", f"the random pool holds {value} bits", "install rng-tools or jitterentropy-rngd")
    return ok("entropy", "the random pool is seeded")
