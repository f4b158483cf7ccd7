"""Waits for processes whose parents have ended, as process 1 should: in many containers and small VMs it does so late or never.

An ended QEMU that nobody waits for stays a zombie, and libvirt takes it for a living one: each `destroy` then lasts seconds,
or fails. `python reaper.py [--detach] COMMAND…` runs a daemon and stays until it and all that it has started are gone.
"""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence

PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h


def adopt() -> None:
    """From now on this process is the parent of all of its descendants that lose theirs."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def wait_for(pid: int) -> int:
    """Wait for whoever ends, until it is `pid`; returns its status as a shell would."""
    while True:
        ended, status = os.wait()
        if ended == pid:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


def under(work: Callable[[], int]) -> int:
    """Do `work` in a child, and wait for its orphans until it has ended."""
    adopt()
    child = os.fork()
    if child == 0:
        return work()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal tells the child, too
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _frame: os.kill(child, number))
    return wait_for(child)


def run(argv: Sequence[str]) -> int:
    """Returns how the command ended, when nothing that came from it is left."""
    adopt()
    command = subprocess.Popen(argv)  # kept: one that is forgotten is waited for by whoever clears it away
    status = wait_for(command.pid)
    while True:
        try:
            os.wait()
        except ChildProcessError:
            return status


def main(argv: Sequence[str]) -> int:
    if argv[0] != "--detach":
        return run(argv)
    if os.fork():
        return 0
    os.setsid()
    os.chdir("/")
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in range(3):
        os.dup2(nothing, descriptor)
    return run(argv[1:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
