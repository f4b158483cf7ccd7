"""Routes of what happens: watched objects and the journal of events, as server-sent events with exact resume."""

from collections.abc import AsyncGenerator, AsyncIterator
from typing import Annotated, Any, Final, Literal

from fastapi import Header, Query
from starlette.responses import Response

from corral.api.call import CallParam
from corral.api.documents import EventEntry, Items, entry_json, journal_response
from corral.api.live import LiveResponse
from corral.api.route import noun_router
from corral.api.sse import COMMENT, EVENT_STREAM, Position, closing, event_frame, watch_frames
from corral.errors import CorralError
from corral.model.limits import PAGE_MAX
from corral.store.base import JournalEntry

router = noun_router("events")

WatchKind = Literal["vms", "images", "volumes", "networks", "hosts", "operations", "templates"]

LastEventId = Annotated[
    str, Header(alias="Last-Event-ID", max_length=64, description="Resume after this `id`; wins over the query.")
]

_WATCH_EXAMPLE: Final = (
    'id: 812.1\nevent: put\ndata: {"revision":812,"kind":"vm","project":"default","name":"web",…}\n\n: heartbeat\n\n'
)
_EVENT_EXAMPLE: Final = 'id: 41\nevent: event\ndata: {"sequence":41,"reason":"VmStarted","object_name":"web",…}\n\n'


def _stream_documented(example: str, text: str) -> dict[int | str, dict[str, Any]]:
    return {200: {"description": text, "content": {EVENT_STREAM: {"schema": {"type": "string"}, "example": example}}}}


@router.get(
    "/watch",
    summary="Follow the objects of a kind",
    response_class=Response,
    responses=_stream_documented(
        _WATCH_EXAMPLE,
        "Events `put` (the object as it is now), `delete` (as it was last) and `compacted` (history is gone: list "
        "again, then watch from the list's revision). Comments are heartbeats.",
    ),
)
async def watch(
    call: CallParam,
    kind: WatchKind,
    since: Annotated[int | None, Query(ge=0, description="A revision; from now on when it is not given.")] = None,
    name: Annotated[str, Query(max_length=256, description="One object's name or uid.")] = "",
    last_event_id: LastEventId = "",
) -> Response:
    position = Position.parse(last_event_id) if last_event_id else Position(since)
    changes = await call.services.events.watch(call.caller, kind, call.project, since=position.since, name=name)
    return LiveResponse(
        watch_frames(changes, position, call.caller.request_id),
        media_type=EVENT_STREAM,
        heartbeat=COMMENT,
        stopping=call.stopping,
    )


@router.get(
    "/events",
    response_model=Items[EventEntry],
    summary="Read or follow what happened",
    responses=_stream_documented(_EVENT_EXAMPLE, "A list, or with `follow=1` a stream of events."),
)
async def events(
    call: CallParam,
    after: Annotated[int | None, Query(ge=0, description="Only what came after this sequence.")] = None,
    limit: Annotated[int, Query(ge=1, le=PAGE_MAX)] = PAGE_MAX,
    follow: Annotated[bool, Query(description="Go on for ever; without `after`: from now on.")] = False,
    last_event_id: LastEventId = "",
) -> Response:
    service = call.services.events
    if not follow:
        entries = await service.list(call.caller, call.project, after=after or 0, limit=limit)
        return journal_response(entries, "sequence")
    if last_event_id:
        after = _sequence(last_event_id)
    start = await service.last(call.caller) if after is None else after
    entries_to_come = await service.follow(call.caller, call.project, after=start)
    return LiveResponse(
        _event_frames(entries_to_come), media_type=EVENT_STREAM, heartbeat=COMMENT, stopping=call.stopping
    )


async def _event_frames(entries: AsyncIterator[JournalEntry]) -> AsyncGenerator[bytes, None]:
    async with closing(entries):
        async for entry in entries:
            yield event_frame(str(entry.sequence), "event", entry_json(entry, "sequence"))


def _sequence(text: str) -> int:
    if text.isascii() and text.isdigit():
        return int(text)
    raise CorralError("invalid-argument", f"Last-Event-ID {text!r}", "not a sequence of this stream")
