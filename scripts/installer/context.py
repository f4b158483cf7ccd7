"""What every step of the installer knows: the checkout, where the daemon lives, and what earlier runs noted."""

import contextlib
import json
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from installer.shell import Result, Shell, parsed

SYSTEM_STATE_DIR = Path("/var/lib/corral")
SYSTEM_RUN_DIR = Path("/run/corral")
UNIT = Path("/etc/systemd/system/corral.service")
COMMAND = Path("/usr/local/bin/corral")
# Gone with a reboot, as are the processes that it speaks of.
NOTES = Path("/run/corral-setup")


def systemd_runs() -> bool:
    """sd_booted(3)."""
    return Path("/run/systemd/system").is_dir()


@dataclass
class Context:
    """`trial`: another state directory than the system's was asked for; then nothing of the system's is touched."""

    root: Path
    shell: Shell
    vm: str = "my-vm"
    image: str = "debian-12"
    environ: dict[str, str] = field(default_factory=dict)

    @property
    def venv(self) -> Path:
        return self.root / ".venv"

    @property
    def corral(self) -> str:
        return str(self.venv / "bin/corral")

    @property
    def trial(self) -> bool:
        return bool(self.environ)

    @property
    def state_dir(self) -> Path:
        return Path(self.environ.get("CORRAL_STATE_DIR", SYSTEM_STATE_DIR))

    @property
    def socket(self) -> Path:
        if "CORRAL_SOCKET" in self.environ:
            return Path(self.environ["CORRAL_SOCKET"])
        return (
            self.state_dir / "run/corral.sock" if "CORRAL_STATE_DIR" in self.environ else SYSTEM_RUN_DIR / "corral.sock"
        )

    @property
    def by_systemd(self) -> bool:
        return systemd_runs() and not self.trial

    @property
    def notes(self) -> Path:
        name = str(self.state_dir).strip("/").replace("/", "-")
        return NOTES / f"{name}.json"

    def client(self, *arguments: str, timeout_s: float = 60.0) -> Result:
        """Ask the daemon through the command line, as an administrator."""
        return self.shell.ask(self.shell.as_root([self.corral, *arguments]), timeout_s)

    def document(self, *arguments: str, timeout_s: float = 60.0) -> Any:
        """What a command answers with `-o json`; None when it failed."""
        result = self.client(*arguments, "-o", "json", timeout_s=timeout_s)
        return parsed(result) if result.ok else None

    def items(self, *arguments: str) -> list[dict[str, Any]]:
        """The documents of a `list` command."""
        found = self.document(*arguments)
        if isinstance(found, dict):
            found = found.get("items", [])
        return found if isinstance(found, list) else []

    def recall(self) -> dict[str, Any]:
        """What earlier runs noted since the machine booted."""
        with contextlib.suppress(OSError, json.JSONDecodeError):
            found = json.loads(self.notes.read_text())
            if isinstance(found, dict):
                return found
        return {}

    def note(self, **facts: Any) -> None:
        """Add to what later runs recall."""
        self.shell.write_as_root(self.notes, json.dumps({**self.recall(), **facts}) + "\n")


def trial_environment(environ: "os._Environ[str]") -> dict[str, str]:
    """The variables that choose another daemon than the system's."""
    return {name: environ[name] for name in ("CORRAL_STATE_DIR", "CORRAL_SOCKET") if environ.get(name)}


def system_python() -> str:
    """The distribution's own Python: apt's python3-venv and python3-dev belong to it."""
    return "/usr/bin/python3" if Path("/usr/bin/python3").exists() else shutil.which("python3") or "python3"
