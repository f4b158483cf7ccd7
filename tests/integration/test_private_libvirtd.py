"""The tests' own libvirtd does not outlive a test's process that is killed."""

import os
import subprocess
import sys
import time
from pathlib import Path

import private_libvirtd

PROGRAM = """
import sys, time
from pathlib import Path
from private_libvirtd import PrivateLibvirtd
print(PrivateLibvirtd(Path(sys.argv[1])).holder_pid, flush=True)
time.sleep(600)
"""


def test_a_killed_test_leaves_no_libvirtd(tmp_path: Path) -> None:
    root = tmp_path / "d"
    environ = {**os.environ, "PYTHONPATH": str(Path(private_libvirtd.__file__).parent)}
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, str(root)], stdout=subprocess.PIPE, env=environ)
    assert process.stdout is not None
    holder = int(process.stdout.readline())
    namespace = os.readlink(f"/proc/{holder}/ns/net")
    assert namespace != os.readlink("/proc/self/ns/net")
    assert len(private_libvirtd.inhabitants(namespace)) >= 3
    process.kill()
    process.wait(10)
    deadline = time.monotonic() + 30
    while private_libvirtd.inhabitants(namespace) or root.exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)
