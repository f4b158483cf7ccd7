"""A virtual machine: what is wished of it (`VmSpec`) and what was seen of it (`VmStatus`)."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, ClassVar, Final, Literal

from pydantic import Field, StringConstraints

from corral.model import limits
from corral.model.bandwidth import UNLIMITED, Bandwidth
from corral.model.base import Condition, ImageName, Mac, Model, Name, Object, Uid, written_unless
from corral.model.hardware import PLAIN, HardwareSpec
from corral.model.network_parts import NetworkName
from corral.model.snapshot_policy import SnapshotPolicy

RECOVERED_ANNOTATION: Final = "corral/recovered"
"""On a VM that was rebuilt after a lost database: its spec has no user-data and no password hashes, the seed on disk
alone has them and is not written again."""
DAC_UID_ANNOTATION: Final = "corral/dac-uid"
# Each QEMU's own uid is this + n; n is claimed. Above SUB_UID_MAX of login.defs(5), 600,100,000: what lies below is handed
# out to users' containers from 100,000 on, and who is handed a guest's uid reads its disks. Below the 10^9 ids that
# system containers (Incus) map, so that Corral runs inside of one.
DAC_UID_FIRST: Final = 900_000_000


class Power(StrEnum):
    """What the user wants."""

    ON = "on"
    OFF = "off"
    PAUSED = "paused"


class VmState(StrEnum):
    """What is; virsh's own words, and `pending` until the domain first exists, `unknown` while libvirt is away."""

    PENDING = "pending"
    RUNNING = "running"
    PAUSED = "paused"
    SHUTTING_DOWN = "in shutdown"
    SHUT_OFF = "shut off"
    CRASHED = "crashed"
    SUSPENDED = "pmsuspended"
    UNKNOWN = "unknown"


class RunPolicy(StrEnum):
    """What happens when a VM that should run has stopped by itself."""

    ALWAYS = "always"  # started again whatever the cause
    ON_FAILURE = "on-failure"  # started again after a crash or a killed QEMU, not after the guest powered itself off
    MANUAL = "manual"  # stays off


class Firmware(StrEnum):
    BIOS = "bios"
    UEFI = "uefi"


class Bus(StrEnum):
    VIRTIO = "virtio"
    SCSI = "scsi"
    SATA = "sata"


class DiskSpec(Model):
    """One disk: a volume of ours, or a file of the user's own, given by path. Or a drive for CDs, which may be empty."""

    name: Name
    """Unique within the VM: `root`, `data`, `cd0`."""
    device: Annotated[Literal["disk", "cdrom"], written_unless("disk")] = "disk"
    image_uid: Annotated[Uid | None, written_unless(None)] = None
    """The ISO image in the drive."""
    image: Annotated[ImageName | None, written_unless(None)] = None
    """Its name, by which recovery finds it again."""
    volume_uid: Uid | None = None
    path: str | None = None
    """An absolute path of the user's; never created, resized or deleted by Corral."""
    format: Literal["qcow2", "raw"] = "qcow2"
    """Recorded once, never probed again (a guest could write another header)."""
    bus: Bus = Bus.VIRTIO
    slot: Annotated[int | None, Field(ge=0, lt=limits.DISK_SLOTS), written_unless(None)] = None
    """Its place among the disks of its kind: 1 is `vdb`. Kept when another one goes; None: in the order of the list."""
    read_only: bool = False
    cache: Annotated[
        Literal["writeback", "none", "writethrough", "directsync", "unsafe"], written_unless("writeback")
    ] = "writeback"
    aio: Annotated[Literal["", "threads", "native", "io_uring"], written_unless("")] = ""
    """Empty: QEMU's choice. `native` needs a cache of `none` or `directsync`."""
    discard: Annotated[Literal["unmap", "ignore"], written_unless("unmap")] = "unmap"
    io_thread: Annotated[int, Field(ge=0, le=limits.IO_THREADS_MAX), written_unless(0)] = 0
    """The number of the I/O thread that serves it; 0: QEMU's main loop."""
    iops_max: Annotated[int, Field(ge=0, le=limits.IO_LIMIT_MAX), written_unless(0)] = 0
    """Requests a second, reads and writes together; 0: no limit."""
    bytes_per_s_max: Annotated[int, Field(ge=0, le=limits.IO_LIMIT_MAX), written_unless(0)] = 0


