"""A stack: many VMs declared in one document. Its fields are those of a new VM, in the words and sizes of the command line.

What is declared is the whole truth of a VM: a field that is left out has its default.
"""

from collections.abc import Callable
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import BeforeValidator, Field, StringConstraints

from corral.errors import CorralError
from corral.model import limits
from corral.model.bandwidth import UNLIMITED, Bandwidth
from corral.model.base import ImageName, LabelKey, LabelValue, Mac, Name
from corral.model.firewall_requests import Rules
from corral.model.hardware import HardwareSpec
from corral.model.network_parts import NetworkName
from corral.model.requests import CardGroups, Description, WaitCondition
from corral.model.stack_wires import (
    ForwardedPort,
    ForwardTarget,
    StackAddress,
    StackBalancer,
    StackModel,
    StackNetwork,
    StackNetworkPolicy,
    StackRouter,
)
from corral.model.vm import Bus, Firmware, RunPolicy
from corral.names import MIB, parse_duration_s, parse_rate_bytes_per_s, parse_size_bytes

STACK_LABEL: Final = "corral/stack"
"""Whatever belongs to a stack carries it, with the stack's name."""
OWN_LABELS: Final = "corral/"

_T = TypeVar("_T")


def _plainly(read: Callable[[str], _T]) -> Callable[[object], object]:
    """A reader of text as a validator: other values are left to the field's own type."""

    def validate(value: object) -> object:
        if isinstance(value, bool):
            raise ValueError("it is no number")  # pydantic's word for a refusal
        if not isinstance(value, str):
            return value
        try:
            return read(value)
        except CorralError as error:
            raise ValueError(f"{error.reason}; {error.hint}") from error

    return validate


def _mebibytes(text: str) -> int:
    size = parse_size_bytes(text, "m")
    if size % MIB:
        raise ValueError("it is no whole number of MiB")
    return size // MIB


def _disk_bytes(value: object) -> object:
    """A disk's size in bytes: bare numbers are GiB."""
    bare = isinstance(value, int | float) and not isinstance(value, bool)
    return _plainly(lambda text: parse_size_bytes(text, "g"))(str(value) if bare else value)


def _disk(value: object) -> object:
    """`20` and `20G` are a disk of that size."""
    return {"size": value} if isinstance(value, int | float | str) and not isinstance(value, bool) else value


def _nic(value: object) -> object:
    """`default` is a card on that network."""
    return {"network": value} if isinstance(value, str) else value


def _bandwidth(value: object) -> object:
    """`100mbit` is a limit alone."""
    if not isinstance(value, str):
        return value
    return {"average_bytes_per_s": _plainly(parse_rate_bytes_per_s)(value)}


StackBandwidth = Annotated[Bandwidth, BeforeValidator(_bandwidth, json_schema_input_type=str | Bandwidth)]


def _group(value: object) -> object:
    """`["in tcp/443", "out any"]` is a group of these rules."""
    return {"rules": value} if isinstance(value, list) else value


MemoryMib = Annotated[
    int,
    Field(ge=limits.MEMORY_MIN_MIB, le=limits.MEMORY_MAX_MIB),
    BeforeValidator(_plainly(_mebibytes), json_schema_input_type=int | str),
]
DiskBytes = Annotated[
    int,
    Field(ge=limits.DISK_MIN_BYTES, le=limits.DISK_MAX_BYTES),
    BeforeValidator(_disk_bytes, json_schema_input_type=float | str),
]
RateBytes = Annotated[
    int,
    Field(ge=0, le=limits.IO_LIMIT_MAX),
    BeforeValidator(_plainly(lambda text: parse_size_bytes(text, "b")), json_schema_input_type=int | str),
]
Seconds = Annotated[float, BeforeValidator(_plainly(parse_duration_s), json_schema_input_type=float | str)]
Count = Annotated[
    int,
    Field(ge=1, le=limits.STACK_VMS_MAX),
    BeforeValidator(_plainly(int), json_schema_input_type=int),  # a text, where --set gave it
]
VariableName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,62}$")]
VariableValue = Annotated[str, StringConstraints(max_length=limits.STACK_VARIABLE_MAX_CHARS)] | bool | int | float


class StackDisk(StackModel):
    """A disk, or a drive for CDs. With an image, the first disk is the root disk."""

    name: Name | None = None
    """`root`, then `disk1`, `disk2` … when it is not given."""
    size: DiskBytes | None = None
    """`20` and `20G` are 20 GiB. The root disk takes the image's own size when it is not given."""
    path: Annotated[str, StringConstraints(max_length=4096)] | None = None
    volume: Name | None = None
    """A volume that stands alone, of `volumes` or there already; it outlives the VM."""
    pool: Name | None = None
    """Where a new disk lies."""
    format: Literal["qcow2", "raw"] = "qcow2"
    create: bool = False
    device: Literal["disk", "cdrom"] = "disk"
    image: ImageName | None = None
    """`cdrom` alone: the ISO image in the drive."""
    bus: Bus = Bus.VIRTIO
    read_only: bool = False
    cache: Literal["writeback", "none", "writethrough", "directsync", "unsafe"] = "writeback"
    aio: Literal["", "threads", "native", "io_uring"] = ""
    discard: Literal["unmap", "ignore"] = "unmap"
    io_thread: Annotated[int, Field(ge=0, le=limits.IO_THREADS_MAX)] = 0
    iops: Annotated[int, Field(ge=0, le=limits.IO_LIMIT_MAX)] = 0
    """At most so many requests a second; 0: no limit."""
    bandwidth: RateBytes = 0
    """At most so many bytes a second, as in `100M`; 0: no limit."""
    keep: bool = False
    """The disk stays when its VM is deleted."""


