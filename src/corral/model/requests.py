"""What a caller may ask: one typed request a verb. The API's OpenAPI document is generated from these.

Bounds that decide on shape stand here; what needs the world (names taken, memory free, valid YAML) is said by services.
"""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, ConfigDict, Field, SecretStr, StringConstraints

from corral.model import limits
from corral.model.bandwidth import UNLIMITED, Bandwidth
from corral.model.base import ImageName, LabelKey, LabelValue, Mac, Model, Name
from corral.model.hardware import PLAIN, HardwareSpec
from corral.model.identity import Right, Role
from corral.model.image import ImageSource
from corral.model.network import Interface, NetworkName
from corral.model.snapshot_policy import SnapshotPolicy
from corral.model.vm import BootOrder, Bus, Firmware, RunPolicy

LABELS_DOC: Final = "key=value pairs that selectors find"

Labels = Annotated[dict[LabelKey, LabelValue], Field(max_length=limits.LABELS_MAX, description=LABELS_DOC)]
MediumFileName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Description = Annotated[str, StringConstraints(max_length=limits.DESCRIPTION_MAX_CHARS)]
CardGroups = Annotated[
    tuple[Name, ...], Field(max_length=limits.NIC_GROUPS_MAX), AfterValidator(lambda names: tuple(dict.fromkeys(names)))
]
DeadlineSeconds = Annotated[float, Field(gt=0, le=limits.SHUTDOWN_DEADLINE_MAX_S)]


def example(*examples: dict[str, Any]) -> ConfigDict:
    return ConfigDict(json_schema_extra={"examples": list(examples)})


# ---- virtual machines --------------------------------------------------------------------------------------------


class DiskRequest(Model):
    """One disk of a new VM. With an image, the first disk is the root disk: a copy-on-write overlay on the image."""

    model_config = example({"size_bytes": 21474836480}, {"path": "/srv/disks/data.raw", "format": "raw"})

    name: Name | None = None
    """Unique within the VM; `root`, then `disk1`, `disk2` … when it is not given."""
    size_bytes: Annotated[int, Field(ge=limits.DISK_MIN_BYTES, le=limits.DISK_MAX_BYTES)] | None = None
    """Virtual size. The root disk takes the image's own size when it is not given."""
    path: Annotated[str, StringConstraints(max_length=4096)] | None = None
    """A file or block device of the user's own, absolute; used as it is, never created or deleted. Administrators only."""
    format: Literal["qcow2", "raw"] = "qcow2"
    """The format of `path`; told, never probed."""
    volume: Annotated[str, StringConstraints(min_length=1, max_length=64)] | None = None
    """A volume that no VM has, or one that may be shared, by name or uid. It outlives this VM, unless `delete_with_vm`
    is said."""
    pool: Name | None = None
    """Where a new volume lies; `default` when it is not given."""
    create: bool = False
    """Make the file at `path`, of `size_bytes`, if nothing lies there. It is then the user's own: never deleted."""
    device: Literal["disk", "cdrom"] = "disk"
    image: ImageName | None = None
    """`cdrom` alone: the ISO image in the drive; None is an empty drive."""
    bus: Bus = Bus.VIRTIO
    """What the system has drivers for where it is known; SATA for CDs."""
    read_only: bool = False
    cache: Literal["writeback", "none", "writethrough", "directsync", "unsafe"] = "writeback"
    aio: Literal["", "threads", "native", "io_uring"] = ""
    discard: Literal["unmap", "ignore"] = "unmap"
    io_thread: Annotated[int, Field(ge=0, le=limits.IO_THREADS_MAX)] = 0
    iops_max: Annotated[int, Field(ge=0, le=limits.IO_LIMIT_MAX)] = 0
    bytes_per_s_max: Annotated[int, Field(ge=0, le=limits.IO_LIMIT_MAX)] = 0
    delete_with_vm: bool = True


class NicRequest(Model):
    """One network card of a new VM; MAC and address are allocated when they are not given."""

    model_config = example({"network": "default"}, {"network": "default", "address": "192.168.150.20"})

    network: NetworkName = "default"
    bridge: Interface | None = None
    """In place of `network`: a bridge of the host's. Where no network stands for it, one is made. Administrators of the
    server only."""
    mac: Mac | None = None
    address: Annotated[str, StringConstraints(max_length=45)] | None = None
    model: Literal["virtio", "e1000e", "rtl8139"] = "virtio"
    """What the system has drivers for where it is known."""
    link_up: bool = True
    queues: Annotated[int, Field(ge=1, le=limits.QUEUES_MAX)] = 1
    pxe: bool = False
    """The firmware may boot from it, after disks and media."""
    bandwidth_in: Bandwidth = UNLIMITED
    """Towards the guest."""
    bandwidth_out: Bandwidth = UNLIMITED
    groups: CardGroups = ()
    """Its security groups; `default` when none is given."""


