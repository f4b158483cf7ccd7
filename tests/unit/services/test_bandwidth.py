"""What cards may be promised of their networks."""

import asyncio
from typing import Any

import pytest

from corral.errors import CorralError
from corral.model import limits
from corral.model.bandwidth import Bandwidth
from corral.model.capture import CaptureRequest
from corral.model.identity import Identity, Right, Role
from corral.model.network import Network
from corral.model.network_requests import ChangeNetworkRequest, CreateNetworkRequest
from corral.model.requests import ChangeNicRequest, NicRequest
from corral.services.caller import Caller
from corral.services.capture import CaptureService
from corral.services.device import DeviceService
from corral.services.promises import check_network


async def refused(code: str, call: Any) -> None:
    with pytest.raises(CorralError) as found:
        await call
    assert found.value.code == code
    assert found.value.hint


async def limited(world: Any, average: int) -> Network:
    """The default network, with a limit in both directions."""
    network = await world.objects.require(Network, "default", "default")
    limit = Bandwidth(average_bytes_per_s=average)
    spec = network.spec.model_copy(update={"bandwidth_in": limit, "bandwidth_out": limit})
    return await world.put(network.model_copy(update={"spec": spec}))  # type: ignore[no-any-return]


def floor(rate: int) -> Bandwidth:
    return Bandwidth(floor_bytes_per_s=rate)


def test_promises_never_add_up_to_more_than_there_is(play: Any) -> None:
    async def scene(world: Any) -> None:
        devices, who = DeviceService(world.context), world.caller
        await world.running("web")
        await world.running("db")
        promise = ChangeNicRequest(bandwidth_in=floor(600_000))
        await refused("invalid-argument", devices.change_nic(who(), "default", "web", "net0", promise))
        network = await limited(world, 1_000_000)
        await devices.change_nic(who(), "default", "web", "net0", promise)
        await devices.change_nic(who(), "default", "web", "net0", promise)  # its own of before does not count
        await refused("insufficient-bandwidth", devices.change_nic(who(), "default", "db", "net0", promise))
        await devices.change_nic(who(), "default", "db", "net0", ChangeNicRequest(bandwidth_in=floor(400_000)))
        await refused(
            "insufficient-bandwidth", devices.attach_nic(who(), "default", "web", NicRequest(bandwidth_in=floor(1000)))
        )
        await devices.attach_nic(who(), "default", "web", NicRequest(bandwidth_out=floor(1000)))
        # The network's limit stays at what was promised.
        less = network.spec.model_copy(update={"bandwidth_in": Bandwidth(average_bytes_per_s=999_999)})
        await refused(
            "insufficient-bandwidth", check_network(world.context, network.model_copy(update={"spec": less}), "")
        )
        assert (await world.vm("web")).spec.nics[0].bandwidth_in == floor(600_000)

    play(scene)


def test_what_is_not_ours_is_not_limited(play: Any) -> None:
    async def scene(world: Any) -> None:
        network = await limited(world, 1_000_000)
        foreign = network.spec.model_copy(update={"mode": "bridge"})
        await refused(
            "invalid-argument", check_network(world.context, network.model_copy(update={"spec": foreign}), "")
        )
        promised = network.spec.model_copy(update={"bandwidth_in": floor(5000)})
        await refused(
            "invalid-argument", check_network(world.context, network.model_copy(update={"spec": promised}), "")
        )

    play(scene)


def test_capturing_needs_its_own_right_and_is_written_down(play: Any) -> None:
    async def scene(world: Any) -> None:
        captures = CaptureService(world.context)
        await world.running("web")

        async def content(who: Caller, **wish: Any) -> bytes:
            return b"".join(
                [piece async for piece in await captures.open(who, "default", "web", "net0", CaptureRequest(**wish))]
            )

        with pytest.raises(CorralError) as found:
            await content(world.caller())
        assert found.value.code == "forbidden"
        entitled = Identity(name="token:ops", roles={"default": Role.OPERATOR}, rights={"default": (Right.CAPTURE,)})
        assert len(await content(Caller(entitled, "request-capture"))) == 24
        await refused("invalid-argument", content(world.admin(), filter="-w x"))
        with pytest.raises(CorralError) as found:
            await captures.open(world.admin(), "default", "web", "net7", CaptureRequest())
        assert found.value.code == "device-not-found"
        assert [outcome for action, outcome in await world.audit_outcomes() if action == "vm.capture"] == [
            "denied",
            "accepted",
            "ended",
            "invalid-argument",
            "accepted",
        ]

    play(scene)


def test_only_so_many_captures_run_however_they_are_asked_for(play: Any) -> None:
    async def scene(world: Any) -> None:
        captures = CaptureService(world.context)
        await world.running("web")

        def ask() -> Any:
            return captures.open(world.admin(), "default", "web", "net0", CaptureRequest())

        opened = await asyncio.gather(*(ask() for _ in range(limits.CAPTURES_MAX + 3)), return_exceptions=True)
        refusals = [found for found in opened if isinstance(found, CorralError)]
        assert [error.code for error in refusals] == ["rate-limited"] * 3
        running = [found for found in opened if not isinstance(found, BaseException)]
        assert len(running) == limits.CAPTURES_MAX
        await refused("rate-limited", ask())
        # One that nobody has read of is over when it is closed, too.
        await running.pop().aclose()
        running.append(await ask())
        for each in running:
            await each.aclose()
        with pytest.raises(CorralError):
            await captures.open(world.admin(), "default", "web", "net7", CaptureRequest())
        for each in [await ask() for _ in range(limits.CAPTURES_MAX)]:
            await each.aclose()

    play(scene)


def test_requests_take_limits() -> None:
    assert CreateNetworkRequest(name="lab", bandwidth_in=Bandwidth(average_bytes_per_s=5000)).bandwidth_in
    assert ChangeNetworkRequest().bandwidth_in is None
