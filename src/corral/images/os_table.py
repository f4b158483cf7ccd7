"""Operating systems by name: the built-in table first, then osinfo-db where it is installed."""

import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Final

from corral.images.iso import IsoDescription
from corral.images.osinfo import load_osinfo
from corral.model.os import MediumIds, OsInfo

# The generic entry: what is used where nothing is known.
GENERIC: Final = "generic"
SIMILAR_MAX: Final = 5


@cache
def load_table() -> tuple[OsInfo, ...]:
    """The built-in entries. The file is part of the program; a mistake in it is a programming error."""
    text = (resources.files("corral.images") / "os_table.toml").read_text(encoding="utf-8")
    return parse_table(tomllib.loads(text))


def parse_table(document: Mapping[str, Any]) -> tuple[OsInfo, ...]:
    """Each entry over its family's defaults."""
    families: Mapping[str, Mapping[str, Any]] = document["family"]
    return tuple(OsInfo.model_validate({**families[entry["family"]], **entry}) for entry in document["os"])


@dataclass
class OsTable:
    """Looks up systems. Reading osinfo-db takes about a second, so it is read when the built-in table does not know."""

    builtin: tuple[OsInfo, ...]
    more: Callable[[], Iterable[OsInfo]] = tuple
    _all: tuple[OsInfo, ...] | None = None

    def all(self) -> tuple[OsInfo, ...]:
        """The built-in ones, then those of osinfo-db that have other names."""
        if self._all is None:
            known = {name for info in self.builtin for name in (info.id, *info.aliases)}
            self._all = (*self.builtin, *(info for info in self.more() if info.id not in known))
        return self._all

    def find(self, name: str) -> OsInfo | None:
        """By id or alias, in any case."""
        wanted = name.lower()
        return _named(self.builtin, wanted) or _named(self.all(), wanted)

    def similar(self, name: str) -> tuple[str, ...]:
        """A few ids that are spelt like `name`, for people who mistyped."""
        return tuple(get_close_matches(name.lower()[:64], [info.id for info in self.all()], SIMILAR_MAX))

    def of_iso(self, iso: IsoDescription) -> OsInfo | None:
        """The system that an installation medium holds, by its volume and publisher ids."""
        return _matching(self.builtin, iso) or _matching(self.all(), iso)


def host_table(osinfo_dir: Path | None = None) -> OsTable:
    """The table of this host."""
    return OsTable(load_table(), lambda: load_osinfo(osinfo_dir))


def _named(table: Iterable[OsInfo], wanted: str) -> OsInfo | None:
    return next((info for info in table if wanted == info.id or wanted in info.aliases), None)


def _matching(table: Iterable[OsInfo], iso: IsoDescription) -> OsInfo | None:
    return next((info for info in table if any(_matches(medium, iso) for medium in info.media)), None)


def _matches(medium: MediumIds, iso: IsoDescription) -> bool:
    """All that is said of it; a medium of which nothing is said matches nothing."""
    wanted = (
        (medium.volume, iso.volume_id),
        (medium.publisher, iso.publisher),
        (medium.application, iso.application),
        (medium.system, iso.system),
    )
    patterns = [(pattern, text) for pattern, text in wanted if pattern]
    return bool(patterns) and all(re.match(pattern, text) for pattern, text in patterns)
