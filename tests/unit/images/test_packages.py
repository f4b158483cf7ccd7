"""What is read from apt: the machine's mirror, and the packages that one needs."""

from pathlib import Path

import pytest

from corral.images.apt import walk_dependencies
from corral.images.sources import DEBIAN_MIRROR, DEBIAN_SECURITY, Mirror, find_mirror

DEB822 = """
Types: deb
# where it came from
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://mirror.example/debian-security/
Suites: bookworm-security
Components: main
"""


def sources(tmp_path: Path, **named: str) -> Path:
    (tmp_path / "sources.list.d").mkdir()
    for name, text in named.items():
        place = tmp_path / "sources.list" if name == "main" else tmp_path / "sources.list.d" / name.replace("_", ".")
        place.write_text(text)
    return tmp_path


def test_deb822(tmp_path: Path) -> None:
    found = find_mirror("bookworm", sources(tmp_path, debian_sources=DEB822))
    assert found == Mirror("http://mirror.example/debian", "http://mirror.example/debian-security")


def test_another_suite_comes_from_the_same_mirror(tmp_path: Path) -> None:
    found = find_mirror("trixie", sources(tmp_path, debian_sources=DEB822))
    assert "deb http://mirror.example/debian trixie main non-free-firmware" in found.lines("trixie")
    assert "deb http://mirror.example/debian-security trixie-security main non-free-firmware" in found.lines("trixie")


def test_one_line_sources_and_a_security_mirror_beside(tmp_path: Path) -> None:
    text = "# deb http://old.example/debian bookworm main\ndeb [arch=amd64] https://m.example/debian bookworm main\n"
    found = find_mirror("bookworm", sources(tmp_path, main=text))
    assert found == Mirror("https://m.example/debian", "https://m.example/debian-security")


@pytest.mark.parametrize(
    "text",
    [
        "deb http://archive.ubuntu.com/ubuntu noble main\n",
        "deb https://me:secret@m.example/debian bookworm main\n",
        "deb-src http://m.example/debian bookworm main\n",
        "",
    ],
    ids=["ubuntu", "password", "source-only", "empty"],
)
def test_without_a_usable_mirror_debians_own_names_are_used(tmp_path: Path, text: str) -> None:
    assert find_mirror("bookworm", sources(tmp_path, main=text)) == Mirror(DEBIAN_MIRROR, DEBIAN_SECURITY)


def test_a_disabled_source_is_passed_over(tmp_path: Path) -> None:
    found = find_mirror("bookworm", sources(tmp_path, x_sources="Enabled: no" + DEB822.partition("\n\n")[0]))
    assert found.archive == DEBIAN_MIRROR


def test_dependencies_through_what_is_followed_only() -> None:
    text = (
        "agent\n  Depends: libone\n |Depends: libtwo\n  PreDepends: perl\n    <virtual>\n"
        "libone\n  Depends: libtwo\n  Depends: <libvirtual>\nlibtwo\n  Depends: agent\nperl\n  Depends: libperl\nlibperl\n"
    )
    assert set(walk_dependencies(text, "agent", lambda name: name.startswith("lib"))) == {"agent", "libone", "libtwo"}
