"""What all services work with, put together once by bootstrap."""

from dataclasses import dataclass, field

from corral.clock import Clock
from corral.hypervisor.base import HypervisorDriver
from corral.images.base import ImageLibrary
from corral.images.os_table import OsTable, host_table
from corral.model.host import Host
from corral.network.base import NetworkDriver
from corral.network.firewall.absent import NoFirewall
from corral.network.firewall.base import Firewall
from corral.network.firewall.nflog import DenialLog
from corral.scheduler.admission import Capacity
from corral.security.audit import AuditLog
from corral.services.ledger import Ledger
from corral.services.passwords import PasswordHasher
from corral.settings import Settings
from corral.storage.base import VolumeStore
from corral.storage.sidecars import Sidecars
from corral.store.followers import Followers
from corral.store.objects import Objects


@dataclass(frozen=True)
class Context:
    """The parts below, and who this daemon is."""

    objects: Objects
    clock: Clock
    settings: Settings
    hypervisor: HypervisorDriver
    volumes: VolumeStore
    library: ImageLibrary
    networks: NetworkDriver
    audit: AuditLog
    ledger: Ledger
    hash_password: PasswordHasher
    host_uid: str
    installation_id: str
    own_dac_uids: bool
    """Each QEMU gets a uid of its own (qemu:///system; an ordinary user's libvirt cannot)."""
    cpus: int
    memory_mib: int
    """Of this machine as bootstrap measured it; the host object's own figures win once the agent wrote them."""
    systems: OsTable = field(default_factory=host_table)
    firewall: Firewall = field(default_factory=NoFirewall)
    denials: DenialLog = field(default_factory=DenialLog)
    """What the firewall denied lately."""
    followers: Followers = field(default_factory=Followers)

    @property
    def sidecars(self) -> Sidecars:
        return Sidecars(self.settings.state_dir)

    async def capacity(self) -> Capacity:
        """What this host has and may promise."""
        host = await self.objects.get(Host, self.host_uid)
        measured = host is not None and host.status.memory_mib > 0
        if host is not None and measured:
            return Capacity.under(self.settings, host.status.cpus, host.status.memory_mib)
        return Capacity.under(self.settings, self.cpus, self.memory_mib)
