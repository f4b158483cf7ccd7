"""YAML for people, under limits: no aliases, no doubled keys, no surprises by guessed types. Loads yaml: import lazily."""

from collections.abc import Hashable
from typing import Any, Final

import yaml

from corral.errors import CorralError

DEPTH_MAX: Final = 32
NODES_MAX: Final = 50_000
_TAG: Final = "tag:yaml.org,2002:"
_PLAIN: Final = ("str", "int", "float", "bool", "null", "seq", "map")


class _Refused(yaml.MarkedYAMLError):
    def __init__(self, problem: str, mark: "yaml.Mark | None") -> None:
        super().__init__(problem=problem, problem_mark=mark)


class _Loader(yaml.SafeLoader):
    """YAML 1.2's few types: `no` is a word, `52:54:00` no number to the base of sixty, `2026-01-01` no date."""

    yaml_implicit_resolvers: "dict[str, list[Any]]" = {}  # noqa: RUF012 -- as yaml declares it
    yaml_constructors = {  # noqa: RUF012
        **{f"{_TAG}{name}": yaml.SafeLoader.yaml_constructors[f"{_TAG}{name}"] for name in _PLAIN},
        None: yaml.SafeLoader.construct_undefined,
    }
    _depth = 0
    _nodes = 0

    def compose_node(self, parent: "yaml.Node | None", index: int) -> "yaml.Node | None":
        if self.check_event(yaml.AliasEvent):
            raise _Refused("aliases (*name) are not read: what VMs share stands in `defaults`", self._mark())
        self._depth += 1
        self._nodes += 1
        if self._depth > DEPTH_MAX:
            raise _Refused(f"it is nested deeper than {DEPTH_MAX} levels", self._mark())
        if self._nodes > NODES_MAX:
            raise _Refused(f"it has more than {NODES_MAX} values", self._mark())
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> "dict[Hashable, Any]":
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag != f"{_TAG}str":
                raise _Refused("a key is a text: quote it", key.start_mark)
            if key.value in seen:
                raise _Refused(f"{key.value!r} stands there twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)

    def _mark(self) -> "yaml.Mark | None":
        return self.peek_event().start_mark  # type: ignore[no-untyped-call,no-any-return]


def _resolve(tag: str, pattern: str, first: str) -> None:
    import re

    _Loader.add_implicit_resolver(f"{_TAG}{tag}", re.compile(pattern), list(first) or [""])


_resolve("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF")
_resolve("null", r"^(?:~|null|Null|NULL|)$", "~nN")
_resolve("null", r"^$", "")
_resolve("int", r"^[-+]?(?:0|[1-9][0-9]*)$", "-+0123456789")
_resolve("float", r"^[-+]?[0-9]+\.[0-9]+$", "-+0123456789")


def load_all(text: str, name: str) -> list[dict[str, Any]]:
    """The documents of a text. Raises `invalid-document` with the line."""
    try:
        documents = list(yaml.load_all(text, Loader=_Loader))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark is not None else ""
        raise CorralError("invalid-document", name, f"{place}{error.problem or error.context or 'no YAML'}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise CorralError("invalid-document", name, f"it is no YAML: {str(error)[:200]}") from error
    for document in documents:
        if not isinstance(document, dict | None):
            raise CorralError("invalid-document", name, "it is no mapping", "begin with stack: NAME")
    return [document for document in documents if document is not None]
