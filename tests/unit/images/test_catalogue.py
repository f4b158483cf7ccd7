"""The catalogue holds what was promised, and nothing that nobody looked up."""

import re
from importlib import resources

from corral.images.catalogue import load_catalogue
from corral.names import parse_image_name


def test_entries() -> None:
    entries = {entry.name: entry for entry in load_catalogue()}
    assert {"micro", "debian-12", "debian-13", "ubuntu-22.04", "ubuntu-24.04", "rocky-9"} <= set(entries)
    assert any(name.startswith("fedora-") for name in entries)
    assert any(name.startswith("alpine-") for name in entries)
    for entry in entries.values():
        assert parse_image_name(entry.name) == entry.name
        assert entry.build in ("", "debian", "micro")
        assert entry.build or entry.url, f"{entry.name} can be neither built nor downloaded"
        assert bool(entry.url) == bool(entry.checksum_url)
        assert all(url.startswith("https://") for url in (entry.url, entry.checksum_url) if url)


def test_no_checksum_is_written_down() -> None:
    text = (resources.files("corral.images") / "catalogue.toml").read_text()
    assert not re.search(r"[0-9a-fA-F]{32,}", text)
