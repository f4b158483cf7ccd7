"""The hypervisor driver's contract: few methods over typed values. XML never crosses it, but for people to read.

Long because the contract and all its values are read together.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final, Literal, Protocol

from corral.hypervisor.reach import Guests, Screens
from corral.hypervisor.support import HardwareSupport
from corral.model.hardware import PLAIN, HardwareSpec
from corral.model.host import AcceleratorFinding
from corral.model.vm import VmState

if TYPE_CHECKING:
    from corral.hypervisor.disk_jobs import DiskJobs
    from corral.hypervisor.forking import Forking
    from corral.hypervisor.points import Points

Accelerator = Literal["kvm", "tcg"]
NO_SPACE: Final = "no space"
"""Why a domain is paused whose guest wrote to a disk that has no room: it goes on where it was once there is some."""


# ---- what is to be: a domain -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DomainDisk:
    """`format` is told, never probed. `backing` is the chain below, nearest first, as (path, format)."""

    name: str
    path: str
    format: Literal["qcow2", "raw"]
    bus: Literal["virtio", "scsi", "sata"] = "virtio"
    read_only: bool = False
    backing: tuple[tuple[str, str], ...] = ()
    shared_image: bool = False
    """A file of root's that no QEMU may own (relabel='no')."""
    device: Literal["disk", "cdrom"] = "disk"
    """An empty `path` is an empty drive."""
    slot: int | None = None
    """Its place among the disks of its kind; None: in the order of the list."""
    cache: str = "writeback"
    aio: str = ""
    discard: str = "unmap"
    io_thread: int = 0
    iops_max: int = 0
    bytes_per_s_max: int = 0
    shareable: bool = False
    """Other domains may write it at the same time."""


@dataclass(frozen=True)
class DomainNic:
    name: str
    mac: str
    network: str
    """The libvirt network's name."""
    model: str = "virtio"
    link_up: bool = True
    queues: int = 1
    pxe: bool = False
    filtered: bool = True
    """It is a port of a bridge that Corral guards; false: past the host's bridges, or on a network of somebody else's."""
    tap: str = ""
    """What the port is called, where it is such a one; empty: the hypervisor's choice."""
    isolated: bool = False
    """Such a port reaches no other one until its rules are loaded."""
    mtu: int = 0
    """What the guest is told; 0: nothing."""


@dataclass(frozen=True)
class DirectKernel:
    kernel: str
    initrd: str
    cmdline: str


@dataclass(frozen=True)
class DomainMetadata:
    """What Corral writes into the domain, so that a domain alone tells whose it is. Valid only where `vm_uid` is
    the domain's own UUID (people copy XML)."""

    installation_id: str
    vm_uid: str
    project: str
    name: str
    generation: int
    epoch: int
    spec_json: str = ""
    """The VM's object as JSON, for recovery with the database lost (without secrets: user_data and hashes are in the
    seed, on disk)."""


@dataclass(frozen=True)
class DomainDefinition:
    """Everything the domain's document is built from."""

    uid: str
    name: str
    description: str
    vcpus: int
    memory_mib: int
    cpu_shares: int
    accelerator: Accelerator
    firmware: Literal["bios", "uefi"]
    disks: tuple[DomainDisk, ...]
    nics: tuple[DomainNic, ...]
    seed_path: str | None
    """The NoCloud ISO, a read-only CD; None without cloud-init."""
    kernel: DirectKernel | None
    graphics: Literal["vnc", "spice", "none"]
    run_dir: str
    """Where this VM's sockets live; short, since a socket's path has 107 bytes."""
    console_log: str
    dac_uid: int | None
    """The VM's own uid for its QEMU; None leaves libvirt's choice (session mode)."""
    metadata: DomainMetadata
    hardware: HardwareSpec = PLAIN
    graphics_listen: str = ""
    """An IP address; empty: a Unix socket."""
    begins_with: str = ""
    """A directory with the UEFI variables (`nvram.fd`) and the TPM's state (`tpm`) of a VM that comes from another one; what
    the VM has already stays."""


# ---- what is: an observation ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DomainDescription:
    """What a domain consists of, as far as Corral has words for it; read before one that was made elsewhere is adopted,
    and before what was changed outside is shown or taken over. A disk's `name` is its target: `vda`."""

    uid: str
    name: str
    vcpus: int
    memory_mib: int
    firmware: Literal["bios", "uefi"]
    disks: tuple[DomainDisk, ...]
    nics: tuple[DomainNic, ...]
    current_memory_mib: int = 0
    """What the balloon leaves the guest at its start."""
    description: str = ""
    cpu_shares: int = 0
    """0: none are set."""
    seed_path: str = ""
    kernel: DirectKernel | None = None
    graphics: Literal["vnc", "spice", "none"] = "vnc"
    graphics_listen: str = ""
    vcpus_max: int = 0
    """0: as many as it starts with."""
    boot: tuple[str, ...] | None = None
    """Targets of disks and MACs of cards, in the order in which the firmware tries them; None: not told."""
    foreign: tuple[str, ...] = ()
    """What there are no words for among disks, told for people: `disk hda: bus ide`."""


