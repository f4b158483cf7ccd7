"""The host's own facts: who it is, what it can accelerate, what is promised of it, and its object in the store."""

import asyncio
import json
import os
import platform
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from corral.clock import Clock
from corral.errors import CorralError
from corral.files import read_limited, write_atomic
from corral.hypervisor.base import HypervisorDriver, HypervisorFacts
from corral.log import logger
from corral.model.host import AcceleratorFinding, Host, HostSpec, HostStatus
from corral.model.template import Template
from corral.model.vm import Power, Vm, VmState
from corral.names import MIB, new_uid
from corral.scheduler.admission import Capacity, held_mib
from corral.settings import Settings
from corral.storage.base import VolumeStore
from corral.store.objects import Objects

BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
OS_RELEASE: Final = Path("/etc/os-release")
CPUINFO: Final = Path("/proc/cpuinfo")
SMALL_FILE_MAX_BYTES: Final = 4 * MIB
PROBE_TIMEOUT_S: Final = 60.0
COUNTED_AT_ONCE: Final = 100
"""VMs between two turns of the event loop: a fraction of a millisecond."""

log = logger("agent.host")


@dataclass(frozen=True)
class HostIdentity:
    """Which host, which installation, which boot."""

    host_uid: str
    installation_id: str
    hostname: str
    boot_id: str

    @classmethod
    def load(cls, state_dir: Path) -> "HostIdentity":
        """From the state directory; made once and kept."""
        return cls(
            host_uid=_kept(state_dir / "host-uid"),
            installation_id=_kept(state_dir / "installation-id"),
            hostname=host_name(),
            boot_id=BOOT_ID.read_text().strip(),
        )


def host_name() -> str:
    """The host's name as a DNS label."""
    label = socket.gethostname().split(".")[0].lower()
    cleaned = "".join(c if c.isalnum() and c.isascii() else "-" for c in label).strip("-")[:63]
    return cleaned or "host"


def _kept(path: Path) -> str:
    if not path.exists():
        write_atomic(path, f"{new_uid()}\n".encode(), 0o644)
    return read_limited(path, 4096).decode().strip()


