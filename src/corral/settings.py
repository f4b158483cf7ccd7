"""What the daemon was told: flags over environment over the configuration file over defaults. Alone reads the environment."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Final

from corral.errors import CorralError
from corral.files import read_limited

CONFIG_PATH: Final = Path("/etc/corral/corral.toml")
CONFIG_MAX_BYTES: Final = 64 * 1024
SYSTEM_STATE_DIR: Final = Path("/var/lib/corral")
SYSTEM_RUN_DIR: Final = Path("/run/corral")
# sun_path holds 108 bytes with its final zero (unix(7)).
SOCKET_PATH_MAX_BYTES: Final = 107


@dataclass(frozen=True)
class Settings:
    """Everything a daemon can be told. Each field is a flag, an environment variable CORRAL_X and a key of the file."""

    state_dir: Path = SYSTEM_STATE_DIR  # the database, disks, seeds, images and console logs
    socket: Path = SYSTEM_RUN_DIR / "corral.sock"  # of the API; guests' sockets lie beside it
    hypervisor: str = "libvirt"  # libvirt | fake
    libvirt_uri: str = "qemu:///system"  # where libvirt is reached
    log_level: str = "info"  # debug | info | warning | error
    log_json: bool = False  # one JSON object a line, instead of key=value
    # TCP is off until an address is given; then TLS only.
    listen: str = ""  # HOST:PORT
    tls_cert: Path | None = None  # PEM, with its chain
    tls_key: Path | None = None  # PEM
    admin_group: str = "corral"  # members are administrators on the Unix socket, as root is
    # Overcommit: how much may be promised of what is there. CPU in vCPUs per hardware thread.
    cpu_overcommit: float = 8.0
    memory_overcommit: float = 1.0  # guests' memory over the host's
    # Left to the host itself, never promised to guests.
    host_reserved_memory_mib: int = 1024
    # For domains that wait for a hot template's state; they also make room for any VM that wants to run.
    warm_memory_mib: int = 1024
    disk_reserve_mib: int = 1024  # left free in the file system of each pool
    # How much of a pool's file system may be used, by whomever, before that is said: an event, doctor, metrics.
    pool_warn_percent: float = 85.0
    pool_critical_percent: float = 95.0
    # What is copied in the background writes at most so much: moves, flattening, merges of layers.
    background_mib_per_s: int = 200  # 0: no limit
    # The periodic relist; events drive everything faster than this. Seconds, at least 5.
    relist_interval_s: float = 30.0
    hypervisor_timeout_s: float = 30.0  # of one call to libvirt
    operation_history: int = 1000  # finished operations that are kept
    request_rate_per_s: float = 200.0  # of one caller
    share_roots: str = "/srv"  # folders below these may be shared with guests; several with `:` between them
    subnet: str = ""  # of the default network; empty: a free one is found

    @property
    def run_dir(self) -> Path:
        """Sockets of guests and the supervisor's files: short, beside the API socket, gone at boot."""
        return self.socket.parent

    @property
    def copy_bytes_per_s(self) -> int:
        return self.background_mib_per_s * 2**20

    @property
    def database(self) -> Path:
        return self.state_dir / "corral.db"

    @property
    def host_network_dir(self) -> Path:
        """What a change of the host's own network would be taken back with."""
        return self.state_dir / "host-network"

    @property
    def spare(self) -> Path:
        """Space that is kept for the database on a full disk."""
        return self.state_dir / "corral.db.spare"


def load(flags: Mapping[str, str] = {}, environ: Mapping[str, str] | None = None) -> Settings:
    """Settings from flags, `CORRAL_*` and the file named by CORRAL_CONFIG. Raises `invalid-argument` naming the source.

    A daemon with its own state directory and no socket named listens in that directory, so that several live side by
    side by `CORRAL_STATE_DIR` alone. An ordinary user's default is below XDG_STATE_HOME and XDG_RUNTIME_DIR.
    """
    environ = os.environ if environ is None else environ
    values: dict[str, object] = {}
    values.update(_from_file(Path(environ.get("CORRAL_CONFIG", str(CONFIG_PATH)))))
    known = {field.name for field in fields(Settings)}
    values.update({key: environ[name] for key in known if (name := f"CORRAL_{key.upper()}") in environ})
    values.update({key: value for key, value in flags.items() if value != ""})
    settings = _defaults_for_user(environ)
    typed = {key: _typed(key, value, getattr(Settings, key)) for key, value in values.items()}
    settings = replace(settings, **typed)  # type: ignore[arg-type]
    if "state_dir" in typed and "socket" not in typed:
        settings = replace(settings, socket=settings.state_dir / "run" / "corral.sock")
    _check(settings)
    return settings


