"""All services together: what the API is built on."""

from dataclasses import dataclass

from corral.services.audit import AuditService
from corral.services.daemon import DaemonService
from corral.services.domain import DomainService
from corral.services.event import EventService
from corral.services.host import HostService
from corral.services.image import ImageService
from corral.services.network import NetworkService
from corral.services.operation import OperationService
from corral.services.session import SessionService
from corral.services.token import TokenService
from corral.services.vm import VmService
from corral.services.volume import VolumeService


@dataclass(frozen=True)
class Services:
    vms: VmService
    sessions: SessionService
    images: ImageService
    networks: NetworkService
    volumes: VolumeService
    hosts: HostService
    operations: OperationService
    events: EventService
    tokens: TokenService
    audit: AuditService
    domains: DomainService
    daemon: DaemonService
