"""What passes the cards of running VMs, and their networks: counters since each guest's start, and rates."""

from datetime import datetime

from corral.model.base import Model


class Traffic(Model):
    """As the guest sees it: received is what came to it."""

    received_bytes: int = 0
    sent_bytes: int = 0
    received_packets: int = 0
    sent_packets: int = 0
    received_drops: int = 0
    """Of what came for it: the guest did not take it in time, or its limit let no more wait."""
    sent_drops: int = 0
    errors: int = 0
    received_bytes_per_s: float = 0.0
    sent_bytes_per_s: float = 0.0
    received_packets_per_s: float = 0.0
    sent_packets_per_s: float = 0.0


class NicUsage(Traffic):
    """One card of a running VM."""

    project: str
    vm: str
    vm_uid: str
    nic: str
    network: str
    network_uid: str
    address: str
    device: str
    """Its end on the host, as ip and tcpdump know it."""
    connections: int | None = None
    """Tracked ones that its address has a part in; None where it has none, where several tenants use the same, or where
    the kernel shows none."""


class NetworkUsage(Traffic):
    """All cards on a network together: what passes between two of them counts twice."""

    project: str
    name: str
    uid: str
    running: int = 0
    """Cards of running VMs."""
    connections: int = 0


class NetworkUsageReport(Model):
    time: datetime
    interval_s: float
    """What the rates were measured over; 0 where there was no sample before, then all rates are 0."""
    nics: tuple[NicUsage, ...]
    networks: tuple[NetworkUsage, ...]
