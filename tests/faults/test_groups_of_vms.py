"""Security groups and what becomes of VMs: clones carry their origin's, and a running guest is not touched for a change."""

import pytest
from points_in_time import taken

from corral.errors import CorralError
from corral.model.firewall_requests import CreateSecurityGroupRequest
from corral.model.identity import Identity, Role
from corral.model.operation import OperationState
from corral.model.requests import ChangeNicRequest, CloneVmRequest
from corral.model.vm import Power, Vm
from corral.services.caller import Caller
from corral.services.clone import CloneService
from corral.services.security_group import SecurityGroupService

ADMIN = Caller(Identity(name="local:root", roles={"*": Role.ADMIN}), "request")


async def with_group(w):
    """A VM that runs, whose card was given the group `web` meanwhile."""
    await w.start()
    origin, create = await w.create(power=Power.ON)
    await w.ended(create)
    groups = SecurityGroupService(w.devices._context)
    await groups.create(ADMIN, "default", CreateSecurityGroupRequest(name="web", rules=("in tcp/80",)))
    w.simulation.trace.clear()
    nic = origin.spec.nics[0].name
    operation = await w.devices.change_nic(ADMIN, "default", origin.name, nic, ChangeNicRequest(groups=("web",)))
    assert (await w.ended(operation)).status.state is OperationState.SUCCEEDED
    return origin, groups


def test_a_running_guest_is_not_touched_for_other_groups(world):
    async def scene(w):
        origin, _ = await with_group(w)
        found = await w.objects.get(Vm, origin.uid)
        assert found.spec.nics[0].groups == ("web",)
        assert not found.status.pending_restart
        touched = [
            word for word in w.simulation.trace if any(verb in word for verb in ("start", "stop", "attach", "detach"))
        ]
        assert touched == []

    world(scene)


def test_a_clone_carries_the_groups_of_its_origin_as_long_as_they_are_there(world):
    async def scene(w):
        origin, groups = await with_group(w)
        await taken(w, origin, "kept")
        clones = CloneService(w.devices._context)
        request = CloneVmRequest(names=("copy",), from_snapshot="kept")
        vms, operations = await clones.clone(ADMIN, "default", origin.name, request)
        assert vms[0].spec.nics[0].groups == ("web",)
        await w.ended(operations[0])
        with pytest.raises(CorralError, match="security-group-in-use"):
            await groups.delete(ADMIN, "default", "web")

    world(scene)
