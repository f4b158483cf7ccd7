"""Who follows the store, and is waited for: an answer is given when what was written holds, too."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from corral.errors import CorralError

HOLDS_S: Final = 5.0
"""Who has not done it by then goes on without being waited for."""
HINT: Final = "it is tried on; corral firewall status, corral doctor"


class Followers:
    """Filled once by whoever puts the daemon together."""

    def __init__(self) -> None:
        self._all: list[Callable[[int], Awaitable[None]]] = []

    def add(self, follow: Callable[[int], Awaitable[None]]) -> None:
        """`follow` returns when it has done what was committed at that revision."""
        self._all.append(follow)

    async def until(self, revision: int, asked: str) -> None:
        """Raises `not-in-force`: it is recorded, and done later."""
        if not self._all:
            return
        # Not cut where it takes longer: what is half done would have to be found out by the next.
        work = [asyncio.ensure_future(follow(revision)) for follow in self._all]
        for one in work:
            one.add_done_callback(_heard)
        done, late = await asyncio.wait(work, timeout=HOLDS_S)
        problems = [one.exception() for one in done]
        for problem in problems:
            if isinstance(problem, CorralError):
                raise not_in_force(asked, problem.reason) from problem
            if problem is not None:
                raise problem
        if late:
            raise not_in_force(asked, f"not within {HOLDS_S:g} s")


def not_in_force(asked: str, why: str) -> CorralError:
    return CorralError("not-in-force", asked, f"it is recorded, and not in force yet: {why}", HINT)


def _heard(work: "asyncio.Future[None]") -> None:
    """It has nobody to tell any more; whoever keeps what it did tries again."""
    if not work.cancelled():
        work.exception()
