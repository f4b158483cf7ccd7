"""A name means one machine in a network: a VM, or one that an address is reserved for."""

from typing import Any

import pytest

from corral.errors import CorralError
from corral.model.network import Network
from corral.model.network_parts import StaticReservation
from corral.model.network_requests import ChangeNetworkRequest
from corral.model.requests import CreateVmRequest, NicRequest, UpdateVmRequest
from corral.names import new_uid
from corral.services.device import DeviceService
from corral.services.network import NetworkService


def test_a_reserved_name_is_no_vms_and_the_other_way_round(play: Any) -> None:
    async def scene(world: Any) -> None:
        caller, admin = world.caller(), world.admin()
        (default,) = await world.objects.list(Network)
        kept = StaticReservation(name="printer", mac="52:54:00:00:00:99", address="10.0.0.9")
        other = StaticReservation(name="scanner", mac="52:54:00:00:00:97", address="10.0.0.7")
        spec = default.spec.model_copy(
            update={"reservations": (kept, other), "bridge": "crlother", "subnet": "10.0.0.0/24"}
        )
        await world.put(Network(name="lab", uid=new_uid(), created_at=world.clock.now(), spec=spec))
        on_lab = (NicRequest(network="lab"),)

        async def refused(work: Any) -> None:
            with pytest.raises(CorralError, match="name-taken"):
                await work

        async def create(name: str, nics: tuple[NicRequest, ...]) -> None:
            await world.vms.create(caller, "default", CreateVmRequest(name=name, image="micro", nics=nics))

        await refused(create("printer", on_lab))
        await create("printer", (NicRequest(),))
        await refused(DeviceService(world.context).attach_nic(caller, "default", "printer", NicRequest(network="lab")))
        await create("web", on_lab)
        await refused(world.vms.update(caller, "default", "web", UpdateVmRequest(name="scanner")))
        twice = (kept, other, StaticReservation(name="web", mac="52:54:00:00:00:98", address="10.0.0.8"))
        networks = NetworkService(world.context)
        await refused(networks.change(admin, "default", "lab", ChangeNetworkRequest(reservations=twice)))

    play(scene)
