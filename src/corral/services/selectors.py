"""Label selectors (`env=prod,tier!=db,backup,!old`) and field selections (`name,status.state`). Pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from corral.errors import CorralError
from corral.names import LABEL_KEY_PATTERN, LABEL_VALUE_MAX_CHARS

TERMS_MAX: Final = 32
_KEY: Final = re.compile(LABEL_KEY_PATTERN)
_FIELD: Final = re.compile(r"^[a-z_][a-z0-9_]*(\.[a-z_][a-z0-9_]*){0,7}$")


@dataclass(frozen=True)
class Term:
    """One requirement: the label `key` is there with `value` (or any, if None); `negated`: it is not."""

    key: str
    value: str | None
    negated: bool

    def matches(self, labels: Mapping[str, str]) -> bool:
        held = self.key in labels if self.value is None else labels.get(self.key) == self.value
        return held != self.negated


def parse_selector(text: str) -> tuple[Term, ...]:
    """The terms of a selector, all of which must hold. Raises `invalid-selector`."""
    parts = [part.strip() for part in text.split(",")] if text.strip() else []
    if len(parts) > TERMS_MAX:
        raise _refused("selector", text, f"it has more than {TERMS_MAX} terms")
    return tuple(_parse_term(part, text) for part in parts)


def _parse_term(part: str, text: str) -> Term:
    if "!=" in part:
        key, _, value = part.partition("!=")
        term = Term(key.strip(), value.strip(), negated=True)
    elif "=" in part:
        key, _, value = part.replace("==", "=", 1).partition("=")
        term = Term(key.strip(), value.strip(), negated=False)
    else:
        term = Term(part.removeprefix("!").strip(), None, negated=part.startswith("!"))
    if not _KEY.fullmatch(term.key):
        raise _refused("selector", text, f"{term.key[:64]!r} is not a label's key")
    if term.value is not None and len(term.value) > LABEL_VALUE_MAX_CHARS:
        raise _refused("selector", text, "a value is too long")
    return term


def matches(terms: tuple[Term, ...], labels: Mapping[str, str]) -> bool:
    return all(term.matches(labels) for term in terms)


def parse_fields(text: str) -> tuple[tuple[str, ...], ...]:
    """The paths of a field selection. Raises `invalid-selector`."""
    parts = [part.strip() for part in text.split(",")] if text.strip() else []
    if len(parts) > TERMS_MAX:
        raise _refused("fields", text, f"more than {TERMS_MAX} are named")
    for part in parts:
        if not _FIELD.fullmatch(part):
            raise _refused("fields", text, f"{part[:64]!r} is not a field")
    return tuple(tuple(part.split(".")) for part in parts)


def select_fields(document: Mapping[str, Any], paths: tuple[tuple[str, ...], ...]) -> dict[str, Any]:
    """`document` with the named fields alone; what it does not have is left out."""
    selected: dict[str, Any] = {}
    for path in paths:
        source: Any = document
        for name in path:
            source = source.get(name, _MISSING) if isinstance(source, Mapping) else _MISSING
        if source is _MISSING:
            continue
        target = selected
        for name in path[:-1]:
            inner = target.setdefault(name, {})
            if not isinstance(inner, dict):
                break
            target = inner
        else:
            target[path[-1]] = source
    return selected


_MISSING: Final = object()


def _refused(what: str, text: str, reason: str) -> CorralError:
    hint = (
        "write key=value, key!=value, key or !key, separated by commas" if what == "selector" else "name,status.state"
    )
    return CorralError("invalid-selector", f"{what} {text[:80]!r}", reason, hint)
