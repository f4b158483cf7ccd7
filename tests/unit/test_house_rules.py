"""The rules of the house that no linter knows: sizes, who may do what, and that every error code is used."""

import ast
import functools
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from corral.errors import CATALOGUE

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "corral"
FILE_MAX_LINES = 400
FUNCTION_MAX_LINES = 60
LONG_BECAUSE = "Long because"


# Who may start or become another process beside proc.py, and why.
PROCESS_STARTERS = {
    "proc.py": "the only place of the daemon that starts processes",
    "cli/serve.py": "becomes the daemon",
    "hypervisor/libvirt/holder_process.py": "a process of its own, which forks the children that lend memory",
    "cli/daemon.py": "the supervisor of machines without systemd",
    "cli/ssh.py": "becomes ssh(1), so that the terminal is its own",
}
ENVIRONMENT_READERS = {
    "settings.py": "alone knows what the daemon and its clients were told",
    "proc.py": "hands the environment on to children, and completes where they are looked for",
}
PROCESS_CALLS = re.compile(r"^os\.(exec\w*|fork\w*|spawn\w*|posix_spawn\w*|system|popen)$|^pty\.")
IMPORTERS = {
    "libvirt": "hypervisor/libvirt/",
    "libvirt_qemu": "hypervisor/libvirt/",
    "fastapi": "api/",
    "starlette": "api/",
    "sqlite3": "store/",
    "pycdlib": "storage/",
    "click": "cli/",
    "rich": "cli/",
}


def _name(path: Path) -> str:
    return str(path.relative_to(SOURCE)) if path.is_relative_to(SOURCE) else str(path.relative_to(ROOT))


@functools.cache
# Listed by each test anew: in a checkout that people work in, a file may go between the collection of the tests and this one.
def sources() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


def programs() -> list[Path]:
    return sorted((ROOT / "scripts").rglob("*.py"))