class NicSpec(Model):
    """One network card. `mac` and `address` are allocated when they are not given, and kept for life."""

    name: Name
    """Unique within the VM: `net0`."""
    network: NetworkName = "default"
    network_uid: Uid
    mac: Mac
    address: str
    """IPv4 address reserved in the network's DHCP; empty where the network has none."""
    address6: Annotated[str, written_unless("")] = ""
    """IPv6 address that goes with it; empty where the network has none."""
    model: Literal["virtio", "e1000e", "rtl8139"] = "virtio"
    link_up: Annotated[bool, written_unless(True)] = True
    """False: the cable is out."""
    queues: Annotated[int, Field(ge=1, le=limits.QUEUES_MAX), written_unless(1)] = 1
    pxe: Annotated[bool, written_unless(False)] = False
    """The firmware may boot from it, after disks and media."""
    bandwidth_in: Annotated[Bandwidth, written_unless(UNLIMITED)] = UNLIMITED
    """Towards the guest."""
    bandwidth_out: Annotated[Bandwidth, written_unless(UNLIMITED)] = UNLIMITED
    groups: Annotated[tuple[Name, ...], Field(max_length=limits.NIC_GROUPS_MAX), written_unless(())] = ()
    """The security groups of its project that say who may reach it, and whom it may reach; none is `default`."""

    @property
    def addresses(self) -> tuple[str, ...]:
        """Those that are kept for it alone."""
        return tuple(each for each in (self.address, self.address6) if each)


class CloudInitUser(Model):
    name: Annotated[str, StringConstraints(pattern=r"^[a-z_][a-z0-9_-]{0,31}$")]
    ssh_keys: Annotated[tuple[str, ...], Field(max_length=limits.SSH_KEYS_MAX)] = ()
    password_hash: str = ""
    """crypt(5) text (`$6$…`, `$y$…`), never the password."""
    sudo: bool = True


class CloudInitSpec(Model):
    """What the NoCloud seed says. Raw documents win over the fields they cover."""

    hostname: Name
    users: tuple[CloudInitUser, ...] = ()
    user_data: str = ""
    """A whole user-data document of the user's own; merged as a second part after ours."""
    network_config: str = ""
    instance_id: str
    """Changes make cloud-init run its per-instance modules again."""
    dsmode: Annotated[Literal["net", "local"], written_unless("net")] = "net"
    """cloud-init's own word: `local` makes users and keys before the network is up. For images of ours; documents of
    the user's own may need the network and always wait for it."""
    new_machine_id: Annotated[bool, written_unless(False)] = False
    """The guest was copied from another one, whose machine id lies on its disk: it gets one of its own."""


class BootOrder(Model):
    """What happens to this VM when the host boots and shuts down."""

    autostart: bool = False
    priority: Annotated[int, Field(ge=0, le=limits.PRIORITY_MAX)] = limits.PRIORITY_DEFAULT
    """Lower starts earlier and is shut down later."""
    delay_s: Annotated[float, Field(ge=0, le=limits.BOOT_DELAY_MAX_S)] = 0.0
    """Wait after starting this VM before the next one."""
    shutdown_deadline_s: Annotated[float, Field(gt=0, le=limits.SHUTDOWN_DEADLINE_MAX_S)] = (
        limits.SHUTDOWN_DEADLINE_DEFAULT_S
    )


