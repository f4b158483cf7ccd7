"""What must be there before anybody asks: the project `default`, and its network."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Final

from corral.errors import CorralError
from corral.log import logger
from corral.model.base import DEFAULT_PROJECT
from corral.model.identity import Project
from corral.model.network import Network, NetworkSpec
from corral.names import new_uid
from corral.network.subnet_turn import subnet_turn
from corral.services.context import Context
from corral.services.network import DEFAULT_NETWORK
from corral.services.security_group import finish_deletions
from corral.settings import subnet_lock

NETWORK_RETRY_S: Final = 5.0
# ICANN has reserved .internal for private networks.
NETWORK_DOMAIN: Final = "corral.internal"
UNKNOWN_SUBNET: Final = "0.0.0.0/0"
_log: Final = logger("daemon")


@dataclass(frozen=True)
class Subnets:
    """How a free one is found on this host."""

    used: Callable[[], Awaitable[Iterable[str]]]
    choose: Callable[[Iterable[str], str], str]


async def ensure_project(context: Context) -> None:
    """The one project there is, `default`; and what of it a daemon had begun to delete when it was killed is gone."""
    if await context.objects.find(Project, DEFAULT_PROJECT, DEFAULT_PROJECT) is None:
        transaction = context.objects.transaction()
        transaction.create(Project(name=DEFAULT_PROJECT, uid=new_uid(), created_at=context.clock.now()))
        await transaction.commit()
    await finish_deletions(context)


async def ensure_network(context: Context, subnets: Subnets) -> bool:
    """The default network's object; False if the hypervisor cannot be asked yet, or another daemon takes long over its own.

    After a lost database the hypervisor still has our network: it keeps its uid, subnet and bridge."""
    if await context.objects.find(Network, DEFAULT_PROJECT, DEFAULT_NETWORK) is not None:
        return True
    try:
        async with subnet_turn(subnet_lock()):
            network = await _place_network(context, subnets)
            transaction = context.objects.transaction()
            transaction.create(network)
            await transaction.commit()
    except CorralError as error:
        if error.code in ("no-free-subnet", "invalid-argument"):
            raise
        _log.warning("the default network waits", code=error.code, reason=error.reason)
        return False
    _log.info("default network", subnet=network.spec.subnet, bridge=network.spec.bridge)
    return True


async def _place_network(context: Context, subnets: Subnets) -> Network:
    """On a free subnet, and made there: from then on everybody sees that the subnet is taken. One that cannot be made
    is recorded all the same: the agent goes on trying, and says why it is not up."""
    uid = new_uid()
    spec = NetworkSpec(subnet=UNKNOWN_SUBNET, domain=NETWORK_DOMAIN, bridge=f"crl{uid[:8]}")
    network = Network(name=DEFAULT_NETWORK, uid=uid, created_at=context.clock.now(), spec=spec)
    observed = await context.networks.observe_all()
    ours = next((known for known in observed if known.name == context.networks.driver_name(network)), None)
    if ours is not None and ours.subnet:
        if ours.spec_json:
            spec = NetworkSpec.model_validate_json(ours.spec_json)
        spec = spec.model_copy(update={"subnet": ours.subnet, "bridge": ours.bridge or spec.bridge})
        return network.model_copy(update={"uid": ours.uid, "spec": spec})
    used = [*(known.subnet for known in observed if known.subnet), *await subnets.used()]
    subnet = subnets.choose(used, context.settings.subnet)
    network = network.model_copy(update={"spec": spec.model_copy(update={"subnet": subnet})})
    try:
        await context.networks.ensure(network, ())
    except CorralError as error:
        if error.code in ("hypervisor-unavailable", "hypervisor-timeout"):
            raise
        _log.warning("the default network is not up", code=error.code, reason=error.reason)
    return network


async def network_later(context: Context, subnets: Subnets) -> None:
    """Try again until the hypervisor has answered once."""
    is_there = False
    while not is_there:
        await asyncio.sleep(NETWORK_RETRY_S)
        is_there = await ensure_network(context, subnets)
