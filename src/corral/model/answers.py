"""What services answer beyond the stored objects: measurements, states of the daemon, reports."""

from datetime import datetime

from corral.model.base import Model
from corral.model.identity import Token
from corral.model.reach import GuestFileSystemAnswer, GuestUserAnswer
from corral.model.requests import WaitCondition
from corral.model.vm import Vm


class VmUsage(Model):
    """Counters of one running VM since it started, and rates since the sample before."""

    project: str
    name: str
    uid: str
    vcpus: int
    memory_mib: int
    memory_rss_bytes: int
    memory_private_bytes: int | None = None
    """Of a VM that was made of a template: what would be free if it ended."""
    memory_shared_bytes: int | None = None
    """Of such a VM: what it has in common with others, its siblings above all. Resident is this and the private part."""
    memory_saved_bytes: int | None = None
    """Of such a VM: how much more it would take if it shared nothing, by the kernel's proportional count."""
    cpu_time_ns: int
    disk_read_bytes: int
    disk_written_bytes: int
    net_received_bytes: int
    net_sent_bytes: int
    interval_s: float = 0.0
    """What the rates were measured over; 0 where there was no sample before, then all rates are 0."""
    cpu_percent: float = 0.0
    """Of one host CPU: 200 is two of them busy."""
    disk_read_bytes_per_s: float = 0.0
    disk_written_bytes_per_s: float = 0.0
    net_received_bytes_per_s: float = 0.0
    net_sent_bytes_per_s: float = 0.0


class VmMemory(Model):
    """What one running VM takes of the host's memory, as the kernel counts its QEMU's."""

    resident_bytes: int
    """In the host's memory: private and shared."""
    private_bytes: int
    """Its own: would be free if it ended."""
    shared_bytes: int
    """In common with other processes; with VMs of the same template above all."""
    proportional_bytes: int
    """The private part, and of each shared page as much as falls to one of those that share it."""
    saved_bytes: int
    """Resident less proportional: how much more it would take if it shared nothing."""


class PublishedTemplate(Model):
    """Another project's template, as far as those need know it that it was published to."""

    project: str
    name: str
    description: str
    hot: bool
    stale: bool
    memory_bytes: int


class UsageReport(Model):
    time: datetime
    items: tuple[VmUsage, ...]


class Incapability(Model):
    """Something that this host, or its hypervisor, cannot do."""

    what: str
    """`SATA disk with read-only disk`, `hardware acceleration`."""
    reason: str


class DriftItem(Model):
    """One thing that is not as Corral wants it; empty: it is not there at all."""

    field: str
    wished: str
    found: str
    refusal: str = ""
    """Why it cannot become the spec; empty: it can (`accept_drift`)."""


class DriftAnswer(Model):
    """What other tools changed of a VM's definition."""

    drifted: bool
    """The agent saw a definition that is not ours, or one is there now."""
    items: tuple[DriftItem, ...] = ()


class VmPreview(Model):
    """What a request with `dry_run` would have made."""

    vm: Vm
    document: str
    """The hypervisor's document (libvirt's XML)."""
    warnings: tuple[str, ...] = ()


class UnmanagedDomain(Model):
    """A domain of the hypervisor that is not ours; `adopt` takes it over."""

    name: str
    uid: str
    state: str
    vcpus: int
    memory_mib: int
    persistent: bool
    autostart: bool
    other_installation: bool = False
    """It belongs to another Corral daemon on this host and cannot be adopted."""


class GuestAnswer(Model):
    """What the guest agent told."""

    hostname: str
    os: str
    addresses: tuple[str, ...]
    os_id: str = ""
    os_version: str = ""
    kernel: str = ""
    machine: str = ""
    time: datetime | None = None
    timezone: str = ""
    utc_offset_s: int | None = None
    users: tuple[GuestUserAnswer, ...] = ()
    """Who is logged in."""
    file_systems: tuple[GuestFileSystemAnswer, ...] = ()
    agent_version: str = ""
    untold: tuple[str, ...] = ()
    """Commands that this agent lacks, or that the guest's administrator has blocked: their facts are empty."""


class WaitAnswer(Model):
    """A wait that ended well; one that did not is the error `wait-timeout`."""

    condition: WaitCondition
    elapsed_s: float
    state: str
    address: str = ""
    detail: str = ""


class Readiness(Model):
    ready: bool
    reasons: tuple[str, ...] = ()
    """What is missing."""


class DaemonStatus(Model):
    pid: int
    version: str
    started_at: datetime
    uptime_s: float
    state_dir: str
    socket: str
    driver: str
    hypervisor_uri: str
    hypervisor_connected: bool
    accelerator: str
    installation_id: str
    host_uid: str
    store_revision: int
    readiness: Readiness


class NewToken(Model):
    token: Token
    secret: str
    """`corral_<uid>_<secret>`: shown once, kept nowhere."""


class AuditVerification(Model):
    valid: bool
    records: int
    first_sequence: int
    last_sequence: int
    anchors: int
    broken_at: int | None = None
    """Sequence of the first record that does not follow from the one before."""
    reason: str = ""
    rewinds: tuple[str, ...] = ()
    """Each time the log was found shorter than it had been: a restored backup, or somebody's doing."""


class RecoveryReport(Model):
    """What `recover` found and wrote, and what cannot be known."""

    networks: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    vms: tuple[str, ...] = ()
    security_groups: tuple[str, ...] = ()
    network_policies: tuple[str, ...] = ()
    routers: tuple[str, ...] = ()
    balancers: tuple[str, ...] = ()
    forwards: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    """For people: one sentence for each thing that is not as it was."""
