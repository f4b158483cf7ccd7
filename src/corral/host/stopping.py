"""Whether the whole host goes down, or only the daemon: guests are stopped in the first case, left alone in the other."""

from typing import Final

from corral import proc
from corral.errors import CorralError

ASK_TIMEOUT_S: Final = 5.0


async def host_is_stopping() -> bool:
    """systemd's word; False where systemd does not run (there nobody can tell, and guests are rather left alone)."""
    try:
        done = await proc.run(["systemctl", "is-system-running"], timeout_s=ASK_TIMEOUT_S, check=False)
    except CorralError:
        return False
    return done.stdout.decode(errors="replace").strip() == "stopping"
