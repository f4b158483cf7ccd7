"""The API's documents, as types. Generated from the OpenAPI document by scripts/generate_client_types.py; do not edit.

Long because it has one class a document.
"""

# fmt: off
from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict

Bus = Literal['virtio', 'scsi', 'sata']


CloudInitStatus = Literal['none', 'unknown', 'running', 'done', 'degraded', 'error']


ConditionStatus = Literal['true', 'false', 'unknown']


EventLevel = Literal['info', 'warning', 'error']


Firmware = Literal['bios', 'uefi']


ImageSource = Literal['build', 'download', 'import', 'installer']


ImageState = Literal['pending', 'preparing', 'ready', 'failed']


Level = Literal['ok', 'info', 'warning', 'error']


OperationState = Literal['accepted', 'running', 'succeeded', 'failed', 'cancelled', 'superseded', 'interrupted']


OsFamily = Literal['linux', 'windows', 'bsd', 'other']


PlainAction = Literal['destroy', 'save', 'pause', 'resume', 'reset']


PoolLevel = Literal['ok', 'warning', 'critical']


Power = Literal['on', 'off', 'paused']


Right = Literal['template.fork', 'vm.capture']


Role = Literal['viewer', 'operator', 'admin']


RunPolicy = Literal['always', 'on-failure', 'manual']


StackVerb = Literal['build', 'follow', 'create', 'update', 'attach-disk', 'change-disk', 'detach-disk', 'attach-nic', 'change-nic', 'detach-nic', 'start', 'shutdown', 'delete']


StepKind = Literal['repeatable', 'once']


Unattended = Literal['', 'preseed', 'kickstart', 'autoinstall', 'answer-file']


VmState = Literal['pending', 'running', 'paused', 'in shutdown', 'shut off', 'crashed', 'pmsuspended', 'unknown']


WaitCondition = Literal['running', 'agent', 'ip', 'ssh', 'shutoff', 'cloud-init']


WatchdogAction = Literal['reset', 'poweroff', 'pause', 'none']


class AcceleratorFinding(TypedDict):
    name: Literal['kvm', 'tcg']
    usable: bool
    instructions_per_s: NotRequired[float]
    reason: str


class AddressSpec(TypedDict):
    address: str
    router: NotRequired[str | None]
    router_uid: NotRequired[str | None]
    vm: NotRequired[str | None]
    vm_uid: NotRequired[str | None]


class AdoptVm(TypedDict):
    verb: NotRequired[Literal['adopt']]


class AssignAddressRequest(TypedDict):
    vm: str | None


class AttachDiskRequest(TypedDict):
    name: NotRequired[str | None]
    size_bytes: NotRequired[int | None]
    path: NotRequired[str | None]
    format: NotRequired[Literal['qcow2', 'raw']]
    volume: NotRequired[str | None]
    pool: NotRequired[str | None]
    create: NotRequired[bool]
    device: NotRequired[Literal['disk', 'cdrom']]
    image: NotRequired[str | None]
    bus: NotRequired[Bus]
    read_only: NotRequired[bool]
    cache: NotRequired[Literal['writeback', 'none', 'writethrough', 'directsync', 'unsafe']]
    aio: NotRequired[Literal['', 'threads', 'native', 'io_uring']]
    discard: NotRequired[Literal['unmap', 'ignore']]
    io_thread: NotRequired[int]
    iops_max: NotRequired[int]
    bytes_per_s_max: NotRequired[int]
    delete_with_vm: NotRequired[bool]
    force: NotRequired[bool]


class AuditEntry(TypedDict):
    time: str
    writer: str
    sequence: int
    identity: str
    project: str
    action: str
    target: str
    outcome: str
    request_id: str
    detail: NotRequired[str]
    previous_hash: str
    hash: str
    entry: int


class AuditVerification(TypedDict):
    valid: bool
    records: int
    first_sequence: int
    last_sequence: int
    anchors: int
    broken_at: NotRequired[int | None]
    reason: NotRequired[str]
    rewinds: NotRequired[list[str]]


class Balancer(TypedDict):
    kind: NotRequired[Literal['balancer']]
    project: NotRequired[str]
    name: str
    uid: str
    revision: NotRequired[int]
    generation: NotRequired[int]
    labels: NotRequired[dict[str, str]]
    annotations: NotRequired[dict[str, str]]
    created_at: str
    deletion_requested_at: NotRequired[str | None]
    spec: BalancerSpec
    status: NotRequired[BalancerStatus]


class BalancerCheck(TypedDict):
    kind: NotRequired[Literal['tcp', 'http']]
    path: NotRequired[str]
    interval_s: NotRequired[int]


class BalancerSpec(TypedDict):
    router: str
    router_uid: str
    listen: int
    port: int
    mode: NotRequired[Literal['tcp', 'http']]
    algorithm: NotRequired[Literal['roundrobin', 'leastconn', 'source']]
    targets: list[BalancerTarget]
    check: NotRequired[BalancerCheck]


class BalancerStatus(TypedDict):
    active: NotRequired[bool]
    conditions: NotRequired[list[Condition]]


class BalancerTarget(TypedDict):
    vm: str
    vm_uid: str


class Bandwidth(TypedDict):
    average_bytes_per_s: NotRequired[int]
    peak_bytes_per_s: NotRequired[int]
    burst_bytes: NotRequired[int]
    floor_bytes_per_s: NotRequired[int]


class BootOrder(TypedDict):
    autostart: NotRequired[bool]
    priority: NotRequired[int]
    delay_s: NotRequired[float]
    shutdown_deadline_s: NotRequired[float]


class BridgePlan(TypedDict):
    manager: str
    nic: str
    bridge: str
    addresses: list[str]
    carries_default_route: bool
    files: list[FileEdit]
    commands: list[str]
    undo: list[str]
    notes: NotRequired[list[str]]


class BridgeRequest(TypedDict):
    nic: str
    bridge: NotRequired[str]
    confirm_within_s: NotRequired[float]


class BuildImage(TypedDict):
    verb: NotRequired[Literal['image-build']]


class BuildImageRequest(TypedDict):
    name: NotRequired[str]
    catalogue: NotRequired[str]
    source: NotRequired[ImageSource | None]
    path: NotRequired[str]
    upload: NotRequired[str]
    format: NotRequired[Literal['qcow2', 'raw', 'iso']]
    location: NotRequired[str]
    kernel: NotRequired[str]
    initrd: NotRequired[str]
    cmdline: NotRequired[str]
    files: NotRequired[dict[str, str]]
    volume_id: NotRequired[str]
    labels: NotRequired[dict[str, str]]


class CaptureRequest(TypedDict):
    filter: NotRequired[str]
    bytes_max: NotRequired[int]
    packets_max: NotRequired[int]
    duration_s: NotRequired[float]
    snap_bytes: NotRequired[int]


class CatalogueEntry(TypedDict):
    name: str
    os_id: str
    title: str
    build: str
    release: str
    url: str
    checksum_url: str
    default_user: str
    memory_min_mib: int


class CatalogueItems(TypedDict):
    items: list[CatalogueEntry]


class ChangeDiskRequest(TypedDict):
    size_bytes: NotRequired[int | None]
    image: NotRequired[str | Literal[''] | None]
    cache: NotRequired[Literal['writeback', 'none', 'writethrough', 'directsync', 'unsafe'] | None]
    aio: NotRequired[Literal['', 'threads', 'native', 'io_uring'] | None]
    discard: NotRequired[Literal['unmap', 'ignore'] | None]
    io_thread: NotRequired[int | None]
    iops_max: NotRequired[int | None]
    bytes_per_s_max: NotRequired[int | None]
    force: NotRequired[bool]


