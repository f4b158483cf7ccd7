"""Checks of libvirt, QEMU and of the processes that the VMs run in: versions, confinement, outdated binaries."""

import re
from collections.abc import Iterator

from corral.host.machine import Machine, info, ok, warning
from corral.host.machine import error as broken
from corral.hypervisor.base import HypervisorFacts, ObservedDomain
from corral.model.doctor import Finding

SECCOMP_FILTER = "2"  # proc(5): Seccomp: 0 disabled, 1 strict, 2 filter
DELETED = " (deleted)"


def check_guests(
    machine: Machine, facts: HypervisorFacts | None, domains: tuple[ObservedDomain, ...]
) -> Iterator[Finding]:
    """Everything about the hypervisor and its guests."""
    yield check_hypervisor(facts)
    if facts is not None and facts.driver == "fake":
        return
    yield check_sandbox_setting(machine)
    running = tuple(domain for domain in domains if domain.pid is not None and domain.metadata is not None)
    if running:
        yield check_seccomp(machine, running)
        yield check_uids(machine, running)
        yield check_labels(machine, running)
    yield check_outdated_qemu(machine, running)
    yield check_outdated_libvirtd(machine)
    yield check_reaping(machine)


def check_hypervisor(facts: HypervisorFacts | None) -> Finding:
    if facts is None or not facts.connected:
        where = f" at {facts.uri}" if facts else ""
        return broken(
            "hypervisor",
            f"libvirt does not answer{where}",
            "systemctl start libvirtd; without systemd: virtlogd -d; libvirtd -d; then journalctl -u libvirtd",
        )
    if facts.driver == "fake":
        return info("hypervisor", "the fake driver: nothing here runs a real guest")
    return ok("hypervisor", f"libvirt {facts.libvirt_version} with QEMU {facts.qemu_version} at {facts.uri}")


def check_sandbox_setting(machine: Machine) -> Finding:
    text = machine.text("/etc/libvirt/qemu.conf") or ""
    if re.search(r"^\s*seccomp_sandbox\s*=\s*0\b", text, re.MULTILINE):
        return warning(
            "qemu-sandbox",
            "seccomp_sandbox = 0 in /etc/libvirt/qemu.conf: QEMU runs without its system call filter",
            "remove the line and restart libvirtd; VMs get the filter when they start next",
        )
    if re.search(r'^\s*user\s*=\s*"(root|\+?0)"', text, re.MULTILINE):
        return warning("qemu-sandbox", 'user = "root" in /etc/libvirt/qemu.conf', "remove the line, restart libvirtd")
    return ok("qemu-sandbox", "libvirt starts QEMU with its system call filter, as an unprivileged user")


def _named(domains: list[ObservedDomain]) -> str:
    return ", ".join(sorted(domain.name for domain in domains))


def check_seccomp(machine: Machine, running: tuple[ObservedDomain, ...]) -> Finding:
    open_ones = [d for d in running if machine.status_of(d.pid or 0).get("Seccomp", SECCOMP_FILTER) != SECCOMP_FILTER]
    if open_ones:
        return warning("seccomp", f"running without a seccomp filter: {_named(open_ones)}", "shut down and start them")
    return ok("seccomp", f"a seccomp filter is in force in each of {len(running)} running VMs")


def check_uids(machine: Machine, running: tuple[ObservedDomain, ...]) -> Finding:
    uids: dict[str, list[ObservedDomain]] = {}
    for domain in running:
        uid = machine.status_of(domain.pid or 0).get("Uid", "").split()
        if uid:
            uids.setdefault(uid[1], []).append(domain)
    if "0" in uids:
        return warning("guest-uids", f"run as root: {_named(uids['0'])}", "shut down and start them")
    shared = [domain for group in uids.values() if len(group) > 1 for domain in group]
    if shared:
        return info(
            "guest-uids",
            f"share a uid with another VM: {_named(shared)}",
            "expected in session mode and for adopted VMs; others get their own when they start next",
        )
    return ok("guest-uids", f"each of {len(uids)} running VMs has a uid of its own")


def check_labels(machine: Machine, running: tuple[ObservedDomain, ...]) -> Finding:
    labels = {domain.name: (machine.text(f"/proc/{domain.pid}/attr/current") or "").strip("\0") for domain in running}
    confined = [name for name, label in labels.items() if label and not label.startswith("unconfined")]
    if len(confined) == len(labels):
        return ok("guest-labels", f"each of {len(labels)} running VMs has a security label")
    free = ", ".join(sorted(set(labels) - set(confined)))
    return info("guest-labels", f"no AppArmor or SELinux label: {free}", "see mandatory-access-control")


def check_outdated_qemu(machine: Machine, running: tuple[ObservedDomain, ...]) -> Finding:
    old = [d for d in running if (machine.link(f"/proc/{d.pid}/exe") or "").endswith(DELETED)]
    if old:
        return warning(
            "outdated-qemu",
            f"run on a QEMU that has been replaced since: {_named(old)}",
            "corral shutdown and corral start them (a reboot from inside keeps the old QEMU)",
        )
    return ok("outdated-qemu", "no VM runs on a QEMU that has been replaced")


def check_outdated_libvirtd(machine: Machine) -> Finding:
    pid = machine.text("/run/libvirtd.pid") or ""
    if pid.isdigit() and (machine.link(f"/proc/{pid}/exe") or "").endswith(DELETED):
        return warning(
            "outdated-libvirtd", "libvirtd has been replaced since it started", "restart it; VMs are left alone"
        )
    return ok("outdated-libvirtd", "libvirtd is the installed one, or not running as a daemon of its own")


def check_reaping(machine: Machine) -> Finding:
    """QEMU's parent is process 1. In many containers that is no init, and waits for nobody's end."""
    left = 0
    for name in machine.names("/proc"):
        if name.isdecimal():
            state, _, parent = (machine.text(f"/proc/{name}/stat") or "").rpartition(")")[2].strip().partition(" ")
            left += state == "Z" and parent.partition(" ")[0] == "1"
    if left:
        return warning(
            "reaping",
            f"process 1 ({machine.text('/proc/1/comm')}) has not noticed the end of {left} processes: libvirt takes an ended "
            "guest for a running one, and each force stop lasts seconds or fails",
            "run the container with an init (docker run --init), or let `make up` start libvirtd, which then has a reaper",
        )
    return ok("reaping", "process 1 notices the end of processes")
