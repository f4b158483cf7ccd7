"""Public SSH keys as people paste them: checked for structure before they go into a guest. Pure."""

import base64
import binascii
from typing import Final

from corral.errors import CorralError
from corral.model import limits

# sshd(8), AUTHORIZED_KEYS FILE FORMAT; without DSA, which OpenSSH has dropped.
TYPES: Final = frozenset(
    {
        "ssh-rsa",
        "ssh-ed25519",
        "ecdsa-sha2-nistp256",
        "ecdsa-sha2-nistp384",
        "ecdsa-sha2-nistp521",
        "sk-ssh-ed25519@openssh.com",
        "sk-ecdsa-sha2-nistp256@openssh.com",
    }
)


def parse_ssh_key(text: str) -> str:
    """The key on one line; `invalid-ssh-key` unless its type and its base64 body agree (RFC 4253, section 6.6)."""
    line = text.strip()
    if not line or len(line) > limits.SSH_KEY_MAX_CHARS:
        raise _refused(line, f"a key is one line of 1 to {limits.SSH_KEY_MAX_CHARS} characters")
    if any(not character.isprintable() for character in line):
        raise _refused(line, "it holds line breaks or control characters")
    if "PRIVATE KEY" in line:
        raise CorralError("invalid-ssh-key", "SSH key", "this is a private key", "pass the .pub file beside it")
    words = line.split()
    if words[0] not in TYPES or len(words) < 2:
        raise _refused(line, f"it does not start with a key type ({', '.join(sorted(TYPES)[:4])} …)")
    try:
        body = base64.b64decode(words[1], validate=True)
    except binascii.Error as error:
        raise _refused(line, "its body is not base64") from error
    if _first_string(body) != words[0].encode():
        raise _refused(line, "its body is not a key of the type it names")
    return line


def _first_string(body: bytes) -> bytes:
    """RFC 4251 `string`: four bytes of length, then that many bytes; the body goes on after it."""
    length = int.from_bytes(body[:4], "big")
    return body[4 : 4 + length] if 0 < length < len(body) - 4 else b""


def _refused(line: str, reason: str) -> CorralError:
    return CorralError(
        "invalid-ssh-key",
        f"SSH key {line[:24]!r}…",
        reason,
        "pass the content of a .pub file, such as ~/.ssh/id_ed25519.pub",
    )
