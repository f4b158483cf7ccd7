"""What every layer of tests shares: the guard that keeps unit tests pure, and that an interruption is heard."""

import asyncio
import signal
import subprocess
from pathlib import Path
from typing import Any, NoReturn

import pytest

pytest_plugins = ["libvirt_fixtures"]

UNIT = Path(__file__).parent / "unit"


def pytest_configure() -> None:
    """Whoever starts tests in the background has the interruption ignored, and the end of the terminal; the commands that
    are stopped so would inherit that."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(autouse=True)
def _unit_tests_start_no_process(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A unit test that starts a process fails: it belongs to another layer."""
    if UNIT in request.path.parents:

        def refuse(*_args: Any, **_kwargs: Any) -> NoReturn:
            raise AssertionError("a unit test must not start a process")

        monkeypatch.setattr(subprocess.Popen, "__init__", refuse)
        monkeypatch.setattr(asyncio, "create_subprocess_exec", refuse)
