"""Floating addresses without a router: of the host's own, led to VMs that the host reaches itself."""

import asyncio
import json
from collections.abc import Awaitable
from typing import Any

import pytest

from corral.errors import CorralError
from corral.model.address import FloatingAddress
from corral.model.identity import Role
from corral.model.network import Network
from corral.model.router_requests import AssignAddressRequest, CreateAddressRequest
from corral.network.firewall.desired import desired_policy
from corral.network.firewall.policy import Floating
from corral.network.host_addresses import spare_in
from corral.network.paths import Layout
from corral.services.address import AddressService
from corral.store.objects import host_address_claim

FACE = "203.0.113.7"


async def floating(world: Any) -> tuple[Floating, ...]:
    vms = {vm.uid: vm for vm in [await world.vm(name) for name in ("web", "other")]}
    networks = {one.uid: one for one in await world.objects.list(Network)}
    addresses = {one.uid: one for one in await world.objects.list(FloatingAddress)}
    return desired_policy(Layout(networks=networks, vms=vms, addresses=addresses), (), ()).floating


def test_it_is_led_to_one_vm_after_the_other_and_given_back(play: Any) -> None:
    async def scene(world: Any) -> None:
        web, other = await world.running("web"), await world.running("other")
        addresses, admin = AddressService(world.context), world.admin()
        request = CreateAddressRequest(name="face", address=FACE, vm="web")
        made = await addresses.create(admin, "default", request)
        assert (made.spec.router, made.spec.vm_uid) == (None, web.uid)
        assert await floating(world) == (Floating(made.uid, FACE, web.spec.nics[0].address),)
        await addresses.assign(admin, "default", "face", AssignAddressRequest(vm="other"))
        assert await floating(world) == (Floating(made.uid, FACE, other.spec.nics[0].address),)
        await addresses.assign(admin, "default", "face", AssignAddressRequest(vm=None))
        assert await floating(world) == ()
        await addresses.delete(admin, "default", "face")
        assert await world.objects.owner(host_address_claim(FACE)) is None

    play(scene)


def test_what_the_host_has_not_or_what_would_be_twice_is_refused(play: Any) -> None:
    async def scene(world: Any) -> None:
        await world.running("web")
        await world.running("other", nics=())
        addresses, admin = AddressService(world.context), world.admin()

        async def refused(code: str, who: Any = admin, **request: Any) -> CorralError:
            with pytest.raises(CorralError) as error:
                await addresses.create(who, "default", CreateAddressRequest.model_validate(request))
            assert error.value.code == code
            return error.value

        assert FACE in (await refused("invalid-argument", name="a", address="192.0.2.2")).hint
        await refused("invalid-argument", name="a", vm="web")
        await refused("invalid-argument", name="a", address=FACE, vm="other")
        await refused("forbidden", world.caller(Role.OPERATOR), name="a", address=FACE)
        await addresses.create(admin, "default", CreateAddressRequest(name="face", address=FACE, vm="web"))
        await refused("address-taken", name="again", address=FACE)
        await refused("address-taken", name="second", address="203.0.113.8", vm="web")
        await addresses.create(admin, "default", CreateAddressRequest(name="second", address="203.0.113.8"))

    play(scene)


def test_of_two_that_ask_at_once_one_is_led_to_a_vm(play: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene(world: Any) -> None:
        await world.running("web")
        addresses, admin = AddressService(world.context), world.admin()
        looked = addresses._vm_at_host

        async def and_the_other_looks(*args: Any) -> Any:
            found = await looked(*args)
            await asyncio.sleep(0.05)
            return found

        monkeypatch.setattr(addresses, "_vm_at_host", and_the_other_looks)

        async def one_of(*tries: Awaitable[FloatingAddress]) -> None:
            done = await asyncio.gather(*tries, return_exceptions=True)
            codes = [each.code for each in done if isinstance(each, CorralError)]
            assert codes == ["address-taken"], done
            assert [each.spec.vm for each in await world.objects.list(FloatingAddress)].count("web") == 1

        given = {"one": FACE, "two": "203.0.113.8"}
        await one_of(
            *(
                addresses.create(admin, "default", CreateAddressRequest(name=name, address=address, vm="web"))
                for name, address in given.items()
            )
        )
        (left,) = await world.objects.list(FloatingAddress)
        await addresses.delete(admin, "default", left.name)
        for name, address in given.items():
            await addresses.create(admin, "default", CreateAddressRequest(name=name, address=address))
        assigned = AssignAddressRequest(vm="web")
        await one_of(*(addresses.assign(admin, "default", name, assigned) for name in given))

    play(scene)


def test_the_first_address_of_an_interface_is_the_hosts_face() -> None:
    def address(local: str, scope: str = "global") -> dict[str, str]:
        return {"family": "inet", "local": local, "scope": scope}

    links = [
        {"ifname": "lo", "addr_info": [address("127.0.0.1", "host"), address("127.0.0.2", "host")]},
        {"ifname": "eth0", "addr_info": [address("192.0.2.2"), address(FACE), address("203.0.113.8")]},
        {"ifname": "br0", "addr_info": [address("169.254.1.1", "link"), address("198.51.100.1")]},
        {},
    ]
    assert spare_in(json.dumps(links).encode()) == (FACE, "203.0.113.8")
    assert spare_in(b"") == ()