class ChangeNetworkRequest(TypedDict):
    mode: NotRequired[Literal['nat', 'routed', 'isolated'] | None]
    domain: NotRequired[str | None]
    mtu: NotRequired[int | Literal[0] | None]
    ipv6: NotRequired[Literal['', 'dhcp', 'slaac'] | None]
    subnet6: NotRequired[str | None]
    dns: NotRequired[list[str] | None]
    dhcp_first: NotRequired[str | None]
    dhcp_last: NotRequired[str | None]
    dhcp_options: NotRequired[list[DhcpOption] | None]
    boot: NotRequired[NetworkBoot | Literal[''] | None]
    dhcp_relay: NotRequired[str | None]
    reservations: NotRequired[list[StaticReservation] | None]
    host_names: NotRequired[bool | None]
    bandwidth_in: NotRequired[Bandwidth | None]
    bandwidth_out: NotRequired[Bandwidth | None]
    labels: NotRequired[dict[str, str] | None]


class ChangeNicRequest(TypedDict):
    network: NotRequired[str | None]
    address: NotRequired[str | None]
    model: NotRequired[Literal['virtio', 'e1000e', 'rtl8139'] | None]
    link_up: NotRequired[bool | None]
    queues: NotRequired[int | None]
    pxe: NotRequired[bool | None]
    bandwidth_in: NotRequired[Bandwidth | None]
    bandwidth_out: NotRequired[Bandwidth | None]
    groups: NotRequired[list[str] | None]


class ClockAnswer(TypedDict):
    guest_time: str
    host_time: str
    offset_s: float
    uncertainty_s: float


class CloneVmRequest(TypedDict):
    names: list[str]
    from_snapshot: NotRequired[str | None]
    full: NotRequired[bool]
    keep_identity: NotRequired[bool]
    start: NotRequired[bool]
    force: NotRequired[bool]


class ClonesAccepted(TypedDict):
    vms: list[Vm]
    operations: list[Operation]


class CloudInitSpec(TypedDict):
    hostname: str
    users: NotRequired[list[CloudInitUser]]
    user_data: NotRequired[str]
    network_config: NotRequired[str]
    instance_id: str
    dsmode: NotRequired[Literal['net', 'local']]
    new_machine_id: NotRequired[bool]


class CloudInitUser(TypedDict):
    name: str
    ssh_keys: NotRequired[list[str]]
    password_hash: NotRequired[str]
    sudo: NotRequired[bool]


class Condition(TypedDict):
    type: str
    status: ConditionStatus
    reason: str
    message: NotRequired[str]
    since: str


class CopyVolumeRequest(TypedDict):
    name: str
    format: NotRequired[Literal['qcow2', 'raw'] | None]
    pool: NotRequired[str | None]
    labels: NotRequired[dict[str, str]]
    force: NotRequired[bool]


class CpuPin(TypedDict):
    vcpu: int
    cpus: str


class CpuSpec(TypedDict):
    model: NotRequired[str]
    features: NotRequired[list[str]]
    topology: NotRequired[CpuTopology | None]
    vcpus_max: NotRequired[int | None]
    pins: NotRequired[list[CpuPin]]
    emulator_cpus: NotRequired[str | None]
    quota_percent: NotRequired[int | None]
    reserved_percent: NotRequired[int]
    nested: NotRequired[bool]


class CpuTopology(TypedDict):
    sockets: NotRequired[int]
    cores: NotRequired[int]
    threads: NotRequired[int]


class CreateAddressRequest(TypedDict):
    name: str
    router: NotRequired[str | None]
    address: NotRequired[str | None]
    vm: NotRequired[str | None]
    labels: NotRequired[dict[str, str]]


class CreateBalancerRequest(TypedDict):
    name: str
    router: NotRequired[str | None]
    listen: int
    port: NotRequired[int | None]
    targets: list[str]
    mode: NotRequired[Literal['tcp', 'http']]
    algorithm: NotRequired[Literal['roundrobin', 'leastconn', 'source']]
    check: NotRequired[BalancerCheck]
    labels: NotRequired[dict[str, str]]


class CreateForwardRequest(TypedDict):
    vm: NotRequired[str | None]
    balancer: NotRequired[str | None]
    protocol: NotRequired[Literal['tcp', 'udp']]
    host_port: int
    port: NotRequired[int | None]
    labels: NotRequired[dict[str, str]]


class CreateNetworkPolicyRequest(TypedDict):
    name: str
    tiers: list[str]
    unless: NotRequired[list[str]]
    description: NotRequired[str]
    labels: NotRequired[dict[str, str]]


class CreateNetworkRequest(TypedDict):
    dns: NotRequired[list[str]]
    dhcp_first: NotRequired[str]
    dhcp_last: NotRequired[str]
    dhcp_options: NotRequired[list[DhcpOption]]
    boot: NotRequired[NetworkBoot | None]
    dhcp_relay: NotRequired[str]
    reservations: NotRequired[list[StaticReservation]]
    host_names: NotRequired[bool]
    name: str
    mode: NotRequired[Literal['nat', 'routed', 'isolated', 'bridge', 'macvtap'] | None]
    subnet: NotRequired[str]
    ipv6: NotRequired[Literal['', 'dhcp', 'slaac']]
    subnet6: NotRequired[str]
    domain: NotRequired[str]
    mtu: NotRequired[int | None]
    gateway_at: NotRequired[Literal['host', 'router']]
    bridge: NotRequired[str | None]
    nic: NotRequired[str | None]
    vlan: NotRequired[int | None]
    bandwidth_in: NotRequired[Bandwidth]
    bandwidth_out: NotRequired[Bandwidth]
    labels: NotRequired[dict[str, str]]


class CreatePoolRequest(TypedDict):
    name: str
    path: str
    labels: NotRequired[dict[str, str]]


class CreateRouterRequest(TypedDict):
    name: str
    connect: NotRequired[list[str]]
    uplink: NotRequired[Literal['nat', 'routed', 'none']]
    uplink_network: NotRequired[str]
    routes: NotRequired[list[RouterRoute]]
    labels: NotRequired[dict[str, str]]


class CreateSecurityGroupRequest(TypedDict):
    name: str
    rules: NotRequired[list[str]]
    description: NotRequired[str]
    labels: NotRequired[dict[str, str]]


class CreateSnapshotRequest(TypedDict):
    name: str
    description: NotRequired[str]
    memory: NotRequired[bool]
    quiesce: NotRequired[bool]
    labels: NotRequired[dict[str, str]]


class CreateTemplate(TypedDict):
    verb: NotRequired[Literal['template-create']]
    snapshot_operation_uid: str


class CreateTemplateRequest(TypedDict):
    name: str
    source: str
    hot: NotRequired[bool]
    warm: NotRequired[int]
    description: NotRequired[str]
    labels: NotRequired[dict[str, str]]


class CreateTokenRequest(TypedDict):
    name: str
    role: NotRequired[Role]
    rights: NotRequired[list[Right]]
    expires_at: NotRequired[str | None]


class CreateVm(TypedDict):
    verb: NotRequired[Literal['create']]
    fork_of: NotRequired[str | None]
    made_of: NotRequired[Literal['vm', 'template'] | None]


class CreateVmRequest(TypedDict):
    name: str
    image: NotRequired[str | None]
    vcpus: NotRequired[int]
    memory_mib: NotRequired[int]
    cpu_shares: NotRequired[int | None]
    firmware: NotRequired[Firmware | None]
    disks: NotRequired[list[DiskRequest]]
    nics: NotRequired[list[NicRequest] | None]
    hostname: NotRequired[str | None]
    user: NotRequired[str]
    ssh_keys: NotRequired[list[str]]
    password: NotRequired[str | None]
    user_data: NotRequired[str]
    network_config: NotRequired[str]
    labels: NotRequired[dict[str, str]]
    description: NotRequired[str]
    protected: NotRequired[bool]
    run_policy: NotRequired[RunPolicy]
    boot: NotRequired[BootOrder]
    graphics: NotRequired[Literal['vnc', 'spice', 'none']]
    graphics_listen: NotRequired[str]
    os: NotRequired[str]
    hardware: NotRequired[HardwareSpec]
    start: NotRequired[bool]
    force: NotRequired[bool]
    dry_run: NotRequired[bool]


