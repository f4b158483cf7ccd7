"""One world for all faults on real libvirt; each test ends with nothing left in it, and a failed one says all it knows."""

import os
import random
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field

import pytest
from real_world import World, real_world

SEED = int(os.environ.get("CORRAL_SEED") or random.SystemRandom().randrange(1 << 32))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    terminalreporter.write_line(f"faults on real libvirt: CORRAL_SEED={SEED}")


@pytest.fixture(scope="session")
def seed() -> int:
    return SEED


@dataclass
class Worlds:
    """The world that tests share; what a failed test leaves behind ends with its world, and fails no other."""

    seed: int
    stack: ExitStack = field(default_factory=ExitStack)
    current: World | None = None

    def take(self) -> World:
        if self.current is None:
            self.current = self.stack.enter_context(real_world(self.seed))
        return self.current

    def drop(self) -> None:
        self.current = None
        self.stack.close()


@pytest.fixture(scope="session")
def worlds(seed: int) -> Iterator[Worlds]:
    found = Worlds(seed)
    yield found
    found.drop()


@pytest.fixture
def world(worlds: Worlds, request: pytest.FixtureRequest, seed: int) -> Iterator[World]:
    taken = worlds.take()
    taken.random.seed(f"{seed}/{request.node.name}")
    yield taken
    if getattr(request.node, "failed", False):
        worlds.drop()


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
