"""`corral serve`, the daemon itself; and what is done to its state while it is stopped. The one door to bootstrap."""

import gc
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from corral.cli.session import Session, pass_session
from corral.settings import Settings, load

_F = TypeVar("_F", bound=Callable[..., Any])

# The daemon lives long and holds thousands of documents: fewer looks for garbage than Python's own (700, 10, 10), which
# stop everything for a fifth of a second at 5,000 VMs, more than the none that suits a short command.
GC_THRESHOLDS: Final = (10_000, 20, 20)
# A thread that parses what libvirt said gives the event loop its turn sooner than after Python's own 5 ms: a start waited
# for one or two of those.
SWITCH_S: Final = 0.0005
# One flag for each field of Settings, in the order in which they are shown; a test compares the two.
SETTINGS_HELP: Final[dict[str, str]] = {
    "state_dir": "Where the database, disks and images live.",
    "socket": "The API's Unix socket.  [default: /run/corral/corral.sock, or run/corral.sock in --state-dir]",
    "hypervisor": "libvirt, or fake: a simulation for trials and tests.",
    "libvirt_uri": "The libvirt connection: qemu:///system, qemu:///session.",
    "log_level": "debug, info, warning or error.",
    "log_json": "Log as JSON: true or false.",
    "listen": "HOST:PORT for the API over TLS with tokens; empty is off.",
    "tls_cert": "Certificate chain for --listen.",
    "tls_key": "Private key for --listen.",
    "admin_group": "Members of this group are administrators over the socket.",
    "cpu_overcommit": "vCPUs that may be promised for each hardware thread.",
    "memory_overcommit": "Part of the memory that may be promised; 1.0 is all there is.",
    "host_reserved_memory_mib": "MiB of memory that are never promised to guests.",
    "warm_memory_mib": "MiB of memory for domains that wait for a hot template's state.",
    "disk_reserve_mib": "MiB of disk that stay free.",
    "pool_warn_percent": "From so much used of a pool on it is said.",
    "pool_critical_percent": "From so much used of a pool on it is said loudly.",
    "background_mib_per_s": "Moves, flattening and merges write at most so much; 0: no limit.",
    "relist_interval_s": "Seconds between full looks at the hypervisor, at least 5; events drive the rest.",
    "hypervisor_timeout_s": "Seconds a call to the hypervisor may take.",
    "operation_history": "How many finished operations are kept.",
    "request_rate_per_s": "Requests a second that one caller may make.",
    "share_roots": "Folders below these may be shared with guests; several with : between them.",
    "subnet": "IPv4 subnet of the default network; empty: a free one is found.",
}


def settings_options(function: _F) -> _F:
    """A flag for each setting of the daemon; only those that were given arrive, as texts."""
    for key, text in reversed(SETTINGS_HELP.items()):
        flag = f"--{key.replace('_', '-')}"
        function = click.option(flag, key, metavar="VALUE", default=None, help=text)(function)
    return function


def given_flags(session: Session, options: dict[str, str | None]) -> dict[str, str]:
    """What was really said, here or before the command's name (`corral --state-dir D daemon start`). Paths are absolute."""
    flags = {key: value for key, value in options.items() if value is not None}
    for key, value in (("state_dir", session.state_dir), ("socket", session.socket)):
        if value:
            flags.setdefault(key, value)
    for key in ("state_dir", "socket", "tls_cert", "tls_key"):
        if flags.get(key):
            flags[key] = str(Path(flags[key]).expanduser().absolute())
    return flags


@click.command()
@settings_options
@pass_session
def serve(session: Session, /, **options: str | None) -> None:
    """Be the daemon, in the foreground, until SIGTERM or Ctrl-C; guests go on.

    Flags win over the environment (CORRAL_STATE_DIR …), that over the file /etc/corral/corral.toml (or CORRAL_CONFIG).
    Exit code 2 means that the settings are wrong, 4 that another daemon is there already.

    \b
    Examples:
      corral serve
      corral serve --state-dir /tmp/trial --hypervisor fake
      corral serve --listen 0.0.0.0:8443 --tls-cert cert.pem --tls-key key.pem
    """
    from corral.bootstrap import run

    gc.set_threshold(*GC_THRESHOLDS)
    sys.setswitchinterval(SWITCH_S)
    raise click.exceptions.Exit(run(load(given_flags(session, options))))


def restore(settings: Settings, source: Path) -> None:
    """Put a backup in the place of the stopped daemon's database."""
    from corral.bootstrap import restore as put_back

    put_back(settings, source)