class CreateVolume(TypedDict):
    verb: NotRequired[Literal['volume-create']]
    copy_of: NotRequired[str | None]
    staged: NotRequired[str]
    staged_format: NotRequired[Literal['qcow2', 'raw']]


class CreateVolumeRequest(TypedDict):
    name: str
    size_bytes: NotRequired[int | None]
    format: NotRequired[Literal['qcow2', 'raw']]
    pool: NotRequired[str | None]
    image: NotRequired[str | None]
    upload: NotRequired[str]
    upload_format: NotRequired[Literal['qcow2', 'raw']]
    read_only: NotRequired[bool]
    shared: NotRequired[bool]
    labels: NotRequired[dict[str, str]]
    force: NotRequired[bool]


class DaemonStatus(TypedDict):
    pid: int
    version: str
    started_at: str
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


class DeleteImage(TypedDict):
    verb: NotRequired[Literal['image-delete']]


class DeleteSnapshot(TypedDict):
    verb: NotRequired[Literal['snapshot-delete']]
    snapshot_uid: str


class DeleteTemplate(TypedDict):
    verb: NotRequired[Literal['template-delete']]


class DeleteVm(TypedDict):
    verb: NotRequired[Literal['delete']]
    keep_disks: NotRequired[bool]


class DeleteVolume(TypedDict):
    verb: NotRequired[Literal['volume-delete']]


class DeniedPacket(TypedDict):
    number: int
    time: str
    verdict: NotRequired[Literal['denied', 'allowed']]
    reason: str
    policy: NotRequired[str]
    group: NotRequired[str]
    rule: NotRequired[str]
    card_in: NotRequired[str]
    card_out: NotRequired[str]
    interface_in: NotRequired[str]
    interface_out: NotRequired[str]
    protocol: str
    source: str
    source_port: NotRequired[int | None]
    destination: str
    port: NotRequired[int | None]
    icmp_type: NotRequired[int | None]


class DeniedPacketItems(TypedDict):
    items: list[DeniedPacket]


class DestroyVm(TypedDict):
    verb: NotRequired[Literal['destroy']]


class DhcpOption(TypedDict):
    code: int
    value: str


class DiskDiff(TypedDict):
    disk: str
    size_bytes: int
    changed_bytes: NotRequired[int]
    zero_bytes: NotRequired[int]
    pieces: NotRequired[int]
    extents: NotRequired[list[Extent]]
    note: NotRequired[str]


class DiskRequest(TypedDict):
    name: NotRequired[str | None]
    size_bytes: NotRequired[int | None]
    path: NotRequired[str | None]
    format: NotRequired[Literal['qcow2', 'raw']]
    volume: NotRequired[str | None]
    pool: NotRequired[str | None]
    create: NotRequired[bool]
    device: NotRequired[Literal['disk', 'cdrom']]
    image: NotRequired[str | None]
    bus: NotRequired[Bus]
    read_only: NotRequired[bool]
    cache: NotRequired[Literal['writeback', 'none', 'writethrough', 'directsync', 'unsafe']]
    aio: NotRequired[Literal['', 'threads', 'native', 'io_uring']]
    discard: NotRequired[Literal['unmap', 'ignore']]
    io_thread: NotRequired[int]
    iops_max: NotRequired[int]
    bytes_per_s_max: NotRequired[int]
    delete_with_vm: NotRequired[bool]


class DiskSpec(TypedDict):
    name: str
    device: NotRequired[Literal['disk', 'cdrom']]
    image_uid: NotRequired[str | None]
    image: NotRequired[str | None]
    volume_uid: NotRequired[str | None]
    path: NotRequired[str | None]
    format: NotRequired[Literal['qcow2', 'raw']]
    bus: NotRequired[Bus]
    slot: NotRequired[int | None]
    read_only: NotRequired[bool]
    cache: NotRequired[Literal['writeback', 'none', 'writethrough', 'directsync', 'unsafe']]
    aio: NotRequired[Literal['', 'threads', 'native', 'io_uring']]
    discard: NotRequired[Literal['unmap', 'ignore']]
    io_thread: NotRequired[int]
    iops_max: NotRequired[int]
    bytes_per_s_max: NotRequired[int]


class DisplayAnswer(TypedDict):
    kind: Literal['vnc', 'spice', 'none']
    uri: NotRequired[str]


class DomainItems(TypedDict):
    items: list[UnmanagedDomain]


class DriftAnswer(TypedDict):
    drifted: bool
    items: NotRequired[list[DriftItem]]


class DriftItem(TypedDict):
    field: str
    wished: str
    found: str
    refusal: NotRequired[str]


class EventEntry(TypedDict):
    time: str
    project: str
    level: NotRequired[EventLevel]
    reason: str
    message: str
    object_kind: str
    object_uid: str
    object_name: str
    operation_uid: NotRequired[str]
    source: str
    sequence: int


class ExecRequest(TypedDict):
    argv: list[str]
    stdin: NotRequired[str]
    timeout_s: NotRequired[float]


class ExplainRequest(TypedDict):
    vm: str
    source: NotRequired[str]
    destination: NotRequired[str]
    protocol: NotRequired[str]
    port: NotRequired[int | None]
    icmp_type: NotRequired[int | None]
    nic: NotRequired[str | None]


class ExplainedStep(TypedDict):
    stage: str
    allowed: bool
    card: NotRequired[str]
    groups: NotRequired[list[str]]
    group: NotRequired[str]
    rule: NotRequired[str]
    rule_id: NotRequired[str]
    policy: NotRequired[str]
    reason: str


class Explanation(TypedDict):
    allowed: bool
    source: str
    source_card: NotRequired[str]
    destination: str
    destination_card: NotRequired[str]
    protocol: str
    port: NotRequired[int | None]
    icmp_type: NotRequired[int | None]
    decided_by: str
    steps: NotRequired[list[ExplainedStep]]


class ExportStackRequest(TypedDict):
    stack: str
    vms: NotRequired[list[str]]
    selector: NotRequired[str]


class Extent(TypedDict):
    start: int
    length: int
    zero: NotRequired[bool]


class FileEdit(TypedDict):
    path: str
    before: str | None
    after: str | None


class Finding(TypedDict):
    id: str
    level: Level
    found: str
    action: NotRequired[str]


class FindingItems(TypedDict):
    items: list[Finding]


class FirewallStatus(TypedDict):
    active: bool
    reason: NotRequired[str]
    path: NotRequired[str]
    keeper_pid: NotRequired[int]
    changes: NotRequired[int]
    log_group: NotRequired[int]
    log_reason: NotRequired[str]
    networks: NotRequired[int]
    cards: NotRequired[int]
    groups: NotRequired[int]
    rules: NotRequired[int]
    policies: NotRequired[int]


class FlattenVolume(TypedDict):
    verb: NotRequired[Literal['volume-flatten']]
    volume_uid: NotRequired[str | None]
    bytes_per_s: NotRequired[int]


class FlattenVolumeRequest(TypedDict):
    bytes_per_s: NotRequired[int | None]
    force: NotRequired[bool]


class FloatingAddress(TypedDict):
    kind: NotRequired[Literal['address']]
    project: NotRequired[str]
    name: str
    uid: str
    revision: NotRequired[int]
    generation: NotRequired[int]
    labels: NotRequired[dict[str, str]]
    annotations: NotRequired[dict[str, str]]
    created_at: str
    deletion_requested_at: NotRequired[str | None]
    spec: AddressSpec


class ForkRequest(TypedDict):
    of_project: NotRequired[str | None]
    names: list[str]
    boot: NotRequired[bool]
    force: NotRequired[bool]


