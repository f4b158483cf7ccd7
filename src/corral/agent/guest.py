"""What guests tell: addresses, operating system, how cloud-init ended. Asked when an agent appears, then ever more rarely."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

from corral.agent.cache import Cache
from corral.agent.dispatch import Dispatcher
from corral.agent.executor import Drivers
from corral.agent.status import GuestKnown
from corral.clock import Clock
from corral.errors import CorralError
from corral.model.network import Network
from corral.model.vm import CloudInitStatus, Vm, VmState
from corral.names import plain_text

POLL_FIRST_S: Final = 5.0
POLL_MAX_S: Final = 60.0
BOOTING_POLLS: Final = 16
BOOTING_POLL_MAX_S: Final = 15.0
"""Somebody may be waiting for the first boot's end: for its first four minutes it is asked more often."""
SETTLED_POLL_S: Final = 300.0
"""Addresses may change while a guest runs; nobody tells."""
FORKED_POLL_S: Final = 1.0
FORKED_POLLS: Final = 10
"""A guest that has just been forked needs its processor for itself. Its address is known from its network's server."""
PARALLEL_MAX: Final = 8
LEASES_KEPT_S: Final = 2.0
STATUS_TIMEOUT_S: Final = 60.0
"""`cloud-init status` is a Python program: 2 s in an emulated guest, 13 s were seen on a busy host."""
STATUS_MAX_BYTES: Final = 16 * 1024
DETAIL_MAX_CHARS: Final = 500

_STATES: Final = {
    "done": CloudInitStatus.DONE,
    "degraded": CloudInitStatus.DEGRADED,
    "degraded done": CloudInitStatus.DEGRADED,
    "error": CloudInitStatus.ERROR,
    "disabled": CloudInitStatus.NONE,
    "running": CloudInitStatus.RUNNING,
    "not run": CloudInitStatus.RUNNING,
    "not started": CloudInitStatus.RUNNING,
}
FINAL: Final = frozenset({CloudInitStatus.DONE, CloudInitStatus.DEGRADED, CloudInitStatus.ERROR, CloudInitStatus.NONE})


def parse_cloud_init(exit_code: int | None, output: bytes) -> tuple[CloudInitStatus, str]:
    """The answer of `cloud-init status --format json`; an older cloud-init answers in words. Pure."""
    try:
        answer = json.loads(output)
    except (ValueError, RecursionError):  # the guest is not trusted: it may nest a thousand lists
        words = output.decode(errors="replace").strip()
        answer = {"status": words.removeprefix("status:").strip()}
    if not isinstance(answer, dict):
        return CloudInitStatus.UNKNOWN, ""
    said = str(answer.get("extended_status") or answer.get("status") or "")
    status = _STATES.get(said, _STATES.get(str(answer.get("status")), CloudInitStatus.UNKNOWN))
    errors = answer.get("errors") or []
    if status is CloudInitStatus.DONE and exit_code == 2:  # recoverable errors, since cloud-init 23.4
        status = CloudInitStatus.DEGRADED
    detail = "; ".join(str(error) for error in errors) if isinstance(errors, list) else ""
    return status, plain_text(detail, DETAIL_MAX_CHARS)


def parse_stages(text: str) -> tuple[CloudInitStatus, str] | None:
    """What cloud-init keeps of its stages, once the last one has ended; None: it has not, or it says so in another way.
    Pure."""
    try:
        stages = json.loads(text)["v1"]
        if stages["stage"] or not stages["modules-final"]["finished"]:
            return None
        found = [stage for stage in stages.values() if isinstance(stage, dict)]
        errors = [str(error) for stage in found for error in stage.get("errors") or ()]
        recovered = any(stage.get("recoverable_errors") for stage in found)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):  # the guest is not trusted
        return None
    status = CloudInitStatus.ERROR if errors else CloudInitStatus.DEGRADED if recovered else CloudInitStatus.DONE
    return status, plain_text("; ".join(errors), DETAIL_MAX_CHARS)


@dataclass
class _Poll:
    timer: asyncio.TimerHandle
    times: int
    connected: bool


