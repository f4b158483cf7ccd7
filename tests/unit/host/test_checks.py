"""The host checks against small trees of /proc, /sys and /etc that a test lays out."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from corral.host import guests, hardware, kernel, packages, places
from corral.host.machine import Machine
from corral.hypervisor.base import DomainMetadata, HypervisorFacts, ObservedDomain, StopCause
from corral.model.doctor import Finding, Level, Report
from corral.model.host import AcceleratorFinding, HostStatus
from corral.model.network import Network, NetworkSpec, NetworkStatus
from corral.model.vm import VmState

UID = "6f2d2c56-0d3f-4f5a-9a43-0b6c9f1f1c11"
FACTS = HypervisorFacts(
    driver="libvirt", connected=True, libvirt_version="9.0.0", qemu_version="7.2.0", uri="qemu:///system"
)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def lay(machine: Machine, **files: str) -> None:
    """Write files; `__` in a key stands for `/`."""
    for key, text in files.items():
        path = machine.path(key.replace("__", "/"))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def domain(name: str, pid: int | None) -> ObservedDomain:
    return ObservedDomain(
        uid=UID,
        name=name,
        state=VmState.RUNNING,
        reason="booted",
        stop_cause=StopCause.NONE,
        persistent=True,
        metadata=DomainMetadata("i", UID, "default", name, 1, 1),
        autostart=False,
        has_managed_save=False,
        vcpus=1,
        memory_mib=128,
        pid=pid,
    )


def process(machine: Machine, pid: int, *, uid: int = 200001, seccomp: int = 2, exe: str = "/usr/bin/qemu") -> None:
    lay(machine, **{f"proc/{pid}/status": f"Name:\tqemu\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\nSeccomp:\t{seccomp}\n"})
    machine.path(f"/proc/{pid}/exe").symlink_to(exe)


def network(subnet: str, *, bridge: str = "corral0", active: bool = True) -> Network:
    return Network(
        name="default",
        uid=UID,
        created_at=datetime.now(UTC),
        spec=NetworkSpec(subnet=subnet, domain="corral.internal", bridge=bridge),
        status=NetworkStatus(active=active),
    )


def test_an_empty_tree_breaks_no_check(machine: Machine) -> None:
    found = [
        *hardware.check_hardware(machine, None),
        *guests.check_guests(machine, None, ()),
        *kernel.check_kernel(machine, ()),
        packages.check_reboot(machine),
    ]
    assert len({finding.id for finding in found}) == len(found)
    assert all(f.action for f in found if f.level in (Level.WARNING, Level.ERROR))


@pytest.mark.parametrize(
    ("flags", "level"), [("fpu vmx sse", Level.OK), ("fpu svm", Level.OK), ("fpu sse", Level.INFO)]
)
def test_the_processor_is_asked_for_its_flags(machine: Machine, flags: str, level: Level) -> None:
    lay(machine, proc__cpuinfo=f"flags : {flags}\n")
    assert hardware.check_cpu(machine).level is level


def test_a_device_node_is_no_proof_of_hardware_virtualization(machine: Machine) -> None:
    tcg = AcceleratorFinding(name="tcg", usable=True, instructions_per_s=4e7, reason="ran 40 million instructions")
    kvm = AcceleratorFinding(name="kvm", usable=False, reason="the guest never finished within 5 s")
    finding = hardware.check_accelerator(HostStatus(accelerator="tcg", accelerators=(kvm, tcg)))
    assert finding.level is Level.WARNING
    assert "never finished" in finding.found


@pytest.mark.parametrize(
    ("files", "level"),
    [
        ({"sys__fs__cgroup__cgroup.controllers": "cpuset cpu io memory pids"}, Level.OK),
        ({"sys__fs__cgroup__cgroup.controllers": "cpuset io"}, Level.WARNING),
        ({"proc__cgroups": "#subsys_name\thierarchy\tnum\tenabled\ncpu\t2\t1\t1\nmemory\t3\t1\t1\n"}, Level.OK),
        ({"proc__cgroups": "#subsys_name\thierarchy\tnum\tenabled\ncpu\t2\t1\t1\nmemory\t3\t1\t0\n"}, Level.WARNING),
    ],
)
def test_control_groups_of_both_versions(machine: Machine, files: dict[str, str], level: Level) -> None:
    lay(machine, **files)
    assert kernel.check_cgroups(machine).level is level


def test_forwarding_matters_once_a_network_is_up(machine: Machine) -> None:
    lay(machine, proc__sys__net__ipv4__ip_forward="0")
    assert kernel.check_forwarding(machine, ()).level is Level.INFO
    assert kernel.check_forwarding(machine, (network("10.0.0.0/24"),)).level is Level.ERROR


ROUTES = (
    "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n"
    "eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
    "eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n"
    "corral0\t0096A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n"
)


@pytest.mark.parametrize(
    ("subnet", "level"),
    [("192.168.150.0/24", Level.OK), ("192.0.2.0/25", Level.ERROR), ("192.0.0.0/16", Level.ERROR)],
)
def test_subnets_are_held_against_the_routes(machine: Machine, subnet: str, level: Level) -> None:
    lay(machine, proc__net__route=ROUTES)
    assert places.check_subnets(machine, (network(subnet),)).level is level


def test_two_networks_of_ours_may_not_overlap(machine: Machine) -> None:
    both = (network("10.1.0.0/16", bridge="a"), network("10.1.2.0/24", bridge="b"))
    assert places.check_subnets(machine, both).level is Level.ERROR


@pytest.mark.parametrize(("mode", "level"), [(0o711, Level.OK), (0o777, Level.ERROR)])
def test_the_state_directory_is_written_by_its_owner_alone(machine: Machine, mode: int, level: Level) -> None:
    machine.path("/state").mkdir()
    machine.path("/state").chmod(mode)
    assert places.check_state_dir(machine, Path("/state")).level is level


def test_a_closed_directory_above_the_disks_is_named(machine: Machine) -> None:
    machine.path("/home/me/state").mkdir(parents=True)
    machine.path("/home/me").chmod(0o700)
    finding = places.check_way_to_disks(replace(machine, uid=0), Path("/home/me/state"))
    assert finding.level is Level.ERROR
    assert "/home/me (0700)" in finding.found
    as_the_caller = places.check_way_to_disks(replace(machine, uid=1000), Path("/home/me/state"))
    assert as_the_caller.level is not Level.ERROR


def test_guests_are_confined_each_by_its_own_uid(machine: Machine) -> None:
    process(machine, 10, uid=200001)
    process(machine, 11, uid=200002)
    running = (domain("a", 10), domain("b", 11))
    assert guests.check_seccomp(machine, running).level is Level.OK
    assert guests.check_uids(machine, running).level is Level.OK


def test_a_shared_uid_root_and_a_missing_filter_are_named(machine: Machine) -> None:
    process(machine, 10, uid=64055, seccomp=0)
    process(machine, 11, uid=64055)
    process(machine, 12, uid=0)
    assert "a, b" in guests.check_uids(machine, (domain("a", 10), domain("b", 11))).found
    assert guests.check_uids(machine, (domain("c", 12),)).level is Level.WARNING
    assert guests.check_seccomp(machine, (domain("a", 10), domain("b", 11))).found.endswith(": a")


def test_a_replaced_qemu_is_named(machine: Machine) -> None:
    process(machine, 10, exe="/usr/bin/qemu-system-x86_64 (deleted)")
    process(machine, 11)
    finding = guests.check_outdated_qemu(machine, (domain("old", 10), domain("new", 11)))
    assert finding.level is Level.WARNING
    assert "old" in finding.found
    assert "new" not in finding.found


@pytest.mark.parametrize("line", ["seccomp_sandbox = 0", 'user = "root"'])
def test_a_weakened_libvirt_is_seen(machine: Machine, line: str) -> None:
    lay(machine, **{"etc/libvirt/qemu.conf": f"# comment\n{line}\n"})
    assert guests.check_sandbox_setting(machine).level is Level.WARNING


def test_a_silent_libvirt_is_an_error() -> None:
    assert guests.check_hypervisor(replace(FACTS, connected=False)).level is Level.ERROR
    assert guests.check_hypervisor(FACTS).level is Level.OK


POLICY = """\
qemu-system-x86:
  Installed: 1:7.2+dfsg-7+deb12u17
  Candidate: 1:7.2+dfsg-7+deb12u18
  Version table:
     1:7.2+dfsg-7+deb12u18 500
        500 mirror bookworm-security/main amd64 Packages
 *** 1:7.2+dfsg-7+deb12u17 100
        100 /var/lib/dpkg/status