class Forward(TypedDict):
    kind: NotRequired[Literal['forward']]
    project: NotRequired[str]
    name: str
    uid: str
    revision: NotRequired[int]
    generation: NotRequired[int]
    labels: NotRequired[dict[str, str]]
    annotations: NotRequired[dict[str, str]]
    created_at: str
    deletion_requested_at: NotRequired[str | None]
    spec: ForwardSpec


class ForwardSpec(TypedDict):
    protocol: NotRequired[Literal['tcp', 'udp']]
    host_port: int
    vm: NotRequired[str | None]
    vm_uid: NotRequired[str | None]
    balancer: NotRequired[str | None]
    balancer_uid: NotRequired[str | None]
    port: int


class GuestAnswer(TypedDict):
    hostname: str
    os: str
    addresses: list[str]
    os_id: NotRequired[str]
    os_version: NotRequired[str]
    kernel: NotRequired[str]
    machine: NotRequired[str]
    time: NotRequired[str | None]
    timezone: NotRequired[str]
    utc_offset_s: NotRequired[int | None]
    users: NotRequired[list[GuestUserAnswer]]
    file_systems: NotRequired[list[GuestFileSystemAnswer]]
    agent_version: NotRequired[str]
    untold: NotRequired[list[str]]


class GuestFileSystemAnswer(TypedDict):
    mountpoint: str
    kind: str
    device: NotRequired[str]
    total_bytes: NotRequired[int | None]
    used_bytes: NotRequired[int | None]


class GuestUserAnswer(TypedDict):
    name: str
    logged_in_at: NotRequired[str | None]


class HardwareSpec(TypedDict):
    cpu: NotRequired[CpuSpec]
    memory: NotRequired[MemorySpec]
    secure_boot: NotRequired[bool]
    tpm: NotRequired[bool]
    watchdog: NotRequired[WatchdogAction | None]
    vmgenid: NotRequired[bool]
    rng: NotRequired[bool]
    panic: NotRequired[bool]
    hyperv: NotRequired[bool]
    clock: NotRequired[Literal['utc', 'localtime']]
    video: NotRequired[Literal['vga', 'virtio', 'qxl', 'bochs', 'ramfb', 'none']]
    sound: NotRequired[Literal['none', 'ich9', 'ac97', 'virtio']]
    usb: NotRequired[bool]
    tablet: NotRequired[Literal['virtio', 'usb']]
    serials: NotRequired[int]
    io_threads: NotRequired[int]
    shares: NotRequired[list[Share]]
    host_devices: NotRequired[list[PciDevice | UsbDevice]]
    boot_devices: NotRequired[list[str]]
    boot_menu: NotRequired[bool]
    kernel: NotRequired[KernelBoot | None]


class Host(TypedDict):
    kind: NotRequired[Literal['host']]
    project: NotRequired[str]
    name: str
    uid: str
    revision: NotRequired[int]
    generation: NotRequired[int]
    labels: NotRequired[dict[str, str]]
    annotations: NotRequired[dict[str, str]]
    created_at: str
    deletion_requested_at: NotRequired[str | None]
    spec: HostSpec
    status: NotRequired[HostStatus]


class HostNetworkChange(TypedDict):
    state: Literal['none', 'applying', 'pending', 'confirmed', 'rolling-back', 'rolled-back']
    nic: NotRequired[str]
    bridge: NotRequired[str]
    manager: NotRequired[str]
    confirm_before: NotRequired[str | None]
    reason: NotRequired[str]
    problems: NotRequired[list[str]]


class HostSpec(TypedDict):
    cpu_overcommit: float
    memory_overcommit: float
    reserved_memory_mib: int


class HostStatus(TypedDict):
    boot_id: NotRequired[str]
    accelerator: NotRequired[Literal['kvm', 'tcg', '']]
    accelerators: NotRequired[list[AcceleratorFinding]]
    cpus: NotRequired[int]
    cpu_model: NotRequired[str]
    memory_mib: NotRequired[int]
    kernel: NotRequired[str]
    os: NotRequired[str]
    libvirt_version: NotRequired[str]
    qemu_version: NotRequired[str]
    hypervisor_connected: NotRequired[bool]
    committed_vcpus: NotRequired[int]
    committed_memory_mib: NotRequired[int]
    forks_memory_mib: NotRequired[int]
    templates_memory_mib: NotRequired[int]
    memory_limit_mib: NotRequired[int]
    vcpu_limit: NotRequired[int]
    disk_free_bytes: NotRequired[int]
    disk_total_bytes: NotRequired[int]
    vms_running: NotRequired[int]
    conditions: NotRequired[list[Condition]]


class Image(TypedDict):
    kind: NotRequired[Literal['image']]
    project: NotRequired[str]
    name: str
    uid: str
    revision: NotRequired[int]
    generation: NotRequired[int]
    labels: NotRequired[dict[str, str]]
    annotations: NotRequired[dict[str, str]]
    created_at: str
    deletion_requested_at: NotRequired[str | None]
    spec: ImageSpec
    status: NotRequired[ImageStatus]


class ImageAccepted(TypedDict):
    operation: Operation
    image: NotRequired[Image | None]


class ImageFacts(TypedDict):
    kind: NotRequired[Literal['disk', 'iso']]
    volume_id: NotRequired[str]
    digest: str
    os_id: str
    arch: NotRequired[str]
    disk_format: NotRequired[Literal['qcow2', 'raw', '']]
    disk_virtual_bytes: NotRequired[int]
    disk_bytes: NotRequired[int]
    has_kernel: NotRequired[bool]
    cmdline: NotRequired[str]
    bios: NotRequired[bool]
    uefi: NotRequired[bool]
    cloud_init: NotRequired[bool]
    guest_agent: NotRequired[bool]
    ssh: NotRequired[bool]
    default_user: NotRequired[str]
    memory_min_mib: NotRequired[int]
    description: NotRequired[str]
    recipe: NotRequired[str]


class ImageSpec(TypedDict):
    catalogue: str
    source: ImageSource
    path: NotRequired[str]
    format: NotRequired[Literal['qcow2', 'raw', 'iso']]
    kernel: NotRequired[str]
    initrd: NotRequired[str]
    cmdline: NotRequired[str]
    staged: NotRequired[str]


class ImageStatus(TypedDict):
    state: NotRequired[ImageState]
    facts: NotRequired[ImageFacts | None]
    last_error_code: NotRequired[str]
    last_error: NotRequired[str]


class Incapability(TypedDict):
    what: str
    reason: str


class IncapabilityItems(TypedDict):
    items: list[Incapability]


class ItemsAuditEntry(TypedDict):
    items: list[AuditEntry]


class ItemsEventEntry(TypedDict):
    items: list[EventEntry]


class ItemsPublishedTemplate(TypedDict):
    items: list[PublishedTemplate]


class KernelBoot(TypedDict):
    kernel: str
    initrd: NotRequired[str]
    cmdline: NotRequired[str]


class LiveForkRequest(TypedDict):
    names: list[str]
    force: NotRequired[bool]


class LiveForksAccepted(TypedDict):
    vms: list[Vm]
    operations: list[Operation]
    pause_ms: NotRequired[float | None]


class MediumIds(TypedDict):
    volume: NotRequired[str]
    publisher: NotRequired[str]
    application: NotRequired[str]
    system: NotRequired[str]


class MemorySpec(TypedDict):
    max_mib: NotRequired[int | None]
    reserved_mib: NotRequired[int]
    huge_pages: NotRequired[Literal['', '2M', '1G']]
    locked: NotRequired[bool]
    numa: NotRequired[list[NumaCell]]


class MoveVolume(TypedDict):
    verb: NotRequired[Literal['volume-move']]
    pool: str
    from_pool: str
    volume_uid: NotRequired[str | None]
    bytes_per_s: NotRequired[int]


