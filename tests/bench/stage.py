"""What the rows of the bench stand on: daemons of their own, timings, and the shape of a row."""

import contextlib
import http.client
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from corral.client import Client
from corral.errors import CorralError

ROOT = Path(__file__).resolve().parents[2]
CORRAL = str(ROOT / ".venv/bin/corral")
READY_TIMEOUT_S = 60.0
# The bench asks for more than the machine holds, and faster than one person would.
FAKE_ENVIRONMENT = {
    "CORRAL_MEMORY_OVERCOMMIT": "1000",
    "CORRAL_CPU_OVERCOMMIT": "100000",
    "CORRAL_REQUEST_RATE_PER_S": "100000",
    "CORRAL_SUBNET": "10.99.0.0/16",
}


@dataclass(frozen=True)
class Row:
    """One promise: what was promised, what was measured, how. `unit` empty: a ratio."""

    promise: str
    limit: float
    measured: float
    unit: str
    how: str
    least: bool = False

    @property
    def kept(self) -> bool:
        return self.measured >= self.limit if self.least else self.measured <= self.limit


@dataclass
class Daemon:
    """A daemon in the foreground of a child process, with a state directory of its own."""

    state_dir: Path
    hypervisor: str
    process: "subprocess.Popen[bytes] | None" = None
    settings: Mapping[str, str] = field(default_factory=dict)

    @property
    def socket(self) -> Path:
        return self.state_dir / "run/corral.sock"

    @property
    def environment(self) -> dict[str, str]:
        extra = FAKE_ENVIRONMENT if self.hypervisor == "fake" else {}
        return {
            **os.environ,
            **extra,
            **self.settings,
            "CORRAL_STATE_DIR": str(self.state_dir),
            "CORRAL_SOCKET": str(self.socket),
        }

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def start(self) -> float:
        """Start it; seconds until it says that it is ready."""
        log = (self.state_dir / "bench.log").open("ab")
        began = time.monotonic()
        self.process = subprocess.Popen(
            [CORRAL, "serve", "--hypervisor", self.hypervisor], env=self.environment, stdout=log, stderr=log
        )
        log.close()
        while time.monotonic() - began < READY_TIMEOUT_S:
            if self.process.poll() is not None:
                break
            with contextlib.suppress(CorralError, OSError), Client(self.socket) as client:
                if client.ready()["ready"]:
                    return time.monotonic() - began
            time.sleep(0.02)
        raise RuntimeError(f"the daemon is not ready:\n{(self.state_dir / 'bench.log').read_text()[-4000:]}")

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.process = None

    def resident_mib(self) -> float:
        status = Path(f"/proc/{self.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
        return int(line.split()[1]) / 1024

    def cpu_s(self) -> float:
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def run(self, *arguments: str) -> None:
        """One command line, to its end."""
        done = subprocess.run([CORRAL, *arguments], env=self.environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"corral {' '.join(arguments)}: {done.stderr.strip()}")


@contextlib.contextmanager
def daemon(hypervisor: str, settings: Mapping[str, str] = {}) -> Iterator[Daemon]:
    """A fresh daemon; stopped, and its directory removed, at the end."""
    directory = Path(tempfile.mkdtemp(prefix="corral-bench-"))
    directory.chmod(0o711)
    one = Daemon(directory, hypervisor, settings=settings)
    try:
        one.start()
        yield one
    finally:
        one.stop()
        shutil.rmtree(directory, ignore_errors=True)


class SocketConnection(http.client.HTTPConnection):
    """Plain HTTP over the daemon's socket: the API alone, without the client's own work."""

    def __init__(self, path: Path) -> None:
        super().__init__("corral")
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(self._path)


def timed(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def process_s(argv: Sequence[str], environment: dict[str, str]) -> float:
    """A whole process, from fork to its end."""
    began = time.perf_counter()
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    took = time.perf_counter() - began
    if done.returncode:
        raise RuntimeError(f"{' '.join(argv)}: {done.stderr.strip()}")
    return took


def median(times: Sequence[float]) -> float:
    return statistics.median(times)


def p99(times: Sequence[float]) -> float:
    return sorted(times)[max(0, round(len(times) * 0.99) - 1)]


def say(text: str) -> None:
    print(f"  … {text}", file=sys.stderr, flush=True)
