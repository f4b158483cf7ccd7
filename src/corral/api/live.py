"""Answers that go on: frames sent as they come, heartbeats in between, a clean end when either side leaves."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Coroutine, Mapping
from typing import Any, Final

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

# Proxies and firewalls forget connections that are silent for a minute or so.
HEARTBEAT_S: Final = 15.0
# A client that takes nothing for so long is gone, or might as well be.
STALL_S: Final = 60.0


class LiveResponse(Response):
    """Sends what `frames` yields until it ends, the client leaves, or `stopping` is set."""

    def __init__(
        self,
        frames: AsyncGenerator[bytes, None],
        *,
        media_type: str,
        heartbeat: bytes,
        stopping: asyncio.Event,
        headers: Mapping[str, str] | None = None,
        heartbeat_s: float = HEARTBEAT_S,
    ) -> None:
        super().__init__(
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no", **(headers or {})}, media_type=media_type
        )
        del self.headers["content-length"]
        self._frames = frames
        self._heartbeat = heartbeat
        self._heartbeat_s = heartbeat_s
        self._stopping = stopping

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_body(body: bytes, more_body: bool = True) -> None:
            async with asyncio.timeout(STALL_S):
                await send({"type": "http.response.body", "body": body, "more_body": more_body})

        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            await send_body(self._heartbeat)
            async with _Tasks() as tasks:
                ends = {tasks.start(_disconnected(receive)), tasks.start(_set(self._stopping))}
                step = tasks.start(_next(self._frames))
                while True:
                    done, _ = await asyncio.wait(
                        {*ends, step}, timeout=self._heartbeat_s, return_when=asyncio.FIRST_COMPLETED
                    )
                    if step in done:
                        frame = step.result()
                        if frame is None:
                            break
                        await send_body(frame)
                        step = tasks.start(_next(self._frames))
                    elif done:
                        break
                    else:
                        await send_body(self._heartbeat)
        finally:  # also where the client takes nothing any more: what makes the frames ends with them
            await self._frames.aclose()
        await send_body(b"", more_body=False)


class _Tasks:
    """Tasks that do not outlive the block; each is waited for, so that a generator is never closed while it runs."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def __aenter__(self) -> "_Tasks":
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in tuple(self._tasks):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


async def _next(frames: AsyncGenerator[bytes, None]) -> bytes | None:
    return await anext(frames, None)


async def _set(event: asyncio.Event) -> None:
    await event.wait()


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