class MoveVolumeRequest(TypedDict):
    pool: str
    bytes_per_s: NotRequired[int | None]
    force: NotRequired[bool]


class Network(TypedDict):
    kind: NotRequired[Literal['network']]
    project: NotRequired[str]
    name: str
    uid: str
    revision: NotRequired[int]
    generation: NotRequired[int]
    labels: NotRequired[dict[str, str]]
    annotations: NotRequired[dict[str, str]]
    created_at: str
    deletion_requested_at: NotRequired[str | None]
    spec: NetworkSpec
    status: NotRequired[NetworkStatus]


class NetworkBoot(TypedDict):
    file: str
    server: NotRequired[str]


class NetworkPolicy(TypedDict):
    kind: NotRequired[Literal['network-policy']]
    project: NotRequired[str]
    name: str
    uid: str
    revision: NotRequired[int]
    generation: NotRequired[int]
    labels: NotRequired[dict[str, str]]
    annotations: NotRequired[dict[str, str]]
    created_at: str
    deletion_requested_at: NotRequired[str | None]
    spec: NetworkPolicySpec


class NetworkPolicySpec(TypedDict):
    tiers: list[str]
    unless: NotRequired[list[PolicyException]]
    description: NotRequired[str]


class NetworkSpec(TypedDict):
    mode: NotRequired[Literal['nat', 'routed', 'isolated', 'bridge', 'macvtap', 'libvirt']]
    subnet: NotRequired[str]
    domain: NotRequired[str]
    gateway_at: NotRequired[Literal['host', 'router']]
    bridge: str
    subnet6: NotRequired[str]
    ipv6: NotRequired[Literal['', 'dhcp', 'slaac']]
    mtu: NotRequired[int]
    dns: NotRequired[list[str]]
    dhcp_first: NotRequired[str]
    dhcp_last: NotRequired[str]
    dhcp_options: NotRequired[list[DhcpOption]]
    boot: NotRequired[NetworkBoot | None]
    dhcp_relay: NotRequired[str]
    reservations: NotRequired[list[StaticReservation]]
    nic: NotRequired[str]
    vlan: NotRequired[int]
    host_names: NotRequired[bool]
    source: NotRequired[str]
    bandwidth_in: NotRequired[Bandwidth]
    bandwidth_out: NotRequired[Bandwidth]


class NetworkStatus(TypedDict):
    active: NotRequired[bool]
    observed_generation: NotRequired[int]
    conditions: NotRequired[list[Condition]]


class NetworkUsage(TypedDict):
    received_bytes: NotRequired[int]
    sent_bytes: NotRequired[int]
    received_packets: NotRequired[int]
    sent_packets: NotRequired[int]
    received_drops: NotRequired[int]
    sent_drops: NotRequired[int]
    errors: NotRequired[int]
    received_bytes_per_s: NotRequired[float]
    sent_bytes_per_s: NotRequired[float]
    received_packets_per_s: NotRequired[float]
    sent_packets_per_s: NotRequired[float]
    project: str
    name: str
    uid: str
    running: NotRequired[int]
    connections: NotRequired[int]


class NetworkUsageReport(TypedDict):
    time: str
    interval_s: float
    nics: list[NicUsage]
    networks: list[NetworkUsage]


class NewToken(TypedDict):
    token: Token
    secret: str


class NicRequest(TypedDict):
    network: NotRequired[str]
    bridge: NotRequired[str | None]
    mac: NotRequired[str | None]
    address: NotRequired[str | None]
    model: NotRequired[Literal['virtio', 'e1000e', 'rtl8139']]
    link_up: NotRequired[bool]
    queues: NotRequired[int]
    pxe: NotRequired[bool]
    bandwidth_in: NotRequired[Bandwidth]
    bandwidth_out: NotRequired[Bandwidth]
    groups: NotRequired[list[str]]


class NicSpec(TypedDict):
    name: str
    network: NotRequired[str]
    network_uid: str
    mac: str
    address: str
    address6: NotRequired[str]
    model: NotRequired[Literal['virtio', 'e1000e', 'rtl8139']]
    link_up: NotRequired[bool]
    queues: NotRequired[int]
    pxe: NotRequired[bool]
    bandwidth_in: NotRequired[Bandwidth]
    bandwidth_out: NotRequired[Bandwidth]
    groups: NotRequired[list[str]]


class NicUsage(TypedDict):
    received_bytes: NotRequired[int]
    sent_bytes: NotRequired[int]
    received_packets: NotRequired[int]
    sent_packets: NotRequired[int]
    received_drops: NotRequired[int]
    sent_drops: NotRequired[int]
    errors: NotRequired[int]
    received_bytes_per_s: NotRequired[float]
    sent_bytes_per_s: NotRequired[float]
    received_packets_per_s: NotRequired[float]
    sent_packets_per_s: NotRequired[float]
    project: str
    vm: str
    vm_uid: str
    nic: str
    network: str
    network_uid: str
    address: str
    device: str
    connections: NotRequired[int | None]


class NumaCell(TypedDict):
    vcpus: str
    memory_mib: int
    host_nodes: NotRequired[str | None]


class Operation(TypedDict):
    kind: NotRequired[Literal['operation']]
    project: NotRequired[str]
    name: str
    uid: str
    revision: NotRequired[int]
    generation: NotRequired[int]
    labels: NotRequired[dict[str, str]]
    annotations: NotRequired[dict[str, str]]
    created_at: str
    deletion_requested_at: NotRequired[str | None]
    spec: OperationSpec
    status: NotRequired[OperationStatus]


class OperationAccepted(TypedDict):
    operation: Operation


class OperationSpec(TypedDict):
    intent: CreateVm | StartVm | ShutdownVm | DestroyVm | SaveVm | PauseVm | ResumeVm | DeleteVm | UpdateVm | AdoptVm | RebootVm | ResetVm | BuildImage | DeleteImage | CreateVolume | ResizeVolume | MoveVolume | FlattenVolume | DeleteVolume | CreateTemplate | RefreshTemplate | DeleteTemplate | SnapshotVm | RevertVm | DeleteSnapshot
    target_kind: Literal['vm', 'image', 'volume', 'network', 'host', 'template']
    target_uid: str
    target_name: str
    tracks_generation: NotRequired[int]
    previous_power: NotRequired[str]
    requested_by: str
    request_id: str
    client_key: NotRequired[str]
    cancel_requested_at: NotRequired[str | None]


class OperationStatus(TypedDict):
    state: NotRequired[OperationState]
    phase: NotRequired[str]
    progress: NotRequired[float | None]
    detail: NotRequired[str]
    steps: NotRequired[list[StepRecord]]
    attempts: NotRequired[int]
    error: NotRequired[Problem | None]
    started_at: NotRequired[str | None]
    ended_at: NotRequired[str | None]


class OsInfo(TypedDict):
    id: str
    aliases: NotRequired[list[str]]
    name: str
    family: OsFamily
    source: NotRequired[Literal['built-in', 'osinfo-db']]
    firmware: NotRequired[Firmware]
    secure_boot: NotRequired[bool]
    tpm: NotRequired[bool]
    disk_bus: NotRequired[Bus]
    nic_model: NotRequired[Literal['virtio', 'e1000e', 'rtl8139']]
    video: NotRequired[Literal['vga', 'virtio', 'qxl', 'bochs']]
    clock: NotRequired[Literal['utc', 'localtime']]
    hyperv: NotRequired[bool]
    vmgenid: NotRequired[bool]
    tablet: NotRequired[Literal['virtio', 'usb']]
    vcpus_min: NotRequired[int]
    memory_min_mib: NotRequired[int]
    disk_gib: NotRequired[int]
    unattended: NotRequired[Unattended]
    drivers_iso: NotRequired[bool]


class OsItems(TypedDict):
    items: list[OsInfo]


