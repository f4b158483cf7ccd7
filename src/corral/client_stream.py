"""Answers that go on: what a command in a guest says, what happens to objects; read line by line."""

from __future__ import annotations

import base64
import json
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeVar, cast

from corral.client_http import error_of
from corral.errors import CorralError

if TYPE_CHECKING:
    from corral.client_http import Stream

T = TypeVar("T")
LINE_MAX_BYTES: Final = 2 * 1024 * 1024


class ExecOutput(NamedTuple):
    """A part of what the command wrote."""

    stream: Literal["stdout", "stderr"]
    data: bytes


class ExecEnd(NamedTuple):
    """How the command ended: by itself or by a signal; `truncated`: it wrote more than was kept; not `streamed`: this
    guest could show nothing before its end."""

    exit_code: int | None
    signal: int | None
    truncated: bool
    streamed: bool = True


class WatchEvent(NamedTuple):
    """One change: the object as it is now, or as it was last."""

    type: Literal["put", "delete"]
    revision: int
    document: dict[str, Any]


class Frame(NamedTuple):
    """One server-sent event."""

    id: str
    event: str
    data: bytes


def lines(stream: Stream, deadline: float | None = None) -> Iterator[bytes]:
    """The lines of an answer as they come. Raises TimeoutError at `deadline`, on the monotonic clock."""
    while line := stream.readline(LINE_MAX_BYTES, deadline):
        yield line.rstrip(b"\r\n")


def exec_records(stream: Stream) -> Iterator[ExecOutput | ExecEnd]:
    """What a command said and how it ended. Raises the error that ended it otherwise."""
    for line in lines(stream):
        record = json.loads(line)
        if "stream" in record:
            yield ExecOutput(record["stream"], base64.b64decode(record["data"]))
        elif "error" in record:
            raise error_of(json.dumps(record["error"]).encode(), 200, "exec")
        elif "exit_code" in record:
            yield ExecEnd(record["exit_code"], record["signal"], record["truncated"], record.get("streamed", True))
            return
    raise CorralError(
        "daemon-unreachable", "exec", "the answer broke off before the command's end", "see `corral daemon status`"
    )


def frames(stream: Stream, deadline: float | None = None) -> Iterator[Frame | None]:
    """Server-sent events; None for a heartbeat."""
    fields: dict[str, bytes] = {}
    for line in lines(stream, deadline):
        if not line:
            if "data" in fields:
                yield Frame(fields.get("id", b"").decode(), fields.get("event", b"message").decode(), fields["data"])
            fields = {}
        elif line.startswith(b":"):
            yield None
        else:
            name, _, value = line.partition(b":")
            fields[name.decode()] = value.removeprefix(b" ")


def watch_events(stream: Stream, deadline: float | None = None) -> Iterator[WatchEvent]:
    """Changes as they come. Raises the error that ended the stream (`compacted`); ends when the daemon stops."""
    for frame in frames(stream, deadline):
        if frame is None:
            continue
        if frame.event not in ("put", "delete"):
            raise error_of(frame.data, 200, "watch")
        document = json.loads(frame.data)
        yield WatchEvent(cast(Literal["put", "delete"], frame.event), document["revision"], document)


def until_done(opened: ExitStack, items: Iterator[T]) -> Generator[T, None, None]:
    """The items of a stream that is open already, and its end: nothing is missed between the call and the first item."""
    with opened:
        yield from items