class StackVolume(StackModel):
    """A disk that stands alone: it is made with the stack and stays when the stack goes."""

    size: DiskBytes | None = None
    """`20` and `20G` are 20 GiB. One from an image takes the image's own size when it is not given."""
    image: ImageName | None = None
    """Its first content."""
    format: Literal["qcow2", "raw"] = "qcow2"
    pool: Name | None = None
    read_only: bool = False
    shared: bool = False
    """Several VMs may have it at once: a raw volume, or one that is read-only."""


class StackNic(StackModel):
    """A network card; MAC and address are allocated when they are not given."""

    network: NetworkName = "default"
    mac: Mac | None = None
    address: Annotated[str, StringConstraints(max_length=45)] | None = None
    model: Literal["virtio", "e1000e", "rtl8139"] = "virtio"
    link_up: bool = True
    queues: Annotated[int, Field(ge=1, le=limits.QUEUES_MAX)] = 1
    pxe: bool = False
    bandwidth_in: StackBandwidth = UNLIMITED
    """`100mbit`, or a mapping: `{average_bytes_per_s: 12500000, floor_bytes_per_s: 1000000}`."""
    bandwidth_out: StackBandwidth = UNLIMITED
    groups: CardGroups = ()
    """Its security groups; `default` when none is given."""


class StackSecurityGroup(StackModel):
    """Who may reach the cards that carry it, and whom they may reach; `corral down` removes it."""

    rules: Rules = ()
    """`in|out PROTOCOL[/PORTS] [from|to PEER]`."""
    description: Description = ""


Disk = Annotated[StackDisk, BeforeValidator(_disk, json_schema_input_type=float | str | StackDisk)]
Volume = Annotated[StackVolume, BeforeValidator(_disk, json_schema_input_type=float | str | StackVolume)]
SecurityGroup = Annotated[
    StackSecurityGroup, BeforeValidator(_group, json_schema_input_type=list[str] | StackSecurityGroup)
]
Nic = Annotated[StackNic, BeforeValidator(_nic, json_schema_input_type=Name | StackNic)]


class StackDefaults(StackModel):
    """What every VM of the stack has, unless it says something else."""

    image: ImageName | None = None
    os: Annotated[str, StringConstraints(max_length=64)] = ""
    memory: MemoryMib = limits.MEMORY_DEFAULT_MIB
    """`1G`, `512M`; bare numbers are MiB."""
    vcpus: Annotated[int, Field(ge=1, le=limits.VCPUS_MAX)] = limits.VCPUS_DEFAULT
    cpu_shares: Annotated[int | None, Field(ge=2, le=limits.CPU_SHARES_MAX)] = None
    firmware: Firmware | None = None
    disks: Annotated[tuple[Disk, ...], Field(max_length=limits.DISKS_MAX)] = ()
    nics: Annotated[tuple[Nic, ...] | None, Field(max_length=limits.NICS_MAX)] = None
    """One card on `default` when it is not given; an empty list means none."""
    hostname: Name | None = None
    user: Annotated[str, StringConstraints(max_length=64)] = ""
    ssh_keys: Annotated[tuple[str, ...], Field(max_length=limits.SSH_KEYS_MAX)] = ()
    """Public keys, or files of them (`~/.ssh/id_ed25519.pub`), which the command line reads. When it is not given: the
    keys of whoever applies the stack first."""
    user_data: str = ""
    user_data_file: Annotated[str, StringConstraints(max_length=4096)] = ""
    """Read by the command line, from beside this document; variables are not replaced in it."""
    network_config: str = ""
    network_config_file: Annotated[str, StringConstraints(max_length=4096)] = ""
    labels: Annotated[dict[LabelKey, LabelValue], Field(max_length=limits.LABELS_MAX)] = Field(default_factory=dict)
    description: Description = ""
    protected: bool = False
    run_policy: RunPolicy = RunPolicy.ON_FAILURE
    autostart: bool = False
    priority: Annotated[int, Field(ge=0, le=limits.PRIORITY_MAX)] = limits.PRIORITY_DEFAULT
    delay: Annotated[Seconds, Field(ge=0, le=limits.BOOT_DELAY_MAX_S)] = 0.0
    shutdown_deadline: Annotated[Seconds, Field(gt=0, le=limits.SHUTDOWN_DEADLINE_MAX_S)] = (
        limits.SHUTDOWN_DEADLINE_DEFAULT_S
    )
    graphics: Literal["vnc", "spice", "none"] = "vnc"
    graphics_listen: Annotated[str, StringConstraints(max_length=45)] = ""
    hardware: HardwareSpec = HardwareSpec()
    start: bool = True
    """It is started when it is off; false: it is made, and left as it is."""
    thin: bool = False
    """Allow disks larger than the free space."""


