"""Metrics of networks: what passes the cards of running VMs."""

from collections.abc import Callable, Iterator
from typing import Final

from prometheus_client.core import Metric

from corral.api.metric import Samples, counter, gauge
from corral.model.network_usage import NetworkUsage, NetworkUsageReport, NicUsage

_NIC: Final = ("project", "vm", "nic", "network")
_NETWORK: Final = ("project", "network", "uid")


def network_families(report: NetworkUsageReport) -> Iterator[Metric]:
    def of(read: Callable[[NicUsage], float]) -> Samples:
        return [((item.project, item.vm, item.nic, item.network), read(item)) for item in report.nics]

    def on(read: Callable[[NetworkUsage], float]) -> Samples:
        return [((item.project, item.name, item.uid), read(item)) for item in report.networks]

    yield counter("corral_nic_received_bytes", "Bytes that came to the card", _NIC, of(lambda i: i.received_bytes))
    yield counter("corral_nic_sent_bytes", "Bytes that it sent", _NIC, of(lambda i: i.sent_bytes))
    yield counter("corral_nic_received_packets", "Packets that came to it", _NIC, of(lambda i: i.received_packets))
    yield counter("corral_nic_sent_packets", "Packets that it sent", _NIC, of(lambda i: i.sent_packets))
    dropped = of(lambda i: i.received_drops + i.sent_drops)
    yield counter("corral_nic_dropped_packets", "Packets that were dropped at it", _NIC, dropped)
    yield counter("corral_nic_errors", "Errors at it", _NIC, of(lambda i: i.errors))
    known = [item for item in report.nics if item.connections is not None]
    counts = [((item.project, item.vm, item.nic, item.network), float(item.connections or 0)) for item in known]
    yield gauge("corral_nic_connections", "Tracked connections that its address has a part in", _NIC, counts)
    yield gauge("corral_network_cards", "Cards of running VMs on the network", _NETWORK, on(lambda i: i.running))