class StopCause(StrEnum):
    """Why a domain is not running, as far as it is known."""

    NONE = "none"  # it runs, or never ran
    GUEST = "guest"  # the guest powered itself off
    DESTROYED = "destroyed"  # somebody pulled the plug through libvirt (virsh destroy)
    FAILED = "failed"  # QEMU died or was killed
    CRASHED = "crashed"  # the guest panicked
    SAVED = "saved"
    UNKNOWN = "unknown"  # libvirtd was restarted since


@dataclass(frozen=True)
class ObservedDomain:
    uid: str
    name: str
    state: VmState
    reason: str
    stop_cause: StopCause
    persistent: bool
    metadata: DomainMetadata | None
    """None: not ours, or a copy whose uid differs."""
    autostart: bool
    has_managed_save: bool
    vcpus: int
    memory_mib: int
    pid: int | None = None
    agent_connected: bool = False
    definition_hash: str = ""
    """Of the fields Corral owns in the persistent document; compared with `definition_hash(DomainDefinition)`."""
    live_spec_json: str | None = None
    """What the running domain's own metadata says: the spec that it was started with, or last changed to. None: off."""
    pending: tuple[str, ...] = ()
    """What of the persistent definition only its next start brings, each with the reason."""
    files: tuple[tuple[str, str], ...] = ()
    """The file that each disk of ours writes to, by the disk's name: of the running domain, or of the definition."""
    chains: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """Of a running domain: what lies below each of them, the nearest first, as QEMU has it open."""
    introduced: bool = True
    """False: it was forked from a template just now, and its guest does not know yet who it is."""
    waiting: bool = False
    """Nobody's domain: it waits for the state of a template's memory, and nothing is lost with it."""


@dataclass(frozen=True)
class DomainEvent:
    """Something happened to a domain; the agent looks for itself. `kind` is for the log and the stop's cause."""

    uid: str
    name: str
    kind: Literal[
        "defined",
        "undefined",
        "started",
        "suspended",
        "resumed",
        "stopped",
        "shutdown",
        "crashed",
        "reboot",
        "agent",
        "io-error",
        "unplugged",
        "connected",
        "disconnected",
    ]
    stop_cause: StopCause = StopCause.NONE


@dataclass(frozen=True)
class NicCounters:
    """Of one card, as the guest sees it. `device`: its end on the host, which tells whose it is."""

    device: str
    received_bytes: int = 0
    sent_bytes: int = 0
    received_packets: int = 0
    sent_packets: int = 0
    received_drops: int = 0
    sent_drops: int = 0
    errors: int = 0


@dataclass(frozen=True)
class DomainUsage:
    """Counters since the domain started, for metrics and `top`."""

    uid: str
    cpu_time_ns: int
    memory_rss_bytes: int
    memory_mib: int
    disk_read_bytes: int
    disk_written_bytes: int
    net_received_bytes: int
    net_sent_bytes: int
    nics: tuple[NicCounters, ...] = ()


@dataclass(frozen=True)
class HypervisorFacts:
    """What the hypervisor is."""

    driver: Literal["libvirt", "fake"]
    connected: bool
    libvirt_version: str
    qemu_version: str
    uri: str
    machine: str = "q35"
    max_vcpus: int = 0


@dataclass(frozen=True)
class ExecResult:
    """What a command in the guest did. Streams are bounded; `truncated` says that more was said."""

    exit_code: int | None
    signal: int | None
    stdout: bytes
    stderr: bytes
    truncated: bool
    streamed: bool = True
    """False: this guest cannot show what a command writes before its end."""


OnOutput = Callable[[Literal["stdout", "stderr"], bytes], None]
"""Hears every byte that a command writes once, in the stream's order, while the command runs."""


@dataclass(frozen=True)
class GuestFacts:
    """What the guest agent tells."""

    hostname: str = ""
    os: str = ""
    addresses: tuple[str, ...] = ()
    cloud_init: str = ""
    """What cloud-init keeps of its stages, in JSON; empty where it keeps nothing."""


