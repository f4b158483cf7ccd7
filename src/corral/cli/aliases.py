"""virsh's own verbs and what they are here: one table, shown by `corral --help`, used by the command group."""

from typing import Final

# virsh's verb -> our command with its fixed arguments.
ALIASES: Final[dict[str, tuple[str, ...]]] = {
    "ls": ("list",),
    "dominfo": ("info",),
    "domstate": ("info", "--state"),
    "domifaddr": ("info", "--addresses"),
    "domblklist": ("info", "--disks"),
    "domiflist": ("info", "--nics"),
    "domuuid": ("info", "--uid"),
    "domhostname": ("guest", "--hostname"),
    "guestinfo": ("guest",),
    "domfsinfo": ("guest", "--filesystems"),
    "domtime": ("clock", "show"),
    "set-user-password": ("password", "set"),
    "vncdisplay": ("vnc", "--address"),
    "domdisplay": ("vnc", "--address"),
    "inject-nmi": ("nmi",),
    "dumpxml": ("document",),
    "attach-disk": ("disk", "add"),
    "detach-disk": ("disk", "remove"),
    "blockresize": ("disk", "resize"),
    "blkdeviotune": ("disk", "set"),
    "change-media": ("disk", "insert"),
    "attach-interface": ("nic", "add"),
    "detach-interface": ("nic", "remove"),
    "domif-setlink": ("nic", "link"),
    "show": ("info",),
    "suspend": ("pause",),
    "managedsave": ("save",),
    "undefine": ("delete", "--keep-disks"),
    "domrename": ("rename",),
    "desc": ("describe",),
    "domstats": ("top", "--once"),
    "dommemstat": ("top", "--once"),
    "virt-top": ("top",),
    "guest-agent-command": ("exec",),
    "event": ("events", "--follow"),
    "nodeinfo": ("host", "info"),
    "net-list": ("network", "list"),
    "sg": ("security-group",),
    "nwfilter-list": ("security-group", "list"),
    "nwfilter-dumpxml": ("security-group", "show"),
    "net-info": ("network", "show"),
    "vol-list": ("volume", "list"),
    "vol-info": ("volume", "show"),
    "vol-delete": ("volume", "delete"),
    "domjobinfo": ("operation", "list"),
}


def expand(args: list[str]) -> list[str]:
    """`args` with virsh's verb at its front replaced by ours; `help VERB` is `VERB --help`."""
    if args and args[0] == "help":
        return [*expand(args[1:]), "--help"]
    if args and args[0] in ALIASES:
        return [*ALIASES[args[0]], *args[1:]]
    return args