class StackVm(StackDefaults):
    """One VM; with `count`, as many, called NAME-1, NAME-2 …"""

    count: Count | None = None
    after: dict[Name, WaitCondition] = Field(default_factory=dict)
    """It is made and started when these others have got so far: `{db: agent}`."""


class StackDocument(StackModel):
    """A stack for `corral apply`. `${variable}` is replaced in every text but the names of things; `$${` is `${`."""

    stack: Name
    """Its name. Everything in it carries the label `corral/stack` with this value."""
    variables: Annotated[dict[VariableName, VariableValue], Field(max_length=limits.STACK_VARIABLES_MAX)] = Field(
        default_factory=dict
    )
    """`corral apply --set NAME=VALUE` goes over them. `${index}` and `${vm}` are there in every VM."""
    defaults: StackDefaults = StackDefaults()
    images: Annotated[tuple[ImageName, ...], Field(max_length=limits.STACK_IMAGES_MAX)] = ()
    """Names of the catalogue; those that this host does not have are built first."""
    networks: Annotated[tuple[Name | StackNetwork, ...], Field(max_length=limits.STACK_NETWORKS_MAX)] = ()
    """Networks that have to be there, by name; what has more than a name is made."""
    security_groups: Annotated[dict[Name, SecurityGroup], Field(max_length=limits.STACK_GROUPS_MAX)] = Field(
        default_factory=dict
    )
    """Groups of rules, for the cards that name them: `web: ["in tcp/443", "out any"]`."""
    routers: Annotated[dict[Name, StackRouter], Field(max_length=limits.STACK_ROUTERS_MAX)] = Field(
        default_factory=dict
    )
    """Between networks, and out: `edge: {connect: [web, db]}`."""
    forwards: Annotated[dict[ForwardedPort, ForwardTarget], Field(max_length=limits.STACK_FORWARDS_MAX)] = Field(
        default_factory=dict
    )
    """Ports of the host's that lead to its VMs, or to its balancers: `"8080": web:80`, `5353/udp: dns:53`,
    `"80": {balancer: front}`."""
    network_policies: Annotated[dict[Name, StackNetworkPolicy], Field(max_length=limits.STACK_POLICIES_MAX)] = Field(
        default_factory=dict
    )
    """What keeps tiers apart: `tiers: {tiers: ["network:web", "network:db"], unless: ["network:web to network:db tcp/5432"]}`."""
    balancers: Annotated[dict[Name, StackBalancer], Field(max_length=limits.STACK_BALANCERS_MAX)] = Field(
        default_factory=dict
    )
    """Before VMs, on a router: `front: {router: edge, listen: 80, to: [web]}`."""
    addresses: Annotated[dict[Name, StackAddress], Field(max_length=limits.STACK_ADDRESSES_MAX)] = Field(
        default_factory=dict
    )
    """Addresses that move between VMs: `shop: {router: edge, vm: web}`."""
    volumes: Annotated[dict[Name, Volume], Field(max_length=limits.STACK_VOLUMES_MAX)] = Field(default_factory=dict)
    """Disks that stand alone, for the VMs that name them: `disks: [20, {volume: data}]`."""
    vms: Annotated[dict[Name, StackVm], Field(max_length=limits.STACK_VMS_MAX)] = Field(default_factory=dict)


# ---- the schema for editors ----------------------------------------------------------------------------------------

_VARIABLE: Final = {"type": "string", "pattern": r"\$\{[a-z][a-z0-9_]*\}"}


def stack_schema() -> dict[str, Any]:
    """The document's JSON Schema: wherever a number, a truth or a word is wanted, a variable may stand."""
    schema = _with_variables(StackDocument.model_json_schema())
    # A VM of which nothing is said (`web:`) has the defaults.
    vms = schema["properties"]["vms"]
    for name, inner in vms.pop("patternProperties", {}).items():
        vms["patternProperties"] = {name: {"anyOf": [inner, {"type": "null"}]}}
        vms["additionalProperties"] = False
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "Corral stack"}


def _with_variables(node: Any, inside: str = "") -> Any:
    if isinstance(node, list):
        return [_with_variables(item) for item in node]
    if not isinstance(node, dict):
        return node
    if inside in ("variables", "propertyNames"):
        return node
    # A default that is a whole object tells nobody anything.
    said = {key: value for key, value in node.items() if key != "default" or not isinstance(value, dict)}
    found = {key: _with_variables(value, key) if key != "default" else value for key, value in said.items()}
    constrained = found.get("type") in ("integer", "number", "boolean") or "enum" in found or "const" in found
    if constrained or (found.get("type") == "string" and "pattern" in found):
        words = {key: found.pop(key) for key in ("title", "description", "default") if key in found}
        return {"anyOf": [found, _VARIABLE], **words}
    return found
