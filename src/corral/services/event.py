"""What happens: the journal of events, and the stream of changed objects."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from types import MappingProxyType
from typing import Final

from corral.errors import CorralError
from corral.model.base import DEFAULT_PROJECT, Object
from corral.model.host import Host
from corral.model.identity import Token
from corral.model.image import Image
from corral.model.network import Network
from corral.model.network_policy import NetworkPolicy
from corral.model.operation import Operation
from corral.model.pool import Pool
from corral.model.security_group import SecurityGroup
from corral.model.snapshot import Snapshot
from corral.model.template import Template
from corral.model.vm import Vm
from corral.model.volume import Volume
from corral.services.access import authorize, visible
from corral.services.caller import Caller
from corral.services.context import Context
from corral.services.documents import Watched, in_projects, watched_of
from corral.store.base import JournalEntry
from corral.store.objects import EVENTS, name_claim

EVENTS_PAGE_MAX: Final = 1000

KINDS: Final[Mapping[str, type[Object]]] = MappingProxyType(
    {cls.PLURAL: cls for cls in (Vm, Image, Network, Volume, Pool, Host, Operation, Snapshot, Template, Token)}
    | {cls.PLURAL: cls for cls in (SecurityGroup, NetworkPolicy)}
)


class EventService:
    def __init__(self, context: Context) -> None:
        self._context = context

    async def list(
        self, caller: Caller, project: str, *, after: int = 0, limit: int = EVENTS_PAGE_MAX
    ) -> tuple[JournalEntry, ...]:
        """Events of the project after sequence `after`, oldest first."""
        projects = await visible(self._context, caller, project, "event.read")
        limit, chosen, more = min(limit, EVENTS_PAGE_MAX), list[JournalEntry](), True
        while (
            more and len(chosen) < limit
        ):  # a page that is not full is the last one, whoever else's events lie between
            entries = await self._context.objects.store.journal(EVENTS, after=after, limit=EVENTS_PAGE_MAX)
            chosen += [entry for entry in entries if _is_of(entry, projects)]
            more, after = len(entries) == EVENTS_PAGE_MAX, entries[-1].sequence if entries else after
        return tuple(chosen[:limit])

    async def last(self, caller: Caller) -> int:
        """The newest event's sequence: what to follow from, to see only what is new."""
        await authorize(self._context, caller, DEFAULT_PROJECT, "event.read")
        entry = await self._context.objects.store.journal_last(EVENTS)
        return entry.sequence if entry is not None else 0

    async def follow(self, caller: Caller, project: str, *, after: int) -> AsyncIterator[JournalEntry]:
        """Authorize, then hand out events after `after`, for ever."""
        projects = await visible(self._context, caller, project, "event.read")
        return self._follow(projects, after)

    async def watch(
        self, caller: Caller, kind: str, project: str, *, since: int | None, name: str = ""
    ) -> AsyncIterator[Watched]:
        """Authorize, then hand out changes after revision `since` (None: from now), for ever. Raises `compacted`.

        `name` narrows it to one object, by name or uid."""
        cls = KINDS.get(kind)
        if cls is None:
            raise CorralError("invalid-argument", f"watch {kind[:32]!r}", "there is no such kind", ", ".join(KINDS))
        projects = await visible(self._context, caller, project, f"{cls.KIND}.read")
        prefix = cls.prefix()
        if name:
            prefix += await self._context.objects.owner(name_claim(cls.KIND, project, name)) or name
            if await self._context.objects.store.get(prefix) is None:
                await self._context.objects.require(cls, project, name)
        return self._watch(prefix, cls.KIND, projects, self._context.objects.store.revision if since is None else since)

    async def _follow(self, projects: tuple[str, ...] | None, after: int) -> AsyncIterator[JournalEntry]:
        async with aclosing(self._context.objects.store.follow(EVENTS, after=after)) as entries:
            async for entry in entries:
                if _is_of(entry, projects):
                    yield entry

    async def _watch(
        self, prefix: str, kind: str, projects: tuple[str, ...] | None, since: int
    ) -> AsyncIterator[Watched]:
        async with aclosing(self._context.objects.store.watch(prefix, since)) as changes:
            async for change in changes:
                if in_projects(change.value or change.previous or b"", kind, projects):
                    yield watched_of(change)


def _is_of(entry: JournalEntry, projects: tuple[str, ...] | None) -> bool:
    return projects is None or json.loads(entry.value).get("project") in projects
