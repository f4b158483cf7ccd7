"""A thousand requests at once: no MAC and no address is ever two cards', whatever was asked for and however it ended."""

import asyncio
import ipaddress
import random
from collections import Counter
from typing import Any

from corral.errors import CorralError
from corral.model.network import Network, NetworkSpec
from corral.model.requests import ChangeNicRequest, CreateVmRequest, NicRequest
from corral.model.vm import Vm
from corral.names import new_uid
from corral.services.device import DeviceService

REQUESTS = 1000
SUBNETS = {"default": "10.0.0.0/22", "small": "10.40.0.0/26"}
REFUSALS = {
    "address-taken",
    "no-free-address",
    "wrong-state",
    "device-not-found",
    "vm-not-found",
    "precondition-failed",
}


def wanted(lot: random.Random) -> NicRequest:
    """Some of them want something that others want, too."""
    network = lot.choice(("default", "default", "default", "small"))
    first = ipaddress.ip_network(SUBNETS[network])[10]
    address = str(first + lot.randrange(12)) if lot.random() < 0.15 else None
    mac = f"52:54:00:00:00:{lot.randrange(48):02x}" if lot.random() < 0.1 else None
    return NicRequest(network=network, address=address, mac=mac)


async def one_request(world: Any, devices: DeviceService, lot: random.Random, number: int) -> None:
    caller, name = world.caller(), f"vm{lot.randrange(number + 1)}"
    match lot.randrange(10):
        case 0 | 1:
            await devices.attach_nic(caller, "default", name, wanted(lot))
        case 2:
            card = wanted(lot)
            change = ChangeNicRequest(network=card.network, address=card.address)
            await devices.change_nic(caller, "default", name, "net0", change)
        case 3:
            await devices.detach_nic(caller, "default", name, "net0")
        case _:
            request = CreateVmRequest(name=f"vm{number}", image="micro", start=False, nics=(wanted(lot), wanted(lot)))
            await world.vms.create(caller, "default", request)


def test_no_mac_and_no_address_is_ever_two_cards(play: Any) -> None:
    async def scene(world: Any) -> None:
        lot, devices = random.Random(20261122), DeviceService(world.context)
        spec = NetworkSpec(mode="isolated", subnet=SUBNETS["small"], bridge="crlsmall")
        await world.put(Network(name="small", uid=new_uid(), created_at=world.clock.now(), spec=spec))
        default = await world.objects.require(Network, "default", "default")
        large = default.spec.model_copy(update={"subnet": SUBNETS["default"]})
        await world.put(default.model_copy(update={"spec": large}))
        await world.follow()
        work = [one_request(world, devices, random.Random(lot.random()), number) for number in range(REQUESTS)]
        ended = await asyncio.gather(*work, return_exceptions=True)
        refused = Counter(found.code if isinstance(found, CorralError) else repr(found) for found in ended if found)
        assert refused.keys() <= REFUSALS, refused
        assert refused["address-taken"] > 20
        await check(world)

    play(scene)


async def check(world: Any) -> None:
    """Cards and claims say the same, and nothing twice."""
    vms = await world.objects.list(Vm)
    cards = [(vm.uid, nic) for vm in vms for nic in vm.spec.nics]
    assert len(cards) > REQUESTS // 4
    macs = Counter(nic.mac for _, nic in cards)
    addresses = Counter((nic.network_uid, nic.address) for _, nic in cards)
    assert max(macs.values()) == max(addresses.values()) == 1
    subnets = {net.uid: ipaddress.ip_network(net.spec.subnet) for net in await world.objects.list(Network)}
    for _, nic in cards:
        subnet = subnets[nic.network_uid]
        assert ipaddress.ip_address(nic.address) in list(subnet.hosts())[1:]
    claims = {
        record.key: record.value.decode()
        for kind in ("mac", "address")
        for record in (await world.objects.store.range(f"/claims/{kind}/", limit=10_000)).records
    }
    expected = {f"/claims/mac/host/{nic.mac}": uid for uid, nic in cards}
    expected |= {f"/claims/address/{nic.network_uid}/{nic.address}": uid for uid, nic in cards}
    assert claims == expected
