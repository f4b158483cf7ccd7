"""Rows of snapshots and live forks on real libvirt: how long a guest stands still, at most, by what each of them tells."""

import time

from stage import Daemon, Row, median, say

from corral.client import Client, raise_for_operation

ROUNDS = 12
MEMORY_MIB = 128
LIVE_ROUNDS = 5
LATE_S = 60.0


def snapshot_row(one: Daemon, image: str, prefix: str) -> Row:
    """Of one disk; what is counted is libvirt's whole call, of which the guest notices less."""
    name = f"{prefix}-time"
    one.run("create", "--name", name, "--image", image, "--memory", str(MEMORY_MIB), "--wait", "agent")
    say(f"{ROUNDS} snapshots")
    pauses = []
    with Client(one.socket) as client:
        for number in range(ROUNDS):
            accepted = client.create_snapshot(name, {"name": f"s{number}"})
            raise_for_operation(client.wait_operation(accepted["operation"]["uid"], timeout_s=LATE_S))
            pauses.append(client.get_snapshot(name, f"s{number}")["status"]["pause_ms"] or 0.0)
    one.run("delete", name, "--yes")
    how = (
        f"median of {len(pauses)}, micro guest, each on top of the last; from {min(pauses):.0f} to {max(pauses):.0f} ms"
    )
    return Row("a running guest stands still for a snapshot of its disks", 100, median(pauses), "ms", how)


def live_fork_row(one: Daemon, image: str, prefix: str) -> Row:
    """What counts is the parent's pause; the time until its copy runs, and knows who it is, is told beside it."""
    name = f"{prefix}-live"
    one.run("create", "--name", name, "--image", image, "--memory", str(MEMORY_MIB), "--wait", "agent")
    say(f"{LIVE_ROUNDS} live forks, {LIVE_ROUNDS} snapshots with memory")
    pauses, kept, run_s = [], [], []
    with Client(one.socket) as client:
        for number in range(LIVE_ROUNDS):
            copy = f"{name}-{number}"
            began = time.perf_counter()
            accepted = client.fork_vm(name, {"names": [copy]})
            raise_for_operation(client.wait_operation(accepted["operations"][0]["uid"], timeout_s=LATE_S))
            run_s.append(time.perf_counter() - began)
            pauses.append(accepted["pause_ms"] or 0.0)
            one.run("delete", copy, "--yes")
            snapshot = client.create_snapshot(name, {"name": f"m{number}", "memory": True})
            raise_for_operation(client.wait_operation(snapshot["operation"]["uid"], timeout_s=LATE_S))
            kept.append(client.get_snapshot(name, f"m{number}")["status"]["pause_ms"] or 0.0)
    one.run("delete", name, "--yes")
    how = (
        f"median of {LIVE_ROUNDS}, micro guest of {MEMORY_MIB} MiB, from {min(pauses):.0f} to {max(pauses):.0f} ms; its copy runs and knows "
        f"who it is after {median(run_s):.1f} s; for a snapshot with memory it stands still for {median(kept):.0f} ms"
    )
    return Row("a running guest stands still for a live fork", 300, median(pauses), "ms", how)
