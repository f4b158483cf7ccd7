"""virt-install's way of writing devices: `first,key=value,key=value`, with its quoting and its yes and no."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from corral.errors import CorralError


@dataclass(frozen=True)
class Syntax:
    """What one option knows. `keys` leads each spelling to ours; `refused` says why a known key is not to be had, and
    may end in `.` for all keys that begin with it."""

    option: str
    keys: Mapping[str, str]
    first: str = ""
    """The key that a bare first word is the value of."""
    words: Sequence[str] = ()
    """Bare words that stand for themselves, anywhere: `hd`, `uefi`."""
    refused: Mapping[str, str] = field(default_factory=dict)

    def read(self, text: str) -> dict[str, str]:
        """The pairs by our names; bare words have the value `yes`, in their order."""
        pairs: dict[str, str] = {}
        for number, part in enumerate(split_commas(text, self.option)):
            key, equals, value = part.partition("=")
            if not equals and part in self.words:
                name, value = part, "yes"
            elif not equals and number == 0 and self.first and part:
                name, value = self.first, part
            else:
                name = self._name(key.strip(), equals, value, text)
            if name in pairs:
                raise CorralError("invalid-argument", f"{self.option} {text!r}", f"{name} is given twice")
            pairs[name] = value.strip()
        return pairs

    def _name(self, key: str, equals: str, value: str, text: str) -> str:
        asked = f"{self.option} {text!r}"
        name = self.keys.get(key) or self.keys.get(key.replace("-", "_"))
        if name is not None and equals and value:
            return name
        for known, reason in self.refused.items():
            if key == known or (known.endswith(".") and key.startswith(known)):
                raise CorralError("unsupported", asked, f"{key} is virt-install's, and not to be had here", reason)
        if equals and not value:
            reason = f"{key} has no value"
        else:
            reason = f"there is no key {key!r}" if equals else f"{key!r} is not KEY=VALUE"
        known_keys = sorted({*self.keys, *self.words})
        raise CorralError("invalid-argument", asked, reason, f"keys: {', '.join(known_keys)}")


def split_commas(text: str, option: str) -> list[str]:
    """At commas, but not within quotes: `kernel_args="console=ttyS0,115200"`."""
    lexer = shlex.shlex(text, posix=True)
    lexer.whitespace, lexer.whitespace_split, lexer.commenters = ",", True, ""
    lexer.quotes, lexer.escape = "\"'", ""
    try:
        parts = list(lexer)
    except ValueError as error:
        raise CorralError("invalid-argument", f"{option} {text!r}", "a quotation mark is never closed") from error
    if not parts or text.endswith(",") or text.startswith(",") or ",," in text:
        raise CorralError("invalid-argument", f"{option} {text!r}", "nothing stands before or after a comma")
    return parts


def truth(text: str, option: str) -> bool:
    """virt-install's yes and no."""
    if text in ("yes", "on", "true", "1"):
        return True
    if text in ("no", "off", "false", "0"):
        return False
    raise CorralError("invalid-argument", f"{option} {text!r}", "neither yes nor no")


def number(text: str, option: str) -> int:
    if text.isascii() and text.isdigit() and len(text) < 16:
        return int(text)
    raise CorralError("invalid-argument", f"{option} {text!r}", "not a whole number")


def one_of(text: str, known: Mapping[str, str], option: str, hint: str = "") -> str:
    """Our word for virt-install's; `unsupported` names those that there are."""
    found = known.get(text)
    if found is None:
        raise CorralError(
            "unsupported", f"{option} {text!r}", f"there is no {text}", hint or f"there is: {', '.join(known)}"
        )
    return found