class VmSpec(Model):
    """Desired state. Services add what they allocate (uids, MAC, address); the agent changes `power` alone."""

    power: Power = Power.ON
    run_policy: RunPolicy = RunPolicy.ON_FAILURE
    boot: BootOrder = BootOrder()
    vcpus: Annotated[int, Field(ge=1, le=limits.VCPUS_MAX)] = limits.VCPUS_DEFAULT
    memory_mib: Annotated[int, Field(ge=limits.MEMORY_MIN_MIB, le=limits.MEMORY_MAX_MIB)] = limits.MEMORY_DEFAULT_MIB
    cpu_shares: Annotated[int | None, Field(ge=2, le=limits.CPU_SHARES_MAX)] = None
    """cgroup weight of the whole VM; None means CPU_SHARES_PER_VCPU for each vCPU."""
    firmware: Firmware = Firmware.BIOS
    image: ImageName | None = None
    image_uid: Uid | None = None
    disks: Annotated[tuple[DiskSpec, ...], Field(max_length=limits.DISKS_MAX)] = ()
    nics: Annotated[tuple[NicSpec, ...], Field(max_length=limits.NICS_MAX)] = ()
    cloud_init: CloudInitSpec | None = None
    graphics: Literal["vnc", "spice", "none"] = "vnc"
    graphics_listen: Annotated[str, StringConstraints(max_length=45), written_unless("")] = ""
    """An IP address that the graphical console is open on, for everyone who reaches it; empty: a Unix socket."""
    os: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9.-]{0,63}$|^$"), written_unless("")] = ""
    """libosinfo's short id of the guest's system: `debian12`, `win11`; empty: unknown."""
    hardware: Annotated[HardwareSpec, written_unless(PLAIN)] = PLAIN
    snapshot_policy: Annotated[SnapshotPolicy | None, written_unless(None)] = None
    """When snapshots are taken by themselves, and which are kept."""
    description: Annotated[str, StringConstraints(max_length=limits.DESCRIPTION_MAX_CHARS)] = ""
    protected: bool = False
    """Deletion is refused while this is set."""
    template_uid: Annotated[Uid | None, written_unless(None)] = None
    """What it was made from. Its disks and, of a hot one, its memory began as the template's."""
    snapshot_uid: Annotated[Uid | None, written_unless(None)] = None
    """The point in time that it came from last: where in the tree it is. Written by the agent."""
    adopted: bool = False
    """The domain's document is not ours (made by virsh, virt-install …): it is started and stopped, never redefined."""

    @property
    def weight(self) -> int:
        """The cgroup weight of the whole VM, as it is given to the hypervisor."""
        return self.cpu_shares or min(limits.CPU_SHARES_PER_VCPU * self.vcpus, limits.CPU_SHARES_MAX)


class CloudInitStatus(StrEnum):
    NONE = "none"  # the VM has no seed
    UNKNOWN = "unknown"
    RUNNING = "running"
    DONE = "done"
    DEGRADED = "degraded"
    ERROR = "error"


class VmStatus(Model):
    """What was seen, written by the agent alone."""

    state: VmState = VmState.PENDING
    last_state: VmState | None = None
    """What was seen last, while `state` is unknown."""
    state_reason: str = ""
    """libvirt's reason, as a word: `booted`, `destroyed`, `crashed`, `saved`, `unknown`."""
    observed_generation: int = 0
    conditions: tuple[Condition, ...] = ()
    accelerator: Literal["kvm", "tcg", ""] = ""
    started_at: datetime | None = None
    host_boot_id: str = ""
    """The boot id of the host at the last observation; a change tells a host reboot from a killed QEMU."""
    agent_connected: bool = False
    addresses: tuple[str, ...] = ()
    """IP addresses in use, the guest agent's word first, else the DHCP lease."""
    guest_os: str = ""
    cloud_init: CloudInitStatus = CloudInitStatus.UNKNOWN
    cloud_init_detail: str = ""
    has_saved_memory: bool = False
    clock_behind: Annotated[bool, written_unless(False)] = False
    """Its guest went on from a point in time, and has not been told what time it is."""
    pending_restart: Annotated[tuple[str, ...], written_unless(())] = ()
    """What of the spec the running guest does not have yet, each with the reason; its next start has it."""
    qemu_version: str = ""
    restarts: int = 0
    """Automatic restarts in a row by run_policy; sets the back-off."""
    last_error_code: str = ""
    last_error: str = ""

    @property
    def seen_state(self) -> VmState:
        """What was seen last: what is decided upon while the hypervisor is away."""
        return self.last_state or self.state


class Placement(Model):
    """Where the VM lives; written by the scheduler alone. The agent refuses an epoch older than the domain's."""

    host_uid: Uid
    epoch: int = 1


class Vm(Object):
    KIND: ClassVar[str] = "vm"
    PLURAL: ClassVar[str] = "vms"

    kind: Literal["vm"] = "vm"
    name: Name
    spec: VmSpec
    status: VmStatus = VmStatus()
    placement: Placement | None = None

    @property
    def domain_name(self) -> str:
        """libvirt's name for it: `web` in the default project, `PROJECT.web` elsewhere."""
        return domain_name(self.project, self.name)

    @property
    def image_uids(self) -> frozenset[str]:
        """The image that it was made from, and those in its drives."""
        media = (disk.image_uid for disk in self.spec.disks)
        return frozenset(uid for uid in (self.spec.image_uid, *media) if uid is not None)


def domain_name(project: str, name: str) -> str:
    """libvirt's name for the VM `name` of `project`."""
    return name if project == "default" else f"{project}.{name}"
