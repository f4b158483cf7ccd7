"""The documentation is true to the code: generated pages are current, links lead somewhere, commands exist."""

import re
from pathlib import Path

import generate_docs
import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
GENERATED = ROOT / "docs/reference"


@pytest.mark.parametrize("name", sorted(generate_docs.PAGES))
def test_generated_pages_are_current(name: str) -> None:
    assert (GENERATED / name).read_text() == generate_docs.PAGES[name](), f"{name} is out of date: run `make docs`"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_every_page_is_in_the_index() -> None:
    index = (ROOT / "docs/index.md").read_text()
    pages = [page.relative_to(ROOT / "docs") for page in (ROOT / "docs").rglob("*.md")]
    missing = [str(page) for page in pages if str(page) not in index and page.parts[0] not in ("decisions", "index.md")]
    assert not missing


def _commands_of_the_reference() -> set[str]:
    text = (GENERATED / "cli.md").read_text()
    return set(re.findall(r"^### corral (.+)$", text, re.MULTILINE))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_commands_that_a_page_shows_exist(page: Path) -> None:
    if page.name == "cli.md":
        return
    known = _commands_of_the_reference()
    groups = {name.split()[0] for name in known if " " in name}
    for block in re.findall(r"^```sh\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
        for line in block.splitlines():
            match = re.match(r"(?:[A-Z_]+=\S+ )*corral (?:--\S+ \S+ )*([a-z-]+)(?: ([a-z-]+))?", line)
            if match:
                command = f"{match[1]} {match[2]}" if match[1] in groups and match[2] else match[1]
                assert command in known, f"{page.name} shows `corral {command}`, which does not exist"


def test_decisions_are_numbered_without_gaps() -> None:
    numbers = sorted(int(path.name[:4]) for path in (ROOT / "docs/decisions").glob("*.md"))
    assert numbers == list(range(1, len(numbers) + 1))
