"""A real command line against a real daemon with the simulated hypervisor, both as processes."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

TIMEOUT_S = 90


@dataclass
class Ran:
    """What one command did."""

    status: int
    out: str
    err: str

    def ok(self) -> "Ran":
        assert self.status == 0, f"exit status {self.status}\n{self.out}\n{self.err}"
        return self

    @property
    def json(self) -> Any:
        return json.loads(self.ok().out)


@dataclass
class Corral:
    """The command line of one daemon, in an environment of its own."""

    state_dir: Path
    home: Path
    environment: dict[str, str] = field(default_factory=dict)

    def argv(self, *argv: str) -> list[str]:
        return [sys.executable, "-m", "corral.cli", *argv]

    @property
    def environ(self) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("CORRAL_", "XDG_"))}
        return {**kept, "CORRAL_STATE_DIR": str(self.state_dir), "HOME": str(self.home), **self.environment}

    def __call__(self, *argv: str, stdin: str = "") -> Ran:
        ran = subprocess.run(
            self.argv(*argv),
            input=stdin,
            capture_output=True,
            text=True,
            env=self.environ,
            timeout=TIMEOUT_S,
            check=False,
        )
        return Ran(ran.returncode, ran.stdout, ran.stderr)

    def start(self, *argv: str) -> "subprocess.Popen[str]":
        """A command that goes on; the caller ends it."""
        return subprocess.Popen(
            self.argv(*argv),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.PIPE,
            text=True,
            env=self.environ,
        )


def make(directory: Path) -> Corral:
    """A place for a daemon, and a home with a key, so that nothing touches the caller's own."""
    home = directory / "home"
    (home / ".ssh").mkdir(parents=True)
    (home / ".ssh" / "id_ed25519.pub").write_text(
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPqVv0VEhYxX5uQ1vfQ9o6mJ2c9e3yJxqkYw7F0tUuFZ ann@laptop\n"
    )
    return Corral(directory / "state", home)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Corral]:
    """A place where no daemon runs yet; whatever a test starts there is stopped."""
    made = make(tmp_path)
    try:
        yield made
    finally:
        made("daemon", "stop")


@pytest.fixture(scope="module")
def corral(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Corral]:
    """A running daemon with the image `micro`."""
    made = make(tmp_path_factory.mktemp("cli"))
    try:
        made("daemon", "start", "--hypervisor", "fake").ok()
        made("image", "build", "micro").ok()
        yield made
    finally:
        made("daemon", "stop")
