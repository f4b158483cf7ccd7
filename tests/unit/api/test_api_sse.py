"""Positions and frames of server-sent events."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from corral.api.sse import Position, event_frame, watch_frames
from corral.errors import CorralError
from corral.services.documents import Watched


def _frames(changes: list[Watched], position: Position, error: CorralError | None = None) -> list[bytes]:
    async def source() -> AsyncIterator[Watched]:
        for change in changes:
            yield change
        if error is not None:
            raise error

    async def collect() -> list[bytes]:
        return [frame async for frame in watch_frames(source(), position, "r")]

    return asyncio.run(collect())


def _put(revision: int, uid: str) -> Watched:
    return Watched("put", revision, uid, b'{"revision":%d,"uid":"%s"}' % (revision, uid.encode()))


@pytest.mark.parametrize(
    ("text", "position"),
    [("812", Position(812)), ("812.2", Position(811, 2)), ("0", Position(0)), ("0.1", Position(0, 1))],
)
def test_positions_are_read(text: str, position: Position) -> None:
    assert Position.parse(text) == position


@pytest.mark.parametrize("text", ["", ".", "8.", ".1", "-1", "1.2.3", "x", "٣", "1 "])
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(CorralError) as refused:
        Position.parse(text)
    assert refused.value.code == "invalid-argument"


def test_changes_of_one_revision_are_counted() -> None:
    frames = _frames([_put(7, "a"), _put(7, "b"), _put(8, "c")], Position(6))
    assert [frame.split(b"\n")[0] for frame in frames] == [b"id: 7.1", b"id: 7.2", b"id: 8.1"]


def test_a_resume_in_the_middle_of_a_revision_loses_and_repeats_nothing() -> None:
    changes = [_put(7, "a"), _put(7, "b"), _put(8, "c")]
    frames = _frames(changes, Position.parse("7.1"))
    assert [frame.split(b"\n")[0] for frame in frames] == [b"id: 7.2", b"id: 8.1"]


def test_compacted_is_the_last_event() -> None:
    frames = _frames([_put(7, "a")], Position(6), CorralError("compacted", "watch", "history is gone"))
    assert frames[-1].startswith(b"event: compacted\ndata: {")


def test_a_frame_ends_with_an_empty_line() -> None:
    assert event_frame("1", "put", b"{}") == b"id: 1\nevent: put\ndata: {}\n\n"
