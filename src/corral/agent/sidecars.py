"""Routers, groups, policies, forwards, addresses and balancers are kept beside the database, too, as they are wished."""

import asyncio
from dataclasses import dataclass, field
from typing import ClassVar, TypeAlias

from corral.agent.cache import Cache
from corral.model.base import DEFAULT_PROJECT, Object
from corral.model.identity import Project
from corral.storage.sidecars import Sidecar, Sidecars, document_of

Which: TypeAlias = tuple[str, str]


@dataclass
class SidecarKeeper:
    """One of the wire's keepers. What is of another history is left alone: `recover` may want it."""

    cache: Cache
    sidecars: Sidecars
    name: ClassVar[str] = "sidecars"
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    _known: dict[Which, Sidecar] | None = None
    """As they lie there, of this history."""
    _seen: dict[Which, tuple[int, Sidecar]] = field(default_factory=dict)
    """What is wished, by revision: most of it is as it was."""
    _history: str = ""

    async def follow(self, revision: int) -> None:
        """What was committed at that revision is on disk when this returns. Raises `disk-full`, `storage-error`."""
        await self.cache.until(revision)
        await self.sync()

    async def sync(self) -> None:
        await self.cache.loaded.wait()
        async with self._turn:
            known = await self._begun()
            wished = self._wished()
            for which in [which for which in known if which not in wished]:
                await asyncio.to_thread(self.sidecars.remove, (which,))
                del known[which]
            new = {which: one for which, one in wished.items() if which not in known or known[which] is not one}
            changed = {w: one for w, one in new.items() if w not in known or known[w].document != one.document}
            if changed:
                await asyncio.to_thread(self.sidecars.write, tuple(changed.values()))
            known |= new

    async def _begun(self) -> dict[Which, Sidecar]:
        """Once: what lies there is looked at."""
        if self._known is None:
            project = await self.cache.objects.require(Project, DEFAULT_PROJECT, DEFAULT_PROJECT)
            self._history = project.uid
            await asyncio.to_thread(self.sidecars.clean)
            found = await asyncio.to_thread(self.sidecars.found)
            self._known = {(one.kind, one.uid): one for one in found if one.history == self._history}
        return self._known

    def _wished(self) -> dict[Which, Sidecar]:
        seen: dict[Which, tuple[int, Sidecar]] = {}
        for value in self._objects():
            which = value.PLURAL, value.uid
            known = self._seen.get(which)
            if known is None or known[0] != value.revision:
                known = value.revision, Sidecar(*which, self._history, document_of(value))
            seen[which] = known
        self._seen = seen
        return {which: one for which, (_, one) in seen.items()}

    def _objects(self) -> tuple[Object, ...]:
        cache = self.cache
        walls = (*cache.security_groups.values(), *cache.network_policies.values())
        paths = (*cache.routers.values(), *cache.forwards.values(), *cache.addresses.values())
        return (*walls, *paths, *cache.balancers.values())