class AttachDiskRequest(DiskRequest):
    """One more disk, or drive for CDs, of a VM that is there."""

    model_config = example(
        {"size_bytes": 21474836480}, {"device": "cdrom", "image": "virtio-win.iso"}, {"volume": "web-data-0b5e6f0a"}
    )

    force: bool = False
    """Allow a size larger than the free space (thin provisioning)."""


class ChangeDiskRequest(Model):
    """What is given changes. A running guest has it at once where that is possible, else at its next start."""

    model_config = example({"size_bytes": 42949672960}, {"image": "virtio-win.iso"}, {"iops_max": 500})

    size_bytes: Annotated[int, Field(ge=limits.DISK_MIN_BYTES, le=limits.DISK_MAX_BYTES)] | None = None
    """Volumes grow only; the guest sees it at once, its partitions and file systems grow by its own tools."""
    image: ImageName | Literal[""] | None = None
    """Drives alone: the ISO image that goes in; an empty text takes it out."""
    cache: Literal["writeback", "none", "writethrough", "directsync", "unsafe"] | None = None
    aio: Literal["", "threads", "native", "io_uring"] | None = None
    discard: Literal["unmap", "ignore"] | None = None
    io_thread: Annotated[int, Field(ge=0, le=limits.IO_THREADS_MAX)] | None = None
    iops_max: Annotated[int, Field(ge=0, le=limits.IO_LIMIT_MAX)] | None = None
    bytes_per_s_max: Annotated[int, Field(ge=0, le=limits.IO_LIMIT_MAX)] | None = None
    force: bool = False
    """Allow a size larger than the free space (thin provisioning)."""


class ChangeNicRequest(Model):
    """What is given changes, under the eyes of a running guest."""

    model_config = example({"link_up": False}, {"network": "web"})

    network: NetworkName | None = None
    """Another one gives it another address."""
    address: Annotated[str, StringConstraints(max_length=45)] | None = None
    model: Literal["virtio", "e1000e", "rtl8139"] | None = None
    link_up: bool | None = None
    queues: Annotated[int, Field(ge=1, le=limits.QUEUES_MAX)] | None = None
    pxe: bool | None = None
    bandwidth_in: Bandwidth | None = None
    """Towards the guest, as a whole; `{}`: no limit."""
    bandwidth_out: Bandwidth | None = None
    groups: CardGroups | None = None
    """All of its security groups; an empty list is `default`. A running guest meets them at once."""


class CreateVmRequest(Model):
    """A new VM. Without `nics` it gets one card on the network `default`; an empty list means none."""

    model_config = example(
        {
            "name": "web",
            "image": "debian-12",
            "vcpus": 2,
            "memory_mib": 1024,
            "ssh_keys": ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPqVv0VEhYxX5uQ1vfQ9o6mJ2c9e3yJxqkYw7F0tUuFZ ann@laptop"],
        },
        {"name": "db", "image": "debian-12", "memory_mib": 4096, "disks": [{"size_bytes": 21474836480}]},
        {
            "name": "desk",
            "os": "ubuntu22.04",
            "memory_mib": 4096,
            "disks": [{"size_bytes": 21474836480}, {"device": "cdrom", "image": "ubuntu-22.04.iso"}],
            "hardware": {"sound": "ich9"},
        },
    )

    name: str
    image: str | None = None
    vcpus: Annotated[int, Field(ge=1, le=limits.VCPUS_MAX)] = limits.VCPUS_DEFAULT
    memory_mib: Annotated[int, Field(ge=limits.MEMORY_MIN_MIB, le=limits.MEMORY_MAX_MIB)] = limits.MEMORY_DEFAULT_MIB
    cpu_shares: Annotated[int | None, Field(ge=2, le=limits.CPU_SHARES_MAX)] = None
    firmware: Firmware | None = None
    """BIOS where the image boots by it, else UEFI."""
    disks: Annotated[tuple[DiskRequest, ...], Field(max_length=limits.DISKS_MAX)] = ()
    nics: Annotated[tuple[NicRequest, ...] | None, Field(max_length=limits.NICS_MAX)] = None
    hostname: Name | None = None
    """The guest's host name; the VM's name when it is not given."""
    user: Annotated[str, StringConstraints(max_length=64)] = ""
    """The user that keys and password belong to; the image's default user when it is not given."""
    ssh_keys: Annotated[tuple[str, ...], Field(max_length=limits.SSH_KEYS_MAX)] = ()
    """Public keys, one line each, as in `authorized_keys`."""
    password: SecretStr | None = None
    """Hashed by the daemon at once; the text itself is kept nowhere."""
    user_data: str = ""
    """A cloud-init user-data document (`#cloud-config` …), merged after ours."""
    network_config: str = ""
    """A cloud-init network-config document (version 1 or 2)."""
    labels: Labels = Field(default_factory=dict)
    description: Description = ""
    protected: bool = False
    run_policy: RunPolicy = RunPolicy.ON_FAILURE
    boot: BootOrder = BootOrder()
    graphics: Literal["vnc", "spice", "none"] = "vnc"
    graphics_listen: Annotated[str, StringConstraints(max_length=45)] = ""
    """An IP address to open the graphical console on, for everyone who reaches it; empty: a Unix socket."""
    os: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9.-]{0,63}$|^$")] = ""
    """The guest's system (`GET /os`): what this request leaves open is chosen for it. Empty: the image's own."""
    hardware: HardwareSpec = PLAIN
    """Only what it names is decided; the rest is chosen for the system."""
    start: bool = True
    force: bool = False
    """Allow disks whose virtual size is larger than the free space (thin provisioning)."""
    dry_run: bool = False
    """Check everything, make nothing, and answer what would be made."""


