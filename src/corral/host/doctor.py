"""Examine the host: every check, each a finding with what to do. Looks only; changes nothing."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from corral.host.consoles import check_consoles
from corral.host.filtering import check_filtering, check_ports
from corral.host.guests import check_guests
from corral.host.hardware import check_hardware
from corral.host.kernel import check_clock, check_kernel
from corral.host.machine import Machine
from corral.host.packages import check_nftables, check_reboot, check_tools, check_updates
from corral.host.places import check_places
from corral.host.pools import check_pools
from corral.host.secrets import KeptMemory, check_memories, check_stale
from corral.hypervisor.base import HypervisorFacts, ObservedDomain
from corral.model.doctor import Finding
from corral.model.host import HostStatus
from corral.model.network import Network
from corral.model.pool import Pool
from corral.model.template import Template
from corral.model.vm import Vm
from corral.network.firewall.base import FirewallState


@dataclass(frozen=True)
class Subject:
    """What the caller already knows of the installation that is examined; `facts` None: the driver did not answer."""

    state_dir: Path
    facts: HypervisorFacts | None = None
    status: HostStatus | None = None
    domains: tuple[ObservedDomain, ...] = ()
    networks: tuple[Network, ...] = ()
    vms: tuple[Vm, ...] = ()
    pools: tuple[Pool, ...] = ()
    templates: tuple[Template, ...] = ()
    memories: tuple[KeptMemory, ...] = ()
    firewall: FirewallState | None = None


async def examine(subject: Subject, root: Path = Path("/")) -> tuple[Finding, ...]:
    """All findings, in a fixed order. Bounded by the packages' check (20 s); usually under a second."""
    machine = Machine(root)
    looked, updates, nftables, filtering = await asyncio.gather(
        asyncio.to_thread(lambda: tuple(_look(subject, machine))),
        check_updates(machine),
        check_nftables(),
        check_filtering(subject.firewall),
    )
    return (*looked, nftables, *filtering, updates)


def _look(subject: Subject, machine: Machine) -> Iterator[Finding]:
    yield from check_hardware(machine, subject.status)
    yield from check_guests(machine, subject.facts, subject.domains)
    yield from check_places(machine, subject.state_dir, subject.networks)
    yield from check_pools(subject.pools)
    yield from check_kernel(machine, subject.networks)
    yield check_consoles(subject.vms)
    yield check_stale(subject.templates)
    yield from check_memories(machine, subject.memories)
    yield check_clock()
    if subject.firewall is not None and subject.firewall.active:
        yield check_ports(machine, subject.vms, subject.networks)
    yield check_tools()
    yield check_reboot(machine)
