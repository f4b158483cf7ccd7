"""The row of snapshots on real libvirt: how long a guest stands still, at most, by what each snapshot tells."""

from stage import Daemon, Row, median, say

from corral.client import Client, raise_for_operation

ROUNDS = 12
MEMORY_MIB = 128
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
