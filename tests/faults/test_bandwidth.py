"""Limits of cards and networks under an agent: made, changed and taken away while guests run, and again by the next agent."""

from typing import Any

from corral.model.bandwidth import Bandwidth
from corral.model.identity import Identity, Role
from corral.model.network import Network
from corral.model.operation import OperationState
from corral.model.requests import ChangeNicRequest
from corral.model.vm import Power
from corral.names import tap_name
from corral.network.shaping import Queue, Shape
from corral.services.caller import Caller

ADMIN = Caller(Identity(name="local:root", roles={"*": Role.ADMIN}), "request")
FAST, SLOW = Bandwidth(average_bytes_per_s=9_000_000), Bandwidth(average_bytes_per_s=5_000)


def test_the_kernel_is_told_of_each_change_and_of_the_end(world: Any) -> None:
    async def scene(w: Any) -> None:
        await w.start()
        vm, create = await w.create(power=Power.ON)
        await w.ended(create)
        tap = tap_name(vm.uid, vm.spec.nics[0].name)

        async def change(**wish: Bandwidth) -> None:
            name = vm.spec.nics[0].name
            operation = await w.devices.change_nic(ADMIN, "default", vm.name, name, ChangeNicRequest(**wish))
            assert (await w.ended(operation)).status.state is OperationState.SUCCEEDED

        def told(wanted: dict[str, Shape]) -> Any:
            return w.until(lambda: w.networks.shapes == wanted)

        assert w.networks.shapes == {}
        await change(bandwidth_in=FAST)
        await told({tap: Shape(tap, leaving=Queue(FAST))})
        await change(bandwidth_out=SLOW)
        both = {tap: Shape(tap, leaving=Queue(FAST), coming=Queue(SLOW))}
        await told(both)
        await w.kill()
        w.networks.shapes = {}
        await w.start()
        await told(both)
        network = await w.objects.get(Network, w.network.uid)
        transaction = w.objects.transaction()
        limited = network.spec.model_copy(update={"bandwidth_out": SLOW})
        transaction.update(network.model_copy(update={"spec": limited}))
        await transaction.commit()
        bridge = network.spec.bridge
        await told({**both, bridge: Shape(bridge, coming=Queue(SLOW))})
        await change(bandwidth_in=Bandwidth(), bandwidth_out=Bandwidth())
        await told({bridge: Shape(bridge, coming=Queue(SLOW))})

    world(scene)
