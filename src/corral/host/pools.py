"""Checks of the pools that volumes lie in, by what the agent measured last."""

from collections.abc import Iterable, Iterator

from corral.host.machine import error as broken
from corral.host.machine import ok, warning
from corral.model.doctor import Finding
from corral.model.pool import Pool, PoolLevel
from corral.names import format_bytes


def check_pools(pools: Iterable[Pool]) -> Iterator[Finding]:
    for pool in sorted(pools, key=lambda pool: pool.name):
        status = pool.status
        name = f"pool-{pool.name}"
        if not status.available:
            yield broken(name, f"{pool.spec.path}: {status.reason}", "mount it, or corral pool delete")
            continue
        text = (
            f"{format_bytes(status.free_bytes)} of {format_bytes(status.total_bytes)} are free in {pool.spec.path};"
            f" {status.volumes} volumes take {format_bytes(status.allocated_bytes)}"
            f" and may take {format_bytes(status.logical_bytes)} (overcommit {status.overcommit:.1f})"
        )
        advice = "guests pause when it is full: add space, or move or delete volumes (corral volume list)"
        match status.level:
            case PoolLevel.CRITICAL:
                yield broken(name, text, advice)
            case PoolLevel.WARNING:
                yield warning(name, text, advice)
            case PoolLevel.OK:
                yield ok(name, text)
