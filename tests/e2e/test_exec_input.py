"""As much input as `exec -i` takes reaches a real guest, and its agent is alive afterwards."""

from walk import Walk

from corral.model import limits


def test_the_most_that_exec_takes_arrives(walk: Walk, vm: str) -> None:
    whole = "x" * limits.EXEC_STDIN_MAX_BYTES
    assert walk("exec", "-i", vm, "--", "wc", "-c", stdin=whole).ok().strip() == str(len(whole))
    walk("exec", "-i", vm, "--", "wc", "-c", stdin=f"{whole}x").ends(2, "body-too-large")
    longest = "y" * (limits.EXEC_MESSAGE_MAX_BYTES - 4 * len(whole) // 3 - 100)
    assert walk("exec", "-i", vm, "--", "sh", "-c", "wc -c", longest, stdin=whole).ok().strip() == str(len(whole))
    assert walk("exec", vm, "--", "echo", "alive").ok().strip() == "alive"
