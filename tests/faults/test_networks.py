"""Networks under an agent: those of others come and go, a lost bridge comes back, a daemon dies while one is made."""

from corral.model.base import ConditionStatus
from corral.model.network import Network, NetworkSpec
from corral.names import new_uid
from corral.network.base import ObservedNetwork

THEIRS = "0b5e6f0a-53b4-4c6e-9a52-00000000aaaa"


def theirs(**update: object) -> ObservedNetwork:
    fields = {"uid": THEIRS, "name": "default", "active": True, "bridge": "virbr0", "subnet": "192.168.122.0/24"}
    return ObservedNetwork(**{**fields, **update})


async def named(w, name: str) -> Network | None:
    return next((one for one in await w.objects.list(Network) if one.name == name), None)


async def ready(w, name: str) -> bool:
    found = await named(w, name)
    return found is not None and any(
        one.type == "Ready" and one.status is ConditionStatus.TRUE for one in found.status.conditions
    )


def test_networks_of_others_are_known_and_left_alone(world):
    async def scene(w):
        await w.start()
        w.networks.foreign.append(theirs())
        w.networks.foreign.append(theirs(uid=new_uid(), name="corral-abcdef-default"))  # another installation's
        w.networks.foreign.append(theirs(uid=new_uid(), name="a b$(id)"))  # no name that Corral could say
        await w.agent.network_keeper.look()
        assert await ready(w, "libvirt:default")
        found = await named(w, "libvirt:default")
        assert (found.uid, found.spec.mode, found.spec.source) == (THEIRS, "libvirt", "default")
        assert [one.name for one in await w.objects.list(Network) if one.spec.mode == "libvirt"] == ["libvirt:default"]
        w.networks.foreign[0] = theirs(active=False, subnet="192.168.123.0/24")
        await w.agent.network_keeper.look()
        found = await named(w, "libvirt:default")
        assert (found.spec.subnet, found.status.active) == ("192.168.123.0/24", False)
        w.networks.foreign.clear()
        await w.agent.network_keeper.look()
        await w.agent.network_keeper.look()
        assert await named(w, "libvirt:default") is None
        assert THEIRS not in w.networks.networks  # never made, nor ensured, by us

    world(scene)


def test_one_that_a_vm_is_on_is_kept_in_mind_while_it_is_gone(world):
    async def scene(w):
        await w.start()
        w.networks.foreign.append(theirs())
        await w.agent.network_keeper.look()
        network = await named(w, "libvirt:default")
        vm, create = await w.create()
        await w.ended(create)
        moved = [nic.model_copy(update={"network_uid": network.uid, "network": network.name}) for nic in vm.spec.nics]
        transaction = w.objects.transaction()
        now = await w.vm(vm.uid)
        transaction.update(now.model_copy(update={"spec": now.spec.model_copy(update={"nics": tuple(moved)})}))
        await transaction.commit()
        w.networks.foreign.clear()
        await w.quiet()
        await w.agent.network_keeper.look()
        found = await named(w, "libvirt:default")
        assert found is not None
        assert not found.status.active

    world(scene)


def test_a_lost_bridge_is_made_again_on_word_from_the_kernel(world):
    async def scene(w):
        await w.start()
        network = (await w.objects.list(Network))[0]
        w.networks.lost.add(network.uid)
        w.agent.wire.wake()
        await w.until(lambda: not w.networks.lost)

    world(scene)


def test_a_network_that_is_made_while_the_agent_dies_is_up_after_the_next_start(world):
    async def scene(w):
        await w.start()
        uid = new_uid()
        spec = NetworkSpec(subnet="10.77.0.0/24", bridge="crl77", domain="lab.internal")
        transaction = w.objects.transaction()
        transaction.create(Network(name="lab", uid=uid, created_at=w.clock.now(), spec=spec))
        await transaction.commit()
        await w.kill()
        await w.start()
        await w.until(lambda: uid in w.networks.networks)
        assert await ready(w, "lab")

    world(scene)
