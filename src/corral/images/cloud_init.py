"""NoCloud documents from a VM's cloud-init spec: pure, and the checks that services make before they accept one."""

import json
from collections.abc import Sequence
from email import message_from_string
from email.errors import MessageError
from email.message import Message
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from typing import Final

import yaml

from corral.errors import CorralError
from corral.model import limits
from corral.model.vm import CloudInitSpec, CloudInitUser, NicSpec

# cloud-init decides by how a document begins (its "user-data formats" page).
_TYPES_BY_START: Final = (
    ("#cloud-config-archive", "text/cloud-config-archive"),
    ("#cloud-config", "text/cloud-config"),
    ("#!", "text/x-shellscript"),
    ("#include-once", "text/x-include-once-url"),
    ("#include", "text/x-include-url"),
    ("#cloud-boothook", "text/cloud-boothook"),
    ("#part-handler", "text/part-handler"),
    ("## template: jinja", "text/jinja2"),
)
# A boothook is merged with nothing of the user's, and runs before anything asks who the machine is. Once an instance.
NEW_MACHINE_ID: Final = b"""#cloud-boothook
#!/bin/sh
exec cloud-init-per instance corral-machine-id sh -c \
  'rm -f /etc/machine-id /var/lib/dbus/machine-id; systemd-machine-id-setup || dbus-uuidgen --ensure=/etc/machine-id'
"""
# systemd-networkd's own metric of what it learned by DHCP.
ROUTE_METRIC_FIRST: Final = 1024
ROUTE_METRIC_STEP: Final = 100
_MIME_STARTS: Final = ("content-type: multipart/", "mime-version:")
_PARTS_MAX: Final = 64
_DEPTH_MAX: Final = 64
_MIME_DEPTH_MAX: Final = 8
# The boundary is fixed so that the same spec gives the same bytes; it cannot occur at the start of a YAML line.
_BOUNDARY: Final = "==corral-user-data=="


def build_seed_files(spec: CloudInitSpec, nics: Sequence[NicSpec] = ()) -> dict[str, bytes]:
    """`meta-data`, `user-data`, `vendor-data` and `network-config`: the user's, else what the cards are called."""
    files = {
        "meta-data": build_meta_data(spec).encode(),
        "user-data": build_user_data(spec).encode(),
        "vendor-data": NEW_MACHINE_ID if spec.new_machine_id else b"#cloud-config\n{}\n",
    }
    if spec.network_config:
        files["network-config"] = spec.network_config.encode()
    elif nics:
        files["network-config"] = build_network_config(nics).encode()
    return files


def build_network_config(nics: Sequence[NicSpec]) -> str:
    """Each card is told by its MAC and called as Corral calls it (`net0`), whatever slot it sits in: one more card, or one
    that goes, renames none of the others.

    Those that get an address from Corral ask for it, and the first one in any case; who waits for the network in the guest
    would wait in vain for the others. Of several ways out the first card's is taken."""
    cards: dict[str, object] = {}
    for number, nic in enumerate(nics):
        card: dict[str, object] = {"match": {"macaddress": nic.mac}, "set-name": nic.name}
        if number == 0 or (nic.address and nic.link_up):
            card["dhcp4"] = True
        if number > 0 and "dhcp4" in card:
            card["dhcp4-overrides"] = {"route-metric": ROUTE_METRIC_FIRST + ROUTE_METRIC_STEP * number}
        if number > 0:
            card["optional"] = True
        if nic.address6:
            card["dhcp6"] = True
        cards[nic.name] = card
    return _yaml({"version": 2, "ethernets": cards})


def build_meta_data(spec: CloudInitSpec) -> str:
    # JSON is YAML: no text of the user's can leave its string.
    data = {"instance-id": spec.instance_id, "local-hostname": spec.hostname}
    if spec.dsmode == "local" and not spec.user_data.strip() and not spec.network_config.strip():
        data["dsmode"] = "local"
    return _yaml(data)


