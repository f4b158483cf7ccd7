"""From files to a stack's document: merged, and with the files in it that they name."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from corral.cli.documents import read_document
from corral.errors import CorralError
from corral.names import MIB

Document = dict[str, Any]

STACK_FILES_MAX: Final = 256
STACK_MAX_BYTES: Final = 1 * MIB  # all files together; what is larger, no request can carry
_SUFFIXES: Final = (".yaml", ".yml")
_MAPPINGS: Final = ("variables", "defaults", "volumes", "vms")
_LISTS: Final = ("images", "networks")
_FILES: Final = {"user_data_file": "user_data", "network_config_file": "network_config"}
_PATH_STARTS: Final = ("~", "/", "./", "../")


def load_stack(sources: Sequence[str]) -> Document:
    """The document of all sources: files, folders (what ends in .yaml or .yml), `-` for standard input."""
    from corral.cli.stack_yaml import load_all

    whole: Document = {}
    origins: dict[str, str] = {}
    size = 0
    for name in [name for source in sources for name in _files(source)]:
        text = read_document(name, "-f")
        size += len(text.encode())
        if size > STACK_MAX_BYTES:
            raise CorralError("body-too-large", f"-f {name}", f"the stack has more than {STACK_MAX_BYTES} bytes")
        for part in load_all(text, name):
            _read_files(part, Path.cwd() if name == "-" else Path(name).expanduser().absolute().parent, name)
            _merge(whole, part, origins, name)
    if not isinstance(whole.get("stack"), str):
        raise CorralError("invalid-document", " ".join(sources), "the stack has no name", "write stack: NAME")
    return whole


def parse_overrides(texts: Sequence[str]) -> dict[str, str]:
    """`--set NAME=VALUE`."""
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise CorralError("invalid-argument", f"--set {text!r}", "it is no NAME=VALUE", "--set memory=2G")
        found[name] = value
    return found


def _files(source: str) -> list[str]:
    directory = Path(source).expanduser()
    if source == "-" or not directory.is_dir():
        return [source]
    found = sorted(path for path in directory.iterdir() if path.suffix in _SUFFIXES and path.is_file())
    if not found or len(found) > STACK_FILES_MAX:
        reason = f"more than {STACK_FILES_MAX} files end in .yaml" if found else "no file in it ends in .yaml or .yml"
        raise CorralError("invalid-argument", f"-f {source}", reason, "name a file, or another folder")
    return [str(path) for path in found]


def _merge(whole: Document, part: Document, origins: dict[str, str], name: str) -> None:
    """Sections grow together; whatever two files say of the same thing is refused, unless they say the same."""
    for key, value in part.items():
        if key in _MAPPINGS and isinstance(value, dict):
            section = whole.setdefault(key, {})
            for inner, wish in value.items():
                _put(section, inner, wish, f"{key}.{inner}", origins, name)
        elif key in _LISTS and isinstance(value, list):
            section = whole.setdefault(key, [])
            section += [item for item in value if item not in section]
        else:
            _put(whole, key, value, key, origins, name)


def _put(section: Document, key: str, value: Any, place: str, origins: dict[str, str], name: str) -> None:
    if key in section and (section[key] != value or place.startswith("vms.")):
        raise CorralError(
            "invalid-document", name, f"{place}: {origins.get(place, 'another file')} says it, too", "say it once"
        )
    section[key] = value
    origins[place] = name


def _read_files(part: Document, directory: Path, name: str) -> None:
    vms = part.get("vms")
    bodies: list[tuple[str, Any]] = list(vms.items()) if isinstance(vms, dict) else []
    for place, body in [("defaults", part.get("defaults")), *((f"vms.{vm}", body) for vm, body in bodies)]:
        if not isinstance(body, dict):
            continue
        for field, target in _FILES.items():
            if isinstance(path := body.get(field), str):
                if target in body:
                    raise CorralError("invalid-document", name, f"{place}: both {target} and {field}", "give one")
                text = read_document(str(_beside(directory, path, f"{name}: {place}.{field}")), f"{place}.{field}")
                # A file's text is its own: nothing in it is a variable of the stack.
                body[target] = text.replace("${", "$${")
                del body[field]
        if isinstance(listed := body.get("ssh_keys"), list):
            body["ssh_keys"] = [key for item in listed for key in _keys(directory, item, f"{name}: {place}.ssh_keys")]


def _keys(directory: Path, item: Any, place: str) -> list[Any]:
    """A file's keys; a key, or what is none, as it is."""
    if not isinstance(item, str) or not (item.startswith(_PATH_STARTS) or (item.endswith(".pub") and " " not in item)):
        return [item]
    from corral.cli.keys import read_public

    return list(read_public(_beside(directory, item, place)))


def _beside(directory: Path, path: str, place: str) -> Path:
    if "${" in path:
        raise CorralError("invalid-document", place, "a file's name has a variable in it", "name the file itself")
    return directory / Path(path).expanduser()