def client_socket(flag: str = "", environ: Mapping[str, str] | None = None) -> Path:
    """Where a client finds the daemon; reads no file, so that it costs nothing on the path of `list`."""
    environ = os.environ if environ is None else environ
    if flag:
        return Path(flag)
    if name := environ.get("CORRAL_SOCKET"):
        return Path(name)
    if name := environ.get("CORRAL_STATE_DIR"):
        return Path(name) / "run" / "corral.sock"
    system = SYSTEM_RUN_DIR / "corral.sock"
    if os.geteuid() == 0 or system.exists():
        return system
    return _defaults_for_user(environ).socket


def subnet_lock() -> Path:
    """The lock file that all daemons of this user have in common, wherever their state lies."""
    if os.geteuid() == 0:
        return SYSTEM_RUN_DIR.with_name("corral-subnets.lock")
    return Path(os.environ.get("XDG_RUNTIME_DIR") or Path.home()) / ".corral-subnets.lock"


def notify_address(environ: Mapping[str, str] | None = None) -> str:
    """Where systemd wants to be told that the daemon is ready (sd_notify(3)); empty without systemd."""
    environ = os.environ if environ is None else environ
    return environ.get("NOTIFY_SOCKET", "")


def variable(name: str, default: str = "") -> str:
    """One variable of the caller's own environment that is no setting of the daemon: NO_COLOR, XDG_CACHE_HOME."""
    return os.environ.get(name) or default


def _defaults_for_user(environ: Mapping[str, str]) -> Settings:
    if os.geteuid() == 0:
        return Settings()
    home = Path(environ.get("HOME", "/nonexistent"))
    state = Path(environ.get("XDG_STATE_HOME", str(home / ".local/state"))) / "corral"
    runtime = environ.get("XDG_RUNTIME_DIR")
    socket = Path(runtime) / "corral" / "corral.sock" if runtime else state / "run" / "corral.sock"
    return Settings(state_dir=state, socket=socket, libvirt_uri="qemu:///session")


def _from_file(path: Path) -> dict[str, object]:
    if not path.exists():
        return {}
    import tomllib  # noqa: PLC0415 -- clients use this module too, and none of them reads the file

    try:
        content = tomllib.loads(read_limited(path, CONFIG_MAX_BYTES).decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise CorralError("invalid-argument", f"read {path}", str(error)) from error
    unknown = sorted(set(content) - {field.name for field in fields(Settings)})
    if unknown:
        raise CorralError("invalid-argument", f"read {path}", f"unknown settings: {', '.join(unknown)}")
    return content


def _typed(key: str, value: object, default: object) -> object:
    asked = f"setting {key} = {value!r}"
    try:
        if isinstance(default, bool):
            return (
                value if isinstance(value, bool) else {"true": True, "1": True, "false": False, "0": False}[str(value)]
            )
        if isinstance(default, int):
            return int(str(value))
        if isinstance(default, float):
            return float(str(value))
        if isinstance(default, str):
            return str(value)
        return Path(str(value))
    except (KeyError, ValueError) as error:
        raise CorralError("invalid-argument", asked, f"not a {type(default).__name__}") from error


def _check(settings: Settings) -> None:
    for root in filter(None, settings.share_roots.split(":")):
        if not root.startswith("/"):
            raise CorralError("invalid-argument", f"share_roots {root!r}", "not an absolute path", "/srv:/home/shared")
    if settings.hypervisor not in ("libvirt", "fake"):
        raise CorralError(
            "invalid-argument", f"hypervisor {settings.hypervisor!r}", "unknown driver", "use libvirt or fake"
        )
    if len(os.fsencode(settings.socket)) > SOCKET_PATH_MAX_BYTES:
        raise CorralError(
            "invalid-argument",
            f"socket {settings.socket}",
            f"longer than {SOCKET_PATH_MAX_BYTES} bytes, the kernel's limit for a Unix socket",
            "choose a shorter --socket",
        )
    if not settings.state_dir.is_absolute() or not settings.socket.is_absolute():
        raise CorralError("invalid-argument", "state directory and socket", "both must be absolute paths")
    if not 0 < settings.pool_warn_percent <= settings.pool_critical_percent <= 100:
        raise CorralError(
            "invalid-argument", "pool_warn_percent, pool_critical_percent", "both are above 0 and rise to at most 100"
        )
    if settings.background_mib_per_s < 0:
        raise CorralError("invalid-argument", "background_mib_per_s", "must be 0 (no limit) or more")
    if settings.relist_interval_s < 5:
        raise CorralError("invalid-argument", "relist_interval_s", "must be at least 5 seconds")
