"""One world for all faults on real libvirt; each test ends with nothing left in it, and a failed one says all it knows."""

import os
import random
from collections.abc import Generator, Iterator

import pytest
from real_world import World, real_world

SEED = int(os.environ.get("CORRAL_SEED") or random.SystemRandom().randrange(1 << 32))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    terminalreporter.write_line(f"faults on real libvirt: CORRAL_SEED={SEED}")


@pytest.fixture(scope="session")
def seed() -> int:
    return SEED


@pytest.fixture(scope="session")
def whole_world(seed: int) -> Iterator[World]:
    with real_world(seed) as world:
        yield world


@pytest.fixture
def world(whole_world: World, request: pytest.FixtureRequest, seed: int) -> Iterator[World]:
    whole_world.random.seed(f"{seed}/{request.node.name}")
    yield whole_world
    if getattr(request.node, "failed", False):
        whole_world.clear()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    world = getattr(item, "funcargs", {}).get("world")
    if report.failed and isinstance(world, World):
        item.failed = True  # type: ignore[attr-defined]
        report.sections.append(("seed", f"CORRAL_SEED={SEED}"))
        report.sections += world.report()
    return report