class UpdateVmRequest(Model):
    """What is given changes, what is not given stays. A new name needs the VM to be off."""

    model_config = example({"description": "the shop's front end", "labels": {"tier": "web"}}, {"protected": True})

    name: str | None = None
    labels: Labels | None = None
    """All labels: those that are not named are removed."""
    add_labels: Labels = Field(default_factory=dict)
    remove_labels: tuple[LabelKey, ...] = ()
    description: Description | None = None
    protected: bool | None = None
    run_policy: RunPolicy | None = None
    boot: BootOrder | None = None
    snapshot_policy: SnapshotPolicy | None = None
    """One that keeps nothing ends it; what it took and still keeps stays, as the user's own."""
    vcpus: Annotated[int, Field(ge=1, le=limits.VCPUS_MAX)] | None = None
    """More than it was started with needs a restart, unless `hardware.cpu.vcpus_max` left room."""
    memory_mib: Annotated[int, Field(ge=limits.MEMORY_MIN_MIB, le=limits.MEMORY_MAX_MIB)] | None = None
    """Less takes memory out of a running guest by its balloon; more needs a restart, unless `hardware.memory.max_mib`
    left room."""
    cpu_shares: Annotated[int, Field(ge=2, le=limits.CPU_SHARES_MAX)] | None = None
    firmware: Firmware | None = None
    graphics: Literal["vnc", "spice", "none"] | None = None
    graphics_listen: Annotated[str, StringConstraints(max_length=45)] | None = None
    hardware: dict[str, Any] | None = None
    """A part of the VM's `hardware`, merged into it (RFC 7396): `{"cpu": {"quota_percent": 50}}`; null goes back to the
    default."""
    reset_drift: bool = False
    """Undo what other tools changed of the domain's definition (the condition `Drifted`); a running guest sees it at
    its next start."""
    accept_drift: bool = False
    """Make what other tools changed of the domain's definition the VM's spec, all of it or, where something cannot be
    taken over, nothing. Comes alone."""


class ShutdownRequest(Model):
    """Ask the guest to power off. It is never forced unless `force_after_s` says so."""

    model_config = example({"deadline_s": 120}, {"force_after_s": 60})

    deadline_s: DeadlineSeconds = limits.SHUTDOWN_DEADLINE_DEFAULT_S
    force_after_s: DeadlineSeconds | None = None


class StartRequest(Model):
    model_config = example({"boot_from": "cd0"})

    boot_from: Name | None = None
    """A disk, drive or card that is tried before all others, this one time."""


class RebootRequest(Model):
    model_config = example({"deadline_s": 120})

    deadline_s: DeadlineSeconds = limits.SHUTDOWN_DEADLINE_DEFAULT_S