PageBalancer = TypedDict(
    'PageBalancer',
    {
        'items': 'list[Balancer]',
        'revision': 'int',
        'continue': 'str | None',
    },
)


PageFloatingAddress = TypedDict(
    'PageFloatingAddress',
    {
        'items': 'list[FloatingAddress]',
        'revision': 'int',
        'continue': 'str | None',
    },
)


PageForward = TypedDict(
    'PageForward',
    {
        'items': 'list[Forward]',
        'revision': 'int',
        'continue': 'str | None',
    },
)


PageHost = TypedDict(
    'PageHost',
    {
        'items': 'list[Host]',
        'revision': 'int',
        'continue': 'str | None',
    },
)


PageImage = TypedDict(
    'PageImage',
    {
        'items': 'list[Image]',
        'revision': 'int',
        'continue': 'str | None',
    },
)


PageNetwork = TypedDict(
    'PageNetwork',
    {
        'items': 'list[Network]',
        'revision': 'int',
        'continue': 'str | None',
    },
)


PageNetworkPolicy = TypedDict(
    'PageNetworkPolicy',
    {
        'items': 'list[NetworkPolicy]',
        'revision': 'int',
        'continue': 'str | None',
    },
)


PageOperation = TypedDict(
    'PageOperation',
    {
        'items': 'list[Operation]',
        'revision': 'int',
        'continue': 'str | None',
    },
)


PagePool = TypedDict(
    'PagePool',
    {
        'items': 'list[Pool]',
        'revision': 'int',
        'continue': 'str | None',
    },
)


PageRouter = TypedDict(
    'PageRouter',
    {
        'items': 'list[Router]',
        'revision': 'int',
        'continue': 'str | None',
    },
)


PageSecurityGroup = TypedDict(
    'PageSecurityGroup',
    {
        'items': 'list[SecurityGroup]',
        'revision': 'int',
        'continue': 'str | None',
    },
)


PageSnapshot = TypedDict(
    'PageSnapshot',
    {
        'items': 'list[Snapshot]',
        'revision': 'int',
        'continue': 'str | None',
    },
)


PageTemplate = TypedDict(
    'PageTemplate',
    {
        'items': 'list[Template]',
        'revision': 'int',
        'continue': 'str | None',
    },
)


PageToken = TypedDict(
    'PageToken',
    {
        'items': 'list[Token]',
        'revision': 'int',
        'continue': 'str | None',
    },
)


PageVm = TypedDict(
    'PageVm',
    {
        'items': 'list[Vm]',
        'revision': 'int',
        'continue': 'str | None',
    },
)


PageVolume = TypedDict(
    'PageVolume',
    {
        'items': 'list[Volume]',
        'revision': 'int',
        'continue': 'str | None',
    },
)


class PauseVm(TypedDict):
    verb: NotRequired[Literal['pause']]


class PciDevice(TypedDict):
    kind: NotRequired[Literal['pci']]
    address: str


class Placement(TypedDict):
    host_uid: str
    epoch: NotRequired[int]


class PlanDownRequest(TypedDict):
    stack: str
    document: NotRequired[dict[str, Any] | None]
    variables: NotRequired[dict[str, str]]
    keep_disks: NotRequired[bool]


class PlanStackRequest(TypedDict):
    document: dict[str, Any]
    variables: NotRequired[dict[str, str]]
    ssh_keys: NotRequired[list[str]]
    prune: NotRequired[bool]
    replace: NotRequired[list[str]]
    delete_disks: NotRequired[bool]


class PolicyException(TypedDict):
    protocol: NotRequired[Literal['any', 'tcp', 'udp', 'sctp', 'icmp', 'icmpv6']]
    port_min: NotRequired[int | None]
    port_max: NotRequired[int | None]
    icmp_type: NotRequired[int | None]
    icmp_code: NotRequired[int | None]
    from_tier: str
    to_tier: str


class Pool(TypedDict):
    kind: NotRequired[Literal['pool']]
    project: NotRequired[str]
    name: str
    uid: str
    revision: NotRequired[int]
    generation: NotRequired[int]
    labels: NotRequired[dict[str, str]]
    annotations: NotRequired[dict[str, str]]
    created_at: str
    deletion_requested_at: NotRequired[str | None]
    spec: PoolSpec
    status: NotRequired[PoolStatus]


class PoolSpec(TypedDict):
    driver: NotRequired[Literal['dir']]
    path: str


class PoolStatus(TypedDict):
    level: NotRequired[PoolLevel]
    reason: NotRequired[str]
    available: NotRequired[bool]
    total_bytes: NotRequired[int]
    free_bytes: NotRequired[int]
    used_bytes: NotRequired[int]
    allocated_bytes: NotRequired[int]
    logical_bytes: NotRequired[int]
    volumes: NotRequired[int]


class Problem(TypedDict):
    code: str
    asked: str
    reason: str
    hint: NotRequired[str]
    cause: NotRequired[Problem | None]


class ProblemDocument(TypedDict):
    type: str
    title: str
    status: int
    code: str
    asked: str
    reason: str
    hint: NotRequired[str]
    context: NotRequired[dict[str, str | int | float]]
    request_id: str


class PublishTemplateRequest(TypedDict):
    project: str


class PublishedTemplate(TypedDict):
    project: str
    name: str
    description: str
    hot: bool
    stale: bool
    memory_bytes: int


class Readiness(TypedDict):
    ready: bool
    reasons: NotRequired[list[str]]


class RebootRequest(TypedDict):
    deadline_s: NotRequired[float]


class RebootVm(TypedDict):
    verb: NotRequired[Literal['reboot']]
    deadline_s: float


class RecoveryReport(TypedDict):
    networks: NotRequired[list[str]]
    images: NotRequired[list[str]]
    volumes: NotRequired[list[str]]
    vms: NotRequired[list[str]]
    security_groups: NotRequired[list[str]]
    network_policies: NotRequired[list[str]]
    routers: NotRequired[list[str]]
    balancers: NotRequired[list[str]]
    forwards: NotRequired[list[str]]
    addresses: NotRequired[list[str]]
    lost: NotRequired[list[str]]


class RefreshTemplate(TypedDict):
    verb: NotRequired[Literal['template-refresh']]
    vm_uid: str
    vm_operation_uid: str
    successor_uid: str
    freeze_operation_uid: str
    deadline_s: float


class RefreshTemplateRequest(TypedDict):
    deadline_s: NotRequired[float]


class ResetVm(TypedDict):
    verb: NotRequired[Literal['reset']]


class ResizeVolume(TypedDict):
    verb: NotRequired[Literal['volume-resize']]
    size_bytes: int


class ResizeVolumeRequest(TypedDict):
    size_bytes: int
    shrink: NotRequired[bool]
    force: NotRequired[bool]


class ResumeVm(TypedDict):
    verb: NotRequired[Literal['resume']]


class RevertVm(TypedDict):
    verb: NotRequired[Literal['snapshot-revert']]
    snapshot_uid: str


class Router(TypedDict):
    kind: NotRequired[Literal['router']]
    project: NotRequired[str]
    name: str
    uid: str
    revision: NotRequired[int]
    generation: NotRequired[int]
    labels: NotRequired[dict[str, str]]
    annotations: NotRequired[dict[str, str]]
    created_at: str
    deletion_requested_at: NotRequired[str | None]
    spec: RouterSpec
    status: NotRequired[RouterStatus]


class RouterPort(TypedDict):
    network: str
    network_uid: str
    mac: str
    address: str


class RouterRoute(TypedDict):
    to: str
    via: str


class RouterSpec(TypedDict):
    ports: NotRequired[list[RouterPort]]
    uplink: NotRequired[Literal['nat', 'routed', 'none']]
    uplink_port: NotRequired[RouterPort | None]
    routes: NotRequired[list[RouterRoute]]


