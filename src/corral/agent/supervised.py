"""Loops that nothing ends but cancellation."""

import asyncio
from collections.abc import Awaitable, Callable

from corral.agent.failures import backoff_s
from corral.errors import CorralError
from corral.log import logger

log = logger("agent")


async def supervised(name: str, call: Callable[[], Awaitable[None]]) -> None:
    """Run `call` for ever; a failure is logged and tried again with back-off."""
    attempts = 0
    while True:
        try:
            await call()
            attempts = 0
        except (CorralError, TimeoutError) as error:
            attempts += 1
            log.warning("agent loop pauses", loop=name, error=str(error) or "no answer in time")
        except Exception:  # top of a loop: logged, and tried again
            attempts += 1
            log.exception("agent loop failed", loop=name)
        await asyncio.sleep(backoff_s(max(attempts, 1)) if attempts else 0)


def log_failure(error: BaseException) -> None:
    log.error("asking a guest failed", error=repr(error))
