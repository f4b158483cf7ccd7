"""What a user may hand to cloud-init, checked before anything is made of it. Pure, but for the password's hash."""

from collections.abc import Awaitable, Callable
from typing import Any, Final

import yaml

from corral import proc
from corral.errors import CorralError
from corral.model import limits

PasswordHasher = Callable[[str], Awaitable[str]]

PASSWORD_MAX_CHARS: Final = 256
YAML_NODES_MAX: Final = 20_000
YAML_DEPTH_MAX: Final = 64

# cloud-init's documentation, "User data formats". The first line says what the document is.
_OTHER_HEADERS: Final = (
    "#!",
    "#include",
    "#include-once",
    "#cloud-boothook",
    "#cloud-config-archive",
    "#cloud-config-jsonp",
    "#part-handler",
    "## template: jinja",
    "Content-Type: multipart/",
    "MIME-Version:",
)


def check_user_data(text: str) -> None:
    """Nothing if cloud-init can read `text`; `invalid-cloud-init` with the place of the error otherwise."""
    if not text:
        return
    _check_size("user-data", text, limits.USER_DATA_MAX_BYTES)
    first = text.lstrip("\ufeff").split("\n", 1)[0].rstrip()
    if first == "#cloud-config":
        root = _compose("user-data", text)
        if root is not None and not isinstance(root, yaml.MappingNode):
            raise _refused("user-data", "the document is not a mapping", "write `key: value` lines below #cloud-config")
        return
    if first.startswith(_OTHER_HEADERS):
        return
    raise _refused(
        "user-data",
        f"its first line is {first[:40]!r}, which cloud-init does not know",
        "start it with #cloud-config, or with #! for a script",
    )


def check_network_config(text: str) -> None:
    """Nothing for a mapping with `version: 1` or `2`, alone or below `network:`; `invalid-cloud-init` otherwise."""
    if not text:
        return
    _check_size("network-config", text, limits.NETWORK_CONFIG_MAX_BYTES)
    root = _compose("network-config", text)
    inner = _member(root, "network") or root
    version = _member(inner, "version")
    if not isinstance(version, yaml.ScalarNode) or version.value not in ("1", "2"):
        raise _refused(
            "network-config", "it is not a mapping with `version: 1` or `version: 2`", "see netplan's format"
        )


async def hash_password(password: str) -> str:
    """crypt(5) SHA-512 text of `password`, made by openssl; the password goes through a pipe, never through argv."""
    done = await proc.run(
        [proc.require("openssl", "openssl"), "passwd", "-6", "-stdin"], stdin=password.encode() + b"\n", timeout_s=10
    )
    return done.stdout.decode().strip()


def check_password(password: str) -> None:
    """Nothing if it can be hashed and typed; `invalid-argument` (which never quotes it) otherwise."""
    if not 1 <= len(password) <= PASSWORD_MAX_CHARS or any(ord(character) < 32 for character in password):
        raise CorralError(
            "invalid-argument",
            "password",
            f"a password has 1 to {PASSWORD_MAX_CHARS} characters and no control characters",
        )


def _check_size(what: str, text: str, max_bytes: int) -> None:
    size = len(text.encode())
    if size > max_bytes:
        raise CorralError(
            "invalid-cloud-init",
            what,
            f"{size} bytes are more than the {max_bytes} that are allowed",
            "let the guest fetch what is large (#include, or a script with curl)",
            {"bytes": size, "limit": max_bytes},
        )


def _compose(what: str, text: str) -> yaml.Node | None:
    """The document's nodes, nothing built of them: aliases stay references, tags make no objects."""
    try:
        _check_shape(what, text)
        node: yaml.Node | None = yaml.compose(text, Loader=_loader())
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark is not None else ""
        problem = getattr(error, "problem", None) or "it is not YAML"
        raise _refused(what, f"{place}{problem}", "check it with `cloud-init schema --config-file FILE`") from error
    return node


def _member(node: yaml.Node | None, name: str) -> yaml.Node | None:
    pairs = node.value if isinstance(node, yaml.MappingNode) else ()
    return next((value for key, value in pairs if isinstance(key, yaml.ScalarNode) and key.value == name), None)


def _check_shape(what: str, text: str) -> None:
    """Bound depth and number of nodes, event by event, before the recursive composer sees the document."""
    depth = nodes = 0
    for event in yaml.parse(text, Loader=_loader()):
        nodes += isinstance(event, yaml.NodeEvent)
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > YAML_DEPTH_MAX or nodes > YAML_NODES_MAX:
            reason = f"it is nested deeper than {YAML_DEPTH_MAX} or has more than {YAML_NODES_MAX} values"
            raise _refused(what, reason, "make it simpler")


def _loader() -> Any:
    """libyaml's safe loader where it was built in, else the pure one."""
    return getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _refused(what: str, reason: str, hint: str) -> CorralError:
    return CorralError("invalid-cloud-init", what, reason, hint)
