"""Server-sent events: frames, and positions that a watcher resumes from exactly."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass
from typing import Final, TypeVar, cast

from corral.api.errors import problem_document
from corral.errors import CorralError
from corral.services.documents import Watched

EVENT_STREAM: Final = "text/event-stream"
COMMENT: Final = b": heartbeat\n\n"
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Position:
    """Where a watch goes on: after revision `since`, less the `seen` first changes that follow.

    One transaction changes many objects at one revision, and a connection may break between two of them; so an event's
    id is `REVISION.INDEX`, and resuming reads that revision again and leaves out what was seen.
    """

    since: int | None
    seen: int = 0

    @classmethod
    def parse(cls, text: str) -> "Position":
        """The position after the event of id `text`: `812` (all of that revision was seen) or `812.2`."""
        revision, _, index = text.partition(".")
        if not all(part.isascii() and part.isdigit() for part in (revision, index or "0")) or text.endswith("."):
            raise CorralError(
                "invalid-argument",
                f"Last-Event-ID {text!r}",
                "not an id of this stream",
                "send the last `id` as it came",
            )
        return cls(int(revision)) if not index else cls(max(0, int(revision) - 1), int(index))


def event_frame(event_id: str, event: str, data: bytes) -> bytes:
    """`data` is JSON on one line."""
    return b"id: %s\nevent: %s\ndata: %s\n\n" % (event_id.encode(), event.encode(), data)


def closing(source: AsyncIterator[T]) -> AbstractAsyncContextManager[AsyncGenerator[T, None]]:
    """Close a service's iterator (a generator under a plainer name) at once, not whenever it is collected."""
    return aclosing(cast(AsyncGenerator[T, None], source))


async def watch_frames(
    changes: AsyncIterator[Watched], position: Position, request_id: str
) -> AsyncGenerator[bytes, None]:
    """The changes as frames; an error (history compacted, rights lost) is the last one, an event of its code."""
    resumed = None if position.since is None or not position.seen else position.since + 1
    revision, index = 0, 0
    try:
        async with closing(changes):
            async for change in changes:
                index = index + 1 if change.revision == revision else 1
                revision = change.revision
                if revision == resumed and index <= position.seen:
                    continue
                yield event_frame(f"{revision}.{index}", change.type, change.content)
    except CorralError as error:
        yield b"event: %s\ndata: %s\n\n" % (error.code.encode(), problem_document(error, request_id))
