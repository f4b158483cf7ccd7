"""A bounded set of threads for calls that may never return."""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Final, TypeVar

from corral.errors import CorralError

T = TypeVar("T")

# libvirtd serves at most five requests of one connection at a time (`max_client_requests`).
WORKERS: Final = 4
# Threads that hang in a call whose caller gave up. They end when libvirt answers or dies. More than one
# connection's are rare: the next one is opened first, and a libvirtd that hangs opens none.
LOST_MAX: Final = 16

_Job = Callable[[], None]


class _Worker:
    """One daemon thread: a hung call must not keep the process from exiting, as a pool's ordinary threads would."""

    def __init__(self, name: str) -> None:
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def give(self, job: _Job) -> None:
        self._jobs.put(job)

    def stop(self) -> None:
        self._jobs.put(None)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()


class Calls:
    """Runs functions in threads, `workers` at a time. A call that is late is left alone and counted as lost."""

    def __init__(self, name: str, workers: int = WORKERS, lost_max: int = LOST_MAX) -> None:
        self._name = name
        self._slots = asyncio.Semaphore(workers)
        self._idle: list[_Worker] = []
        self._lost: set[_Worker] = set()
        self._lost_max = lost_max
        self._closed = False

    @property
    def lost(self) -> int:
        """How many threads hang in calls whose callers have given up."""
        return len(self._lost)

    async def run(self, asked: str, function: Callable[[], T], timeout_s: float) -> T:
        """The result of `function`. Raises `hypervisor-timeout`, whether it waited for a thread or in the call."""
        if self.lost >= self._lost_max:
            reason = f"{self.lost} earlier calls still hang in libvirt"
            raise CorralError("hypervisor-unavailable", asked, reason, "is libvirtd alive? see `corral doctor`")
        late = CorralError(
            "hypervisor-timeout",
            asked,
            f"libvirt did not answer within {timeout_s:g} s",
            "the request may still happen; look again",
        )
        try:
            async with asyncio.timeout(timeout_s), self._slots:
                return await self._in_thread(function)
        except TimeoutError as error:
            raise late from error

    async def _in_thread(self, function: Callable[[], T]) -> T:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()
        worker = self._idle.pop() if self._idle else _Worker(self._name)

        def deliver(result: T | None, error: BaseException | None) -> None:
            self._lost.discard(worker)
            if self._closed:
                worker.stop()
            else:
                self._idle.append(worker)
            if answer.cancelled():
                return
            if error is not None:
                answer.set_exception(error)
            else:
                answer.set_result(result)  # type: ignore[arg-type]  # T itself may be None

        def job() -> None:
            result, failure = None, None
            try:
                result = function()
            except BaseException as error:  # noqa: BLE001 - the top of a request: handed over to its caller
                failure = error
            with contextlib.suppress(RuntimeError):  # the loop has ended since
                loop.call_soon_threadsafe(deliver, result, failure)

        worker.give(job)
        try:
            return await answer
        except asyncio.CancelledError:
            if worker not in self._idle:
                self._lost.add(worker)
            raise

    def close(self) -> None:
        """Let idle threads go; busy ones follow when their call returns."""
        self._closed = True
        while self._idle:
            self._idle.pop().stop()
