"""The host comes up and goes down: VMs in order of priority, with delays and deadlines."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Final

from corral.agent.dispatch import Dispatcher
from corral.agent.executor import ask_shutdown
from corral.agent.view import ACTIVE
from corral.clock import Clock
from corral.errors import CorralError
from corral.hypervisor.base import HypervisorDriver, ObservedDomain
from corral.log import logger
from corral.model.power import Stopped, Then, decide
from corral.model.vm import Power, Vm

START_WAIT_S: Final = 60.0
"""How long the next VM waits for one that does not come up."""
LOOK_EVERY_S: Final = 0.25
ASK_AGAIN_S: Final = 10.0

log = logger("agent.boot")


def boot_queue(vms: Iterable[Vm], running: Mapping[str, ObservedDomain], boot_id: str) -> list[Vm]:
    """Those that should run and do not, in the order in which they are started. Pure."""
    found = [vm for vm in vms if not vm.being_deleted and vm.spec.power is not Power.OFF and _is_off(vm, running)]
    due = [vm for vm in found if _to_be_started(vm, boot_id)]
    return sorted(due, key=lambda vm: (vm.spec.boot.priority, vm.project, vm.name))


def _is_off(vm: Vm, running: Mapping[str, ObservedDomain]) -> bool:
    domain = running.get(vm.uid)
    return domain is None or domain.state not in ACTIVE


def _to_be_started(vm: Vm, boot_id: str) -> bool:
    if vm.status.host_boot_id and vm.status.host_boot_id != boot_id:
        return decide(vm.spec.run_policy, vm.spec.boot.autostart, Stopped.HOST_REBOOTED) is Then.BOOT
    return bool(vm.status.host_boot_id) and vm.status.seen_state not in ACTIVE


def shutdown_groups(vms: Iterable[Vm]) -> list[list[Vm]]:
    """Running VMs by priority, the last started first. Pure."""
    running = [vm for vm in vms if vm.status.seen_state in ACTIVE]
    ordered = sorted(running, key=lambda vm: -vm.spec.boot.priority)
    return [list(group) for _, group in groupby(ordered, key=lambda vm: vm.spec.boot.priority)]


@dataclass
class BootSequence:
    """Lets the queued VMs start one after the other; the rest of the agent works meanwhile."""

    dispatcher: Dispatcher
    clock: Clock
    vms: Mapping[str, Vm]

    def hold(self, queue: Iterable[Vm]) -> None:
        for vm in queue:
            memory = self.dispatcher.memory(vm.uid)
            memory.known = replace(memory.known, queued_for_boot=True)

    async def run(self, queue: list[Vm]) -> None:
        for vm in queue:
            memory = self.dispatcher.memory(vm.uid)
            memory.known = replace(memory.known, queued_for_boot=False)
            self.dispatcher.wake(vm.uid)
            await self._until_up(vm.uid)
            if vm.spec.boot.delay_s:
                await asyncio.sleep(vm.spec.boot.delay_s)

    async def _until_up(self, uid: str) -> None:
        """A bounded wait: this is a start that was asked for, not a background loop."""
        end_s = self.clock.monotonic_s() + START_WAIT_S
        while self.clock.monotonic_s() < end_s:
            await asyncio.sleep(0)
            vm = self.vms.get(uid)
            if vm is None or vm.status.seen_state in ACTIVE or vm.spec.power is Power.OFF:
                return
            if self.dispatcher.memory(uid).attempts:
                return  # it fails; its own back-off goes on while the others start
            await asyncio.sleep(0.005)


@dataclass
class GuestShutdown:
    """The host goes down: groups one after the other, each VM within its own deadline, then its plug is pulled."""

    hypervisor: HypervisorDriver
    clock: Clock
    tell: Callable[[str], None]

    async def run(self, vms: Iterable[Vm]) -> int:
        count = 0
        for group in shutdown_groups(vms):
            ends: list[Awaitable[bool]] = [self._stop(vm) for vm in group]
            count += sum(await asyncio.gather(*ends))
        return count

    async def _stop(self, vm: Vm) -> bool:
        end_s = self.clock.monotonic_s() + vm.spec.boot.shutdown_deadline_s
        ask_s = 0.0
        try:
            while self.clock.monotonic_s() < end_s:
                domain = await self.hypervisor.observe(vm.uid)
                if domain is None or domain.state not in ACTIVE:
                    self.tell(f"{vm.name} is off")
                    return True
                if self.clock.monotonic_s() >= ask_s:
                    first = ask_s == 0.0
                    await ask_shutdown(self.hypervisor, vm.uid, by_agent=first and domain.agent_connected)
                    ask_s = self.clock.monotonic_s() + ASK_AGAIN_S
                await asyncio.sleep(LOOK_EVERY_S)
            self.tell(f"{vm.name} did not power off within {vm.spec.boot.shutdown_deadline_s:g} s; stopping it")
            await self.hypervisor.destroy(vm.uid)
        except CorralError as error:
            log.warning("cannot stop a guest", vm=vm.name, code=error.code, reason=error.reason)
            self.tell(f"{vm.name}: {error.reason}")
            return False
        return True
