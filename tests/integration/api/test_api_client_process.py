"""The client as a process: what it loads, that its types are current, and that it outlives a daemon's restart."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from corral.client import Client
from corral.errors import CorralError

ROOT = Path(__file__).parents[3]
WAIT_S = 60.0
# What a command line that starts in a tenth of a second cannot load.
HEAVY = ("pydantic", "asyncio", "fastapi", "starlette", "uvicorn", "websockets", "structlog", "rich", "yaml", "httpx")


def test_the_clients_types_are_those_of_the_openapi_document() -> None:
    command = [sys.executable, str(ROOT / "scripts" / "generate_client_types.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT_S, check=False)
    assert done.returncode == 0, done.stderr


def test_importing_the_client_loads_nothing_heavy() -> None:
    program = "import sys, json, corral.client; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=WAIT_S, check=True)
    loaded = json.loads(done.stdout)
    assert [name for name in loaded if name.split(".")[0] in HEAVY or name.startswith("corral.model")] == []


def _start(directory: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "CORRAL_CPU_OVERCOMMIT": "1000", "CORRAL_LOG_LEVEL": "warning"}
    program = "import sys; from corral.cli.main import main; sys.exit(main())"
    command = [sys.executable, "-c", program, "serve", "--hypervisor", "fake"]
    command += ["--state-dir", str(directory), "--socket", str(directory / "s")]
    with (directory / "log").open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, env=environment)


def _wait_ready(directory: Path) -> None:
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        try:
            with Client(directory / "s") as client:
                if client.ready()["ready"]:
                    return
        except CorralError as error:
            if error.code != "daemon-unreachable":
                raise
        time.sleep(0.05)
    raise AssertionError((directory / "log").read_text())


@pytest.fixture
def directory() -> Iterator[Path]:
    with TemporaryDirectory(prefix="capi") as name:
        yield Path(name)


def test_a_wait_outlives_a_restart_of_the_daemon(directory: Path) -> None:
    daemon = _start(directory)
    try:
        _wait_ready(directory)
        with Client(directory / "s") as client:
            built = client.build_image({"catalogue": "micro"})["operation"]["uid"]
            assert client.wait_operation(built, timeout_s=WAIT_S)["status"]["state"] == "succeeded"
            created = client.create_vm({"name": "web", "image": "micro", "memory_mib": 64})["operation"]["uid"]
            states: list[str] = []
            done = client.wait_operation(
                created, on_progress=lambda it: states.append(it["status"]["state"]), timeout_s=WAIT_S
            )
            assert done["status"]["state"] == states[-1] == "succeeded"
            watch = client.watch("vms", name="web")
            ended: list[object] = []
            waiting = threading.Thread(target=lambda: ended.extend(watch))
            waiting.start()
            daemon.send_signal(signal.SIGTERM)
            assert daemon.wait(WAIT_S) == 0
            waiting.join(WAIT_S)
            assert not waiting.is_alive(), "the stream did not end with the daemon"
            with pytest.raises(CorralError) as gone:
                client.get_vm("web")
            assert gone.value.code == "daemon-unreachable"
            restarter = threading.Timer(0.5, lambda: running.append(_start(directory)))
            running: list[subprocess.Popen[bytes]] = []
            restarter.start()
            assert client.wait_operation(created, timeout_s=WAIT_S)["status"]["state"] == "succeeded"
            restarter.join()
            daemon = running[0]
            _wait_ready(directory)
            assert client.wait_vm("web", "running", WAIT_S)["state"] == "running"
    finally:
        daemon.kill()
        daemon.wait(WAIT_S)
