"""A VM that goes on from a template's memory: its domain, and who its guest is told to be."""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from corral.agent.cache import Cache
from corral.agent.definition import Places, build_definition
from corral.agent.steps import Connect, ForkFrom, Introduce, PlugCards, Step
from corral.clock import Clock
from corral.errors import CorralError
from corral.hypervisor.base import HypervisorDriver
from corral.hypervisor.forking import Fork
from corral.hypervisor.forking import Template as Files
from corral.images.identity import SEED_BYTES, Card, Identity, build_script, make_host_keys
from corral.model.template import Template
from corral.model.vm import Vm

STARTED_AT_ONCE: Final = 3
TOLD_AT_ONCE: Final = 4
STARTS_FIRST_S: Final = 60.0
"""However many more are forked meanwhile."""
AGENT_PATIENCE_S: Final = 300.0
"""The template's guest had an agent: a fork's answers too, in a fifth of a second where the host is not busy."""


def template_files(template: Template, places: Places) -> Files:
    """Where it lies on disk, and where the process that holds its memory listens."""
    directory, run_dir = places.templates_dir / template.uid, places.run_dir / "t" / template.uid[:8]
    return Files(template.uid, directory, run_dir, template.status.digest)


class Turns:
    """Fifty guests that all go on at once have a fiftieth of the processors each, and whoever waits for one of them gives up.
    In turns they are all done sooner: first all run, and those that do are held back while others are to; then they are told
    who they are. Nobody's time runs out while he waits for his turn."""

    def __init__(self) -> None:
        self._starting = asyncio.Semaphore(STARTED_AT_ONCE)
        self._telling = asyncio.Semaphore(TOLD_AT_ONCE)
        self._to_run = 0
        self._all_run = asyncio.Event()

    @asynccontextmanager
    async def to_run(self) -> AsyncIterator[None]:
        self._to_run += 1
        self._all_run.clear()
        try:
            async with self._starting:
                yield
        finally:
            self._to_run -= 1
            if not self._to_run:
                self._all_run.set()

    @property
    def others_are_to_run(self) -> bool:
        return self._to_run > 1

    @asynccontextmanager
    async def to_be_told(self) -> AsyncIterator[None]:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STARTS_FIRST_S):
                while self._to_run:
                    await self._all_run.wait()
        async with self._telling:
            yield


@dataclass(frozen=True)
class ForkEffects:
    """What the steps `ForkFrom`, `PlugCards`, `Introduce` and `Connect` do."""

    cache: Cache
    hypervisor: HypervisorDriver
    clock: Clock
    places: Callable[[], Places]
    turns: Turns = field(default_factory=Turns)

    def effect(self, step: Step, vm: Vm) -> Awaitable[None] | None:
        """None: the step is about something else."""
        if isinstance(step, ForkFrom):
            return self.fork(vm, step.template_uid)
        if isinstance(step, PlugCards):
            return self.hypervisor.forking.plug_cards(self._fork(vm, self._template(vm, step.template_uid)))
        if isinstance(step, Connect):
            return self.hypervisor.forking.connect(build_definition(vm, self.cache.around, self.places()))
        return self.introduce(vm, step.template_uid) if isinstance(step, Introduce) else None

    async def fork(self, vm: Vm, template_uid: str) -> None:
        """May be repeated at any point: the memory is loaded once."""
        places, forking = self.places(), self.hypervisor.forking
        template = self._template(vm, template_uid)
        if await forking.key(places.accelerator) != template.status.key:
            reason = f"the memory of {template.name} was frozen under another QEMU, libvirt, accelerator or processor"
            hint = f"`corral fork {template.name} NAME --boot` starts from its disks; then make a template of that"
            raise CorralError("template-stale", f"fork {vm.name}", reason, hint)
        async with self.turns.to_run():
            await forking.fork(self._fork(vm, template), held=self.turns.others_are_to_run)

    async def introduce(self, vm: Vm, template_uid: str) -> None:
        """May be repeated, too."""
        template = self._template(vm, template_uid)
        async with self.turns.to_be_told():
            identity = await asyncio.to_thread(_identity, vm, template)
            patience_s = AGENT_PATIENCE_S if template.status.agent else 0.0
            script = build_script(identity, self.clock.now())
            if not await self.hypervisor.forking.introduce(self._fork(vm, template), script, patience_s):
                self.cache.doubles.add(vm.uid)

    def _template(self, vm: Vm, uid: str) -> Template:
        found = self.cache.templates.get(uid)
        if found is None:
            raise CorralError("template-not-found", f"fork {vm.name}", "its template is gone")
        return found

    def _fork(self, vm: Vm, template: Template) -> Fork:
        places = self.places()
        return Fork(build_definition(vm, self.cache.around, places), template_files(template, places))


def _identity(vm: Vm, template: Template) -> Identity:
    former = template.spec.vm_spec
    macs = {nic.name: nic.mac for nic in former.nics} if former is not None else {}
    cloud = vm.spec.cloud_init
    return Identity(
        hostname=cloud.hostname if cloud is not None else vm.name,
        former_hostname=template.spec.hostname,
        machine_id=vm.uid.replace("-", ""),
        instance_id=cloud.instance_id if cloud is not None else "",
        cards=[Card(nic.mac, macs.get(nic.name, nic.mac), nic.name) for nic in vm.spec.nics],
        host_keys=make_host_keys(f"root@{vm.name}"),
        randomness=secrets.token_bytes(SEED_BYTES),
    )
