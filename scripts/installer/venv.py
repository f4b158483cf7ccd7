"""`.venv`: made from the hash-pinned lock files; nothing is done when it is what the lock files say."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

from installer.context import Context, system_python
from installer.shell import Refused

STAMP = "corral-stamp.json"
PIP = ["-m", "pip", "--disable-pip-version-check", "--no-input", "install"]


def digest(*paths: Path) -> str:
    """sha256 over the content of files, in the order given."""
    total = hashlib.sha256()
    for path in paths:
        total.update(path.read_bytes())
        total.update(b"\0")
    return total.hexdigest()


def source_digest(root: Path) -> str:
    """What the daemon's code is: every file of the package and the lock file it runs with."""
    files = sorted(path for path in (root / "src").rglob("*") if path.is_file() and path.suffix in (".py", ".toml"))
    return digest(*files, root / "requirements/runtime.txt")


def wanted_stamp(root: Path, lock: str) -> dict[str, str]:
    """What `.venv` is after an installation of `lock` (`runtime` or `dev`; dev holds runtime)."""
    requirements = root / "requirements"
    stamp = {"root": str(root), "project": digest(root / "pyproject.toml"), "build": digest(requirements / "build.txt")}
    stamp["runtime"] = digest(requirements / "runtime.txt")
    if lock == "dev":
        stamp["dev"] = digest(requirements / "dev.txt")
    return stamp


def read_stamp(venv: Path) -> dict[str, str]:
    try:
        found = json.loads((venv / STAMP).read_text())
    except (OSError, json.JSONDecodeError):
        return {}
    return found if isinstance(found, dict) else {}


def fresh(context: Context, lock: str) -> bool:
    """Whether `.venv` is there, starts, and was made from these lock files."""
    stamp = read_stamp(context.venv)
    same = all(stamp.get(key) == value for key, value in wanted_stamp(context.root, lock).items())
    return same and Path(context.corral).exists() and (context.venv / "bin/python").resolve().exists()


def ensure_venv(context: Context, say: Callable[[str], None], lock: str) -> str:
    """Make or refresh `.venv`. Interrupted anywhere, the next run starts where the stamp says."""
    if fresh(context, lock):
        return "as the lock files say"
    python = context.venv / "bin/python"
    if not context.shell.ask([str(python), "-c", "import sys, pip; sys.exit(sys.version_info < (3, 11))"]).ok:
        shutil.rmtree(context.venv, ignore_errors=True)
        context.shell.must("make .venv", [system_python(), "-m", "venv", str(context.venv)], say)
    stamp = read_stamp(context.venv)
    (context.venv / STAMP).unlink(missing_ok=True)
    wanted = wanted_stamp(context.root, lock)
    requirements = context.root / "requirements"
    say("build tools")
    if stamp.get("build") != wanted["build"]:
        _pip(context, say, "--require-hashes", "-r", str(requirements / "build.txt"))
    if stamp.get(lock) != wanted[lock]:
        _pip(context, say, "--require-hashes", "--no-build-isolation", "-r", str(requirements / f"{lock}.txt"))
    _pip(context, say, "--no-deps", "--no-build-isolation", "--no-index", "-e", str(context.root))
    beside = context.venv / f"{STAMP}.new"
    beside.write_text(json.dumps(wanted))
    beside.replace(context.venv / STAMP)
    return f"installed from requirements/{lock}.txt"


def _pip(context: Context, say: Callable[[str], None], *arguments: str) -> None:
    say(" ".join(arguments[-2:]))
    python = str(context.venv / "bin/python")
    result = context.shell.work([python, *PIP, "--progress-bar", "off", *arguments], say)
    if not result.ok:
        hint = "is a package index reachable (pip's own configuration says where)?"
        if "HASH" in result.tail or "hash" in result.tail:
            hint = "the index served other files than the lock file pins; nothing of them was installed"
        raise Refused("install the Python packages", result.tail, f"{hint} All of the output: {context.shell.log}")
