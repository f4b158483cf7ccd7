"""What a caller may ask: one typed request a verb. The API's OpenAPI document is generated from these.

Bounds that decide on shape stand here; what needs the world (names taken, memory free, valid YAML) is said by services.
"""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Final, Literal

from pydantic import ConfigDict, Field, SecretStr, StringConstraints

from corral.model import limits
from corral.model.base import LabelKey, LabelValue, Mac, Model, Name
from corral.model.identity import Role
from corral.model.image import ImageSource
from corral.model.vm import BootOrder, Bus, Firmware, RunPolicy

LABELS_DOC: Final = "key=value pairs that selectors find"

Labels = Annotated[dict[LabelKey, LabelValue], Field(max_length=limits.LABELS_MAX, description=LABELS_DOC)]
Description = Annotated[str, StringConstraints(max_length=limits.DESCRIPTION_MAX_CHARS)]
DeadlineSeconds = Annotated[float, Field(gt=0, le=limits.SHUTDOWN_DEADLINE_MAX_S)]


def _example(*examples: dict[str, Any]) -> ConfigDict:
    return ConfigDict(json_schema_extra={"examples": list(examples)})


# ---- virtual machines --------------------------------------------------------------------------------------------


class DiskRequest(Model):
    """One disk of a new VM. With an image, the first disk is the root disk: a copy-on-write overlay on the image."""

    model_config = _example({"size_bytes": 21474836480}, {"path": "/srv/disks/data.raw", "format": "raw"})

    name: Name | None = None
    """Unique within the VM; `root`, then `disk1`, `disk2` … when it is not given."""
    size_bytes: Annotated[int, Field(ge=limits.DISK_MIN_BYTES, le=limits.DISK_MAX_BYTES)] | None = None
    """Virtual size. The root disk takes the image's own size when it is not given."""
    path: Annotated[str, StringConstraints(max_length=4096)] | None = None
    """A file or block device of the user's own, absolute; used as it is, never created or deleted. Administrators only."""
    format: Literal["qcow2", "raw"] = "qcow2"
    """The format of `path`; told, never probed."""
    bus: Bus = Bus.VIRTIO
    read_only: bool = False
    delete_with_vm: bool = True


class NicRequest(Model):
    """One network card of a new VM; MAC and address are allocated when they are not given."""

    model_config = _example({"network": "default"}, {"network": "default", "address": "192.168.150.20"})

    network: Name = "default"
    mac: Mac | None = None
    address: Annotated[str, StringConstraints(max_length=45)] | None = None
    model: Literal["virtio", "e1000e", "rtl8139"] = "virtio"


class CreateVmRequest(Model):
    """A new VM. Without `nics` it gets one card on the network `default`; an empty list means none."""

    model_config = _example(
        {
            "name": "web",
            "image": "debian-12",
            "vcpus": 2,
            "memory_mib": 1024,
            "ssh_keys": ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPqVv0VEhYxX5uQ1vfQ9o6mJ2c9e3yJxqkYw7F0tUuFZ ann@laptop"],
        },
        {"name": "db", "image": "debian-12", "memory_mib": 4096, "disks": [{"size_bytes": 21474836480}]},
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
    graphics: Literal["vnc", "none"] = "vnc"
    start: bool = True
    force: bool = False
    """Allow disks whose virtual size is larger than the free space (thin provisioning)."""


class UpdateVmRequest(Model):
    """What is given changes, what is not given stays. A new name needs the VM to be off."""

    model_config = _example({"description": "the shop's front end", "labels": {"tier": "web"}}, {"protected": True})

    name: str | None = None
    labels: Labels | None = None
    """All labels: those that are not named are removed."""
    add_labels: Labels = Field(default_factory=dict)
    remove_labels: tuple[LabelKey, ...] = ()
    description: Description | None = None
    protected: bool | None = None
    run_policy: RunPolicy | None = None
    boot: BootOrder | None = None
    reset_drift: bool = False
    """Undo what other tools changed of the domain's definition (the condition `Drifted`); a running guest sees it at
    its next start."""
    accept_drift: bool = False
    """Make what other tools changed of the domain's definition the VM's spec, all of it or, where something cannot be
    taken over, nothing. Comes alone."""


class ShutdownRequest(Model):
    """Ask the guest to power off. It is never forced unless `force_after_s` says so."""

    model_config = _example({"deadline_s": 120}, {"force_after_s": 60})

    deadline_s: DeadlineSeconds = limits.SHUTDOWN_DEADLINE_DEFAULT_S
    force_after_s: DeadlineSeconds | None = None


class RebootRequest(Model):
    model_config = _example({"deadline_s": 120})

    deadline_s: DeadlineSeconds = limits.SHUTDOWN_DEADLINE_DEFAULT_S


class ExecRequest(Model):
    """Run a command in the guest through its agent; no shell is put between."""

    model_config = _example({"argv": ["uname", "-a"]}, {"argv": ["sh", "-c", "cat >/tmp/x"], "stdin": "aGVsbG8K"})

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

    model_config = _example({"catalogue": "debian-12"}, {"name": "mine", "path": "/srv/images/mine.qcow2"})

    name: str = ""
    """The catalogue entry's name when it is not given."""
    catalogue: str = ""
    source: ImageSource | None = None
    """`build` where the catalogue has a recipe, else `download`; `import` when a path is given."""
    path: Annotated[str, StringConstraints(max_length=4096)] = ""
    """A file to import; read once and copied. Administrators only."""
    labels: Labels = Field(default_factory=dict)


# ---- tokens --------------------------------------------------------------------------------------------------------


class CreateTokenRequest(Model):
    """An API token for `project`; its secret is shown once, in the answer."""

    model_config = _example({"name": "ci", "role": "operator"})

    name: str
    role: Role = Role.VIEWER
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
