"""What the command line loads: nothing heavy on the paths that people wait for."""

import os
import subprocess
import sys

import pytest

HEAVY = {
    "pydantic",
    "rich",
    "asyncio",
    "httpx",
    "yaml",
    "fastapi",
    "uvicorn",
    "websockets",
    "libvirt",
    "structlog",
    "sqlite3",
}
NO_DAEMON = {"CORRAL_SOCKET": "/nonexistent/corral.sock"}


@pytest.mark.parametrize(
    "argv",
    [
        ["--help"],
        ["--version"],
        ["list"],
        ["list", "-o", "json"],
        ["info", "web"],
        ["start", "web", "--help"],
        ["start", "web"],
    ],
)
def test_the_everyday_path_loads_nothing_heavy(argv: list[str]) -> None:
    ran = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "corral.cli", *argv],
        capture_output=True,
        text=True,
        env={**os.environ, **NO_DAEMON},
        timeout=60,
        check=False,
    )
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in ran.stderr.splitlines() if "|" in line}
    assert "click" in loaded
    assert loaded & HEAVY == set()


def test_help_loads_no_command() -> None:
    ran = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "corral.cli", "--help"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    ours = {name for line in ran.stderr.splitlines() if (name := line.rpartition("|")[2].strip()).startswith("corral")}
    assert ours <= {
        "corral",
        "corral.cli",
        "corral.cli.aliases",
        "corral.cli.commands",
        "corral.cli.main",
        "corral.cli.session",
        "corral.errors",
        "corral.version",
    }
