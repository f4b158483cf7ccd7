"""The host's own network: a bridge over one of its cards, applied by a process of its own and taken back unless confirmed."""

import asyncio
import os
from datetime import UTC, datetime
from typing import Final

from corral import proc
from corral.errors import CorralError
from corral.host.bridging.choose import plan_bridge
from corral.host.bridging.desertion import begin_process
from corral.host.bridging.facts import read_facts
from corral.host.bridging.journal import UNFINISHED, Journal, State
from corral.host.bridging.plan import Command, Facts, Plan
from corral.model.base import DEFAULT_PROJECT
from corral.model.host_network import BridgePlan, BridgeRequest, FileEdit, HostNetworkChange
from corral.services.access import audited, authorize, record
from corral.services.caller import Caller
from corral.services.context import Context

ACTION: Final = "host.network"
# DHCP on the new bridge takes some seconds; whoever asked may be cut off meanwhile, and asks again.
WAIT_S: Final = 100.0
LOOK_S: Final = 0.1


class HostNetworkService:
    def __init__(self, context: Context) -> None:
        self._context = context
        self._journal = Journal(context.settings.host_network_dir)
        self._turn = asyncio.Lock()

    async def plan(self, caller: Caller, request: BridgeRequest) -> BridgePlan:
        """What `begin` would do. Nothing is changed; everything that would be refused is refused."""
        await authorize(self._context, caller, DEFAULT_PROJECT, ACTION, request.nic)
        self._check_host(request)
        facts, plan = await asyncio.to_thread(_plan, request)
        return _shown(facts, plan)

    async def begin(self, caller: Caller, request: BridgeRequest) -> HostNetworkChange:
        """Answers once it is applied, and waits for its confirmation, or was taken back."""
        context = self._context
        await authorize(context, caller, DEFAULT_PROJECT, ACTION, request.nic)
        async with audited(context, caller, DEFAULT_PROJECT, ACTION, request.nic), self._turn:
            self._check_host(request)
            if self._journal.state() in UNFINISHED:
                asked = f"make bridge {request.bridge}"
                raise CorralError("wrong-state", asked, "another change is on its way", "corral host network show")
            _, plan = await asyncio.to_thread(_plan, request)
            await record(context, caller, DEFAULT_PROJECT, ACTION, request.nic, "accepted", f"bridge {request.bridge}")
            await asyncio.to_thread(self._journal.begin, plan, request.confirm_within_s)
            await asyncio.to_thread(begin_process, self._journal.directory)
            return await self._settled()

    async def confirm(self, caller: Caller) -> HostNetworkChange:
        """Keep what was applied. `wrong-state` where nothing waits for it (any more)."""
        return await self._decide(caller, State.CONFIRMED, "confirm the host's network")

    async def roll_back(self, caller: Caller) -> HostNetworkChange:
        """Take back what waits for its confirmation, now."""
        await self._decide(caller, State.ROLLING_BACK, "take back the host's network")
        return await self._settled()

    async def show(self, caller: Caller) -> HostNetworkChange:
        await authorize(self._context, caller, DEFAULT_PROJECT, "host.read")
        return self._report()

    async def _decide(self, caller: Caller, to: State, asked: str) -> HostNetworkChange:
        context = self._context
        await authorize(context, caller, DEFAULT_PROJECT, ACTION)
        async with audited(context, caller, DEFAULT_PROJECT, ACTION, to.value):
            if not self._journal.move(State.PENDING, to):
                now = self._journal.state()
                reason = "nothing was changed" if now is State.NONE else f"the last change is {now.value}"
                raise CorralError("wrong-state", asked, reason, "corral host network show")
            await record(context, caller, DEFAULT_PROJECT, ACTION, to.value, "accepted")
        return self._report()

    def _check_host(self, request: BridgeRequest) -> None:
        asked = f"make bridge {request.bridge} over {request.nic}"
        if self._context.settings.hypervisor == "fake":
            raise CorralError("unsupported", asked, "this daemon only pretends", "ask one with a real hypervisor")
        if os.geteuid() != 0:
            raise CorralError("unsupported", asked, "this daemon is an ordinary user's", "ask root's")

    async def _settled(self) -> HostNetworkChange:
        for _ in range(round(WAIT_S / LOOK_S)):
            if self._journal.state() not in (State.APPLYING, State.ROLLING_BACK):
                break
            await asyncio.sleep(LOOK_S)
        return self._report()

    def _report(self) -> HostNetworkChange:
        state = self._journal.state()
        if state is State.NONE:
            return HostNetworkChange(state=state.value)
        plan, _ = self._journal.plan()
        result = self._journal.result()
        waits = state is State.PENDING and result.deadline_at > 0
        return HostNetworkChange(
            state=state.value,
            nic=plan.nic,
            bridge=plan.bridge,
            manager=plan.manager.value,
            confirm_before=datetime.fromtimestamp(result.deadline_at, UTC) if waits else None,
            reason=result.reason,
            problems=result.problems,
        )


def _plan(request: BridgeRequest) -> tuple[Facts, Plan]:
    facts = read_facts(request.nic, request.bridge)
    return facts, plan_bridge(facts, request.bridge)


def _shown(facts: Facts, plan: Plan) -> BridgePlan:
    def commands(*phases: tuple[Command, ...]) -> tuple[str, ...]:
        return tuple(proc.shown(command.argv) for phase in phases for command in phase)

    return BridgePlan(
        manager=plan.manager.value,
        nic=plan.nic,
        bridge=plan.bridge,
        addresses=facts.nic.addresses,
        carries_default_route=facts.nic.default_route,
        files=tuple(
            FileEdit(path=file.path, before=_printable(file.before), after=_printable(file.after))
            for file in plan.files
        ),
        commands=commands(plan.before, plan.after),
        undo=commands(plan.undo_before, plan.undo_after),
        notes=plan.notes,
    )


def _printable(text: str | None) -> str | None:
    return None if text is None else text.encode(errors="replace").decode(errors="replace")