def build_user_data(spec: CloudInitSpec) -> str:
    """Our cloud-config alone, or with the user's document as a second part after it.

    cloud-init merges later parts over earlier ones, key by key: what the user's document names, it decides.
    """
    ours = "#cloud-config\n" + _yaml(_cloud_config(spec))
    if not spec.user_data.strip():
        return ours
    parts = MIMEMultipart("mixed", boundary=_BOUNDARY)
    parts.attach(_part(ours, "text/cloud-config", "corral.cfg"))
    for theirs in _user_parts(spec.user_data):
        parts.attach(theirs)
    return parts.as_string()


def _cloud_config(spec: CloudInitSpec) -> dict[str, object]:
    config: dict[str, object] = {"hostname": spec.hostname, "manage_etc_hosts": "localhost"}
    if spec.users:
        config["users"] = [_user(user) for user in spec.users]
        config["ssh_pwauth"] = any(user.password_hash for user in spec.users)
    return config


def _user(user: CloudInitUser) -> dict[str, object]:
    entry: dict[str, object] = {"name": user.name, "shell": "/bin/bash", "lock_passwd": not user.password_hash}
    if user.name == "root":
        del entry["shell"]
    if user.ssh_keys:
        entry["ssh_authorized_keys"] = list(user.ssh_keys)
    if user.password_hash:
        entry["hashed_passwd"] = user.password_hash
    if user.sudo and user.name != "root":
        entry["sudo"] = "ALL=(ALL) NOPASSWD:ALL"
    return entry


def _yaml(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=True) + "\n"


def _part(text: str, content_type: str, filename: str) -> Message:
    part = MIMEText(text, content_type.removeprefix("text/"), "utf-8")
    part.add_header("Content-Disposition", "attachment", filename=filename)
    return part


def _user_parts(text: str) -> list[Message]:
    if _is_mime(text):
        payload = message_from_string(text).get_payload()
        return [part for part in payload if isinstance(part, Message)] if isinstance(payload, list) else []
    return [_part(text, _content_type(text), "user-data")]


def _is_mime(text: str) -> bool:
    return text.lstrip().lower().startswith(_MIME_STARTS)


def _content_type(text: str) -> str:
    return next((kind for start, kind in _TYPES_BY_START if text.startswith(start)), "")


# ---- checks --------------------------------------------------------------------------------------------------------


def validate_user_data(text: str) -> None:
    """Raise `invalid-cloud-init`, with the line where there is one, for what cloud-init would not understand.

    `body-too-large` beyond `USER_DATA_MAX_BYTES`. A `#cloud-config` must be a YAML mapping; scripts and lists of URLs
    are the guest's own business.
    """
    _check_size("user-data", text, limits.USER_DATA_MAX_BYTES)
    if not text.strip():
        return
    if _is_mime(text):
        _check_mime(text)
        return
    _check_part("user-data", text, _content_type(text))


def validate_network_config(text: str) -> None:
    """Raise `invalid-cloud-init` unless `text` is a network configuration of version 1 or 2."""
    _check_size("network-config", text, limits.NETWORK_CONFIG_MAX_BYTES)
    if not text.strip():
        return
    document = _check_mapping("network-config", text)
    network = _value(document, "network") or document
    version = _value(network, "version")
    if not isinstance(version, yaml.ScalarNode) or version.value not in ("1", "2"):
        raise _invalid("network-config", "`version` must be 1 or 2", "see cloud-init's page on network configuration")


def _check_size(what: str, text: str, max_bytes: int) -> None:
    size = len(text.encode(errors="surrogatepass"))
    if size > max_bytes:
        raise CorralError(
            "body-too-large", what, f"{size} bytes, at most {max_bytes}", "put large content behind an #include URL"
        )
    if "\0" in text:
        raise _invalid(what, f"a NUL character in line {text.count(chr(10), 0, text.index(chr(0))) + 1}")