libvirt0:
  Installed: 9.0.0-4+deb12u2
  Candidate: 9.0.0-4+deb12u2
  Version table:
 *** 9.0.0-4+deb12u2 500
        500 mirror bookworm/main amd64 Packages
qemu-utils:
  Installed: (none)
  Candidate: 1:7.2+dfsg-7+deb12u18
  Version table:
     1:7.2+dfsg-7+deb12u18 500
        500 mirror bookworm-security/main amd64 Packages
"""


def test_waiting_updates_are_read_from_apts_own_words() -> None:
    assert packages.pending(POLICY) == ("qemu-system-x86 (1:7.2+dfsg-7+deb12u18, security)",)
    assert packages.pending("") == ()


def test_a_newer_kernel_of_the_same_flavour_wants_a_reboot(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages.platform, "release", lambda: "6.1.0-9-amd64")
    lay(machine, **{f"boot/vmlinuz-{release}": "" for release in ("6.1.0-9-amd64", "6.1.0-10-amd64")})
    finding = packages.check_reboot(machine)
    assert finding.level is Level.WARNING
    assert "6.1.0-10-amd64" in finding.found


def test_a_kernel_that_is_not_from_boot_wants_none(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages.platform, "release", lambda: "6.18.44")
    lay(machine, **{"boot/vmlinuz-6.1.0-9-amd64": ""})
    assert packages.check_reboot(machine).level is Level.OK


def test_the_worst_finding_counts() -> None:
    findings = tuple(Finding(id="x", level=level, found="") for level in (Level.INFO, Level.ERROR, Level.OK))
    assert Report(findings=findings).worst is Level.ERROR
    assert Report(findings=()).worst is Level.OK


def test_processes_whose_end_nobody_notices(machine: Machine) -> None:
    lay(machine, **{"proc/1/comm": "sleep\n", "proc/1/stat": "1 (sleep) S 0 1", "proc/7/stat": "7 (qemu) x) Z 12 7"})
    assert guests.check_reaping(machine).level is Level.OK  # its own parent's business
    lay(machine, **{"proc/8/stat": "8 (qemu (old) Z) Z 1 8"})
    found = guests.check_reaping(machine)
    assert found.level is Level.WARNING
    assert "process 1 (sleep) has not noticed the end of 1 processes" in found.found