class Console(Protocol):
    """A serial console, open both ways."""

    async def read(self) -> bytes:
        """What the guest wrote; empty at the end."""
        ...

    async def write(self, data: bytes) -> None: ...

    async def close(self) -> None: ...


# ---- the contract --------------------------------------------------------------------------------------------------


class HypervisorDriver(Protocol):
    """Every method may be repeated: asking for what already is does nothing. Raises CorralError:
    `hypervisor-unavailable`, `hypervisor-timeout` (the call may still happen: observe), `hypervisor-error`,
    `domain-not-found`, `domain-name-taken`, `domain-not-ours`, `guest-agent-*`, `console-in-use`, `disk-full`."""

    @property
    def screens(self) -> Screens: ...

    @property
    def guests(self) -> Guests: ...

    @property
    def forking(self) -> "Forking": ...

    @property
    def points(self) -> "Points": ...

    @property
    def disk_jobs(self) -> "DiskJobs": ...

    async def facts(self) -> HypervisorFacts: ...

    async def probe_accelerators(self) -> tuple[AcceleratorFinding, ...]:
        """Run guest code under each accelerator and say what was seen. Seconds long; callers keep the answer."""
        ...

    async def hardware_support(self, accelerator: Accelerator) -> HardwareSupport:
        """What guests can have here under `accelerator`: asked before a VM is made or changed."""
        ...

    async def define(self, definition: DomainDefinition) -> None:
        """Make the persistent domain, or change it to this."""
        ...

    async def start(self, uid: str, *, boot_from: str = "") -> ObservedDomain:
        """Run it; a managed save is resumed. `boot_from`: the disk or card that is tried first, this time alone. Returns
        what `observe` would find right afterwards."""
        ...

    async def shutdown(self, uid: str, mode: Literal["agent", "acpi"]) -> None:
        """Ask the guest to power off; returns when it was asked."""
        ...

    async def destroy(self, uid: str) -> None:
        """Stop it now; the definition stays."""
        ...

    async def reboot(self, uid: str, mode: Literal["agent", "acpi"]) -> None: ...

    async def reset(self, uid: str) -> None: ...

    async def suspend(self, uid: str) -> None: ...

    async def resume(self, uid: str) -> None: ...

    async def save(self, uid: str) -> None:
        """Managed save: memory to disk, domain off."""
        ...

    async def undefine(self, uid: str) -> None:
        """Remove the definition with managed save and NVRAM; disks are not touched."""
        ...

    async def rename(self, uid: str, name: str) -> None:
        """Only while it is off."""
        ...

    async def set_metadata(self, uid: str, metadata: DomainMetadata) -> None:
        """Into the live and the persistent document, without a restart."""
        ...

    async def apply_live(self, uid: str, metadata: DomainMetadata) -> ObservedDomain:
        """Bring the running domain to its persistent definition as far as that goes without a restart, and last of all
        its metadata; what is left is observed as `pending`. Nothing happens to a domain that is off. Returns what
        `observe` would find right afterwards."""
        ...

    async def grow_disk(self, uid: str, disk: str, size_bytes: int) -> bool:
        """Grow the disk of this name that the running domain has open, so that its guest sees it; False: it has none."""
        ...

    async def observe(self, uid: str) -> ObservedDomain | None:
        """None: there is no such domain."""
        ...

    async def observe_all(self) -> tuple[ObservedDomain, ...]:
        """Every domain of the connection, ours or not."""
        ...

    async def find(self, name: str) -> str | None:
        """The uid of the domain of this name, ours or not; None: the name is free."""
        ...

    async def describe(self, uid: str) -> DomainDescription:
        """What a domain made elsewhere consists of."""
        ...

    async def usage_all(self) -> tuple[DomainUsage, ...]:
        """Counters of the running ones, without waiting for a busy one."""
        ...

    def events(self) -> AsyncIterator[DomainEvent]:
        """From now on; `connected` after each (re)connection says: relist."""
        ...

    async def open_console(self, uid: str, *, force: bool) -> Console: ...

    async def guest_facts(self, uid: str) -> GuestFacts:
        """Asked of the guest agent, within a few seconds."""
        ...

    async def guest_exec(
        self,
        uid: str,
        argv: Sequence[str],
        *,
        stdin: bytes,
        timeout_s: float,
        capture_max_bytes: int,
        on_output: OnOutput | None = None,
    ) -> ExecResult:
        """Run it to its end. Late, or when the caller is cancelled, it is stopped where the guest allows that."""
        ...

    async def document(self, uid: str) -> str:
        """The domain's XML, for people."""
        ...

    async def close(self) -> None: ...