def _check_mime(text: str) -> None:
    try:
        message = message_from_string(text)
        defects = [type(defect).__name__ for part in message.walk() for defect in part.defects]
    except (MessageError, ValueError, RecursionError) as error:
        raise _invalid("user-data", f"not a MIME document: {error}") from error
    parts = message.get_payload()
    if not message.is_multipart() or not isinstance(parts, list) or defects:
        raise _invalid("user-data", f"not a complete MIME multipart document {' '.join(defects)}".rstrip())
    if _mime_depth(message) > _MIME_DEPTH_MAX:
        raise _invalid("user-data", f"MIME parts nested deeper than {_MIME_DEPTH_MAX} levels")
    if len(parts) > _PARTS_MAX:
        raise _invalid("user-data", f"{len(parts)} parts, at most {_PARTS_MAX}")
    for index, part in enumerate(parts, start=1):
        if isinstance(part, Message) and part.get_content_type() == "text/cloud-config":
            payload = part.get_payload(decode=True)
            body = payload.decode(errors="replace") if isinstance(payload, bytes) else ""
            _check_mapping(f"part {index} of user-data", body)


def _mime_depth(message: Message) -> int:
    """How deep its parts are nested; what writes them out again goes down by recursion."""
    deepest, waiting = 0, [(message, 0)]
    while waiting:
        part, depth = waiting.pop()
        deepest = max(deepest, depth)
        payload = part.get_payload()
        if isinstance(payload, list):
            waiting += [(inner, depth + 1) for inner in payload if isinstance(inner, Message)]
    return deepest


def _check_part(what: str, text: str, kind: str) -> None:
    if not kind:
        raise _invalid(
            what,
            f"line 1 says {text.lstrip().splitlines()[0][:40]!r}, which is no known kind of user-data",
            "begin with #cloud-config, #! or #include, or give a MIME multipart document",
        )
    if kind == "text/cloud-config":
        _check_mapping(what, text)
    elif kind == "text/cloud-config-archive" and not isinstance(_compose(what, text), yaml.SequenceNode):
        raise _invalid(what, "a #cloud-config-archive must be a YAML list")


def _check_mapping(what: str, text: str) -> yaml.Node | None:
    node = _compose(what, text)
    if node is not None and not isinstance(node, yaml.MappingNode):
        raise _invalid(what, f"{_place(node.start_mark)}must be a mapping (`key: value` lines)")
    return node


def _compose(what: str, text: str) -> yaml.Node | None:
    """The document's syntax tree. It is not turned into values: merged aliases can make a kilobyte into gigabytes."""
    try:
        _check_depth(what, text)
        node: yaml.Node | None = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        where = _place(error.problem_mark or error.context_mark)
        raise _invalid(what, f"{where}{error.problem or error.context or 'not YAML'}") from error
    except (yaml.YAMLError, ValueError) as error:
        raise _invalid(what, f"not YAML: {str(error)[:200]}") from error
    return node


def _place(mark: object) -> str:
    """`line 3, column 1: ` of a YAML mark; nothing if the parser gave none."""
    line, column = getattr(mark, "line", None), getattr(mark, "column", None)
    return f"line {line + 1}, column {column + 1}: " if line is not None and column is not None else ""


def _value(node: yaml.Node | None, key: str) -> yaml.Node | None:
    if not isinstance(node, yaml.MappingNode):
        return None
    return next((value for name, value in node.value if isinstance(name, yaml.ScalarNode) and name.value == key), None)


def _check_depth(what: str, text: str) -> None:
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > _DEPTH_MAX:
                raise _invalid(what, f"{_place(event.start_mark)}nested deeper than {_DEPTH_MAX} levels")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _invalid(what: str, reason: str, hint: str = "correct the document and try again") -> CorralError:
    return CorralError("invalid-cloud-init", what, reason, hint)
