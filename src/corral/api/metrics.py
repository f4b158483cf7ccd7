"""What Prometheus reads: the API's own times, operations, and every VM and host, measured when it asks."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.core import Metric
from starlette.types import Scope

from corral.api.metric import Samples, counter, gauge
from corral.api.metrics_networks import network_families
from corral.api.metrics_points import point_families
from corral.errors import CorralError
from corral.log import logger
from corral.model.answers import UsageReport, VmUsage
from corral.model.identity import Identity, Role
from corral.model.limits import PAGE_MAX
from corral.model.operation import Operation, OperationState
from corral.model.requests import ListRequest
from corral.model.snapshot import Snapshot
from corral.model.stack import STACK_LABEL
from corral.names import MIB
from corral.security.policy import ALL_PROJECTS
from corral.services.bundle import Services
from corral.services.caller import Caller
from corral.services.documents import Watched
from corral.version import __version__

METHODS: Final = frozenset({"GET", "HEAD", "POST", "PATCH", "PUT", "DELETE", "OPTIONS", "WEBSOCKET"})
API_BUCKETS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0)
PAUSE_BUCKETS_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
OPERATION_BUCKETS_S: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0)
PREFIX: Final = "/v1"
EVERY_PROJECT: Final = ""
OBSERVER: Final = Caller(Identity(name="local:metrics", roles={ALL_PROJECTS: Role.VIEWER}), "metrics")
_UNFINISHED: Final = (b'"state":"running"', b'"state":"accepted"')
_VM: Final = ("project", "name", "uid")
# Fields of HostStatus: what one of them is in the metric's unit, and what it says.
_HOST_FIELDS: Final = (
    ("cpus", 1, "Hardware threads"),
    ("memory_mib", MIB, "Memory"),
    ("committed_vcpus", 1, "vCPUs promised to VMs"),
    ("vcpu_limit", 1, "vCPUs that may be promised"),
    ("committed_memory_mib", MIB, "Memory promised to VMs"),
    ("forks_memory_mib", MIB, "Of that, to VMs of templates: all of their memory"),
    ("templates_memory_mib", MIB, "Of that, templates' own memory, held for their VMs"),
    ("memory_limit_mib", MIB, "Memory that may be promised"),
    ("disk_free_bytes", 1, "Free space of the storage pool"),
    ("disk_total_bytes", 1, "Size of the storage pool"),
    ("vms_running", 1, "Running VMs"),
    ("hypervisor_connected", 1, "1 while the hypervisor answers"),
)
_POOL_FIELDS: Final = (
    ("total_bytes", "Size of the pool's file system"),
    ("free_bytes", "Free space in it"),
    ("used_bytes", "Used space in it, by whomever"),
    ("allocated_bytes", "What the volumes take"),
    ("logical_bytes", "What the volumes take once they are full"),
    ("volumes", "Volumes in it"),
    ("available", "1 while it can be looked at"),
)
log: Final = logger("metrics")


class ApiMetrics:
    """Measured as it happens; one registry for each app, never the process's global one."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Histogram(
            "corral_api_request_duration_seconds",
            "Time from a request until its answer began",
            ("method", "route", "status"),
            buckets=API_BUCKETS_S,
            registry=self.registry,
        )
        self._operations = Histogram(
            "corral_operation_duration_seconds",
            "Time from the request of an operation until its end; a VM made of another one or of a template is a clone or a fork",
            ("verb", "state"),
            buckets=OPERATION_BUCKETS_S,
            registry=self.registry,
        )
        self._pauses = Histogram(
            "corral_snapshot_pause_seconds",
            "How long a guest stood still for a snapshot, at most",
            ("kind",),
            buckets=PAUSE_BUCKETS_S,
            registry=self.registry,
        )
        self._began = datetime.now(UTC)
        self._taken: set[str] = set()

    def observe(self, scope: Scope, status: int, elapsed_s: float) -> None:
        """Count an answered request under its route's template, never its path."""
        method = scope.get("method", "WEBSOCKET")
        route = _template(scope)
        self._requests.labels(method if method in METHODS else "OTHER", route, str(status)).observe(elapsed_s)

    def operation_ended(self, document: dict[str, Any]) -> None:
        status = document["status"]
        elapsed = datetime.fromisoformat(status["ended_at"]) - datetime.fromisoformat(document["created_at"])
        verb = _verb(document["spec"]["intent"])
        self._operations.labels(verb, status["state"]).observe(max(0.0, elapsed.total_seconds()))

    async def follow(self, services: Services) -> None:
        """Observe each operation that ends and each snapshot that is taken from now on, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow(services, Operation.PLURAL, self._see_operation))
            group.create_task(self._follow(services, Snapshot.PLURAL, self._see_snapshot))

    async def _follow(self, services: Services, kind: str, see: Callable[[Watched], None]) -> None:
        since: int | None = None
        while True:
            try:
                changes = await services.events.watch(OBSERVER, kind, EVERY_PROJECT, since=since)
                async for change in changes:
                    since = change.revision
                    see(change)
            except CorralError as error:
                if error.code != "compacted":
                    raise
                log.warning("changes went by unmeasured", kind=kind, since=since)
                since = None

    def _see_snapshot(self, change: Watched) -> None:
        """Once, when it is there; it may be written again later."""
        if change.type != "put":
            self._taken.discard(change.uid)
            return
        document = json.loads(change.content)
        spec, status = document["spec"], document["status"]
        if not status["ready"] or status.get("pause_ms") is None or change.uid in self._taken:
            return
        self._taken.add(change.uid)
        if datetime.fromisoformat(status["taken_at"]) >= self._began:
            kind = "memory" if spec["with_memory"] else "disk"
            self._pauses.labels(kind).observe(status["pause_ms"] / 1000)

    def _see_operation(self, change: Watched) -> None:
        """An operation is written for the last time when it ends; progress is told apart without decoding it."""
        if change.type == "put" and not any(mark in change.content for mark in _UNFINISHED):
            self.operation_ended(json.loads(change.content))


def _verb(intent: dict[str, Any]) -> str:
    """What was asked for: not every VM that is created comes of an image."""
    if intent.get("fork_of"):
        return "fork"
    return "clone" if intent.get("made_of") else str(intent["verb"])


def _template(scope: Scope) -> str:
    """The path of the matched route, with names of parameters in place of their values."""
    route: str | None = getattr(scope.get("route"), "path", None)
    if route is None:
        return "unmatched"
    inner = scope["path"].startswith(PREFIX) and not route.startswith(PREFIX)
    return f"{PREFIX}{route}" if inner else route


async def render(metrics: ApiMetrics, services: Services, caller: Caller, project: str) -> bytes:
    """The whole page: of every project for a caller with a role in all of them, else of `project`."""
    if ALL_PROJECTS in caller.identity.roles:
        project = EVERY_PROJECT
    report = await services.sessions.usage(caller, project)
    hosts = await services.hosts.list(caller, ListRequest())
    pools = await services.pools.list(caller, ListRequest(limit=PAGE_MAX))
    vms = [vm async for vm in _vms_seen(services, caller, project)]
    operations = await _operation_counts(services, caller, project)
    points = await point_families(services, caller, project, Counter(vm.template_uid for vm in vms if vm.template_uid))
    families = (
        *_vm_families(report),
        *_state_families(vms),
        *network_families(await services.network_usage.report(caller, project)),
        *_host_families([json.loads(document) for document in hosts.documents]),
        *_pool_families([json.loads(document) for document in pools.documents]),
        *points,
        gauge("corral_operations", "Operations in the store, by state", ("state",), operations.items()),
        gauge("corral_store_revision", "The newest revision of the store", (), [((), services.daemon.revision)]),
        gauge("corral_build_info", "The daemon's version", ("version",), [((__version__,), 1)]),
    )
    return await asyncio.to_thread(generate_latest, _Page(metrics.registry, families))


class _Page(CollectorRegistry):
    """What was counted over time and what was just measured, as one registry."""

    def __init__(self, counted: CollectorRegistry, measured: Sequence[Metric]) -> None:
        super().__init__()
        self._counted = counted
        self._measured = measured

    def collect(self) -> Iterator[Metric]:
        yield from self._counted.collect()
        yield from self._measured


def _vm_families(report: UsageReport) -> Iterator[Metric]:
    def of(read: Callable[[VmUsage], float]) -> Samples:
        return [((item.project, item.name, item.uid), read(item)) for item in report.items]

    yield counter("corral_vm_cpu_seconds", "CPU time since the VM started", _VM, of(lambda i: i.cpu_time_ns / 1e9))
    yield gauge("corral_vm_vcpus", "Virtual CPUs", _VM, of(lambda i: i.vcpus))
    yield gauge("corral_vm_memory_bytes", "Memory that the VM was given", _VM, of(lambda i: i.memory_mib * MIB))
    yield gauge("corral_vm_memory_rss_bytes", "Host memory that it takes", _VM, of(lambda i: i.memory_rss_bytes))
    forked = [item for item in report.items if item.memory_private_bytes is not None]

    def shares(read: Callable[[VmUsage], int | None]) -> Samples:
        return [((item.project, item.name, item.uid), float(read(item) or 0)) for item in forked]

    private, shared, saved = (
        shares(lambda i: i.memory_private_bytes),
        shares(lambda i: i.memory_shared_bytes),
        shares(lambda i: i.memory_saved_bytes),
    )
    yield gauge("corral_vm_memory_private_bytes", "Of a VM made of a template: memory of its own", _VM, private)
    yield gauge("corral_vm_memory_shared_bytes", "Of such a VM: memory in common with others", _VM, shared)
    yield gauge("corral_vm_memory_saved_bytes", "Of such a VM: how much more it would take alone", _VM, saved)
    yield counter("corral_vm_disk_read_bytes", "Bytes read from its disks", _VM, of(lambda i: i.disk_read_bytes))
    yield counter("corral_vm_disk_written_bytes", "Bytes written to them", _VM, of(lambda i: i.disk_written_bytes))
    yield counter("corral_vm_network_received_bytes", "Bytes received", _VM, of(lambda i: i.net_received_bytes))
    yield counter("corral_vm_network_sent_bytes", "Bytes sent", _VM, of(lambda i: i.net_sent_bytes))


@dataclass(frozen=True)
class _Seen:
    """What is counted of a VM's document."""

    labels: tuple[str, str, str]
    """As `_VM` names them."""
    state: str
    pending: int
    stack: str
    template_uid: str


