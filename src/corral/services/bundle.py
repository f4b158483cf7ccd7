"""All services together: what the API is built on."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from corral.services.address import AddressService
from corral.services.audit import AuditService
from corral.services.balancer import BalancerService
from corral.services.capture import CaptureService
from corral.services.clone import CloneService
from corral.services.context import Context
from corral.services.creation import Draw, PreviewService
from corral.services.daemon import DaemonService
from corral.services.device import DeviceService
from corral.services.domain import DomainService
from corral.services.event import EventService
from corral.services.firewall import FirewallService
from corral.services.forward import ForwardService
from corral.services.guest import GuestService
from corral.services.host import HostService
from corral.services.host_network import HostNetworkService
from corral.services.image import ImageService
from corral.services.live_fork import LiveForkService
from corral.services.network import NetworkService
from corral.services.network_policy import NetworkPolicyService
from corral.services.network_usage import NetworkUsageService
from corral.services.operation import OperationService
from corral.services.os import OsService
from corral.services.pool import PoolService
from corral.services.router import RouterService
from corral.services.security_group import SecurityGroupService
from corral.services.session import SessionService
from corral.services.snapshot import SnapshotService
from corral.services.snapshot_diff import SnapshotDiffer
from corral.services.stack import StackService
from corral.services.template import TemplateService
from corral.services.token import TokenService
from corral.services.usage import UsageMeter
from corral.services.vm import VmService
from corral.services.volume import VolumeService
from corral.services.volume_create import VolumeMaker
from corral.services.volume_move import VolumeMover
from corral.services.volume_read import VolumeReader
from corral.services.volume_size import VolumeSizer
from corral.services.warm import WarmService


@dataclass(frozen=True)
class Services:
    vms: VmService
    clones: CloneService
    live_forks: LiveForkService
    devices: DeviceService
    previews: PreviewService
    stacks: StackService
    systems: OsService
    sessions: SessionService
    guests: GuestService
    captures: CaptureService
    images: ImageService
    networks: NetworkService
    network_usage: NetworkUsageService
    routers: RouterService
    forwards: ForwardService
    addresses: AddressService
    balancers: BalancerService
    security_groups: SecurityGroupService
    network_policies: NetworkPolicyService
    firewall: FirewallService
    volumes: VolumeService
    volume_maker: VolumeMaker
    volume_reader: VolumeReader
    volume_sizer: VolumeSizer
    volume_mover: VolumeMover
    pools: PoolService
    snapshots: SnapshotService
    snapshot_differ: SnapshotDiffer
    templates: TemplateService
    warm: WarmService
    hosts: HostService
    host_networks: HostNetworkService
    operations: OperationService
    events: EventService
    tokens: TokenService
    audit: AuditService
    domains: DomainService
    daemon: DaemonService


@dataclass(frozen=True)
class Surroundings:
    """What services need of the daemon's other parts."""

    agent_ready: Callable[[], bool]
    backup: Callable[[Path], object]
    draw: Draw


def build_services(context: Context, around: Surroundings) -> Services:
    """Every noun's service over one context."""
    meter = UsageMeter(context)  # one: who asks for both kinds of numbers, as metrics do, has the hypervisor asked once
    return Services(
        vms=VmService(context),
        clones=CloneService(context),
        live_forks=LiveForkService(context),
        devices=DeviceService(context),
        previews=PreviewService(context, around.draw),
        stacks=StackService(context),
        systems=OsService(context),
        sessions=SessionService(context, meter),
        guests=GuestService(context),
        captures=CaptureService(context),
        images=ImageService(context),
        networks=NetworkService(context),
        network_usage=NetworkUsageService(context, meter),
        routers=RouterService(context),
        forwards=ForwardService(context),
        addresses=AddressService(context),
        balancers=BalancerService(context),
        security_groups=SecurityGroupService(context),
        network_policies=NetworkPolicyService(context),
        firewall=FirewallService(context),
        volumes=VolumeService(context),
        volume_maker=VolumeMaker(context),
        volume_reader=VolumeReader(context),
        volume_mover=VolumeMover(context),
        volume_sizer=VolumeSizer(context, DeviceService(context)),
        pools=PoolService(context),
        snapshots=SnapshotService(context),
        snapshot_differ=SnapshotDiffer(context),
        templates=TemplateService(context),
        warm=WarmService(context),
        hosts=HostService(context),
        host_networks=HostNetworkService(context),
        operations=OperationService(context),
        events=EventService(context),
        tokens=TokenService(context),
        audit=AuditService(context),
        domains=DomainService(context),
        daemon=DaemonService(
            context, started_at=context.clock.now(), agent_ready=around.agent_ready, backup=around.backup
        ),
    )