def suites() -> list[Path]:
    return sorted((ROOT / "tests").rglob("*.py"))


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def _dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def _imports(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _excuse(node: ast.Module | ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return LONG_BECAUSE in (ast.get_docstring(node) or "")


def _listed(offences: list[str]) -> str:
    return "\n" + "\n".join(offences)


def test_every_module_says_what_it_does() -> None:
    missing = [
        _name(path)
        for path in [*sources(), *programs(), *suites()]
        if path.stat().st_size and not ast.get_docstring(_tree(path))
    ]
    assert not missing, _listed(missing)


def test_files_are_short() -> None:
    offences = []
    for path in [*sources(), *programs(), *suites()]:
        count = len(path.read_text().splitlines())
        if count > FILE_MAX_LINES and not _excuse(_tree(path)):
            offences.append(f"{_name(path)}: {count} lines; split it, or say `{LONG_BECAUSE} …` in its docstring")
    assert not offences, _listed(offences)


def test_functions_are_short() -> None:
    offences = []
    for path in [*sources(), *programs()]:
        for node in ast.walk(_tree(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not _excuse(node):
                count = (node.end_lineno or node.lineno) - node.lineno + 1
                if count > FUNCTION_MAX_LINES:
                    offences.append(f"{_name(path)}:{node.lineno}: {node.name} has {count} lines")
    assert not offences, _listed(offences)


def test_broad_excepts_stand_at_the_top_of_a_loop_or_request() -> None:
    offences = []
    for path in [*sources(), *programs()]:
        lines = path.read_text().splitlines()
        for node in ast.walk(_tree(path)):
            if not isinstance(node, ast.ExceptHandler):
                continue
            caught = "BaseException" if node.type is None else ast.unparse(node.type)
            broad = re.search(r"\b(Base)?Exception\b", caught)
            raises = any(isinstance(inner, ast.Raise) and inner.exc is None for inner in ast.walk(node))
            if broad and not raises and "top of" not in lines[node.lineno - 1]:
                offences.append(f"{_name(path)}:{node.lineno}: except {caught} without `# noqa: BLE001 -- top of …`")
    assert not offences, _listed(offences)


def test_nothing_is_left_for_later() -> None:
    marks = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")
    offences = [
        f"{_name(path)}:{number}: {line.strip()}"
        for path in [*sources(), *programs(), *suites()]
        if path.name != Path(__file__).name
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if marks.search(line) or "NotImplementedError" in line
    ]
    assert not offences, _listed(offences)


def test_packages_hold_no_code() -> None:
    allowed = (ast.Import, ast.ImportFrom, ast.Expr)
    offences = []
    for path in sources():
        if path.name != "__init__.py":
            continue
        for node in _tree(path).body:
            names_only = isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
            if not (names_only or isinstance(node, allowed)):
                offences.append(f"{_name(path)}:{node.lineno}")
    assert not offences, _listed(offences)


def test_no_module_is_a_drawer() -> None:
    drawers = {"utils", "util", "common", "helpers", "helper", "manager", "misc"}
    assert not [_name(path) for path in sources() if path.stem in drawers]


def test_processes_start_in_one_place() -> None:
    offences = []
    for path in sources():
        if _name(path) in PROCESS_STARTERS:
            continue
        tree = _tree(path)
        offences += [
            f"{_name(path)}: imports {name}"
            for name in _imports(tree)
            if re.match(r"(asyncio\.)?subprocess\b|pty$", name)
        ]
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute):
                dotted = _dotted(node)
                if PROCESS_CALLS.match(dotted) or dotted.startswith("asyncio.create_subprocess"):
                    offences.append(f"{_name(path)}:{node.lineno}: {dotted}")
    assert not offences, _listed(offences)


def test_no_process_starts_through_a_shell() -> None:
    offences = [
        f"{_name(path)}:{node.value.lineno}"
        for path in [*sources(), *programs()]
        for node in ast.walk(_tree(path))
        if isinstance(node, ast.keyword) and node.arg == "shell"
    ]
    assert not offences, _listed(offences)


def test_the_environment_is_read_in_one_place() -> None:
    offences = [
        f"{_name(path)}:{node.lineno}: {_dotted(node)}"
        for path in sources()
        if _name(path) not in ENVIRONMENT_READERS
        for node in ast.walk(_tree(path))
        if isinstance(node, ast.Attribute) and _dotted(node) in ("os.environ", "os.getenv", "os.environb", "os.putenv")
    ]
    assert not offences, _listed(offences)


def test_each_library_has_one_home() -> None:
    offences = []
    for path in sources():
        for name in set(_imports(_tree(path))):
            home = IMPORTERS.get(name.split(".")[0])
            if home is not None and not _name(path).startswith(home):
                offences.append(f"{_name(path)}: imports {name}, which belongs to {home}")
    assert not offences, _listed(offences)


def test_only_the_composition_root_chooses_implementations() -> None:
    chosen = re.compile(
        r"corral\.(hypervisor|storage|network|images)\.(fake|libvirt|dir)\b|corral\.store\.(sqlite|memory)\b"
    )
    offences = []
    for path in sources():
        package = _name(path).split("/")[0]
        for name in set(_imports(_tree(path))):
            match = chosen.match(name)
            if match and _name(path) != "bootstrap.py" and package not in name.split("."):
                offences.append(f"{_name(path)}: imports {name}")
    assert not offences, _listed(offences)


def test_the_model_does_no_input_or_output() -> None:
    doors = {"os", "socket", "asyncio", "pathlib", "io", "shutil", "subprocess", "time", "random"}
    offences = [
        f"{_name(path)}: imports {name}"
        for path in sources()
        if _name(path).startswith("model/")
        for name in set(_imports(_tree(path)))
        if name.split(".")[0] in doors
    ]
    assert not offences, _listed(offences)


@functools.cache
def _words_of_the_source() -> frozenset[str]:
    """Every text constant in the code outside the catalogue itself; f-strings count by their parts."""
    words = set()
    for path in sources():
        if _name(path) == "errors.py":
            continue
        for node in ast.walk(_tree(path)):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                words.add(node.value)
    return frozenset(words)


@pytest.mark.parametrize("code", sorted(CATALOGUE))
def test_every_error_code_is_raised_somewhere(code: str) -> None:
    # `f"{cls.KIND}-not-found"` in Objects.require covers the codes of the stored kinds.
    by_kind = re.fullmatch(
        r"(vm|image|volume|network|network-policy|security-group|router|forward|address|balancer|operation|project|host|token)-not-found",
        code,
    )
    assert by_kind or code in _words_of_the_source(), f"nothing raises {code}: raise it or take it out of CATALOGUE"


def test_lock_files_pin_by_hash_and_name_no_registry() -> None:
    for path in sorted((ROOT / "requirements").glob("*.txt")):
        text = path.read_text()
        assert "://" not in text, f"{path.name} names a place to download from"
        assert not re.search(r"^\s*(-i|--index-url|--extra-index-url|--find-links)\b", text, re.MULTILINE)
        pinned = re.findall(r"^([A-Za-z0-9_.-]+)==", text, re.MULTILINE)
        assert pinned
        assert text.count("--hash=sha256:") >= len(pinned)


def test_lock_files_hold_every_direct_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = {
        "runtime": project["project"]["dependencies"],
        "build": [*project["build-system"]["requires"], "setuptools", "wheel"],
        "dev": project["dependency-groups"]["dev"],
    }
    for name, requirements in wanted.items():
        locked = {line.split("==")[0].lower() for line in (ROOT / f"requirements/{name}.txt").read_text().splitlines()}
        missing = [r for r in requirements if re.split(r"[<>=\[ ;]", r)[0].lower() not in locked]
        assert not missing, f"requirements/{name}.txt lacks {missing}: run `make lock`"
