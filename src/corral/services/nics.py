"""The network cards of a new VM: MAC addresses, IP addresses and uids, given out once each."""

from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Self

from corral.errors import CorralError
from corral.model.base import DEFAULT_PROJECT
from corral.model.network import Network
from corral.model.requests import ChangeNicRequest, CreateVmRequest, NicRequest
from corral.model.vm import DAC_UID_ANNOTATION, DAC_UID_FIRST, NicSpec, Vm
from corral.names import new_mac
from corral.network import ipam
from corral.network.addresses import address6_of
from corral.services.access import authorize
from corral.services.bridges import network_on
from corral.services.caller import Caller
from corral.services.changes import Mutation
from corral.services.context import Context
from corral.services.ledger import Ledger
from corral.services.security_group import FoundGroups, find_groups
from corral.store.objects import Transaction, claim_key


class Allocated:
    """What one attempt holds: let go at its end, or kept when it was committed (the claims in the store hold it then)."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._held: list[tuple[ipam.NumberPool, int]] = []
        self._kept = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for pool, number in self._held:
            pool.held.discard(number)
            if self._kept:
                pool.taken.add(number)

    def keep(self) -> None:
        self._kept = True

    def dac_uid(self) -> int:
        """A number that no other VM's QEMU has."""
        number = self._ledger.dac_uids.hold_next()
        if number is None:
            raise CorralError(
                "no-free-address", "a uid for QEMU", "all are given out", "delete a VM that is not needed"
            )
        self._held.append((self._ledger.dac_uids, number))
        return number

    def address(self, network: Network, wanted: str | None) -> str:
        """The address asked for, or the next free one; none where it is not ours to give."""
        if not network.spec.ours:
            if wanted is not None:
                reason = f"network {network.name!r} is a bridge of the host's, where others give addresses"
                raise CorralError("invalid-argument", f"address {wanted}", reason, "leave it out")
            return ""
        pool, subnet = self._ledger.addresses(network), network.spec.subnet
        if wanted is None:
            number = ipam.hold_address(pool, subnet, network.name)
        else:
            number = ipam.parse_address(subnet, wanted)
            if not pool.hold(number):
                raise CorralError(
                    "address-taken",
                    f"address {wanted}",
                    f"another VM of network {network.name!r} has it",
                    "choose another one, or none: then a free one is given",
                )
        self._held.append((pool, number))
        return ipam.address_at(subnet, number)


def check_host_name(network: Network, name: str) -> None:
    """A name that a network keeps for a machine of somebody's is no VM's there: it would be found at either's address."""
    if any(kept.name == name for kept in network.spec.reservations):
        raise CorralError(
            "name-taken",
            f"VM {name!r} on network {network.name!r}",
            "the network has reserved an address for a machine of that name",
            f"another name, another network, or corral network unreserve {network.name} {name}",
        )


def with_address6(nic: NicSpec, network: Network) -> NicSpec:
    """The card with the IPv6 address that goes with its MAC and its IPv4 address."""
    return nic.model_copy(update={"address6": address6_of(network.spec, nic.address, nic.mac)})


def claim_identity(transaction: Transaction, vm: Vm) -> None:
    """What no other VM may have: the addresses of its cards, and its QEMU's uid."""
    claim_cards(transaction, vm)
    if (dac := vm.annotations.get(DAC_UID_ANNOTATION)) is not None:
        transaction.claim(claim_key("dac-uid", "host", str(int(dac) - DAC_UID_FIRST)), vm.uid)


def claim_cards(transaction: Transaction, vm: Vm) -> None:
    for key in sorted(card_claims(vm.spec.nics)):
        transaction.claim(key, vm.uid)


def card_claims(nics: Iterable[NicSpec]) -> frozenset[str]:
    """The keys of what these cards have and no other may."""
    cards = tuple(nics)
    macs = {claim_key("mac", "host", nic.mac) for nic in cards}
    return frozenset(macs | {claim_key("address", nic.network_uid, each) for nic in cards for each in nic.addresses})


async def find_networks(context: Context, project: str, request: CreateVmRequest) -> tuple[Network, ...]:
    """The network of each card, in order. Without cards in the request: one on `default`."""
    wanted = _cards(request)
    return tuple([await network_of(context, project, card) for card in wanted])