@dataclass
class HostKeeper:
    """Looks at the host, remembers what the accelerator probe found, and keeps the Host object current."""

    objects: Objects
    hypervisor: HypervisorDriver
    volumes: VolumeStore
    settings: Settings
    identity: HostIdentity
    clock: Clock
    facts: HypervisorFacts | None = None
    findings: tuple[AcceleratorFinding, ...] = ()

    @property
    def accelerator(self) -> Literal["kvm", "tcg"]:
        """The first that really runs guest code; TCG always does."""
        return next((found.name for found in self.findings if found.usable), "tcg")

    def capacity(self) -> Capacity:
        """What this host has and may promise."""
        memory_mib = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // MIB
        return Capacity.under(self.settings, os.cpu_count() or 1, memory_mib)

    async def look(self) -> None:
        """Facts and accelerators. Raises `hypervisor-unavailable` while nothing is known yet."""
        async with asyncio.timeout(self.settings.hypervisor_timeout_s):
            self.facts = await self.hypervisor.facts()
        if not self.findings:
            self.findings = self._remembered() or await self._probe()

    def _remembered(self) -> tuple[AcceleratorFinding, ...]:
        assert self.facts is not None
        path = self.settings.state_dir / "accelerators.json"
        try:
            kept = json.loads(read_limited(path, SMALL_FILE_MAX_BYTES))
            if (kept["boot_id"], kept["qemu_version"]) != (self.identity.boot_id, self.facts.qemu_version):
                return ()
            return tuple(AcceleratorFinding.model_validate(found) for found in kept["findings"])
        except (OSError, ValueError, KeyError, TypeError, CorralError):  # not there, or not ours: measured again
            return ()

    async def _probe(self) -> tuple[AcceleratorFinding, ...]:
        assert self.facts is not None
        async with asyncio.timeout(PROBE_TIMEOUT_S):
            findings = await self.hypervisor.probe_accelerators()
        content = {
            "boot_id": self.identity.boot_id,
            "qemu_version": self.facts.qemu_version,
            "findings": [found.model_dump() for found in findings],
        }
        path = self.settings.state_dir / "accelerators.json"
        if any(found.usable for found in findings):  # where even emulation failed it is QEMU that must be mended
            await asyncio.to_thread(write_atomic, path, json.dumps(content).encode(), 0o644)
        log.info("accelerators measured", usable=[found.name for found in findings if found.usable])
        return findings

    async def record(self, vms: Iterable[Vm], templates: Mapping[str, Template]) -> None:
        """Write the Host object if something about it changed. Not durable: the next look finds the same."""
        status = await self._status(vms, templates)
        host = await self.objects.get(Host, self.identity.host_uid)
        transaction = self.objects.transaction()
        if host is None:
            spec = HostSpec(
                cpu_overcommit=self.settings.cpu_overcommit,
                memory_overcommit=self.settings.memory_overcommit,
                reserved_memory_mib=self.settings.host_reserved_memory_mib,
            )
            transaction.create(
                Host(
                    name=self.identity.hostname,
                    uid=self.identity.host_uid,
                    created_at=self.clock.now(),
                    spec=spec,
                    status=status,
                )
            )
        elif host.status != status:
            transaction.update(host.model_copy(update={"status": status}))
        else:
            return
        await transaction.commit(durable=host is None)

    async def _status(self, vms: Iterable[Vm], templates: Mapping[str, Template]) -> HostStatus:
        facts = self.facts
        async with asyncio.timeout(self.settings.hypervisor_timeout_s):
            usage = await self.volumes.usage()
        memory_mib = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // MIB
        cpus = os.cpu_count() or 1
        vcpus = mib = forks_mib = running = 0
        used: set[str] = set()
        for number, vm in enumerate(vms):
            if number % COUNTED_AT_ONCE == 0:
                await asyncio.sleep(0)
            running += vm.status.seen_state is VmState.RUNNING
            if not vm.being_deleted and _promised(vm):
                vcpus, mib = vcpus + vm.spec.vcpus, mib + vm.spec.memory_mib
                if vm.spec.template_uid is not None:
                    used.add(vm.spec.template_uid)
                    forks_mib += vm.spec.memory_mib
        templates_mib = sum(held_mib(templates[uid].status.stored_bytes) for uid in used if uid in templates)
        limit_mib = (memory_mib - self.settings.host_reserved_memory_mib) * self.settings.memory_overcommit
        return HostStatus(
            boot_id=self.identity.boot_id,
            accelerator=self.accelerator if self.findings else "",
            accelerators=self.findings,
            cpus=cpus,
            cpu_model=_cpu_model(),
            memory_mib=memory_mib,
            kernel=platform.release(),
            os=_os_name(),
            libvirt_version=facts.libvirt_version if facts else "",
            qemu_version=facts.qemu_version if facts else "",
            hypervisor_connected=facts.connected if facts else False,
            committed_vcpus=vcpus,
            committed_memory_mib=mib + templates_mib,
            forks_memory_mib=forks_mib,
            templates_memory_mib=templates_mib,
            memory_limit_mib=max(0, int(limit_mib)),
            vcpu_limit=int(cpus * self.settings.cpu_overcommit),
            disk_free_bytes=_rounded(usage.free_bytes),
            disk_total_bytes=usage.total_bytes,
            vms_running=running,
        )


def _promised(vm: Vm) -> bool:
    return vm.spec.power is not Power.OFF or vm.status.seen_state in (VmState.RUNNING, VmState.PAUSED)


def _rounded(count: int) -> int:
    """To 64 MiB: free space moves all the time, and each write is a revision for every watcher."""
    return count // (64 * MIB) * (64 * MIB)


def _cpu_model() -> str:
    for line in read_limited(CPUINFO, SMALL_FILE_MAX_BYTES).decode(errors="replace").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _os_name() -> str:
    if OS_RELEASE.exists():
        for line in read_limited(OS_RELEASE, 65536).decode(errors="replace").splitlines():
            if line.startswith("PRETTY_NAME="):
                return line.partition("=")[2].strip().strip('"')
    return platform.system()
