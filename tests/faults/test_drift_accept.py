"""What others changed is accepted: the agent then finds the domain as it is wished, whenever it was killed."""

import pytest

from corral.model.identity import Identity, Role
from corral.model.operation import DeleteVm, OperationState
from corral.model.requests import UpdateVmRequest
from corral.model.vm import Power
from corral.security.audit import AuditLog
from corral.services.caller import Caller
from corral.services.context import Context
from corral.services.ledger import Ledger
from corral.services.vm import VmService

ADMIN = Caller(Identity(name="local:root", roles={"*": Role.ADMIN}), "request")


async def no_hash(password: str) -> str:
    raise AssertionError(password)


def services(w) -> VmService:
    """Services over the agent's own world."""
    return VmService(
        Context(
            objects=w.objects,
            clock=w.clock,
            settings=w.settings,
            hypervisor=w.hypervisor,
            volumes=w.volumes,
            library=w.library,
            networks=w.networks,
            audit=AuditLog(w.store, "00000000-0000-4000-8000-00000000000b", w.clock),
            ledger=Ledger(w.objects),
            hash_password=no_hash,
            host_uid="00000000-0000-4000-8000-00000000000a",
            installation_id="00000000-0000-4000-8000-00000000000b",
            own_dac_uids=False,
            cpus=64,
            memory_mib=2**20,
        )
    )


async def condition(w, uid: str, status: str) -> bool:
    return any(c.type == "Drifted" and c.status == status for c in (await w.vm(uid)).status.conditions)


@pytest.mark.parametrize("killed", [False, True])
def test_the_condition_goes_and_the_domain_stays(world, killed):
    async def scene(w):
        await w.start()
        vm, create = await w.create(power=Power.OFF)
        await w.ended(create)

        def change(domain):
            domain.vcpus, domain.memory_mib, domain.disks = 4, 2048, ()

        w.hypervisor.edit(vm.uid, change)
        await w.until(lambda: condition(w, vm.uid, "true"))
        if killed:
            await w.kill()
            w.simulation.revive()
        defined = w.simulation.trace.count("hypervisor.define")
        operation = await services(w).update(ADMIN, "default", vm.name, UpdateVmRequest(accept_drift=True))
        if killed:
            await w.start()
        assert (await w.ended(operation)).status.state is OperationState.SUCCEEDED
        await w.until(lambda: condition(w, vm.uid, "false"))
        domain = w.hypervisor.domains[vm.uid]
        assert (domain.vcpus, domain.memory_mib, domain.disks) == (4, 2048, ())
        assert w.simulation.trace.count("hypervisor.define") == defined, "the domain was defined anew"
        assert '"memory_mib":2048' in domain.metadata.spec_json
        # The VM goes, its detached disk stays.
        await w.ended(await w.wish(vm, DeleteVm(), delete=True))
        assert w.hypervisor.domains == {}
        assert set(w.volumes.pool.volumes) == {disk.volume_uid for disk in vm.spec.disks}

    world(scene)
