"""Structured logs: one line of key=value (or JSON) an event, with secrets taken out."""

import logging
import sys
from collections.abc import MutableMapping
from typing import Any, Final

import structlog

SECRET_KEYS: Final = frozenset({"password", "secret", "token", "authorization", "user_data", "private_key", "cookie"})


def redact(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Hide the values of keys that name a secret, at the top level and one level below."""
    for key, value in event.items():
        if key.lower() in SECRET_KEYS:
            event[key] = "***"
        elif isinstance(value, dict):
            event[key] = {k: "***" if str(k).lower() in SECRET_KEYS else v for k, v in value.items()}
    return event


def printable(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Write control characters as escapes: what callers and guests choose must not start a line of its own, nor steer
    the terminal of who reads the log. Tracebacks keep their lines."""
    for key, value in event.items():
        if isinstance(value, str) and not value.isprintable():
            kept = "\n\t" if key == "exception" else ""
            event[key] = "".join(
                character if character.isprintable() or character in kept else repr(character)[1:-1]
                for character in value
            )
    return event


def configure(level: str = "info", json: bool = False) -> None:
    """Send logs to standard error; the supervisor or systemd keeps them."""
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer() if json else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            redact,
            structlog.processors.format_exc_info,
            printable,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )


def logger(name: str) -> structlog.typing.FilteringBoundLogger:
    """A logger whose events carry `module=name`; it takes its settings at its first event, not at import."""
    bound: structlog.typing.FilteringBoundLogger = structlog.get_logger(module=name)
    return bound