def _state_families(vms: Sequence[_Seen]) -> Iterator[Metric]:
    states = [((*vm.labels, vm.state), 1.0) for vm in vms]
    yield gauge("corral_vm_state", "1 for the state that a VM is in", (*_VM, "state"), states)
    counts = Counter(vm.state for vm in vms)
    yield gauge("corral_vms", "VMs by state", ("state",), [((state,), number) for state, number in counts.items()])
    waiting = [(vm.labels, float(vm.pending)) for vm in vms]
    yield gauge("corral_vm_pending_restart", "Changes that wait for the VM's next start", _VM, waiting)
    stacks = Counter((vm.labels[0], vm.stack, vm.state) for vm in vms if vm.stack)
    yield gauge("corral_stack_vms", "VMs of a stack by state", ("project", "stack", "state"), stacks.items())


def _host_families(hosts: Sequence[dict[str, Any]]) -> Iterator[Metric]:
    for field, unit, text in _HOST_FIELDS:
        name = f"corral_host_{field.replace('_mib', '_bytes')}"
        samples = [((host["name"], host["uid"]), float(host["status"][field]) * unit) for host in hosts]
        yield gauge(name, text, ("host", "uid"), samples)


def _pool_families(pools: Sequence[dict[str, Any]]) -> Iterator[Metric]:
    for field, text in _POOL_FIELDS:
        yield gauge(
            f"corral_pool_{field}", text, ("pool",), [((pool["name"],), float(pool["status"][field])) for pool in pools]
        )
    levels = [((pool["name"], pool["status"]["level"]), 1.0) for pool in pools]
    yield gauge("corral_pool_level", "1 for how full a pool is: ok, warning, critical", ("pool", "level"), levels)


async def _vms_seen(services: Services, caller: Caller, project: str) -> AsyncIterator[_Seen]:
    """Every VM, page by page: a scrape never holds up the loop for long."""
    after: str | None = ""
    while after is not None:
        listing = await services.vms.list(caller, project, ListRequest(limit=PAGE_MAX, after=after))
        for content in listing.documents:
            vm = json.loads(content)
            status, stack = vm["status"], vm.get("labels", {}).get(STACK_LABEL, "")
            labels = vm["project"], vm["name"], vm["uid"]
            pending = len(status.get("pending_restart", ()))
            yield _Seen(labels, status["state"], pending, stack, vm["spec"].get("template_uid") or "")
        await asyncio.sleep(0)
        after = listing.next


async def _operation_counts(services: Services, caller: Caller, project: str) -> dict[tuple[str, ...], float]:
    counts: dict[tuple[str, ...], float] = {(state.value,): 0.0 for state in OperationState}
    after: str | None = ""
    while after is not None:
        request = ListRequest(limit=PAGE_MAX, after=after)
        listing = await services.operations.list(caller, project, request)
        for content in listing.documents:
            counts[json.loads(content)["status"]["state"],] += 1.0
        await asyncio.sleep(0)
        after = listing.next
    return counts
