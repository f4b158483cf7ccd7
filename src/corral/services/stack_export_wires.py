"""What a stack has of policies, balancers and floating addresses, as its document says it."""

from collections.abc import Collection
from typing import Any

from corral.model.address import FloatingAddress
from corral.model.balancer import Balancer, BalancerCheck
from corral.model.network_policy import NetworkPolicy
from corral.services.context import Context
from corral.services.stack_state import find_of_stack


async def exported_wires(context: Context, project: str, stack: str, vms: Collection[str]) -> dict[str, Any]:
    """Those of the stack that name no VM but `vms`."""
    policies = await find_of_stack(context, NetworkPolicy, project, stack)
    balancers = await find_of_stack(context, Balancer, project, stack)
    addresses = await find_of_stack(context, FloatingAddress, project, stack)
    found = {
        "network_policies": {one.name: _policy(one) for one in policies},
        "balancers": {
            one.name: _balancer(one) for one in balancers if all(target.vm in vms for target in one.spec.targets)
        },
        "addresses": {
            one.name: _address(one)
            for one in addresses
            if one.spec.router is not None and (one.spec.vm is None or one.spec.vm in vms)
        },
    }
    return {section: declared for section, declared in found.items() if declared}


def _policy(policy: NetworkPolicy) -> dict[str, Any]:
    found: dict[str, Any] = {"tiers": list(policy.spec.tiers)}
    if policy.spec.unless:
        found["unless"] = [one.text for one in policy.spec.unless]
    return {**found, **({"description": policy.spec.description} if policy.spec.description else {})}


def _balancer(balancer: Balancer) -> dict[str, Any]:
    spec = balancer.spec
    found: dict[str, Any] = {"router": spec.router, "listen": spec.listen}
    if spec.port != spec.listen:
        found["port"] = spec.port
    found["to"] = [target.vm for target in spec.targets]
    if spec.mode != "tcp":
        found["mode"] = spec.mode
    if spec.algorithm != "roundrobin":
        found["algorithm"] = spec.algorithm
    check = spec.check.model_dump(mode="json", exclude_defaults=True)
    return {**found, **({"check": check} if spec.check != BalancerCheck() else {})}


def _address(address: FloatingAddress) -> dict[str, Any]:
    spec = address.spec
    found = {"router": spec.router, "address": spec.address}
    return {**found, **({"vm": spec.vm} if spec.vm is not None else {})}
