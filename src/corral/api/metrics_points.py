"""Metrics of points in time and of templates, counted when they are asked for."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Final

from prometheus_client.core import Metric

from corral.api.metric import gauge
from corral.model.limits import PAGE_MAX
from corral.model.requests import ListRequest
from corral.services.bundle import Services
from corral.services.caller import Caller
from corral.services.documents import Listing

_TEMPLATE: Final = ("project", "template", "uid")


async def point_families(
    services: Services, caller: Caller, project: str, forks: Mapping[str, int]
) -> tuple[Metric, ...]:
    """`forks`: how many VMs were made of which template, by its uid."""
    snapshots = [found async for found in _all(lambda page: services.snapshots.list_all(caller, project, page))]
    templates = [found async for found in _all(lambda page: services.templates.list(caller, project, page))]
    counts: Counter[tuple[str, ...]] = Counter()
    for found in snapshots:
        spec = found["spec"]
        kind = "hidden" if spec.get("hidden") else "memory" if spec["with_memory"] else "disk"
        counts[found["project"], kind, "ready" if found["status"]["ready"] else "being made"] += 1
    kept: Counter[tuple[str, ...]] = Counter()
    for found in snapshots:
        kept[(found["project"],)] += found["status"].get("memory_bytes", 0)
    labelled = [((one["project"], one["name"], one["uid"]), one) for one in templates]
    states = [((*labels, "hot" if one["spec"]["hot"] else "disk", _state(one)), 1.0) for labels, one in labelled]
    stored = [(labels, float(one["status"]["stored_bytes"])) for labels, one in labelled]
    made = [(labels, float(forks.get(one["uid"], 0))) for labels, one in labelled]
    warm = [(labels, float(one["spec"].get("warm", 0))) for labels, one in labelled]
    waiting = [(labels, float(one["status"].get("waiting", 0))) for labels, one in labelled]
    return (
        gauge(
            "corral_snapshots",
            "Points in time; hidden ones are made for clones and templates",
            ("project", "kind", "state"),
            counts.items(),
        ),
        gauge(
            "corral_snapshot_memory_bytes", "Memory that is kept with snapshots, on disk", ("project",), kept.items()
        ),
        gauge("corral_template_state", "1 for the state that a template is in", (*_TEMPLATE, "kind", "state"), states),
        gauge("corral_template_stored_bytes", "What a template's memory takes on disk", _TEMPLATE, stored),
        gauge("corral_template_warm", "Domains that are to wait for a template's state", _TEMPLATE, warm),
        gauge("corral_template_waiting", "Those of them that do", _TEMPLATE, waiting),
        gauge("corral_template_vms", "VMs that were made of a template and are still there", _TEMPLATE, made),
    )


def _state(template: dict[str, Any]) -> str:
    if template.get("deletion_requested_at"):
        return "being deleted"
    if not template["status"]["ready"]:
        return "being made"
    return "stale" if template["status"].get("stale") else "ready"


async def _all(listed: Callable[[ListRequest], Awaitable[Listing]]) -> AsyncIterator[dict[str, Any]]:
    """Page by page: a scrape never holds up the loop for long."""
    after: str | None = ""
    while after is not None:
        listing = await listed(ListRequest(limit=PAGE_MAX, after=after))
        for content in listing.documents:
            yield json.loads(content)
        await asyncio.sleep(0)
        after = listing.next
