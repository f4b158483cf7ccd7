"""The catalogue: what can be built or downloaded, read from `catalogue.toml`."""

import tomllib
from functools import cache
from importlib import resources

from corral.images.base import CatalogueEntry


@cache
def load_catalogue() -> tuple[CatalogueEntry, ...]:
    """All entries, in the file's order. The file is part of the program; a mistake in it is a programming error."""
    text = (resources.files("corral.images") / "catalogue.toml").read_text(encoding="utf-8")
    return tuple(_entry(table) for table in tomllib.loads(text)["image"])


def _entry(table: dict[str, str | int]) -> CatalogueEntry:
    return CatalogueEntry(
        name=str(table["name"]),
        os_id=str(table["os_id"]),
        title=str(table["title"]),
        build=str(table.get("build", "")),
        release=str(table.get("release", "")),
        url=str(table.get("url", "")),
        checksum_url=str(table.get("checksum_url", "")),
        default_user=str(table["default_user"]),
        memory_min_mib=int(table["memory_min_mib"]),
    )
