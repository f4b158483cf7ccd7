"""A TPM for a VM whose QEMU has a uid of its own: swtpm under the same uid, started before QEMU and gone with it."""

import os
import shutil
from pathlib import Path
from typing import Final

from corral import proc
from corral.files import storage_error

SETUP_TIMEOUT_S: Final = 60.0
START_TIMEOUT_S: Final = 10.0
# swtpm's own name for a TPM 2.0's lasting state.
_STATE_FILE: Final = "tpm2-00.permall"


def start_tpm(state: Path, socket: Path, owner: tuple[int, int]) -> None:
    """Make its state once (an endorsement key, as a factory does) and let it listen on `socket`, for one QEMU's life.

    Raises `command-missing`, `command-failed`, `storage-error`.
    """
    uid = str(owner[0])
    _ensure_directory(state, owner)
    if not (state / _STATE_FILE).exists():
        setup = proc.require("swtpm_setup", "swtpm-tools")
        made = ("--tpm2", "--tpm-state", str(state), "--createek", "--pcr-banks", "sha256", "--not-overwrite")
        proc.call([setup, *made, "--runas", uid], timeout_s=SETUP_TIMEOUT_S)
    _end_waiting(socket)
    proc.call(
        [
            *(proc.require("swtpm", "swtpm"), "socket", "--tpm2", "--tpmstate", f"dir={state},mode=0600"),
            *("--ctrl", f"type=unixio,path={socket},mode=0600", "--pid", f"file={_pid_file(socket)}"),
            # `terminate`: it ends when QEMU lets go of it.
            *("--terminate", "--daemon", "--runas", uid, "--seccomp", "action=kill"),
        ],
        timeout_s=START_TIMEOUT_S,
    )


def _ensure_directory(state: Path, owner: tuple[int, int]) -> None:
    try:
        state.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
        state.mkdir(mode=0o700, exist_ok=True)
        os.chown(state, *owner, follow_symlinks=False)
    except OSError as error:
        raise storage_error(f"make {state}", error) from error


def _pid_file(socket: Path) -> Path:
    return socket.with_suffix(".pid")


def _end_waiting(socket: Path) -> None:
    """One that an earlier, failed start left waiting for its QEMU holds the state: it must go first."""
    try:
        pid = int(_pid_file(socket).read_text())
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (OSError, ValueError):
        pid, words = 0, []
    if pid and any(f"path={socket},".encode() in word for word in words):
        proc.call(["kill", str(pid)], check=False)
    for path in (socket, _pid_file(socket)):
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise storage_error(f"remove {path}", error) from error


def remove_tpm(state: Path) -> None:
    """Its keys and what the guest sealed with them: gone with the VM."""
    try:
        shutil.rmtree(state)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise storage_error(f"remove {state}", error) from error