class RouterStatus(TypedDict):
    active: NotRequired[bool]
    observed_generation: NotRequired[int]
    namespace: NotRequired[str]
    conditions: NotRequired[list[Condition]]


class RuleCount(TypedDict):
    group: NotRequired[str]
    rule_id: NotRequired[str]
    rule: NotRequired[str]
    policy: NotRequired[str]
    denied: NotRequired[str]
    packets: NotRequired[int]
    bytes: NotRequired[int]


class RuleCountItems(TypedDict):
    items: list[RuleCount]


class SaveVm(TypedDict):
    verb: NotRequired[Literal['save']]


class SecurityGroup(TypedDict):
    kind: NotRequired[Literal['security-group']]
    project: NotRequired[str]
    name: str
    uid: str
    revision: NotRequired[int]
    generation: NotRequired[int]
    labels: NotRequired[dict[str, str]]
    annotations: NotRequired[dict[str, str]]
    created_at: str
    deletion_requested_at: NotRequired[str | None]
    spec: NotRequired[SecurityGroupSpec]


class SecurityGroupSpec(TypedDict):
    rules: NotRequired[list[SecurityRule]]
    description: NotRequired[str]


class SecurityRule(TypedDict):
    protocol: NotRequired[Literal['any', 'tcp', 'udp', 'sctp', 'icmp', 'icmpv6']]
    port_min: NotRequired[int | None]
    port_max: NotRequired[int | None]
    icmp_type: NotRequired[int | None]
    icmp_code: NotRequired[int | None]
    id: str
    direction: Literal['in', 'out']
    peer: NotRequired[str]
    log: NotRequired[bool]


class SendKeysRequest(TypedDict):
    keys: NotRequired[list[str]]
    text: NotRequired[str]
    hold_ms: NotRequired[int | None]


class SetClockRequest(TypedDict):
    source: NotRequired[Literal['host', 'rtc', 'time']]
    time: NotRequired[str | None]


class SetPasswordRequest(TypedDict):
    user: str
    password: str


class Share(TypedDict):
    name: str
    path: str
    read_only: NotRequired[bool]


class ShutdownRequest(TypedDict):
    deadline_s: NotRequired[float]
    force_after_s: NotRequired[float | None]


class ShutdownVm(TypedDict):
    verb: NotRequired[Literal['shutdown']]
    deadline_s: float
    force_after_s: NotRequired[float | None]


class Snapshot(TypedDict):
    kind: NotRequired[Literal['snapshot']]
    project: NotRequired[str]
    name: str
    uid: str
    revision: NotRequired[int]
    generation: NotRequired[int]
    labels: NotRequired[dict[str, str]]
    annotations: NotRequired[dict[str, str]]
    created_at: str
    deletion_requested_at: NotRequired[str | None]
    spec: SnapshotSpec
    status: NotRequired[SnapshotStatus]


class SnapshotAccepted(TypedDict):
    operation: Operation
    snapshot: NotRequired[Snapshot | None]


class SnapshotDiff(TypedDict):
    vm: str
    before: str
    after: str
    disks: list[DiskDiff]


class SnapshotDisk(TypedDict):
    name: str
    volume_uid: str
    layer_uid: str
    head_uid: str
    size_bytes: int


class SnapshotPolicy(TypedDict):
    hourly: NotRequired[int]
    daily: NotRequired[int]
    weekly: NotRequired[int]
    monthly: NotRequired[int]
    quiesce: NotRequired[bool]


class SnapshotSpec(TypedDict):
    vm_uid: str
    description: NotRequired[str]
    with_memory: NotRequired[bool]
    quiesce: NotRequired[bool]
    hidden: NotRequired[bool]
    parent_uid: NotRequired[str | None]
    disks: NotRequired[list[SnapshotDisk]]
    vm_spec: NotRequired[VmSpec | None]


class SnapshotStatus(TypedDict):
    ready: NotRequired[bool]
    state: NotRequired[VmState]
    taken_at: NotRequired[str | None]
    pause_ms: NotRequired[float | None]
    quiesced: NotRequired[bool]
    memory_bytes: NotRequired[int]
    kept: NotRequired[list[Literal['nvram', 'tpm']]]


class SnapshotVm(TypedDict):
    verb: NotRequired[Literal['snapshot-create']]
    snapshot_uid: str


class StackAction(TypedDict):
    id: str
    kind: Literal['address', 'balancer', 'forward', 'image', 'network', 'network-policy', 'router', 'security-group', 'vm', 'volume']
    name: str
    verb: StackVerb
    device: NotRequired[str]
    method: NotRequired[Literal['', 'POST', 'PATCH', 'DELETE']]
    path: NotRequired[str]
    query: NotRequired[dict[str, str]]
    body: NotRequired[dict[str, Any] | None]
    operation: NotRequired[str]
    key: NotRequired[str]
    after: NotRequired[list[str]]
    waits: NotRequired[list[StackWait]]
    changes: NotRequired[list[str]]


class StackBlock(TypedDict):
    name: str
    changes: list[str]
    reason: str
    hint: NotRequired[str]


class StackExport(TypedDict):
    document: dict[str, Any]
    notes: NotRequired[list[str]]


class StackPlan(TypedDict):
    stack: str
    actions: NotRequired[list[StackAction]]
    unchanged: NotRequired[list[str]]
    blocked: NotRequired[list[StackBlock]]
    orphans: NotRequired[list[str]]
    warnings: NotRequired[list[str]]


class StackWait(TypedDict):
    vm: str
    condition: WaitCondition


class StartRequest(TypedDict):
    boot_from: NotRequired[str | None]


class StartVm(TypedDict):
    verb: NotRequired[Literal['start']]
    boot_from: NotRequired[str]


class StaticReservation(TypedDict):
    name: str
    mac: str
    address: str
    address6: NotRequired[str]


class StepRecord(TypedDict):
    name: str
    kind: NotRequired[StepKind]
    started_at: str
    ended_at: NotRequired[str | None]


class Template(TypedDict):
    kind: NotRequired[Literal['template']]
    project: NotRequired[str]
    name: str
    uid: str
    revision: NotRequired[int]
    generation: NotRequired[int]
    labels: NotRequired[dict[str, str]]
    annotations: NotRequired[dict[str, str]]
    created_at: str
    deletion_requested_at: NotRequired[str | None]
    spec: TemplateSpec
    status: NotRequired[TemplateStatus]


class TemplateAccepted(TypedDict):
    operation: Operation
    template: NotRequired[Template | None]


class TemplateDisk(TypedDict):
    name: str
    layer_uid: str
    size_bytes: int


class TemplateSpec(TypedDict):
    description: NotRequired[str]
    hot: NotRequired[bool]
    source: str
    source_uid: str
    snapshot_uid: str
    disks: NotRequired[list[TemplateDisk]]
    vm_spec: NotRequired[VmSpec | None]
    hostname: NotRequired[str]
    cloud_init: NotRequired[CloudInitSpec | None]
    published_to: NotRequired[list[str]]
    warm: NotRequired[int]
    passing: NotRequired[bool]


class TemplateStatus(TypedDict):
    ready: NotRequired[bool]
    taken_at: NotRequired[str | None]
    agent: NotRequired[bool]
    key: NotRequired[str]
    digest: NotRequired[str]
    memory_bytes: NotRequired[int]
    stored_bytes: NotRequired[int]
    stale: NotRequired[str]
    pause_ms: NotRequired[float | None]
    waiting: NotRequired[int]


class Token(TypedDict):
    kind: NotRequired[Literal['token']]
    project: NotRequired[str]
    name: str
    uid: str
    revision: NotRequired[int]
    generation: NotRequired[int]
    labels: NotRequired[dict[str, str]]
    annotations: NotRequired[dict[str, str]]
    created_at: str
    deletion_requested_at: NotRequired[str | None]
    spec: TokenSpec


