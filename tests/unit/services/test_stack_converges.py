"""Whatever two documents say: applied one after the other, each leaves nothing to do."""

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stack_world import apply, carry_out, plan, plan_down

from corral.model.vm import Vm

DISK_NAMES = ("alpha", "beta", "gamma")
DISK = st.fixed_dictionaries(
    {},
    optional={
        "iops": st.sampled_from([0, 100, 500]),
        "cache": st.sampled_from(["writeback", "none"]),
        "bandwidth": st.sampled_from(["0", "10M"]),
    },
)
NIC = st.fixed_dictionaries({}, optional={"link_up": st.booleans(), "queues": st.sampled_from([1, 2])})
VM = st.fixed_dictionaries(
    {},
    optional={
        "count": st.integers(1, 2),
        "memory": st.sampled_from(["128M", "256M", 512]),
        "vcpus": st.sampled_from([1, 2]),
        "cpu_shares": st.sampled_from([None, 64, 2048]),
        "disks": st.lists(st.sampled_from(DISK_NAMES), unique=True, max_size=3).flatmap(
            lambda names: st.tuples(*(DISK.map(lambda disk, name=name: {"name": name, "size": 1, **disk}) for name in names))
        ),
        "nics": st.lists(NIC, max_size=3),
        "labels": st.dictionaries(st.sampled_from(["a", "b"]), st.sampled_from(["", "x"]), max_size=2),
        "description": st.sampled_from(["", "one", "two"]),
        "run_policy": st.sampled_from(["always", "manual", "on-failure"]),
        "autostart": st.booleans(),
        "priority": st.sampled_from([1, 100]),
        "graphics": st.sampled_from(["vnc", "none"]),
        "start": st.booleans(),
        "hardware": st.fixed_dictionaries(
            {},
            optional={
                "watchdog": st.sampled_from([None, "reset"]),
                "cpu": st.sampled_from([{}, {"quota_percent": 50}, {"features": ["+avx2"]}]),
                "memory": st.sampled_from([{}, {"reserved_mib": 64}]),
                "rng": st.booleans(),
            },
        ),
    },
)  # fmt: skip
STACK = st.fixed_dictionaries(
    {"vms": st.dictionaries(st.sampled_from(["db", "web"]), VM, min_size=1)},
    optional={"defaults": st.sampled_from([{"vcpus": 2}, {"labels": {"c": "y"}}, {"memory": "1G"}])},
)


def _rooted(document: dict[str, Any]) -> dict[str, Any]:
    """Every VM on the image, with a root disk of a fixed size before the others."""
    vms = {name: {**vm, "disks": [2, *vm["disks"]]} if "disks" in vm else vm for name, vm in document["vms"].items()}
    defaults = {"memory": "128M", **document.get("defaults", {}), "image": "micro"}
    return {**document, "stack": "lab", "defaults": defaults, "vms": vms}


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(first=STACK, second=STACK)
def test_a_stack_that_was_applied_needs_nothing(play: Any, first: dict[str, Any], second: dict[str, Any]) -> None:
    async def scene(world: Any) -> None:
        for document in (_rooted(first), _rooted(second)):
            # A new root disk, where the one before had none of a fixed size, is the one thing that is not changed.
            await apply(world, document, prune=True, replace=tuple(document["vms"]), delete_disks=True)
            again = await plan(world, document, prune=True)
            assert (again.actions, again.blocked, again.orphans) == ((), (), ())
        for action in (await plan_down(world, "lab", document=_rooted(second))).actions:
            await carry_out(world, action)
        assert await world.objects.list(Vm) == []

    play(scene)
