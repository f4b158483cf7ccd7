"""Commands that mount: run in namespaces of their own, so that nothing is left of them however they end.

A build that is killed half-way would otherwise leave proc, sysfs and devpts mounted in its scratch directory, and who
removes that directory removes what is mounted there: nodes of the machine's own /dev, for instance.
"""

from collections.abc import Sequence
from typing import Final

# Its parent's end, even by `kill -9`, ends unshare; unshare's ends the namespace's first process, and that one's all
# others in it. The mounts go with the last of them. The machine's /dev cannot be changed from inside; device nodes work.
_PREFIX: Final = (
    *("setpriv", "--pdeathsig", "KILL", "--"),
    *("unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child=KILL", "--mount-proc", "--"),
    *("sh", "-c", 'mount --rbind /dev /dev && mount -o remount,bind,ro /dev && "$@"', "sh"),
)


def enclosed(argv: Sequence[str]) -> list[str]:
    """`argv`, to be run as root, in mount and process namespaces that end with the process that starts it."""
    return [*_PREFIX, *argv]
