"""Where this machine gets Debian packages from: read from apt's own sources, never assumed."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from corral import proc
from corral.files import read_limited

APT_DIR: Final = Path("/etc/apt")
SOURCES_MAX_BYTES: Final = 256 * 1024
# Debian's own names, for machines whose sources name no Debian mirror (an Ubuntu host). Not a mirror of anybody's.
DEBIAN_MIRROR: Final = "http://deb.debian.org/debian"
DEBIAN_SECURITY: Final = "http://security.debian.org/debian-security"

_DEBIAN_SUITES: Final = ("bullseye", "bookworm", "trixie", "forky", "sid", "stable", "oldstable", "testing", "unstable")
_ONE_LINE: Final = re.compile(r"^deb\s+(?:\[[^\]]*\]\s+)?(\S+)\s+(\S+)")


@dataclass(frozen=True)
class Mirror:
    """URIs of the archive and of its security updates."""

    archive: str
    security: str

    def lines(self, suite: str) -> tuple[str, ...]:
        """sources.list lines for `suite` with its updates."""
        components = "main non-free-firmware"
        return (
            f"deb {self.archive} {suite} {components}",
            f"deb {self.archive} {suite}-updates {components}",
            f"deb {self.security} {suite}-security {components}",
        )


def find_mirror(suite: str, apt_dir: Path = APT_DIR) -> Mirror:
    """The mirror that serves `suite`, or a Debian suite near it: one mirror carries them all."""
    entries = [(uri.rstrip("/"), name) for uri, name in _entries(apt_dir)]
    debian = [(uri, name) for uri, name in entries if _base(name) in _DEBIAN_SUITES]
    debian.sort(key=lambda entry: _base(entry[1]) != suite)  # stable: the suite's own first, then as they stand
    archive = next((uri for uri, name in debian if name == _base(name)), DEBIAN_MIRROR)
    security = next((uri for uri, name in debian if name.endswith(("-security", "/updates"))), "")
    return Mirror(archive, security or (_beside(archive) if debian else DEBIAN_SECURITY))


def _base(suite: str) -> str:
    return suite.partition("-")[0].partition("/")[0]


def _beside(archive: str) -> str:
    """Mirrors keep security updates in `debian-security` beside `debian`."""
    return archive.removesuffix("/debian") + "/debian-security" if archive.endswith("/debian") else DEBIAN_SECURITY


def _entries(apt_dir: Path) -> Iterator[tuple[str, str]]:
    """(URI, suite) of each enabled binary source, one-line and deb822 files alike, in apt's order."""
    paths = [apt_dir / "sources.list", *sorted((apt_dir / "sources.list.d").glob("*"))]
    for path in paths:
        if not path.is_file():
            continue
        text = read_limited(path, SOURCES_MAX_BYTES).decode(errors="replace")
        if path.suffix == ".list":
            yield from _one_line(text)
        elif path.suffix == ".sources":
            yield from _deb822(text)


def _one_line(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        if (match := _ONE_LINE.match(line.strip())) and _usable(match[1]):
            yield match[1], match[2]


def _deb822(text: str) -> Iterator[tuple[str, str]]:
    for paragraph in re.split(r"\n\s*\n", text):
        fields: dict[str, str] = {}
        key = ""
        for line in paragraph.splitlines():
            if line.startswith("#"):
                continue
            if line[:1].isspace() and key:
                fields[key] += " " + line.strip()
            elif ":" in line:
                key, _, value = line.partition(":")
                key = key.strip().lower()
                fields[key] = value.strip()
        if fields.get("enabled", "yes").lower() == "no" or "deb" not in fields.get("types", "").split():
            continue
        for uri in fields.get("uris", "").split():
            for suite in fields.get("suites", "").split():
                if _usable(uri):
                    yield uri, suite


def _usable(uri: str) -> bool:
    """Plain HTTP mirrors and local ones; a URI with a password would end up inside the image."""
    parts = urlsplit(uri)
    return parts.scheme in ("http", "https", "file") and parts.username is None


async def acquire_options() -> str:
    """The machine's settings for fetching (proxies, retries, dates), as an apt configuration file."""
    done = await proc.run(["apt-config", "dump"])
    lines = done.stdout.decode(errors="replace").splitlines()
    kept = ("Acquire::http", "Acquire::https", "Acquire::Retries", "Acquire::Check-", "Acquire::ForceIPv")
    return "".join(f"{line}\n" for line in lines if line.startswith(kept))
