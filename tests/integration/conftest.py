"""Real daemons on the fake hypervisor: started by hand, stopped by their own pid, logs kept for a failed test."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from corral.client import Client
from corral.errors import CorralError

START_S = 60.0
STOP_S = 20.0


@dataclass
class Daemon:
    """One state directory, and the process that serves it now."""

    state_dir: Path
    settings: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    @property
    def socket(self) -> Path:
        return self.state_dir / "run" / "corral.sock"

    @property
    def log(self) -> Path:
        return self.state_dir.with_name(f"{self.state_dir.name}.log")

    def spawn(self) -> subprocess.Popen[bytes]:
        environ = {key: value for key, value in os.environ.items() if not key.startswith("CORRAL_")}
        environ |= {"CORRAL_CONFIG": "/nonexistent", **self.settings}
        argv = [sys.executable, "-m", "corral.cli", "serve", "--state-dir", str(self.state_dir), "--hypervisor", "fake"]
        with self.log.open("ab") as log:
            return subprocess.Popen(argv, stdout=log, stderr=log, env=environ)

    def start(self) -> "Daemon":
        self.process = self.spawn()
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise AssertionError(f"the daemon ended with {self.process.returncode}:\n{self.log.read_text()}")
            # After `kill -9` the old socket still lies there and nobody listens.
            with suppress(CorralError), self.client() as client:
                if client.ready()["ready"]:
                    return self
            time.sleep(0.05)
        raise AssertionError(f"the daemon is not ready:\n{self.log.read_text()}")

    def client(self) -> Client:
        return Client(self.socket, timeout_s=60)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait(STOP_S)

    def terminate(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_S)

    def end(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.kill()


@pytest.fixture
def daemons() -> Iterator[Callable[..., Daemon]]:
    """Make daemons; settings are given as `CORRAL_*`. Their directories have short names, for the sockets in them."""
    made: list[Daemon] = []
    root = Path(tempfile.mkdtemp(prefix="corral-"))

    def make(**settings: str) -> Daemon:
        daemon = Daemon(root / f"d{len(made)}", settings)
        made.append(daemon)
        return daemon

    yield make
    for daemon in made:
        daemon.end()
    shutil.rmtree(root)


@pytest.fixture(scope="module")
def shared_daemon() -> Iterator[Daemon]:
    """One daemon for the tests of a module that do not disturb each other; it has the image `micro`."""
    root = Path(tempfile.mkdtemp(prefix="corral-"))
    daemon = Daemon(root / "d", {"CORRAL_MEMORY_OVERCOMMIT": "100", "CORRAL_CPU_OVERCOMMIT": "2000"})
    try:
        build_micro(daemon.start())
        yield daemon
    finally:
        daemon.end()
        shutil.rmtree(root)


def build_micro(daemon: Daemon) -> None:
    with daemon.client() as client:
        finish(client, client.build_image({"catalogue": "micro"}))


def finish(client: Client, accepted: Any) -> Any:
    """Wait for an operation that must succeed; returns it."""
    operation = client.wait_operation(accepted["operation"]["uid"], timeout_s=60)
    assert operation["status"]["state"] == "succeeded", operation["status"]
    return operation


@pytest.fixture
def done() -> Callable[[Client, Any], Any]:
    return finish


@pytest.fixture
def with_micro() -> Callable[[Daemon], None]:
    return build_micro
