"""Contradictions of the virtual hardware, and what a host lacks: each refused with the reason and what works instead."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from corral.errors import CorralError
from corral.hypervisor.capabilities import Ability, abilities_of
from corral.hypervisor.hardware_rules import check_hardware, contradictions
from corral.hypervisor.host_rules import missing
from corral.hypervisor.support import HardwareSupport, PciFact, UsbFact
from corral.model.hardware import HardwareSpec
from corral.model.vm import Vm, VmSpec, VmState, VmStatus
from corral.services.rules import check_save

UID = "0b5e6f0a-53b4-4c6e-9a52-000000000001"
ROOT = {"name": "root", "path": "/v/root.qcow2"}
CARD = {"name": "net0", "network_uid": UID, "mac": "52:54:00:00:00:01", "address": ""}
DEVICE = PciFact("0000:01:00.0", "10de", "1234", "030000", "", 1, ("0000:01:00.0", "0000:01:00.1"))
SOUND = PciFact("0000:01:00.1", "10de", "1235", "040300", "snd_hda_intel", 1, ("0000:01:00.0", "0000:01:00.1"))
MOUSE = UsbFact("046d", "c52b", "receiver")
EVERYTHING = HardwareSupport(pci_devices=lambda: (DEVICE, replace(SOUND, driver="")), usb_devices=lambda: (MOUSE,))


def spec(hardware: dict[str, Any] | None = None, **update: Any) -> VmSpec:
    document = {"disks": [ROOT], "nics": [CARD], "vcpus": 2, "memory_mib": 1024, "hardware": hardware or {}}
    return VmSpec.model_validate({**document, **update})


def cpu(**fields: Any) -> dict[str, Any]:
    return {"cpu": fields}


def memory(**fields: Any) -> dict[str, Any]:
    return {"memory": fields}


def cells(*found: tuple[str, int]) -> dict[str, Any]:
    return memory(numa=[{"vcpus": vcpus, "memory_mib": size} for vcpus, size in found])


CONTRADICTIONS = [
    # the wish, a word of the reason, a word of the hint
    (spec(cpu(topology={"sockets": 3, "cores": 5}), vcpus=4), "15 CPUs", "1 socket x 4 cores x 1 threads, or vcpus=15"),
    (spec(cpu(topology={"cores": 3}, vcpus_max=4)), "4 vCPUs at most", "vcpus_max=3"),
    (spec(cpu(vcpus_max=1)), "1 at most", "vcpus_max=2"),
    (spec(cpu(pins=[{"vcpu": 2, "cpus": "0"}])), "vCPU 2 is pinned", "from 0 to 1"),
    (spec(cpu(pins=[{"vcpu": 0, "cpus": "0"}, {"vcpu": 0, "cpus": "1"}])), "pinned twice", "0-3,8"),
    (spec(cpu(pins=[{"vcpu": 0, "cpus": "3-1"}])), "names no number", "0-3"),
    (spec(cpu(emulator_cpus="3-1")), "names no number", "0-3"),
    (spec(cpu(quota_percent=50, reserved_percent=100)), "promised", "quota of 100"),
    (spec(cpu(reserved_percent=300)), "cannot use", "200"),
    (spec(cpu(features=["+avx2", "-avx2"])), "named twice", "once"),
    (spec(cpu(features=["-svm"], nested=True)), "-svm hides", "leave out"),
    (spec(memory(max_mib=512)), "512 MiB at most", "1024"),
    (spec(memory(reserved_mib=2048)), "promised", "1024"),
    (spec(memory(huge_pages="2M"), memory_mib=1025), "no whole number", "1024 MiB"),
    (spec(memory(huge_pages="1G"), memory_mib=512), "no whole number", "huge pages of 2M"),
    (spec(cells(("0", 512), ("1", 256))), "have 768 MiB", "memory=768M"),
    (spec(cells(("0", 1024))), "vCPU 1 is in no NUMA cell", "0-1"),
    (spec(cells(("0-1", 512), ("1", 512))), "vCPU 1 is in more than one", "one cell"),
    (spec(cells(("0-2", 1024))), "no such vCPU", "0-1"),
    (
        spec(memory(numa=[{"vcpus": "0-1", "memory_mib": 1024, "host_nodes": "1-0"}])),
        "names no number",
        "0-3",
    ),
    (spec({"secure_boot": True}), "BIOS", "firmware=uefi"),
    (spec({"video": "virtio"}, graphics="none"), "nobody", "graphics=vnc"),
    (spec({"video": "none"}), "needs a video card", "video=vga"),
    (spec(graphics="none", graphics_listen="0.0.0.0"), "no graphical console", "graphics=vnc"),
    (spec(graphics_listen="localhost"), "no IP address", "127.0.0.1"),
    (spec(disks=[{**ROOT, "aio": "native"}]), "aio=native", "cache=none"),
    (spec({"io_threads": 1}, disks=[{**ROOT, "io_thread": 2}]), "thread 2 of 1", "from 1 to 1"),
    (spec(disks=[{**ROOT, "io_thread": 1}]), "thread 1 of 0", "io_threads=1"),
    (spec({"io_threads": 1}, disks=[{**ROOT, "io_thread": 1, "bus": "scsi"}]), "only virtio", "bus=virtio"),
    (spec(disks=[{**ROOT, "device": "cdrom", "format": "raw"}]), "no CD drives", "bus=sata"),
    (spec(disks=[{**ROOT, "device": "cdrom", "bus": "sata"}]), "is raw", "format=raw"),
    (spec(disks=[{**ROOT, "read_only": True, "bus": "sata"}]), "cannot be read-only", "bus=virtio"),
    (spec(nics=[{**CARD, "model": "e1000e", "queues": 2}]), "several queues", "queues=1"),
    (spec(disks=[ROOT, ROOT]), "two disks are called root", "its own"),
    (spec(nics=[CARD, CARD]), "two cards are called net0", "its own"),
    (spec({"boot_devices": ["cd0"]}), "no disk or card 'cd0'", "there is root, net0"),
    (spec({"boot_devices": ["root"]}, nics=[{**CARD, "name": "root"}]), "both called root", "its own"),
    (spec({"boot_devices": ["root", "root"]}), "twice", "once"),
    (spec({"shares": [{"name": "a", "path": "/a"}, {"name": "a", "path": "/b"}]}), "two shares", "its own"),
    (spec({"shares": [{"name": "a" * 40, "path": "/a"}]}), "36", "a" * 36),
    (spec({"shares": [{"name": "a", "path": "/a/../b"}]}), "not the path", "/b"),
    (
        spec({"host_devices": [{"kind": "pci", "address": "0000:01:00.0"}] * 2}),
        "0000:01:00.0 is named twice",
        "once",
    ),
    (spec({"host_devices": [{"kind": "usb", "vendor": "046d", "product": "c52b"}] * 2}), "046d:c52b", "once"),
]


@pytest.mark.parametrize(("wish", "reason", "hint"), CONTRADICTIONS, ids=[row[1] for row in CONTRADICTIONS])
def test_a_contradiction_is_refused_with_what_works(wish: VmSpec, reason: str, hint: str) -> None:
    with pytest.raises(CorralError) as refused:
        check_hardware("create VM 'web'", wish, EVERYTHING)
    assert refused.value.code == "invalid-hardware"
    assert reason in refused.value.reason
    assert hint in refused.value.hint


WHOLE_GROUP = [{"kind": "pci", "address": "0000:01:00.0"}, {"kind": "pci", "address": "0000:01:00.1"}]
FINE = [
    spec(),
    spec(cpu(topology={"sockets": 2, "cores": 2}, vcpus_max=4, pins=[{"vcpu": 3, "cpus": "0-1"}], quota_percent=100)),
    spec(cpu(model="host-passthrough", features=["+vmx"], nested=True, reserved_percent=200)),
    spec({**cells(("0", 512), ("1", 512)), "io_threads": 1}),
    spec({"secure_boot": True, "tpm": True}, firmware="uefi"),
    spec({"tpm": True}),
    spec({"video": "none"}, graphics="none"),
    spec({"boot_devices": ["net0", "root"]}, graphics_listen="::"),
    spec(disks=[ROOT, {"name": "cd0", "device": "cdrom", "bus": "sata", "format": "raw", "path": "/i.iso"}]),
    spec({"host_devices": WHOLE_GROUP}),
    spec({"host_devices": [{"kind": "usb", "vendor": "046d", "product": "c52b"}], "tablet": "usb"}),
]


@pytest.mark.parametrize("wish", FINE)
def test_what_goes_together_is_not_refused(wish: VmSpec) -> None:
    check_hardware("create VM 'web'", wish, EVERYTHING)


def usb(product: str) -> dict[str, Any]:
    return {"host_devices": [{"kind": "usb", "vendor": "046d", "product": product}]}


def pci(address: str) -> dict[str, Any]:
    return {"host_devices": [{"kind": "pci", "address": address}]}


NO = frozenset[str]()
LACKS = [
    # the wish, what the host is like, a word of the reason, a word of the hint
    (spec(cpu(vcpus_max=64)), {"max_vcpus": 8}, "8 at most", "8"),
    (spec(cpu(model="host-passthrough")), {"cpu_modes": frozenset({"maximum"})}, "hardware virtualization", "maximum"),
    (spec(cpu(model="Skylake")), {}, "not among", "Skylake-Server"),
    (spec(cpu(features=["+avx22"])), {"cpu_features": frozenset({"avx2"})}, "avx22", "avx2"),
    (spec(cpu(nested=True)), {"nested": False}, "nested", "nested=1"),
    (spec(cpu(quota_percent=50)), {"cgroup_cpu": False}, "control groups", "root"),
    (spec(cpu(pins=[{"vcpu": 0, "cpus": "1-3"}])), {"host_cpus": frozenset({0, 1})}, "CPU 2-3", "it has 0-1"),
    (spec(cpu(emulator_cpus="2")), {"host_cpus": frozenset({0, 1})}, "QEMU itself", "it has 0-1"),
    (
        spec(memory(numa=[{"vcpus": "0-1", "memory_mib": 1024, "host_nodes": "1"}])),
        {},
        "node 1",
        "it has 0",
    ),
    (spec(memory(huge_pages="1G")), {"huge_pages_mib": (("2M", 4096),)}, "no huge pages of 1G", "2M"),
    (spec(memory(huge_pages="2M")), {"huge_pages_mib": (("2M", 24),)}, "set aside 24 MiB", "500 more"),
    (spec(memory(locked=True)), {"locked_memory": False}, "CAP_SYS_RESOURCE", "without"),
    (spec(memory(locked=True)), {"memory_mib": 512}, "512", "less"),
    (spec(firmware="uefi"), {"uefi": False}, "no UEFI", "ovmf"),
    (spec({"secure_boot": True}, firmware="uefi"), {"secure_boot": False}, "enrolled keys", "ovmf"),
    (spec({"tpm": True}), {"tpm": False}, "swtpm", "apt-get install swtpm"),
    (spec({"vmgenid": True}), {"vmgenid": False}, "generation id", "without"),
    (spec(graphics="spice"), {"graphics": frozenset({"vnc"})}, "without spice", "vnc"),
    (spec({"video": "qxl"}), {"video": frozenset({"vga"})}, "qxl", "vga"),
    (spec({"sound": "virtio"}), {}, "virtio", "ac97, ich9"),
    (spec(disks=[{**ROOT, "bus": "sata"}]), {"disk_buses": frozenset({"virtio"})}, "no sata", "virtio"),
    (spec(disks=[{**ROOT, "aio": "io_uring"}]), {"io_uring": False}, "io_uring", "threads"),
    (spec({"io_threads": 1}), {"io_threads": False}, "I/O threads", "io_threads=0"),
    (spec({"shares": [{"name": "a", "path": "/a"}]}), {"virtiofs": False}, "virtiofsd", "corral cp"),
    (spec(pci("0000:01:00.0")), {"host_devices": NO}, "PCI devices", "without"),
    (spec(pci("0000:02:00.0")), {}, "no PCI device 0000:02:00.0", "0000:01:00.0"),
    (spec(pci("0000:01:00.0")), {"iommu": False}, "IOMMU", "intel_iommu=on"),
    (spec(pci("0000:01:00.0")), {"pci_devices": lambda: (DEVICE, SOUND)}, "snd_hda_intel", "whole group"),
    (spec(usb("ffff")), {}, "046d:ffff", "046d:c52b"),
]


@pytest.mark.parametrize(("wish", "host", "reason", "hint"), LACKS, ids=[row[2] for row in LACKS])
def test_what_the_host_lacks_is_refused_with_what_works(
    wish: VmSpec, host: dict[str, Any], reason: str, hint: str
) -> None:
    check = replace(EVERYTHING, **host)
    with pytest.raises(CorralError) as refused:
        check_hardware("create VM 'web'", wish, check)
    assert refused.value.code in ("unsupported", "insufficient-memory")
    assert reason in refused.value.reason
    assert hint in refused.value.hint
    assert not list(contradictions(wish))


def test_a_plain_vm_asks_for_nothing_special() -> None:
    bare = HardwareSupport(
        accelerator="tcg", cpu_modes=NO, cpu_models=NO, nested=False, uefi=False, secure_boot=False, tpm=False,
        vmgenid=False, graphics=frozenset({"vnc"}), video=frozenset({"vga"}), sound=NO, io_uring=False,
        io_threads=False, virtiofs=False, host_devices=NO, cgroup_cpu=False, huge_pages_mib=(), iommu=False,
    )  # fmt: skip
    assert not list(missing(spec(), bare))


def test_devices_of_the_host_do_not_go_with_saved_memory() -> None:
    assert abilities_of(spec()) == ()
    assert abilities_of(spec(usb("c52b"))) == ()
    assert abilities_of(spec(pci("0000:01:00.0"))) == (Ability.HOST_PCI_DEVICE,)
    assert abilities_of(spec({"shares": [{"name": "a", "path": "/a"}]})) == (Ability.SHARED_FOLDER,)
    assert HardwareSpec() == spec().hardware


def test_a_vm_with_such_devices_is_not_saved() -> None:
    status = VmStatus(state=VmState.RUNNING)
    made = datetime(2026, 1, 1, tzinfo=UTC)
    check_save(Vm(name="web", uid=UID, created_at=made, spec=spec(), status=status))
    with pytest.raises(CorralError) as refused:
        check_save(Vm(name="web", uid=UID, created_at=made, spec=spec(pci("0000:01:00.0")), status=status))
    assert (refused.value.code, refused.value.hint) == ("unsupported", "corral shutdown web")
