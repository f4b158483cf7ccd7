"""Who may log in to a new VM: the caller's public keys, a pair that is made where there is none, a password from people."""

from pathlib import Path
from typing import Final

import click

from corral.errors import CorralError

KEY_FILE_MAX_BYTES: Final = 64 * 1024
# The order in which OpenSSH itself tries identities that lie in ~/.ssh, the ones that are current first.
OWN_KEYS: Final = ("id_ed25519.pub", "id_ecdsa.pub", "id_rsa.pub", "id_ed25519_sk.pub", "id_ecdsa_sk.pub")
MADE_KEY: Final = "corral_ed25519"


def read_public(path: Path) -> list[str]:
    """The public keys of a file as `authorized_keys` lines. Raises `invalid-ssh-key`, for a private key above all."""
    from corral.files import read_limited

    try:
        text = read_limited(path, KEY_FILE_MAX_BYTES).decode()
    except OSError as error:
        raise CorralError("invalid-ssh-key", f"--ssh-key {path}", error.strerror or str(error)) from error
    except UnicodeDecodeError as error:
        raise CorralError("invalid-ssh-key", f"--ssh-key {path}", "not a text file") from error
    if "PRIVATE KEY" in text:
        raise CorralError("invalid-ssh-key", f"--ssh-key {path}", "this is a private key", f"give {path}.pub")
    lines = [line.strip() for line in text.splitlines()]
    found = [line for line in lines if line and not line.startswith("#")]
    if not found:
        raise CorralError("invalid-ssh-key", f"--ssh-key {path}", "there is no key in it")
    return found


def own(directory: Path | None = None) -> list[str]:
    """The caller's own public keys, as far as there are any."""
    directory = Path.home() / ".ssh" if directory is None else directory
    found = [directory / name for name in (*OWN_KEYS, f"{MADE_KEY}.pub") if (directory / name).is_file()]
    return [key for path in found for key in read_public(path)]


def own_or_made(directory: Path | None = None) -> list[str]:
    """The caller's own public keys; without any, a pair is made in ~/.ssh and said."""
    return own(directory) or read_public(_make(Path.home() / ".ssh" if directory is None else directory))


def _make(directory: Path) -> Path:
    """The pair is whole before it gets its name: of several commands that find no key at once, one makes it for all."""
    from os import link
    from tempfile import TemporaryDirectory

    from corral.proc import call, require

    private = directory / MADE_KEY
    public = private.with_name(f"{MADE_KEY}.pub")
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    keygen = require("ssh-keygen", "openssh-client")
    with TemporaryDirectory(dir=directory, prefix=".corral-") as place:
        made = Path(place) / MADE_KEY
        call([keygen, "-q", "-t", "ed25519", "-N", "", "-C", "corral", "-f", str(made)])
        try:
            link(made, private)
        except FileExistsError:  # another command was first, or the public half was lost
            made.with_suffix(".pub").write_bytes(call([keygen, "-y", "-f", str(private)]).stdout)
        else:
            click.echo(f"You have no SSH key: made {private} (`corral ssh` uses it).", err=True)
        made.with_suffix(".pub").replace(public)
    return public


def password(ask: bool, file: str | None) -> str:
    """A password from a prompt, a file's first line or standard input; never from the arguments, which others can read."""
    if ask and file:
        raise click.UsageError("--password asks, --password-file reads: choose one")
    if ask:
        return str(click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True))
    if file is None:
        return ""
    try:
        with click.open_file(file, encoding="utf-8") as stream:
            first = str(stream.readline(4096)).rstrip("\r\n")
    except OSError as error:
        raise CorralError("invalid-argument", f"--password-file {file}", error.strerror or str(error)) from error
    if not first:
        raise CorralError("invalid-argument", f"--password-file {file}", "its first line is empty")
    return first
