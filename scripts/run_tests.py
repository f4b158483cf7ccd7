"""The checks and the test layers side by side, with a summary: what `make check`, `make test` and `make soak` run.

A layer that fails does not stop the ones after it; a layer without tests is left out; the exit status says it all.
"""

import argparse
import os
import re
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from installer import reaper

ROOT = Path(__file__).resolve().parents[1]
BIN = ROOT / ".venv/bin"
CHECKS = {
    "format": ["ruff", "format", "--check", "--quiet", "src", "tests", "scripts"],
    "lint": ["ruff", "check", "--quiet", "src", "tests", "scripts"],
    "types": ["mypy", "--no-error-summary"],
    "types of scripts": ["mypy", "--no-error-summary", "--explicit-package-bases", "scripts"],
    "imports": ["lint-imports", "--no-logo"],
}
LAYERS = ["unit", "contract", "golden", "faults", "real-faults", "integration", "e2e", "debian"]
# What is run side by side, the longest first; a layer "1/2" is every second file of it, so that at the end no lane is alone
# with a long one. Much of these tests' time is waiting for guests and daemons: one lane more than there are processors
# keeps them busy. The Debian guest of tests/e2e boots beside the micro guests' tests.
ORDER = ["e2e 1/2", "real-faults 1/2", "integration 1/2", "debian", "real-faults 2/2", "e2e 2/2", "integration 2/2",
         "faults 1/2", "faults 2/2", "contract", "unit", "golden"]  # fmt: skip
LANES = (os.cpu_count() or 1) + 1
WHERE = {"debian": "e2e", "real-faults": "faults/real"}
LEFT_OUT = {"faults": "faults/real"}
MARKED = {"debian": "debian and not soak", "e2e": "not debian and not soak"}
# No single layer takes this long; one that does hangs.
LAYER_TIMEOUT_S = 2400
# Of `make soak` each file is a layer of its own: the longest first, the others as they come.
SOAK_FIRST = [
    *("faults/real/test_snapshots.py", "faults/real/test_every_step.py", "faults/real/test_killed_daemon.py"),
    *("e2e/test_debian_releases.py", "e2e/test_debian.py", "e2e/test_clones.py", "faults/real/test_libvirtd.py"),
]
SOAK_TIMEOUT_S, SOAK_TEST_TIMEOUT_S = 4 * 3600, 3600
RERUN_AT_MOST = 5


@dataclass(frozen=True)
class Outcome:
    """How one stage ended."""

    name: str
    ok: bool
    took_s: float
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    unsteady: int = 0


def layer_of(part: str) -> str:
    return part.partition(" ")[0]


def files_of(part: str) -> list[str]:
    """What pytest is given: a layer's directory, or each so manyth of its test files."""
    layer, _, which = part.partition(" ")
    place = f"tests/{WHERE.get(layer, layer)}"
    if not which:
        return [place]
    number, of = map(int, which.split("/"))
    apart = ROOT / "tests" / LEFT_OUT[layer] if layer in LEFT_OUT else None
    found = sorted(path for path in (ROOT / place).rglob("test_*.py") if apart not in path.parents)
    return [str(path.relative_to(ROOT)) for path in found[number - 1 :: of]]


def run_checks() -> list[Outcome]:
    print("== checks", flush=True)
    return [run_check(name, argv) for name, argv in CHECKS.items()]


def run_check(name: str, argv: list[str]) -> Outcome:
    began = time.monotonic()
    environment = {**os.environ, "MYPYPATH": str(ROOT / "scripts")} if name == "types of scripts" else None
    done = subprocess.run(
        [str(BIN / argv[0]), *argv[1:]], cwd=ROOT, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False,
        env=environment,
    )  # fmt: skip
    if done.returncode:
        print(f"\n== {name}\n{done.stdout}{done.stderr}", flush=True)
    return Outcome(name, done.returncode == 0, time.monotonic() - began)


def run_part(name: str, extra: list[str]) -> Outcome:
    """The tests of a layer or of a part of one. The few that fail are run once more by themselves: on a busy machine a guest may be later than
    any bound that a test can sensibly have. Those that pass then are counted as unsteady and named, never hidden."""
    began = time.monotonic()
    ok, passed, failed, skipped = run_pytest(name, extra)
    unsteady = 0
    if 0 < failed <= RERUN_AT_MOST:
        print(f"\n== {name}: the {failed} that failed, once more", flush=True)
        ok, again, failed, _ = run_pytest(name, [*extra, "--last-failed"])
        unsteady, passed = again, passed + again
    return Outcome(name, ok and not failed, time.monotonic() - began, passed, failed, skipped, unsteady)