async def network_of(context: Context, project: str, card: NicRequest) -> Network:
    """What a card goes on: of a bridge that no network stands for yet, one that is to be made with it (revision 0)."""
    if card.bridge is None:
        return await find_network(context, project, card.network)
    if "network" in card.model_fields_set:
        raise CorralError(
            "invalid-argument", f"bridge {card.bridge}", "a card is on one network", "leave `network` out"
        )
    return await network_on(context, card.bridge)


def allocate_nics(allocated: Allocated, networks: Sequence[Network], request: CreateVmRequest) -> tuple[NicSpec, ...]:
    cards = _cards(request)
    for network in networks:
        check_host_name(network, request.name)
    macs = [card.mac for card in cards if card.mac is not None]
    if len(set(macs)) != len(macs):
        raise CorralError("address-taken", "MAC addresses", "two cards ask for the same one", "give each its own")
    return tuple(
        with_address6(
            NicSpec(
                name=f"net{index}",
                network=network.name,
                network_uid=network.uid,
                mac=mac_of(card),
                address=allocated.address(network, card.address),
                model=card.model,
                link_up=card.link_up,
                queues=card.queues,
                pxe=card.pxe,
                bandwidth_in=card.bandwidth_in,
                bandwidth_out=card.bandwidth_out,
                groups=card.groups,
            ),
            network,
        )
        for index, (card, network) in enumerate(zip(cards, networks, strict=True))
    )


async def groups_of(
    context: Context, project: str, networks: Sequence[Network], request: CreateVmRequest
) -> FoundGroups:
    """The security groups of all cards. Raises `security-group-not-found`."""
    for card, network in zip(_cards(request), networks, strict=True):
        check_filtered(network, card.groups)
    return await find_groups(context, project, [name for card in _cards(request) for name in card.groups])


async def moved_card(
    context: Context, mutation: Mutation, nic: NicSpec, request: ChangeNicRequest, allocated: Allocated
) -> dict[str, object]:
    """The fields of a card that goes to another network, or to another address in its own."""
    if request.network is None and request.address is None and not request.groups:
        return {}
    network = await find_network(context, mutation.project, request.network or nic.network)
    check_filtered(network, nic.groups if request.groups is None else request.groups)
    if network.uid == nic.network_uid and request.address in (None, nic.address):
        return {}
    check_host_name(network, mutation.target)
    await authorize_networks(context, mutation.caller, (network,), mutation.target)
    address = allocated.address(network, request.address)
    address6 = address6_of(network.spec, address, nic.mac)
    return {"network": network.name, "network_uid": network.uid, "address": address, "address6": address6}


async def authorize_networks(context: Context, caller: Caller, networks: Sequence[Network], target: str) -> None:
    """Networks of somebody else's, and past the host's filters, are for those who own the host."""
    if any(not network.spec.filtered for network in networks):
        await authorize(context, caller, DEFAULT_PROJECT, "host.use-bridge", target)


def check_filtered(network: Network, groups: Sequence[str]) -> None:
    """A promise that cannot be kept is not made."""
    if groups and not network.spec.filtered:
        why = {
            "macvtap": "is macvtap: what its cards send and get passes by every filter of the host",
            "libvirt": "was made elsewhere, and Corral filters nothing on it",
        }[network.spec.mode]
        raise CorralError(
            "unsupported",
            f"security groups {', '.join(groups)}",
            f"network {network.name!r} {why}",
            "leave them out, or use a network of mode bridge",
        )


def _cards(request: CreateVmRequest) -> tuple[NicRequest, ...]:
    return (NicRequest(),) if request.nics is None else request.nics


def mac_of(card: NicRequest) -> str:
    if card.mac is None:
        return new_mac()
    if int(card.mac[:2], 16) & 1:
        raise CorralError("invalid-argument", f"MAC {card.mac}", "it is a group address", "use one like 52:54:00:…")
    return card.mac


async def find_network(context: Context, project: str, name: str) -> Network:
    """A network of the project's; every project may use `default`'s own network."""
    found = await context.objects.find(Network, project, name)
    if found is None and project != DEFAULT_PROJECT:
        found = await context.objects.find(Network, DEFAULT_PROJECT, name)
    found = found or await context.objects.require(Network, project, name)
    if found.being_deleted:
        raise CorralError("network-in-use", f"network {name!r}", "it is being deleted", "choose another one")
    return found