class TokenSpec(TypedDict):
    role: Role
    rights: NotRequired[list[Right]]
    secret_hash: str
    expires_at: NotRequired[str | None]


class UnmanagedDomain(TypedDict):
    name: str
    uid: str
    state: str
    vcpus: int
    memory_mib: int
    persistent: bool
    autostart: bool
    other_installation: NotRequired[bool]


class UpdateBalancerRequest(TypedDict):
    port: NotRequired[int | None]
    targets: NotRequired[list[str] | None]
    mode: NotRequired[Literal['tcp', 'http'] | None]
    algorithm: NotRequired[Literal['roundrobin', 'leastconn', 'source'] | None]
    check: NotRequired[BalancerCheck | None]


class UpdateNetworkPolicyRequest(TypedDict):
    tiers: NotRequired[list[str] | None]
    unless: NotRequired[list[str] | None]
    description: NotRequired[str | None]
    labels: NotRequired[dict[str, str] | None]


class UpdateRouterRequest(TypedDict):
    connect: NotRequired[list[str]]
    disconnect: NotRequired[list[str]]
    uplink: NotRequired[Literal['nat', 'routed', 'none'] | None]
    uplink_network: NotRequired[str | None]
    routes: NotRequired[list[RouterRoute] | None]


class UpdateSecurityGroupRequest(TypedDict):
    rules: NotRequired[list[str] | None]
    add_rules: NotRequired[list[str]]
    remove_rules: NotRequired[list[str]]
    description: NotRequired[str | None]
    labels: NotRequired[dict[str, str] | None]


class UpdateVm(TypedDict):
    verb: NotRequired[Literal['update']]
    previous_name: NotRequired[str | None]
    redefine: NotRequired[bool]


class UpdateVmRequest(TypedDict):
    name: NotRequired[str | None]
    labels: NotRequired[dict[str, str] | None]
    add_labels: NotRequired[dict[str, str]]
    remove_labels: NotRequired[list[str]]
    description: NotRequired[str | None]
    protected: NotRequired[bool | None]
    run_policy: NotRequired[RunPolicy | None]
    boot: NotRequired[BootOrder | None]
    snapshot_policy: NotRequired[SnapshotPolicy | None]
    vcpus: NotRequired[int | None]
    memory_mib: NotRequired[int | None]
    cpu_shares: NotRequired[int | None]
    firmware: NotRequired[Firmware | None]
    graphics: NotRequired[Literal['vnc', 'spice', 'none'] | None]
    graphics_listen: NotRequired[str | None]
    hardware: NotRequired[dict[str, Any] | None]
    reset_drift: NotRequired[bool]
    accept_drift: NotRequired[bool]


class UsageReport(TypedDict):
    time: str
    items: list[VmUsage]


class UsbDevice(TypedDict):
    kind: NotRequired[Literal['usb']]
    vendor: str
    product: str


class Vm(TypedDict):
    kind: NotRequired[Literal['vm']]
    project: NotRequired[str]
    name: str
    uid: str
    revision: NotRequired[int]
    generation: NotRequired[int]
    labels: NotRequired[dict[str, str]]
    annotations: NotRequired[dict[str, str]]
    created_at: str
    deletion_requested_at: NotRequired[str | None]
    spec: VmSpec
    status: NotRequired[VmStatus]
    placement: NotRequired[Placement | None]


class VmAccepted(TypedDict):
    operation: Operation
    vm: NotRequired[Vm | None]
    warnings: NotRequired[list[str]]


class VmMemory(TypedDict):
    resident_bytes: int
    private_bytes: int
    shared_bytes: int
    proportional_bytes: int
    saved_bytes: int


class VmPreview(TypedDict):
    vm: Vm
    document: str
    warnings: NotRequired[list[str]]


class VmSpec(TypedDict):
    power: NotRequired[Power]
    run_policy: NotRequired[RunPolicy]
    boot: NotRequired[BootOrder]
    vcpus: NotRequired[int]
    memory_mib: NotRequired[int]
    cpu_shares: NotRequired[int | None]
    firmware: NotRequired[Firmware]
    image: NotRequired[str | None]
    image_uid: NotRequired[str | None]
    disks: NotRequired[list[DiskSpec]]
    nics: NotRequired[list[NicSpec]]
    cloud_init: NotRequired[CloudInitSpec | None]
    graphics: NotRequired[Literal['vnc', 'spice', 'none']]
    graphics_listen: NotRequired[str]
    os: NotRequired[str]
    hardware: NotRequired[HardwareSpec]
    snapshot_policy: NotRequired[SnapshotPolicy | None]
    description: NotRequired[str]
    protected: NotRequired[bool]
    template_uid: NotRequired[str | None]
    snapshot_uid: NotRequired[str | None]
    adopted: NotRequired[bool]


class VmStatus(TypedDict):
    state: NotRequired[VmState]
    last_state: NotRequired[VmState | None]
    state_reason: NotRequired[str]
    observed_generation: NotRequired[int]
    conditions: NotRequired[list[Condition]]
    accelerator: NotRequired[Literal['kvm', 'tcg', '']]
    started_at: NotRequired[str | None]
    host_boot_id: NotRequired[str]
    agent_connected: NotRequired[bool]
    addresses: NotRequired[list[str]]
    guest_os: NotRequired[str]
    cloud_init: NotRequired[CloudInitStatus]
    cloud_init_detail: NotRequired[str]
    has_saved_memory: NotRequired[bool]
    clock_behind: NotRequired[bool]
    pending_restart: NotRequired[list[str]]
    qemu_version: NotRequired[str]
    restarts: NotRequired[int]
    last_error_code: NotRequired[str]
    last_error: NotRequired[str]


class VmUsage(TypedDict):
    project: str
    name: str
    uid: str
    vcpus: int
    memory_mib: int
    memory_rss_bytes: int
    memory_private_bytes: NotRequired[int | None]
    memory_shared_bytes: NotRequired[int | None]
    memory_saved_bytes: NotRequired[int | None]
    cpu_time_ns: int
    disk_read_bytes: int
    disk_written_bytes: int
    net_received_bytes: int
    net_sent_bytes: int
    interval_s: NotRequired[float]
    cpu_percent: NotRequired[float]
    disk_read_bytes_per_s: NotRequired[float]
    disk_written_bytes_per_s: NotRequired[float]
    net_received_bytes_per_s: NotRequired[float]
    net_sent_bytes_per_s: NotRequired[float]


class Volume(TypedDict):
    kind: NotRequired[Literal['volume']]
    project: NotRequired[str]
    name: str
    uid: str
    revision: NotRequired[int]
    generation: NotRequired[int]
    labels: NotRequired[dict[str, str]]
    annotations: NotRequired[dict[str, str]]
    created_at: str
    deletion_requested_at: NotRequired[str | None]
    spec: VolumeSpec
    status: NotRequired[VolumeStatus]


class VolumeAccepted(TypedDict):
    operation: Operation
    volume: NotRequired[Volume | None]


class VolumeSpec(TypedDict):
    pool: NotRequired[str]
    size_bytes: int
    format: NotRequired[Literal['qcow2', 'raw']]
    read_only: NotRequired[bool]
    shared: NotRequired[bool]
    image_uid: NotRequired[str | None]
    image_digest: NotRequired[str]
    layer_uid: NotRequired[str | None]
    copy_of_layer: NotRequired[str | None]
    vm_uid: NotRequired[str | None]
    delete_with_vm: NotRequired[bool]


class VolumeStatus(TypedDict):
    ready: NotRequired[bool]
    path: NotRequired[str]
    allocated_bytes: NotRequired[int]
    size_bytes: NotRequired[int]
    merging: NotRequired[float | None]


class WaitAnswer(TypedDict):
    condition: WaitCondition
    elapsed_s: float
    state: str
    address: NotRequired[str]
    detail: NotRequired[str]


class WarmRequest(TypedDict):
    count: int
