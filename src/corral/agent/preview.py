"""The definition of a VM that nobody has made: what a dry run shows."""

from collections.abc import Sequence
from dataclasses import replace

from corral.agent.cache import Cache
from corral.agent.definition import Places, build_definition
from corral.errors import CorralError
from corral.hypervisor.base import DomainDefinition
from corral.model.vm import Vm
from corral.model.volume import Volume


def preview_definition(vm: Vm, volumes: Sequence[Volume], cache: Cache, places: Places | None) -> DomainDefinition:
    """As `build_definition`, with volumes that are not in the store."""
    if places is None:
        raise CorralError("hypervisor-unavailable", f"draw {vm.name}", "this host has not been looked at yet")
    known = dict(cache.around.volumes) | {volume.uid: volume for volume in volumes}
    return build_definition(vm, replace(cache.around, volumes=known), places)