def run_pytest(name: str, extra: list[str]) -> tuple[bool, int, int, int]:
    """Whether pytest was content; passed, failed, skipped."""
    layer, soak, stem = layer_of(name), name.endswith(".py"), re.sub("[ /]", "-", name).removesuffix(".py")
    report, log = ROOT / f"var/junit-{stem}.xml", ROOT / f"var/test-{stem}.log"
    report.parent.mkdir(exist_ok=True)
    report.unlink(missing_ok=True)
    argv = [str(BIN / "pytest"), "-q", "-m", MARKED.get(layer, "soak" if soak else "not soak"), f"--junitxml={report}"]
    argv += [f"--timeout={SOAK_TEST_TIMEOUT_S}"] if soak else []
    argv += [f"--ignore=tests/{LEFT_OUT[layer]}"] if layer in LEFT_OUT else []
    argv += ["-o", f"cache_dir={ROOT / 'var' / f'pytest-{stem}'}", *extra, *files_of(name)]
    late, limit_s = "", SOAK_TIMEOUT_S if soak else LAYER_TIMEOUT_S
    try:
        with log.open("wb") as output:
            status = subprocess.run(
                argv, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                timeout=limit_s, check=False,
            ).returncode  # fmt: skip
    except subprocess.TimeoutExpired:
        late = f"{name} did not end within {limit_s} s\n"
        status = 124
    print(f"\n== {name}\n{log.read_text(errors='replace')}{late}", flush=True)
    passed, failed, skipped = counted(report)
    return status == 0, passed, max(failed, int(status != 0)), skipped


def run_all(parts: list[str], extra: list[str], *, check: bool) -> list[Outcome]:
    """Side by side, the checks in a lane of their own; a part's output is printed in one piece when it has ended."""
    with ThreadPoolExecutor(max_workers=1) as aside, ThreadPoolExecutor(max_workers=LANES) as lanes:
        checks = aside.submit(run_checks) if check else None
        outcomes = list(lanes.map(lambda part: run_part(part, extra), parts))
        return [*(checks.result() if checks else []), *outcomes]


def counted(report: Path) -> tuple[int, int, int]:
    """Passed, failed and skipped tests in a JUnit report; zeros when there is none."""
    try:
        root = ET.parse(report).getroot()  # noqa: S314 -- pytest has just written it
    except (OSError, ET.ParseError):
        return 0, 0, 0
    suites = list(root.iter("testsuite"))
    total, errors, failures, skipped = (
        sum(int(suite.get(key, "0")) for suite in suites) for key in ("tests", "errors", "failures", "skipped")
    )
    return total - errors - failures - skipped, errors + failures, skipped


def has_tests(layer: str) -> bool:
    directory = ROOT / "tests" / WHERE.get(layer, layer)
    return any(re.match(r"test_.*\.py$", path.name) for path in directory.rglob("*.py"))


def soak_files() -> list[str]:
    """The files with tests that only a soak runs, in the order to begin them."""
    tests = ROOT / "tests"
    found = [path for path in sorted(tests.rglob("test_*.py")) if "mark.soak" in path.read_text()]
    names = [str(path.relative_to(tests)) for path in found]
    return [*SOAK_FIRST, *(name for name in names if name not in SOAK_FIRST)]


def summarize(outcomes: list[Outcome], took_s: float) -> bool:
    """Print the table and the closing line; True if all is well."""
    print("\n== summary")
    width = max([17, *(len(one.name) for one in outcomes)])
    for one in outcomes:
        counts = f"{one.passed} passed, {one.failed} failed, {one.skipped} skipped" if one.name not in CHECKS else ""
        counts += f", {one.unsteady} UNSTEADY: failed once" if one.unsteady else ""
        print(f"  {'ok    ' if one.ok else 'FAILED'} {one.name:{width}} {one.took_s:7.1f} s  {counts}")
    layers = [one for one in outcomes if one.name not in CHECKS]
    checks_failed = sum(not one.ok for one in outcomes if one.name in CHECKS)
    passed, skipped = sum(one.passed for one in layers), sum(one.skipped for one in layers)
    failed = sum(one.failed for one in layers) + checks_failed
    passed += sum(one.ok for one in outcomes if one.name in CHECKS)
    print(
        f"  {took_s:.0f} s in all\n\n{passed} passed, {failed} failed, {skipped} skipped",
        flush=True,
    )
    return failed == 0 and all(one.ok for one in outcomes)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=["check", *LAYERS], help="run these alone")
    parser.add_argument("--soak", action="store_true", help="run the long tests alone, file by file")
    parser.add_argument("pytest", nargs="*", help="options for pytest, after --")
    chosen = parser.parse_args()
    stages = [] if chosen.soak else chosen.only or ["check", *LAYERS]
    began = time.monotonic()
    parts = [part for part in ORDER if layer_of(part) in stages and has_tests(layer_of(part))]
    outcomes = run_all(soak_files() if chosen.soak else parts, chosen.pytest, check="check" in stages)
    return 0 if summarize(outcomes, time.monotonic() - began) else 1


if __name__ == "__main__":
    # Daemons and the tests' own libvirtds leave orphans, and wait for their ends, which process 1 may be slow to see.
    sys.exit(reaper.under(main))
