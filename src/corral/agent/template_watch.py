"""Hot templates, looked at now and then: whose memory this host can use, and whose need not be held."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from corral.agent.cache import Cache
from corral.agent.definition import Places
from corral.agent.fork import template_files
from corral.agent.refresh import forks_under_way
from corral.clock import Clock
from corral.errors import CorralError
from corral.hypervisor.base import HypervisorDriver
from corral.log import logger
from corral.model.event import Event, EventLevel
from corral.model.template import Template
from corral.scheduler.admission import NOTHING, demand_of_vm
from corral.store.objects import Objects

STALE: Final = "it was frozen under another QEMU, libvirt, accelerator or processor"

log = logger("agent.templates")


@dataclass
class TemplateWatch:
    """`look` at each relist."""

    objects: Objects
    cache: Cache
    hypervisor: HypervisorDriver
    clock: Clock
    places: Callable[[], Places | None]
    """Known once the host has been looked at."""
    _idle: dict[str, bool] = field(default_factory=dict)
    """Hot templates that nobody used at the last look; whether their memory was let go."""

    async def look(self) -> None:
        """At each relist: which memories this host can use. Its key is worked out once for each connection to libvirt."""
        places = self.places()
        hot = [found for found in self.cache.templates.values() if found.spec.hot and found.status.ready]
        if places is None or not hot:
            return
        try:
            key = await self.hypervisor.forking.key(places.accelerator)
            for template in hot:
                await self._mark(template, "" if template.status.key == key else STALE)
            await self._let_rest(hot, places)
        except CorralError as error:
            log.warning("templates could not be looked at", code=error.code)

    async def _let_rest(self, hot: list[Template], places: Places) -> None:
        """Of whom there was no VM at the last look either, the memory need not be held: nobody counts it any more."""
        used = {vm.spec.template_uid for vm in self.cache.vms.values() if demand_of_vm(vm) != NOTHING}
        used |= {slot.spec.template_uid for slot in self.cache.slots.values()}
        idle = {found.uid for found in hot if found.uid not in used and not forks_under_way(self.cache, found.uid)}
        for template in hot:
            if template.uid in idle and self._idle.get(template.uid) is False:
                await self.hypervisor.forking.rest(template_files(template, places))
        # True: it rests.
        self._idle = {uid: uid in self._idle for uid in idle}

    async def _mark(self, template: Template, stale: str) -> None:
        if template.status.stale == stale:
            return
        status = template.status.model_copy(update={"stale": stale})
        marked = template.model_copy(update={"status": status})
        transaction = self.objects.transaction()
        transaction.update(marked)
        if stale:
            transaction.event(_stale_event(template, stale, self.clock.now()))
        revision = (await transaction.commit(durable=False)).revision
        self.cache.put(marked.model_copy(update={"revision": revision}))


def _stale_event(template: Template, why: str, now: datetime) -> Event:
    return Event(
        time=now,
        project=template.project,
        level=EventLevel.WARNING,
        reason="TemplateStale",
        message=f"template {template.name} is stale: {why}; corral template refresh {template.name}",
        object_kind=Template.KIND,
        object_uid=template.uid,
        object_name=template.name,
        source="agent",
    )
