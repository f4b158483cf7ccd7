"""Files of `[Section]` and `Key=Value` lines, as systemd and NetworkManager have them. Pure."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Section:
    """Keys may come several times, and their order counts."""

    name: str
    entries: tuple[tuple[str, str], ...]

    def values(self, key: str) -> tuple[str, ...]:
        return tuple(value for name, value in self.entries if name.lower() == key.lower())


def read_sections(text: str) -> tuple[Section, ...]:
    return tuple(_read(text))


def _read(text: str) -> Iterator[Section]:
    name, entries = "", list[tuple[str, str]]()
    for raw in text.splitlines():
        line = raw.strip()
        if not line or line.startswith(("#", ";")):
            continue
        if line.startswith("[") and line.endswith("]"):
            if name:
                yield Section(name, tuple(entries))
            name, entries = line[1:-1], []
        elif name:
            key, _, value = line.partition("=")
            entries.append((key.strip(), value.strip()))
    if name:
        yield Section(name, tuple(entries))


def write_sections(sections: Iterable[Section], comment: str) -> str:
    parts = [f"# {comment}"]
    for section in sections:
        parts += ["", f"[{section.name}]", *(f"{key}={value}" for key, value in section.entries)]
    return "\n".join(parts) + "\n"


def first(sections: Sequence[Section], name: str, key: str) -> str:
    """The last word on a key; empty where nothing is said."""
    found = [value for section in sections if section.name == name for value in section.values(key)]
    return found[-1] if found else ""