class ExecRequest(Model):
    """Run a command in the guest through its agent; no shell is put between."""

    model_config = example({"argv": ["uname", "-a"]}, {"argv": ["sh", "-c", "cat >/tmp/x"], "stdin": "aGVsbG8K"})

    argv: Annotated[tuple[str, ...], Field(min_length=1, max_length=limits.EXEC_ARGS_MAX)]
    stdin: str = ""
    """base64."""
    timeout_s: Annotated[float, Field(gt=0, le=limits.EXEC_TIMEOUT_MAX_S)] = limits.EXEC_TIMEOUT_DEFAULT_S


class WaitCondition(StrEnum):
    """What `wait` can wait for."""

    RUNNING = "running"
    AGENT = "agent"  # the guest agent answers
    IP = "ip"  # an address is known
    SSH = "ssh"  # an SSH server sends its banner
    SHUTOFF = "shutoff"
    CLOUD_INIT = "cloud-init"  # cloud-init has ended, well or badly


# ---- images --------------------------------------------------------------------------------------------------------


class BuildImageRequest(Model):
    """Make an image from a catalogue entry, or from a file of the user's (`path`)."""

    model_config = example({"catalogue": "debian-12"}, {"name": "mine", "path": "/srv/images/mine.qcow2"})

    name: str = ""
    """The catalogue entry's name when it is not given."""
    catalogue: str = ""
    source: ImageSource | None = None
    """`build` where the catalogue has a recipe, else `download`; `import` when a path is given."""
    path: Annotated[str, StringConstraints(max_length=4096)] = ""
    """A file to import; read once and copied. Administrators only."""
    upload: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{0,32}$")] = ""
    """Instead of a path: the token that the end of `/images/upload` told."""
    format: Literal["qcow2", "raw", "iso"] = "qcow2"
    """The format of `path`; told, never probed. `iso` is the image of a CD or DVD."""
    location: Annotated[str, StringConstraints(max_length=4096)] = ""
    """An installer's tree: a directory, an ISO file or an https URL. Its kernel and initrd become a medium that boots
    without a question. Administrators only."""
    kernel: Annotated[str, StringConstraints(max_length=512)] = ""
    initrd: Annotated[str, StringConstraints(max_length=512)] = ""
    """Both below `location`; empty: where distributions put them."""
    cmdline: Annotated[str, StringConstraints(max_length=limits.CMDLINE_MAX_CHARS)] = ""
    """Kernel arguments, with `location`."""
    files: Annotated[dict[MediumFileName, str], Field(max_length=limits.MEDIUM_FILES_MAX)] = Field(default_factory=dict)
    """Answers for an installer, by name: put into the initrd of `location`, or, with `volume_id`, a medium of their
    own. Never shown again."""
    volume_id: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_ -]{0,16}$")] = ""
    """The label of a medium that holds `files`: `cidata`, `OEMDRV`."""
    labels: Labels = Field(default_factory=dict)


class CloneVmRequest(Model):
    """New VMs from what one is now, or was."""

    model_config = example({"names": ["web-2"]}, {"names": ["a", "b"], "from_snapshot": "clean", "start": True})

    names: Annotated[tuple[str, ...], Field(min_length=1, max_length=limits.CLONES_MAX)]
    """A VM each, all of one instant."""
    from_snapshot: str | None = None
    """The point in time to clone; None: now."""
    full: bool = False
    """Disks that stand alone. Otherwise they lie on what the original's were, in constant time."""
    keep_identity: bool = False
    """The guests keep host name, machine id and SSH host keys. MAC, address and UUID are new in any case."""
    start: bool = False
    force: bool = False
    """Allow disks whose virtual size is larger than the free space (thin provisioning)."""


# ---- tokens --------------------------------------------------------------------------------------------------------


class CreateTokenRequest(Model):
    """An API token for `project`; its secret is shown once, in the answer."""

    model_config = example({"name": "ci", "role": "operator"})

    name: str
    role: Role = Role.VIEWER
    rights: tuple[Right, ...] = ()
    """What it may do beyond its role: `template.fork`."""
    expires_at: datetime | None = None


# ---- reading -------------------------------------------------------------------------------------------------------


class ListRequest(Model):
    """Part of a list. `after` is the `continue` of the page before."""

    selector: Annotated[str, StringConstraints(max_length=1024)] = ""
    """`env=prod,tier!=db,backup,!old`."""
    fields: Annotated[str, StringConstraints(max_length=1024)] = ""
    """`name,status.state`."""
    limit: Annotated[int, Field(ge=1, le=limits.PAGE_MAX)] = limits.PAGE_DEFAULT
    after: Annotated[str, StringConstraints(max_length=64)] = ""
    revision: Annotated[int, Field(ge=0)] | None = None
    """Read this revision, so that all pages show one state."""