@dataclass
class GuestWatch:
    """One timer for each running guest that is not yet known, none for the others."""

    cache: Cache
    drivers: Drivers
    dispatcher: Dispatcher
    clock: Clock
    on_error: Callable[[BaseException], None]
    _polls: dict[str, _Poll] = field(default_factory=dict)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(PARALLEL_MAX))
    _leases: dict[str, tuple[float, dict[str, list[str]]]] = field(default_factory=dict)
    """By network: when its server was asked, and the addresses that it had leased to each MAC."""

    def consider(self, uid: str) -> None:
        """After a turn: start to ask, ask at once when the agent has appeared, or stop asking."""
        vm = self.cache.vms.get(uid)
        if vm is None or vm.status.state is not VmState.RUNNING:
            self._forget(uid, vm)
            return
        poll = self._polls.get(uid)
        connected = vm.status.agent_connected
        if poll is None:
            self._arm(uid, 0.0 if connected else POLL_FIRST_S, 0, connected=connected)
        elif connected and not poll.connected:
            poll.timer.cancel()
            self._arm(uid, 0.0, 0, connected=True)
        else:
            poll.connected = connected

    async def stop(self) -> None:
        for poll in self._polls.values():
            poll.timer.cancel()
        self._polls.clear()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=1.0)

    def _forget(self, uid: str, vm: Vm | None) -> None:
        poll = self._polls.pop(uid, None)
        if poll is not None:
            poll.timer.cancel()
        if vm is not None and vm.status.state in (VmState.SHUT_OFF, VmState.CRASHED):
            self.dispatcher.memory(uid).guest = GuestKnown()

    def _arm(self, uid: str, delay_s: float, times: int, *, connected: bool) -> None:
        timer = asyncio.get_running_loop().call_later(delay_s, self._fire, uid)
        self._polls[uid] = _Poll(timer, times, connected)

    def _fire(self, uid: str) -> None:
        task = asyncio.get_running_loop().create_task(self._poll(uid))
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.on_error(error)

    async def _poll(self, uid: str) -> None:
        async with self._slots:
            vm, poll = self.cache.vms.get(uid), self._polls.get(uid)
            if vm is None or poll is None:
                return
            memory = self.dispatcher.memory(uid)
            only_host = self._is_new_fork(vm, poll, memory.guest)
            try:
                known = await self._asked(vm, memory.guest, only_host=only_host)
            except CorralError:  # agents come and go with the guest; the next poll asks again
                known = memory.guest
        poll = self._polls.get(uid)
        if poll is None:
            return
        if known != memory.guest:
            memory.guest = known
            self.dispatcher.wake(uid)
        if only_host:
            pause_s = POLL_FIRST_S if known.addresses else FORKED_POLL_S
            self._arm(uid, pause_s, poll.times + 1, connected=poll.connected)
            return
        whole = bool(known.addresses) and (not poll.connected or _cloud_init_known(vm, known))
        pause_s = SETTLED_POLL_S if whole and poll.connected else _pause_s(poll)
        self._arm(uid, pause_s, min(poll.times + 1, BOOTING_POLLS), connected=poll.connected)

    def _is_new_fork(self, vm: Vm, poll: _Poll, known: GuestKnown) -> bool:
        """One that goes on from memory and has no address yet; a while."""
        if vm.spec.template_uid is None or known.addresses or poll.times >= FORKED_POLLS:
            return False
        return (self.clock.now() - vm.created_at).total_seconds() < POLL_MAX_S

    async def _asked(self, vm: Vm, known: GuestKnown, *, only_host: bool = False) -> GuestKnown:
        if only_host or not vm.status.agent_connected:
            return replace(known, addresses=await self._leased(vm))
        facts = await self.drivers.hypervisor.guest_facts(vm.uid)
        addresses = facts.addresses or await self._leased(vm)
        known = replace(known, addresses=addresses, guest_os=facts.os or known.guest_os)
        if vm.spec.cloud_init is None or known.cloud_init in FINAL:
            return known
        if (ended := parse_stages(facts.cloud_init)) is not None:
            return replace(known, cloud_init=ended[0], cloud_init_detail=ended[1])
        argv = ("cloud-init", "status", "--format", "json")
        try:
            answer = await self.drivers.hypervisor.guest_exec(
                vm.uid, argv, stdin=b"", timeout_s=STATUS_TIMEOUT_S, capture_max_bytes=STATUS_MAX_BYTES
            )
        except CorralError:  # too slow just now: what it has told already is known all the same
            return known
        status, detail = parse_cloud_init(answer.exit_code, answer.stdout)
        return replace(known, cloud_init=status, cloud_init_detail=detail)

    async def _leased(self, vm: Vm) -> tuple[str, ...]:
        found: list[str] = []
        for nic in vm.spec.nics:
            network = self.cache.networks.get(nic.network_uid)
            if network is not None:
                found += (await self._leases_of(network)).get(nic.mac, ())
        return tuple(found)

    async def _leases_of(self, network: Network) -> dict[str, list[str]]:
        kept = self._leases.get(network.uid)
        now_s = self.clock.monotonic_s()
        if kept is None or now_s - kept[0] > LEASES_KEPT_S:
            by_mac: dict[str, list[str]] = {}
            for lease in await self.drivers.networks.leases(network):
                by_mac.setdefault(lease.mac, []).append(lease.address)
            kept = self._leases[network.uid] = (now_s, by_mac)
        return kept[1]


def _pause_s(poll: _Poll) -> float:
    most_s = BOOTING_POLL_MAX_S if poll.connected and poll.times < BOOTING_POLLS else POLL_MAX_S
    return min(POLL_FIRST_S * 2.0**poll.times, most_s)


def _cloud_init_known(vm: Vm, known: GuestKnown) -> bool:
    return vm.spec.cloud_init is None or known.cloud_init in FINAL
